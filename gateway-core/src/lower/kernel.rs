//! `Ir` to [`KernelTables`]: what the BPF maps should hold, by id, as plain values.
//!
//! Laws: the id of a VIP is the [`ListenerId`](crate::ids::ListenerId) of its bind. An endpoint is an address and a
//! port, whichever services name it; its index stays with it while it is configured, and after that until no live
//! flow names it ([`KernelIndexes`]).

use super::Ids;
use crate::ir::{BalancePolicy, Bind, Destination, Ir, Listener, Plane, Readiness, StreamRules, Transport};
use gateway_common::abi::counters::NO_VIP;
use gateway_common::abi::{ENDPOINTS_MAX, EndpointState, VipKey, VipMode};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Turns of all endpoints of a ring together; a ring has 65,537 slots, so a share is exact to 1.6 %.
pub const TURNS_MAX: u64 = 4096;

/// What the maps should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelTables {
    pub vips: BTreeMap<VipKey, VipEntry>,
    /// By VIP id; of those that are forwarded.
    pub rings: BTreeMap<u32, RingSpec>,
    /// By index, 1..ENDPOINTS_MAX.
    pub endpoints: BTreeMap<u16, EndpointEntry>,
}

/// A destination and what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipEntry {
    /// Dense id: the `ListenerId` of the same bind; of a [`VipMode::Address`] the row of no VIP.
    pub id: u32,
    pub mode: VipMode,
}

/// What a ring is built from: endpoints and their turns, in order of index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingSpec {
    pub turns: Vec<(u16, u16)>,
    /// Its VIP is [`VipMode::NatByClient`]: flows are in other slots than without.
    pub by_client: bool,
}

/// An endpoint of the kernel plane. Interface and neighbour are the rim's to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointEntry {
    pub addr: SocketAddr,
    pub state: EndpointState,
}

/// The key that marks an address as the owner of a kernel VIP.
pub const fn marker_key(addr: IpAddr) -> VipKey {
    VipKey::new(addr, 0, 0)
}

/// Whether the key marks an address rather than naming a destination.
pub const fn is_marker(key: &VipKey) -> bool {
    key.port_be == 0 && key.proto == 0
}

/// The tables for `ir`. Listeners without an address or an id have no entry; `indexes` gives (and keeps) the endpoint
/// indexes. A kernel listener must have passed [`unfit`].
pub fn lower(ir: &Ir, ids: &Ids, indexes: &mut KernelIndexes) -> KernelTables {
    let mut tables = KernelTables::default();
    indexes.mark(ir);
    for listener in ir.listeners.values() {
        let (Some(addr), Some(id)) = (listener.bind.addr, ids.listener(&listener.bind)) else {
            continue;
        };
        let key = VipKey::new(addr, listener.bind.port, listener.bind.transport.protocol_number());
        match &listener.plane {
            Plane::Kernel(rules) => {
                let ring = ring(ir, rules, indexes);
                let mode = match ring.by_client {
                    true => VipMode::NatByClient,
                    false => VipMode::Nat,
                };
                tables.vips.insert(key, VipEntry { id: id.0, mode });
                let marker = VipEntry {
                    id: NO_VIP,
                    mode: VipMode::Address,
                };
                tables.vips.insert(marker_key(addr), marker);
                tables.rings.insert(id.0, ring);
            }
            Plane::Splice(_) | Plane::Http(_) => {
                tables.vips.insert(
                    key,
                    VipEntry {
                        id: id.0,
                        mode: VipMode::HandOff,
                    },
                );
            }
        }
    }
    tables.endpoints = indexes.entries();
    tables
}

/// Why a kernel listener cannot be on the kernel plane, whatever the routes; `None` if it can.
pub fn unfit(ir: &Ir, listener: &Listener) -> Option<String> {
    let Plane::Kernel(rules) = &listener.plane else {
        return None;
    };
    let Some(vip) = listener.bind.addr else {
        return Some("it listens on every address of the host; the kernel plane needs an address of its own".into());
    };
    if !listener.exposure.clients.is_empty() {
        return Some("only some clients may connect, and packets are not asked where they come from".into());
    }
    for rule in &rules.rules {
        for destination in rule.destinations.iter().filter(|d| d.weight > 0) {
            if let Destination::Fail { why, .. } = &destination.to {
                return Some(format!("a share of it must be refused, which packets cannot be: {why}"));
            }
        }
    }
    let other = kernel_endpoints(ir, listener)
        .into_iter()
        .find(|addr| addr.is_ipv4() != vip.is_ipv4());
    other.map(|addr| format!("endpoint {addr} and address {vip} are of different IP versions"))
}

/// Every endpoint a kernel listener refers to, whatever its readiness.
pub fn kernel_endpoints(ir: &Ir, listener: &Listener) -> BTreeSet<SocketAddr> {
    let Plane::Kernel(rules) = &listener.plane else {
        return BTreeSet::new();
    };
    let destinations = rules.rules.iter().flat_map(|rule| &rule.destinations);
    destinations
        .filter_map(|destination| match &destination.to {
            Destination::Service(name) => ir.services.get(name),
            Destination::Fail { .. } => None,
        })
        .flat_map(|service| service.endpoints.iter().map(|endpoint| endpoint.addr))
        .collect()
}

/// The bind a VIP key came from; `None` for a marker or a transport that is none of ours.
pub fn bind_of(key: &VipKey) -> Option<Bind> {
    let transport = match key.proto {
        6 => Transport::Tcp,
        17 => Transport::Udp,
        _ => return None,
    };
    let addr = gateway_common::abi::addr_from_words(key.addr);
    Some(Bind {
        addr: Some(addr),
        port: u16::from_be(key.port_be),
        transport,
    })
}

/// Turns of the serving endpoints of a listener: the share of each is its destination's weight, split by the weights
/// of the endpoints of that service.
fn ring(ir: &Ir, rules: &StreamRules, indexes: &KernelIndexes) -> RingSpec {
    let mut shares: BTreeMap<u16, f64> = BTreeMap::new();
    let mut by_client = false;
    for destination in rules.rules.iter().flat_map(|rule| &rule.destinations) {
        let Destination::Service(name) = &destination.to else {
            continue;
        };
        let Some(service) = ir.services.get(name) else { continue };
        by_client |= service.balance == BalancePolicy::ClientAddress;
        let serving = || service.endpoints.iter().filter(|e| e.readiness == Readiness::Serving);
        let total: u64 = serving().map(|e| u64::from(e.weight)).sum();
        for endpoint in serving() {
            let Some(index) = indexes.get(endpoint.addr) else {
                continue;
            };
            let share = f64::from(destination.weight) * f64::from(endpoint.weight) / (total.max(1) as f64);
            if share > 0.0 {
                *shares.entry(index).or_default() += share;
            }
        }
    }
    let turns = turns(&shares);
    RingSpec { turns, by_client }
}

/// Whole turns in proportion to the shares, at least one each, as few as say it exactly where that is few enough.
fn turns(shares: &BTreeMap<u16, f64>) -> Vec<(u16, u16)> {
    let least = shares.values().copied().fold(f64::INFINITY, f64::min);
    let sum: f64 = shares.values().sum();
    if shares.is_empty() || sum <= 0.0 {
        return Vec::new();
    }
    let exact = (1..=64u32).map(f64::from).find(|times| {
        shares
            .values()
            .all(|share| ((share / least * times).round() - share / least * times).abs() < 1e-6)
    });
    let scale = exact.map_or(64.0, |times| times).min(TURNS_MAX as f64 / (sum / least));
    let turn = |share: &f64| ((share / least * scale).round().max(1.0)).min(f64::from(u16::MAX)) as u16;
    shares.iter().map(|(index, share)| (*index, turn(share))).collect()
}

/// Which index an endpoint has in the kernel, across revisions.
#[derive(Clone, Debug, Default)]
pub struct KernelIndexes {
    by_addr: BTreeMap<SocketAddr, Held>,
    taken: BTreeSet<u16>,
    /// Where the search for a free index goes on, so that a freed one rests as long as can be.
    next: u16,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    index: u16,
    /// Some kernel listener of this revision may send it new flows.
    serving: bool,
    /// Some kernel listener of this revision refers to it.
    configured: bool,
}

impl KernelIndexes {
    pub fn get(&self, addr: SocketAddr) -> Option<u16> {
        self.by_addr.get(&addr).map(|held| held.index)
    }

    /// Whether every one of `addrs` has an index or can get one.
    pub fn has_room_for(&self, addrs: &BTreeSet<SocketAddr>) -> bool {
        let new = addrs.iter().filter(|addr| !self.by_addr.contains_key(addr)).count();
        self.taken.len() + new < ENDPOINTS_MAX as usize
    }

    /// Goes on with an index of an earlier process. False if it means something else already.
    pub fn adopt(&mut self, index: u16, addr: SocketAddr) -> bool {
        if index == 0 || u32::from(index) >= ENDPOINTS_MAX || self.by_addr.contains_key(&addr) {
            return false;
        }
        if !self.taken.insert(index) {
            return false;
        }
        self.by_addr.insert(
            addr,
            Held {
                index,
                serving: false,
                configured: false,
            },
        );
        true
    }

    /// No live flow names it: it is forgotten unless it is configured. True if it was forgotten.
    pub fn release(&mut self, index: u16) -> bool {
        let found = self
            .by_addr
            .iter()
            .find(|(_, held)| held.index == index && !held.configured);
        let Some(addr) = found.map(|(addr, _)| *addr) else {
            return false;
        };
        self.by_addr.remove(&addr);
        self.taken.remove(&index);
        true
    }

    /// What the kernel should know of each endpoint.
    fn entries(&self) -> BTreeMap<u16, EndpointEntry> {
        let state = |held: &Held| match (held.serving, held.configured) {
            (true, _) => EndpointState::Serving,
            (false, true) => EndpointState::Draining,
            (false, false) => EndpointState::Left,
        };
        self.by_addr
            .iter()
            .map(|(addr, held)| {
                (
                    held.index,
                    EndpointEntry {
                        addr: *addr,
                        state: state(held),
                    },
                )
            })
            .collect()
    }

    /// Gives an index to each endpoint of the kernel listeners of `ir`, and notes which of all serve.
    fn mark(&mut self, ir: &Ir) {
        for held in self.by_addr.values_mut() {
            (held.serving, held.configured) = (false, false);
        }
        let kernel = ir.listeners.values().filter_map(|listener| match &listener.plane {
            Plane::Kernel(rules) => Some(rules),
            Plane::Splice(_) | Plane::Http(_) => None,
        });
        for destination in kernel
            .flat_map(|rules| &rules.rules)
            .flat_map(|rule| &rule.destinations)
        {
            let Destination::Service(name) = &destination.to else {
                continue;
            };
            let Some(service) = ir.services.get(name) else { continue };
            for endpoint in &service.endpoints {
                let Some(held) = self.hold(endpoint.addr) else { continue };
                held.configured = true;
                held.serving |= endpoint.readiness == Readiness::Serving && destination.weight > 0;
            }
        }
    }

    fn hold(&mut self, addr: SocketAddr) -> Option<&mut Held> {
        if !self.by_addr.contains_key(&addr) {
            let index = self.free()?;
            self.taken.insert(index);
            self.next = index + 1;
            self.by_addr.insert(
                addr,
                Held {
                    index,
                    serving: false,
                    configured: false,
                },
            );
        }
        self.by_addr.get_mut(&addr)
    }

    /// The next free index at or after `next`, going round.
    fn free(&self) -> Option<u16> {
        let end = ENDPOINTS_MAX as u16;
        let start = self.next.clamp(1, end - 1);
        (start..end).chain(1..start).find(|index| !self.taken.contains(index))
    }
}

#[cfg(test)]
mod tests;
