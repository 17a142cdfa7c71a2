//! `Ir` to [`KernelTables`]: what the BPF maps should hold, by id, as plain values.

use gateway_common::abi::{EndpointState, VipKey, VipMode};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What the maps should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelTables {
    pub vips: BTreeMap<VipKey, VipEntry>,
    /// By VIP id; only of [`VipMode::Nat`].
    pub rings: BTreeMap<u32, RingSpec>,
    /// By index, 1..ENDPOINTS_MAX.
    pub endpoints: BTreeMap<u16, EndpointEntry>,
}

/// A destination and what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipEntry {
    /// Dense id: the `ListenerId` of the same bind.
    pub id: u32,
    pub mode: VipMode,
}

/// What a ring is built from: endpoints and their turns, in order of index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingSpec {
    pub turns: Vec<(u16, u16)>,
}

/// An endpoint of the kernel plane. Interface and neighbour are the rim's to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointEntry {
    pub addr: SocketAddr,
    pub state: EndpointState,
}
