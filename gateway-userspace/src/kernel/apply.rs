//! The only writer of the BPF maps. Carries out [`MapOp`]s in order; keeps a mirror of what the maps hold.
//!
//! Ring swaps that follow each other are one batch: the kernel waits for a grace period at every map-in-map update
//! (8-16 ms), and a batch waits once.

use super::error::KernelError;
use super::load::Maps;
use super::locate::Locator;
use super::map::Map;
use crate::warden::{Answer, Request, Warden};
use gateway_common::abi::binding::{CONFIG_UDP_IDLE, CONFIG_WORKERS};
use gateway_common::abi::{
    Endpoint, EndpointState, FlowKey, RING_SLOTS, Ring, Slot, Sources, Vip, VipMode, addr_from_words, addr_words,
    binding_index,
};
use gateway_common::{maglev, ring};
use gateway_core::lower::KernelTables;
use gateway_core::lower::kernel::{EndpointEntry, RingSpec, VipEntry};
use gateway_core::reconcile::MapOp;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

/// A ring in place.
struct Placed {
    map: Map<u32, Ring>,
    /// Some slot is unsettled.
    unsettled: bool,
    /// Counts the changes of this ring: a settling decided before a change is void.
    version: u64,
}

/// Which rings and endpoints a sweep may decide about; see [`Writer::settle`].
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// By VIP id: version and mode of each ring with unsettled slots.
    pub rings: BTreeMap<u32, (u64, VipMode)>,
    /// Endpoints that drain or have left.
    pub draining: Vec<u16>,
}

/// Holds the maps open for writing.
pub struct Writer {
    maps: Arc<Maps>,
    warden: Arc<Mutex<Warden>>,
    locator: Locator,
    tables: KernelTables,
    rings: BTreeMap<u32, Placed>,
    versions: u64,
    /// Endpoints without interface or, for XDP, without link addresses.
    unresolved: BTreeSet<u16>,
    /// Workers whose sockets are in place, from 0.
    workers: u32,
}

impl Writer {
    /// Takes over what the maps hold. The door stays shut (no worker is there yet) until [`Writer::open_door`].
    pub fn new(maps: Arc<Maps>, warden: Arc<Mutex<Warden>>, locator: Locator) -> Result<Self, KernelError> {
        let mut writer = Self {
            maps,
            warden,
            locator,
            tables: KernelTables::default(),
            rings: BTreeMap::new(),
            versions: 0,
            unresolved: BTreeSet::new(),
            workers: 0,
        };
        writer
            .read_tables()
            .map_err(|error| KernelError::from_io("read the maps", &error))?;
        Ok(writer)
    }

    /// What the maps hold, as far as it was written through here.
    pub fn tables(&self) -> &KernelTables {
        &self.tables
    }

    /// Reads the maps again; also how the maps of an earlier process are taken over.
    pub fn read_tables(&mut self) -> io::Result<&KernelTables> {
        let mut tables = KernelTables::default();
        self.maps.vips.walk(|key, vip| {
            let mode = VipMode::of(vip);
            tables.vips.insert(*key, VipEntry { id: vip.id, mode });
        })?;
        self.maps.endpoints.walk(|index, endpoint| {
            let state = match endpoint.state {
                1 => EndpointState::Serving,
                2 => EndpointState::Draining,
                3 => EndpointState::Left,
                _ => return,
            };
            let addr = SocketAddr::new(addr_from_words(endpoint.addr), u16::from_be(endpoint.port_be));
            tables.endpoints.insert(*index as u16, EndpointEntry { addr, state });
        })?;
        for vip in tables.vips.values().filter(|vip| vip.mode.forwards()) {
            if let Some(spec) = self.read_ring(vip.id, vip.mode.by_client())? {
                tables.rings.insert(vip.id, spec);
            }
        }
        self.tables = tables;
        Ok(&self.tables)
    }

    /// Carries the operations out. The first failure ends it; the mirror then holds what was done.
    pub fn apply(&mut self, ops: &[MapOp]) -> Result<(), KernelError> {
        let coming = ops.iter().filter_map(|op| match op {
            MapOp::PutEndpoint(_, entry) => Some(entry.addr),
            MapOp::PutRing(..) | MapOp::PutVip(..) | MapOp::RemoveVip(_) | MapOp::RemoveRing(_) => None,
            MapOp::RemoveEndpoint(_) => None,
        });
        let coming: Vec<SocketAddr> = coming.collect();
        if !coming.is_empty() {
            self.write_sources(&coming)
                .map_err(|error| KernelError::from_io("write SOURCES", &error))?;
            self.locator.resolve(&coming);
        }
        let mut rest = ops;
        while let Some(op) = rest.first() {
            let swaps = rest.iter().take_while(|op| matches!(op, MapOp::PutRing(..))).count();
            let done = if swaps > 0 {
                self.put_rings(&rest[..swaps])
            } else {
                self.write(op)
            };
            done.map_err(|error| KernelError::from_io(&format!("{op:?}"), &error))?;
            for op in &rest[..swaps.max(1)] {
                self.tables.apply(op);
            }
            rest = &rest[swaps.max(1)..];
        }
        self.write_sources(&[])
            .map_err(|error| KernelError::from_io("write SOURCES", &error))
    }

    /// Puts a worker's listening socket where `sk_lookup` finds it once the door is open.
    pub fn register_listener(&mut self, worker: u32, ipv6: bool, socket: RawFd) -> io::Result<()> {
        let number = u32::try_from(socket).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.maps.listeners.put(&binding_index(worker, ipv6), &number)?;
        self.workers = self.workers.max(worker + 1);
        Ok(())
    }

    /// Lets `sk_lookup` hand connections to the registered workers.
    pub fn open_door(&self) -> io::Result<()> {
        self.maps.config.put(&CONFIG_WORKERS, &self.workers)
    }

    /// Refuses new connections to VIPs. What is registered stays.
    pub fn shut_door(&self) -> io::Result<()> {
        self.maps.config.put(&CONFIG_WORKERS, &0)
    }

    /// Live connections of each worker, from worker 0.
    pub fn write_loads(&self, loads: &[u32]) -> io::Result<()> {
        let entries: Vec<(u32, u32)> = (0..).zip(loads.iter().copied()).collect();
        self.maps.load.put_all(&entries)
    }

    pub fn write_clock(&self, ticks: u32) -> io::Result<()> {
        self.maps.clock.put(&0, &ticks)
    }

    /// The idle limit of UDP flows that go both ways, as programs judge by it.
    pub fn write_udp_idle(&self, ticks: u32) -> io::Result<()> {
        self.maps.config.put(&CONFIG_UDP_IDLE, &ticks)
    }

    /// Removes an entry of `FLOWS` that has ended.
    pub fn remove_flow(&self, key: &FlowKey) -> io::Result<()> {
        self.maps.flows.remove(key).map(drop)
    }

    /// Removes an entry of `REVERSE` that has ended.
    pub fn remove_reverse(&self, key: &FlowKey) -> io::Result<()> {
        self.maps.reverse.remove(key).map(drop)
    }

    /// What the next walk over the flows may decide about.
    pub fn pending(&self) -> Pending {
        // A ring whose VIP is not of its mode yet is not settled by either.
        let vips = self.tables.vips.values().filter(|vip| vip.mode.forwards());
        let agreed = vips.filter(|vip| {
            let ring = self.tables.rings.get(&vip.id);
            ring.is_some_and(|ring| ring.by_client == vip.mode.by_client())
        });
        let unsettled = agreed.filter_map(|vip| {
            let placed = self.rings.get(&vip.id).filter(|ring| ring.unsettled)?;
            Some((vip.id, (placed.version, vip.mode)))
        });
        let draining = self
            .tables
            .endpoints
            .iter()
            .filter(|(_, entry)| matches!(entry.state, EndpointState::Draining | EndpointState::Left));
        Pending {
            rings: unsettled.collect(),
            draining: draining.map(|(index, _)| *index).collect(),
        }
    }

    /// Settles the slots of a VIP's ring that none of `live` (slot, endpoint) contradicts. `version` is the ring's from
    /// before the flows were walked; if the ring has changed since, nothing happens.
    pub fn settle(&mut self, vip: u32, version: u64, live: &[(u32, u16)]) -> io::Result<()> {
        let Some(placed) = self.rings.get(&vip).filter(|placed| placed.version == version) else {
            return Ok(());
        };
        let Some(mut slots) = placed.map.get_boxed(&0)? else {
            return Ok(());
        };
        let settled = ring::settle(&mut slots.slots, live.iter().copied());
        if settled.settled > 0 {
            // In place: only `previous` changes, and every mixture of old and new is true (ADR 3).
            placed.map.put(&0, &slots)?;
        }
        if let Some(placed) = self.rings.get_mut(&vip) {
            placed.unsettled = settled.unsettled > 0;
        }
        Ok(())
    }

    /// Endpoints that no packet can be sent to yet.
    pub fn unresolved(&self) -> Vec<u16> {
        self.unresolved.iter().copied().collect()
    }

    /// Looks again for the way to some endpoints and writes what changed. XDP needs their link addresses.
    pub fn refresh_endpoints(&mut self, indexes: &[u16]) -> io::Result<()> {
        for index in indexes {
            let Some(entry) = self.tables.endpoints.get(index).copied() else {
                continue;
            };
            let value = self.endpoint_value(*index, &entry);
            if self.maps.endpoints.get(&u32::from(*index))? != Some(value) {
                self.maps.endpoints.put(&u32::from(*index), &value)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, op: &MapOp) -> io::Result<()> {
        match op {
            MapOp::PutEndpoint(index, entry) => {
                let value = self.endpoint_value(*index, entry);
                self.maps.endpoints.put(&u32::from(*index), &value)
            }
            MapOp::RemoveEndpoint(index) => {
                self.unresolved.remove(index);
                self.maps.endpoints.put(&u32::from(*index), &Endpoint::default())
            }
            MapOp::PutVip(key, vip) => {
                let mode = vip.mode as u32;
                self.maps.vips.put(key, &Vip { id: vip.id, mode })
            }
            MapOp::RemoveVip(key) => self.maps.vips.remove(key).map(drop),
            MapOp::RemoveRing(id) => {
                self.rings.remove(id);
                self.maps.rings.remove(id).map(drop)
            }
            MapOp::PutRing(..) => self.put_rings(std::slice::from_ref(op)),
        }
    }

    fn endpoint_value(&mut self, index: u16, entry: &EndpointEntry) -> Endpoint {
        let way = self.locator.way_to(entry.addr.ip());
        if self.locator.is_whole(&way) {
            self.unresolved.remove(&index);
        } else {
            self.unresolved.insert(index);
        }
        Endpoint {
            addr: addr_words(entry.addr.ip()),
            ifindex: way.interface,
            macs: way.macs,
            port_be: entry.addr.port().to_be(),
            state: entry.state as u8,
            pad: 0,
        }
    }

    /// Builds each ring, carries unsettled slots over, and swaps all in by one batch.
    fn put_rings(&mut self, ops: &[MapOp]) -> io::Result<()> {
        let mut built = Vec::new();
        for op in ops {
            let MapOp::PutRing(id, spec) = op else { continue };
            let mut next = self.build(spec);
            let old = match self.rings.get(id) {
                Some(placed) => placed.map.get_boxed(&0)?,
                None => None,
            };
            // A flow is in another slot when the client's ports begin or cease to count.
            let known = self
                .tables
                .rings
                .get(id)
                .is_some_and(|old| old.by_client == spec.by_client);
            match old.as_ref().filter(|_| known) {
                Some(old) => ring::merge(&old.slots, &mut next.slots),
                None => ring::unsettle(&mut next.slots),
            }
            if old.is_none_or(|old| old.slots != next.slots) {
                built.push((*id, next));
            }
        }
        self.place(built)
    }

    fn build(&self, spec: &RingSpec) -> Box<Ring> {
        let members = spec.turns.iter().filter_map(|(index, turns)| {
            let addr = self.tables.endpoints.get(index)?.addr;
            Some(maglev::Member::new(
                *index,
                *turns,
                &addr_words(addr.ip()),
                addr.port().to_be(),
            ))
        });
        let mut members: Vec<_> = members.collect();
        let mut ring = empty_ring();
        maglev::fill(&mut members, &mut ring.slots);
        ring
    }

    /// Writes each ring into a new map and swaps the maps in by one batch.
    fn place(&mut self, rings: Vec<(u32, Box<Ring>)>) -> io::Result<()> {
        let mut swaps = Vec::with_capacity(rings.len());
        let mut placed = Vec::with_capacity(rings.len());
        for (id, ring) in rings {
            let map = self.new_ring()?;
            map.put(&0, &ring)?;
            let unsettled = ring.slots.iter().any(|slot| slot.current != slot.previous);
            swaps.push((id, super::bpf::raw(map.fd()) as u32));
            self.versions += 1;
            let version = self.versions;
            placed.push((
                id,
                Placed {
                    map,
                    unsettled,
                    version,
                },
            ));
        }
        self.maps.rings.put_all(&swaps)?;
        self.rings.extend(placed);
        Ok(())
    }

    fn new_ring(&self) -> io::Result<Map<u32, Ring>> {
        let mut warden = self.warden.lock().unwrap_or_else(PoisonError::into_inner);
        match warden.handle(Request::CreateRing) {
            Answer::Map(fd) => Map::new(fd),
            Answer::Failed(error) => Err(io::Error::other(error.to_string())),
            Answer::Done | Answer::Attached(_) | Answer::Socket(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Takes over the ring of a VIP. Its turns are not in the maps: they are told by shares, so that the plan of a new
    /// process builds it again, and changes nothing where the slots come out the same.
    fn read_ring(&mut self, id: u32, by_client: bool) -> io::Result<Option<RingSpec>> {
        let Some(map_id) = self.maps.rings.get(&id)? else {
            return Ok(None);
        };
        let map: Map<u32, Ring> = Map::new(super::bpf::map_by_id(map_id)?)?;
        let Some(ring) = map.get_boxed(&0)? else {
            return Ok(None);
        };
        let mut turns = BTreeMap::<u16, u16>::new();
        for slot in ring.slots.iter().filter(|slot| slot.current != 0) {
            let count = turns.entry(slot.current).or_default();
            *count = count.saturating_add(1);
        }
        self.versions += 1;
        let unsettled = ring.slots.iter().any(|slot| slot.current != slot.previous);
        let version = self.versions;
        self.rings.insert(
            id,
            Placed {
                map,
                unsettled,
                version,
            },
        );
        Ok(Some(RingSpec {
            turns: turns.into_iter().collect(),
            by_client,
        }))
    }

    /// Marks the sources of every endpoint there is, and of those that come.
    fn write_sources(&mut self, coming: &[SocketAddr]) -> io::Result<()> {
        let mut sources = Sources::EMPTY;
        let here = self.tables.endpoints.values().map(|entry| entry.addr);
        for addr in here.chain(coming.iter().copied()) {
            sources.set(&addr_words(addr.ip()), addr.port().to_be());
        }
        if self.maps.sources.get(&0)? == Some(sources) {
            return Ok(());
        }
        self.maps.sources.put(&0, &sources)
    }
}

/// A ring of no endpoint, made on the heap.
fn empty_ring() -> Box<Ring> {
    let slots = vec![Slot::default(); RING_SLOTS].into_boxed_slice();
    let slots: *mut [Slot] = Box::into_raw(slots);
    // SAFETY: `Ring` is `repr(C)` with one field, an array of exactly that many slots, so size, alignment and layout of
    // the allocation are those of a `Ring`; ownership passes from the slice to the box.
    unsafe { Box::from_raw(slots.cast::<Ring>()) }
}
