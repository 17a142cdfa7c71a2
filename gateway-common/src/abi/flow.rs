//! `FLOWS` (client to VIP) and `REVERSE` (endpoint to client): the two directions of one translated connection.
//!
//! Both maps have the same key shape and the same value shape; each entry names its twin, so that either can be
//! found and removed from the other. The laws of their life are in `docs/adr/0003-flow-state.md`.

use super::AddrWords;

/// Entries of each of the two maps.
pub const FLOWS_MAX: u32 = 262_144;

/// A full 5-tuple in wire order, as the packet carries it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowKey {
    /// Source address.
    pub src: AddrWords,
    /// Destination address.
    pub dst: AddrWords,
    /// Source port and destination port, as the first four bytes of the transport header.
    pub ports: u32,
    /// IP protocol number.
    pub proto: u32,
}
const _: () = assert!(core::mem::size_of::<FlowKey>() == 40);

/// How far a TCP connection has come, as far as the gateway can see.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FlowPhase {
    /// SYN seen.
    Opening = 0,
    /// A packet came back from the endpoint.
    Established = 1,
    /// FIN or RST seen: kept for the last segments, then removed.
    Closing = 2,
}

/// Value of `FLOWS` and `REVERSE`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// In `FLOWS`: the endpoint's address. In `REVERSE`: the VIP's address, which becomes the source.
    pub addr: AddrWords,
    /// Ethernet destination and source for the way back to the client, as seen on its SYN (used by XDP).
    pub macs: [u32; 3],
    /// In `REVERSE`: the interface the client's SYN came in on. In `FLOWS`: 0.
    pub ifindex: u32,
    /// Id of the VIP.
    pub vip: u32,
    /// Coarse time of the last packet from the endpoint, in [`TICKS_PER_SECOND`]ths since boot, from `CLOCK`.
    pub seen: u32,
    /// In `FLOWS`: the endpoint's port. In `REVERSE`: the VIP's port. Wire order.
    pub port_be: u16,
    /// Endpoint index.
    pub endpoint: u16,
    /// A [`FlowPhase`] as its number.
    pub phase: u8,
    /// Always 0.
    pub pad: [u8; 3],
}
const _: () = assert!(core::mem::size_of::<Flow>() == 48);

/// `CLOCK[0]` counts this many times a second; userspace writes it, because reading a clock costs 18-32 ns a packet.
pub const TICKS_PER_SECOND: u32 = 10;
