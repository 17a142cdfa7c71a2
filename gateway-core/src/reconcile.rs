//! `plan(actual, desired)`: the operations that take the kernel from one to the other, make-before-break. After every
//! prefix of the plan the invariants hold: no VIP points at a ring or an endpoint that is not there.

use crate::lower::kernel::{EndpointEntry, KernelTables, RingSpec, VipEntry};
use gateway_common::abi::VipKey;

/// One write to the kernel's maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    PutEndpoint(u16, EndpointEntry),
    /// Build the ring, carry unsettled slots over from the one in place, swap it in.
    PutRing(u32, RingSpec),
    PutVip(VipKey, VipEntry),
    RemoveVip(VipKey),
    RemoveRing(u32),
    /// Only once no live flow names it.
    RemoveEndpoint(u16),
}

/// The writes, in order.
pub fn plan(actual: &KernelTables, desired: &KernelTables) -> Vec<MapOp> {
    let _ = (actual, desired);
    todo!()
}
