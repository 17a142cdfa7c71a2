//! The embedded eBPF object: its maps (made, or adopted where pinned) and its programs.

use super::error::KernelError;
use super::map::{Map, PerCpu, possible_cpus};
use super::pins::Pins;
use aya::maps::Map as AyaMap;
use aya::programs::{ProgramError, SchedClassifier, SkLookup, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use gateway_common::abi::{Endpoint, Flow, FlowKey, Sources, Vip, VipKey};
use std::os::fd::{AsFd, OwnedFd};

/// The object, aligned as the ELF reader needs it; empty when none was built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice.bpf.o"));

/// Every map of the object.
pub const MAP_NAMES: [&str; 11] = [
    "VIPS",
    "RINGS",
    "ENDPOINTS",
    "FLOWS",
    "REVERSE",
    "SOURCES",
    "CLOCK",
    "CONFIG",
    "LOAD",
    "LISTENERS",
    "COUNTERS",
];

/// Where this binary comes from.
#[derive(Clone, Copy, Debug)]
pub struct BuildFacts {
    /// What git called the tree.
    pub git: &'static str,
    /// Hash of the embedded eBPF object, if there is one.
    pub object: Option<&'static str>,
}

pub fn build_facts() -> BuildFacts {
    BuildFacts {
        git: env!("SLUICE_GIT"),
        object: (!OBJECT.is_empty()).then_some(env!("SLUICE_BPF_HASH")),
    }
}

/// The maps, typed. Who may write which is `docs/maps.md`; in userspace only `apply` does.
pub struct Maps {
    pub vips: Map<VipKey, Vip>,
    /// Written as a descriptor, read as an id.
    pub rings: Map<u32, u32>,
    pub endpoints: Map<u32, Endpoint>,
    pub flows: Map<FlowKey, Flow>,
    pub reverse: Map<FlowKey, Flow>,
    pub sources: Map<u32, Sources>,
    pub clock: Map<u32, u32>,
    pub config: Map<u32, u32>,
    pub load: Map<u32, u32>,
    /// Written as a descriptor; never read.
    pub listeners: Map<u32, u32>,
    pub counters: PerCpu,
}

/// The programs, loaded and verified, not attached.
pub struct Programs {
    pub tcx: Option<OwnedFd>,
    pub xdp: Option<OwnedFd>,
    pub lookup: Option<OwnedFd>,
}

/// Which programs packets meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ingress {
    None,
    Tcx,
    /// XDP, and TCX behind it for what XDP cannot send itself (an unresolved neighbour).
    Xdp,
}

/// Loads the object: adopts the maps that are pinned, makes and pins the others, verifies the programs asked for.
pub fn load(pins: &Pins, ingress: Ingress) -> Result<(Maps, Programs), KernelError> {
    if OBJECT.is_empty() {
        return Err(KernelError::Unavailable(
            "this binary embeds no eBPF object: run `cargo xtask ebpf` and build again".into(),
        ));
    }
    let mut loader = EbpfLoader::new();
    for name in MAP_NAMES {
        loader.map_pin_path(name, pins.path(name));
    }
    let mut object = loader
        .load(OBJECT)
        .map_err(|error| failed("load the eBPF object", &error))?;
    // Programs first: they name the maps by aya's own descriptors, which taking a map closes.
    let programs = Programs {
        tcx: (ingress != Ingress::None).then(|| load_tcx(&mut object)).transpose()?,
        xdp: (ingress == Ingress::Xdp).then(|| load_xdp(&mut object)).transpose()?,
        lookup: Some(load_lookup(&mut object)?),
    };
    Ok((take_maps(&mut object)?, programs))
}

fn take_maps(object: &mut Ebpf) -> Result<Maps, KernelError> {
    let cpus = possible_cpus().map_err(|error| KernelError::from_io("count the CPUs", &error))?;
    Ok(Maps {
        vips: typed(object, "VIPS")?,
        rings: typed(object, "RINGS")?,
        endpoints: typed(object, "ENDPOINTS")?,
        flows: typed(object, "FLOWS")?,
        reverse: typed(object, "REVERSE")?,
        sources: typed(object, "SOURCES")?,
        clock: typed(object, "CLOCK")?,
        config: typed(object, "CONFIG")?,
        load: typed(object, "LOAD")?,
        listeners: typed(object, "LISTENERS")?,
        counters: PerCpu::new(descriptor(object, "COUNTERS")?, cpus),
    })
}

fn typed<K: super::map::Plain, V: super::map::Plain>(object: &mut Ebpf, name: &str) -> Result<Map<K, V>, KernelError> {
    Map::new(descriptor(object, name)?).map_err(|error| {
        KernelError::Failed(format!(
            "map {name}: {error}. The pinned maps are of another build: `sluice doctor --clean` removes them"
        ))
    })
}

fn descriptor(object: &mut Ebpf, name: &str) -> Result<OwnedFd, KernelError> {
    let data = match object.take_map(name) {
        Some(
            AyaMap::HashMap(data)
            | AyaMap::Array(data)
            | AyaMap::PerCpuArray(data)
            | AyaMap::ArrayOfMaps(data)
            | AyaMap::SockMap(data),
        ) => data,
        Some(_) | None => {
            return Err(KernelError::Failed(format!(
                "the eBPF object has no map {name} of a known type"
            )));
        }
    };
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| KernelError::from_io(name, &error))
}

/// A descriptor of a program that aya just loaded; it keeps the program when aya's own is closed.
macro_rules! program {
    ($object:expr, $type:ty, $name:literal) => {{
        let missing = || KernelError::Failed(concat!("the eBPF object has no program ", $name).into());
        let program: &mut $type = $object
            .program_mut($name)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(missing)?;
        program
            .load()
            .map_err(|error| failed(concat!("load ", $name), &error))?;
        let fd = program.fd().map_err(|error| failed($name, &error))?;
        fd.as_fd()
            .try_clone_to_owned()
            .map_err(|error| KernelError::from_io($name, &error))
    }};
}

fn load_tcx(object: &mut Ebpf) -> Result<OwnedFd, KernelError> {
    program!(object, SchedClassifier, "tc_ingress")
}

fn load_xdp(object: &mut Ebpf) -> Result<OwnedFd, KernelError> {
    program!(object, Xdp, "xdp_ingress")
}

fn load_lookup(object: &mut Ebpf) -> Result<OwnedFd, KernelError> {
    program!(object, SkLookup, "steer")
}

/// An error of aya, with the errno under it deciding whose fault it is.
fn failed(doing: &str, error: &(dyn std::error::Error + 'static)) -> KernelError {
    if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref()
        && io_error.raw_os_error() != Some(libc::EPERM)
    {
        // The verifier refuses with EACCES, which is no matter of permission here.
        let log = verifier_log.to_string();
        let why = verdict(&log);
        return KernelError::Unavailable(format!(
            "{doing}: this kernel's verifier refuses it ({io_error}): {why}"
        ));
    }
    let mut cause = Some(error);
    while let Some(one) = cause {
        if let Some(io) = one.downcast_ref::<std::io::Error>() {
            return KernelError::from_io(&format!("{doing}: {error}"), io);
        }
        cause = one.source();
    }
    if let Some(EbpfError::BtfError(_)) = error.downcast_ref() {
        return KernelError::Unavailable(format!("{doing}: {error}"));
    }
    KernelError::Failed(format!("{doing}: {error}"))
}

/// What a verifier's log comes to: its last line before the statistics.
fn verdict(log: &str) -> &str {
    let mut lines = log.trim_end_matches('\0').lines().map(str::trim);
    let statistics = ["verification time", "stack depth", "processed "];
    let telling = |line: &&str| !line.is_empty() && !statistics.iter().any(|word| line.starts_with(word));
    lines.rfind(telling).unwrap_or("its log is empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_of_a_verifier_is_its_last_word_before_the_statistics() {
        let log = "0: R1=ctx()\n1771: (69) r1 = *(u16 *)(r0 +2)\nR0 unbounded memory access\n\
                   verification time 9864 usec\nstack depth 248\nprocessed 281 insns\n\0";
        assert_eq!(verdict(log), "R0 unbounded memory access");
        assert_eq!(verdict(""), "its log is empty");
    }

    #[test]
    fn the_binary_says_where_it_comes_from() {
        let facts = build_facts();
        assert!(!facts.git.is_empty());
        assert_eq!(facts.object.is_some(), !OBJECT.is_empty());
    }
}
