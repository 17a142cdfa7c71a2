//! `plan(actual, desired)`: the operations that take the kernel from one to the other, make-before-break. After every
//! prefix of the plan the invariants hold: no VIP points at a ring or an endpoint that is not there.
//!
//! Order: endpoints that come, rings, VIPs that come or change, VIPs that go, rings that go, endpoints that stop
//! serving, endpoints that go. What is the same on both sides is not touched.

use crate::lower::kernel::{EndpointEntry, KernelTables, RingSpec, VipEntry};
use gateway_common::abi::{EndpointState, VipKey};

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

impl KernelTables {
    /// What the tables hold after this write.
    pub fn apply(&mut self, op: &MapOp) {
        match op {
            MapOp::PutEndpoint(index, entry) => drop(self.endpoints.insert(*index, *entry)),
            MapOp::PutRing(id, ring) => drop(self.rings.insert(*id, ring.clone())),
            MapOp::PutVip(key, vip) => drop(self.vips.insert(*key, *vip)),
            MapOp::RemoveVip(key) => drop(self.vips.remove(key)),
            MapOp::RemoveRing(id) => drop(self.rings.remove(id)),
            MapOp::RemoveEndpoint(index) => drop(self.endpoints.remove(index)),
        }
    }
}

/// The writes, in order.
pub fn plan(actual: &KernelTables, desired: &KernelTables) -> Vec<MapOp> {
    let mut ops = Vec::new();
    let changed = desired
        .endpoints
        .iter()
        .filter(|(index, entry)| actual.endpoints.get(index) != Some(entry));
    let (come, stop): (Vec<_>, Vec<_>) = changed.partition(|(_, entry)| match entry.state {
        EndpointState::Serving => true,
        EndpointState::Draining | EndpointState::Left | EndpointState::Absent => false,
    });
    ops.extend(
        come.into_iter()
            .map(|(index, entry)| MapOp::PutEndpoint(*index, *entry)),
    );

    let rings = desired
        .rings
        .iter()
        .filter(|(id, ring)| actual.rings.get(id) != Some(ring));
    ops.extend(rings.map(|(id, ring)| MapOp::PutRing(*id, ring.clone())));
    // In order of key an address is marked before it owns a kernel VIP, and unmarked after.
    let vips = desired
        .vips
        .iter()
        .filter(|(key, vip)| actual.vips.get(key) != Some(vip));
    ops.extend(vips.map(|(key, vip)| MapOp::PutVip(*key, *vip)));

    let gone = actual.vips.keys().rev().filter(|key| !desired.vips.contains_key(key));
    ops.extend(gone.map(|key| MapOp::RemoveVip(*key)));
    let gone = actual.rings.keys().filter(|id| !desired.rings.contains_key(id));
    ops.extend(gone.map(|id| MapOp::RemoveRing(*id)));

    ops.extend(
        stop.into_iter()
            .map(|(index, entry)| MapOp::PutEndpoint(*index, *entry)),
    );
    let gone = actual
        .endpoints
        .keys()
        .filter(|index| !desired.endpoints.contains_key(index));
    ops.extend(gone.map(|index| MapOp::RemoveEndpoint(*index)));
    ops
}

#[cfg(test)]
mod tests;
