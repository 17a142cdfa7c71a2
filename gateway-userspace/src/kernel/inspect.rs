//! What of BPF is loaded: for `sluice get kernel` and `doctor`.

use super::bpf;
use super::pins;
use aya::programs::loaded_programs;
use std::os::fd::AsFd;
use std::path::Path;

/// One of our programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramView {
    pub id: u32,
    pub name: String,
    /// Instructions after the verifier's rewriting.
    pub instructions: u32,
    /// Instructions the verifier walked.
    pub verified: Option<u32>,
    pub jited_bytes: u32,
    pub memory_bytes: u32,
}

/// One of our maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapView {
    pub id: u32,
    pub name: String,
    pub key_bytes: u32,
    pub value_bytes: u32,
    pub entries_max: u32,
}

/// Names of our programs in the kernel.
pub const PROGRAM_NAMES: [&str; 3] = ["xdp_ingress", "tc_ingress", "steer"];

/// Name of a loaded program; `None` if it is gone or may not be seen.
pub fn program_name(id: u32) -> Option<String> {
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id)?;
    info.name_as_str().map(str::to_owned)
}

/// The loaded programs with these ids.
pub fn programs(ids: &[u32]) -> Vec<ProgramView> {
    let infos = loaded_programs()
        .filter_map(Result::ok)
        .filter(|info| ids.contains(&info.id()));
    infos
        .map(|info| ProgramView {
            id: info.id(),
            name: info.name_as_str().unwrap_or("?").to_owned(),
            instructions: info.size_translated().map_or(0, |bytes| bytes / 8),
            verified: info.verified_instruction_count(),
            jited_bytes: info.size_jitted(),
            memory_bytes: info.memory_locked().unwrap_or(0),
        })
        .collect()
}

/// The maps pinned below a pin directory.
pub fn maps(base: &Path) -> Vec<MapView> {
    let dir = pins::versioned(base);
    let names = pins::survey(base).into_iter().filter(|name| !pins::is_link(name));
    names
        .filter_map(|name| {
            let map = bpf::pinned(&dir.join(&name)).ok()??;
            let facts = bpf::map_facts(map.as_fd()).ok()?;
            Some(MapView {
                id: facts.id,
                name,
                key_bytes: facts.key_size,
                value_bytes: facts.value_size,
                entries_max: facts.entries_max,
            })
        })
        .collect()
}
