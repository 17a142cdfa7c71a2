//! The maps as the decision functions see them.

use crate::maps::{CLOCK, CONFIG, ENDPOINTS, FLOWS, LOAD, REVERSE, RINGS, SOURCES, VIPS};
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers;
use gateway_common::abi::flow::STREAMING_TICKS;
use gateway_common::abi::{
    CONFIG_UDP_IDLE, CONFIG_WORKERS, Endpoint, Flow, FlowKey, FlowPhase, RING_SLOTS, Ring, SOURCE_WORDS, Slot, Vip,
    VipKey,
};
use gateway_common::datapath::{Entry, Insert, Table, Tables};

const EEXIST: i32 = -17;

/// The maps of this object.
pub struct Maps;

/// An entry of `FLOWS` or `REVERSE` in the map's own memory, which stays mapped while the program runs (RCU).
pub struct Live(*mut Flow);

impl Entry for Live {
    #[inline(always)]
    fn with<R>(&self, read: impl FnOnce(&Flow) -> R) -> R {
        // SAFETY: the pointer came from a lookup in this run. Other CPUs may store single fields meanwhile; each is
        // one aligned word, valid in every state, and BPF loads are not assumed to be stable by the back end.
        read(unsafe { &*self.0 })
    }

    #[inline(always)]
    fn set_seen(&self, now: u32) {
        // SAFETY: as in `with`; one aligned store.
        unsafe { (&raw mut (*self.0).seen).write_volatile(now) }
    }

    #[inline(always)]
    fn set_phase(&self, phase: FlowPhase) {
        // SAFETY: as in `with`; one byte.
        unsafe { (&raw mut (*self.0).phase).write_volatile(phase as u8) }
    }

    #[inline(always)]
    fn set_fin(&self, client: bool) {
        // SAFETY: as in `with`; one byte, and each side has its own.
        unsafe {
            if client {
                (&raw mut (*self.0).fin_client).write_volatile(1)
            } else {
                (&raw mut (*self.0).fin_endpoint).write_volatile(1)
            }
        }
    }
}

impl Tables for Maps {
    type Entry<'t> = Live;

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<Vip> {
        // SAFETY: the value is copied at once; userspace replaces entries whole.
        unsafe { VIPS.get(key).copied() }
    }

    #[inline(always)]
    fn slot(&self, vip: u32, index: u32) -> Option<Slot> {
        let inner = RINGS.get(vip)?;
        // SAFETY: an inner map holds one `Ring` under key 0, by its template; it lives as long as this run (RCU).
        let ring: &Ring = unsafe {
            let key = 0u32;
            let value = helpers::bpf_map_lookup_elem((&raw const *inner).cast_mut().cast(), (&raw const key).cast());
            value.cast::<Ring>().as_ref()?
        };
        // `ring_index` is in range by construction, and rustc would drop the check; older verifiers (6.1) cannot follow
        // the multiplication, so they need to see it.
        let index = core::hint::black_box(index);
        if index as usize >= RING_SLOTS {
            return None;
        }
        // SAFETY: in bounds by the line above. A pointer, because a checked index brings a panic path.
        Some(unsafe { *ring.slots.as_ptr().add(index as usize) })
    }

    #[inline(always)]
    fn endpoint<R>(&self, index: u16, read: impl FnOnce(&Endpoint) -> R) -> Option<R> {
        ENDPOINTS.get(index as u32).map(read)
    }

    #[inline(always)]
    fn source(&self, bit: u32) -> bool {
        let Some(sources) = SOURCES.get(0) else { return false };
        let word = (bit / 64) as usize % SOURCE_WORDS;
        // SAFETY: in bounds by the line above. A pointer, because a checked index brings a panic path.
        unsafe { *sources.words.as_ptr().add(word) >> (bit % 64) & 1 != 0 }
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        CLOCK.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn find<'t>(&'t self, table: Table, key: &FlowKey) -> Option<Live> {
        match table {
            Table::Flows => FLOWS.get_ptr_mut(key).map(Live),
            Table::Reverse => REVERSE.get_ptr_mut(key).map(Live),
        }
    }

    #[inline(always)]
    fn insert(&self, table: Table, key: &FlowKey, value: &Flow) -> Insert {
        let flags = BPF_NOEXIST as u64;
        let done = match table {
            Table::Flows => FLOWS.insert(key, value, flags),
            Table::Reverse => REVERSE.insert(key, value, flags),
        };
        match done {
            Ok(()) => Insert::Done,
            Err(EEXIST) => Insert::Exists,
            Err(_) => Insert::Full,
        }
    }

    #[inline(always)]
    fn replace(&self, table: Table, key: &FlowKey, value: &Flow) -> bool {
        let flags = BPF_ANY as u64;
        match table {
            Table::Flows => FLOWS.insert(key, value, flags),
            Table::Reverse => REVERSE.insert(key, value, flags),
        }
        .is_ok()
    }

    #[inline(always)]
    fn remove(&self, table: Table, key: &FlowKey) {
        // Gone already is as good.
        let _ = match table {
            Table::Flows => FLOWS.remove(key),
            Table::Reverse => REVERSE.remove(key),
        };
    }

    #[inline(always)]
    fn udp_idle(&self) -> u32 {
        match CONFIG.get(CONFIG_UDP_IDLE) {
            Some(0) | None => STREAMING_TICKS,
            Some(ticks) => *ticks,
        }
    }

    #[inline(always)]
    fn workers(&self) -> u32 {
        CONFIG.get(CONFIG_WORKERS).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn load(&self, worker: u32) -> u32 {
        LOAD.get(worker).copied().unwrap_or(0)
    }
}
