//! The host twin: the same tables as `BTreeMap`s and the same packet as a byte vector, so that the decision functions
//! run in a test exactly as they run in the kernel. Feature `twin`; never part of a program.

extern crate std;

use crate::abi::flow::STREAMING_TICKS;
use crate::abi::{Endpoint, FLOWS_MAX, Flow, FlowKey, FlowPhase, RING_SLOTS, SOURCE_WORDS, Slot, Sources, Vip, VipKey};
use crate::checksum;
use crate::datapath::{Change, Entry, Insert, Packet, Table, Tables, Word};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::vec::Vec;

/// All maps.
#[derive(Clone)]
pub struct Twin {
    pub vips: BTreeMap<VipKey, Vip>,
    /// By VIP id; each `RING_SLOTS` long.
    pub rings: BTreeMap<u32, Vec<Slot>>,
    pub endpoints: BTreeMap<u16, Endpoint>,
    pub sources: Sources,
    pub clock: u32,
    pub workers: u32,
    pub udp_idle: u32,
    pub loads: BTreeMap<u32, u32>,
    pub flows: RefCell<BTreeMap<FlowKey, Flow>>,
    pub reverse: RefCell<BTreeMap<FlowKey, Flow>>,
    /// Entries that either flow table may hold.
    pub flows_max: usize,
}

impl Default for Twin {
    fn default() -> Self {
        Self {
            vips: BTreeMap::new(),
            rings: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            sources: Sources::EMPTY,
            clock: 0,
            workers: 0,
            udp_idle: STREAMING_TICKS,
            loads: BTreeMap::new(),
            flows: RefCell::default(),
            reverse: RefCell::default(),
            flows_max: FLOWS_MAX as usize,
        }
    }
}

impl Twin {
    /// Puts an endpoint, its reply source first.
    pub fn put_endpoint(&mut self, index: u16, endpoint: Endpoint) {
        self.sources.set(&endpoint.addr, endpoint.port_be);
        self.endpoints.insert(index, endpoint);
    }

    /// Puts a ring made by a function of the slot's index.
    pub fn put_ring(&mut self, vip: u32, slot: impl FnMut(usize) -> Slot) {
        self.rings.insert(vip, (0..RING_SLOTS).map(slot).collect());
    }

    fn table(&self, table: Table) -> &RefCell<BTreeMap<FlowKey, Flow>> {
        match table {
            Table::Flows => &self.flows,
            Table::Reverse => &self.reverse,
        }
    }
}

/// An entry by its key.
pub struct Held<'t> {
    table: &'t RefCell<BTreeMap<FlowKey, Flow>>,
    key: FlowKey,
}

impl Held<'_> {
    fn change(&self, change: impl FnOnce(&mut Flow)) {
        if let Some(flow) = self.table.borrow_mut().get_mut(&self.key) {
            change(flow);
        }
    }
}

impl Entry for Held<'_> {
    fn with<R>(&self, read: impl FnOnce(&Flow) -> R) -> R {
        let flow = *self
            .table
            .borrow()
            .get(&self.key)
            .expect("an entry is used before anything is removed");
        read(&flow)
    }
    fn set_seen(&self, now: u32) {
        self.change(|flow| flow.seen = now);
    }
    fn set_phase(&self, phase: FlowPhase) {
        self.change(|flow| flow.phase = phase as u8);
    }
    fn set_fin(&self, client: bool) {
        self.change(|flow| {
            if client {
                flow.fin_client = 1;
            } else {
                flow.fin_endpoint = 1;
            }
        });
    }
}

impl Tables for Twin {
    type Entry<'t> = Held<'t>;

    fn vip(&self, key: &VipKey) -> Option<Vip> {
        self.vips.get(key).copied()
    }
    fn slot(&self, vip: u32, index: u32) -> Option<Slot> {
        self.rings.get(&vip)?.get(index as usize).copied()
    }
    fn endpoint<R>(&self, index: u16, read: impl FnOnce(&Endpoint) -> R) -> Option<R> {
        // The kernel's array holds a zeroed endpoint wherever none was put.
        Some(read(&self.endpoints.get(&index).copied().unwrap_or_default()))
    }
    fn source(&self, bit: u32) -> bool {
        self.sources.words[(bit / 64) as usize % SOURCE_WORDS] >> (bit % 64) & 1 != 0
    }
    fn now(&self) -> u32 {
        self.clock
    }
    fn find<'t>(&'t self, table: Table, key: &FlowKey) -> Option<Held<'t>> {
        let table = self.table(table);
        table.borrow().contains_key(key).then_some(Held { table, key: *key })
    }
    fn insert(&self, table: Table, key: &FlowKey, value: &Flow) -> Insert {
        if self.table(table).borrow().contains_key(key) {
            return Insert::Exists;
        }
        if self.replace(table, key, value) {
            Insert::Done
        } else {
            Insert::Full
        }
    }
    fn replace(&self, table: Table, key: &FlowKey, value: &Flow) -> bool {
        let mut entries = self.table(table).borrow_mut();
        let room = entries.len() < self.flows_max || entries.contains_key(key);
        if room {
            entries.insert(*key, *value);
        }
        room
    }
    fn remove(&self, table: Table, key: &FlowKey) {
        self.table(table).borrow_mut().remove(key);
    }
    fn udp_idle(&self) -> u32 {
        self.udp_idle
    }
    fn workers(&self) -> u32 {
        self.workers
    }
    fn load(&self, worker: u32) -> u32 {
        self.loads.get(&worker).copied().unwrap_or(0)
    }
}

/// A frame on the host. `LINK`: as XDP sees it, else as TCX does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bytes<const LINK: bool> {
    pub bytes: Vec<u8>,
    pub ifindex: u32,
}

impl<const LINK: bool> Packet for Bytes<LINK> {
    const WRITES_LINK: bool = LINK;

    fn get<W: Word>(&self, at: usize) -> Option<W> {
        W::load(self.bytes.get(at..)?)
    }
    fn put<W: Word>(&mut self, at: usize, value: W) -> Option<()> {
        value.store(self.bytes.get_mut(at..)?)
    }
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
    fn transport_checksum(&mut self, at: usize, field: u16, change: &Change, udp: bool) -> Option<()> {
        let change = change.addresses + change.ports;
        self.put(
            at,
            if udp {
                checksum::update_udp(field, change)
            } else {
                checksum::update(field, change)
            },
        )
    }
}
