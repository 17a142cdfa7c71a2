//! The maps, by name. Keys and values are `gateway_common::abi`; who writes which is `docs/maps.md`.

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, SockMap};
use aya_ebpf::macros::btf_map;
use core::mem::size_of;
use gateway_common::abi::{
    CONFIG_WORDS, ENDPOINTS_MAX, Endpoint, FLOWS_MAX, Flow, FlowKey, LISTENERS_MAX, REASONS, Ring, Sources, VIPS_MAX,
    Vip, VipKey, WORKERS_MAX,
};

/// Who owns a destination.
#[btf_map]
pub static VIPS: HashMap<VipKey, Vip, { VIPS_MAX as usize }> = HashMap::new();

/// What an inner map of [`RINGS`] is: an array of one [`Ring`].
///
/// Sizes, not types: a map that userspace makes later has no BTF, and Linux 6.1 takes it for another kind of map than a
/// template that has (it compares the place of a timer in the value, "none" against "not known").
#[repr(C)]
pub struct RingMap {
    r#type: *const [i32; BPF_MAP_TYPE_ARRAY as usize],
    key_size: *const [i32; size_of::<u32>()],
    value_size: *const [i32; size_of::<Ring>()],
    max_entries: *const [i32; 1],
}

/// By VIP id: one ring each, as one value, so that a swap is one system call.
#[btf_map]
pub static RINGS: ArrayOfMaps<RingMap, { VIPS_MAX as usize }> = ArrayOfMaps::new();

#[btf_map]
pub static ENDPOINTS: Array<Endpoint, { ENDPOINTS_MAX as usize }> = Array::new();

/// Client to VIP. A plain hash, not an LRU: a live flow is never evicted.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, Flow, { FLOWS_MAX as usize }> = HashMap::new();

/// Endpoint to client.
#[btf_map]
pub static REVERSE: HashMap<FlowKey, Flow, { FLOWS_MAX as usize }> = HashMap::new();

/// Which sources may be endpoints.
#[btf_map]
pub static SOURCES: Array<Sources, 1> = Array::new();

/// The coarse clock.
#[btf_map]
pub static CLOCK: Array<u32, 1> = Array::new();

#[btf_map]
pub static CONFIG: Array<u32, { CONFIG_WORDS as usize }> = Array::new();

/// Live connections by worker.
#[btf_map]
pub static LOAD: Array<u32, { WORKERS_MAX as usize }> = Array::new();

/// The workers' listening sockets.
#[btf_map]
pub static LISTENERS: SockMap<{ LISTENERS_MAX as usize }> = SockMap::new();

/// One row a VIP and one for strangers; one cell a reason.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { ((VIPS_MAX + 1) * REASONS) as usize }> = PerCpuArray::new();
