//! `ENDPOINTS`: where a kernel-plane flow is sent.

use super::AddrWords;

/// Entries of `ENDPOINTS`; index 0 is never an endpoint.
pub const ENDPOINTS_MAX: u32 = 16_384;

/// What an endpoint accepts.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndpointState {
    /// Not an endpoint: packets of flows that name it are dropped with [`super::Reason::NoEndpoint`].
    Absent = 0,
    /// New flows and old ones.
    Serving = 1,
    /// Old flows only.
    Draining = 2,
    /// No longer configured: TCP connections that it has go on, datagrams do not, as nothing would ever end their flow.
    Left = 3,
}

/// Value of `ENDPOINTS`. Everything a rewrite needs, prebuilt.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Endpoint {
    /// Address in wire order, IPv4 mapped.
    pub addr: AddrWords,
    /// Interface that leads to it; 0 while unknown.
    pub ifindex: u32,
    /// Ethernet destination and source (12 bytes) as three words; all zero while the neighbour is unresolved.
    pub macs: [u32; 3],
    /// Port in wire order.
    pub port_be: u16,
    /// An [`EndpointState`] as its number.
    pub state: u8,
    /// Always 0.
    pub pad: u8,
}
const _: () = assert!(core::mem::size_of::<Endpoint>() == 36);

impl Endpoint {
    /// Whether anything may be sent to it.
    #[inline(always)]
    pub const fn takes_flows(&self) -> bool {
        self.state != EndpointState::Absent as u8
    }

    /// Whether datagrams of flows that it has may be sent to it.
    #[inline(always)]
    pub const fn takes_datagrams(&self) -> bool {
        self.state == EndpointState::Serving as u8 || self.state == EndpointState::Draining as u8
    }

    /// Whether the neighbour behind it is resolved.
    #[inline(always)]
    pub const fn has_macs(&self) -> bool {
        self.macs[0] | self.macs[1] | self.macs[2] != 0
    }
}
