//! What this kernel, these capabilities and these devices allow, each with a reason: what `auto` chooses from, and what
//! `status` and `doctor` show. Looking changes nothing.

use super::load::build_facts;
use super::{bpf, pins};
use crate::sys::caps::{Capabilities, Capability, kernel_release};
use crate::sys::interfaces::{self, Interface};
use crate::sys::netlink::Netlink;
use std::path::Path;

/// One thing that is there or lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// `bpf`, `tcx`, `sk_lookup`, `xdp eth0`, ...
    pub name: String,
    pub standing: Standing,
    /// What was found, in a sentence.
    pub detail: String,
}

/// How a fact stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Works,
    /// Works with a limit that the detail names.
    Limited,
    /// The kernel, the device or the build lacks it.
    Lacks,
    /// It is there, but this process may not use it.
    NotPermitted,
}

impl Standing {
    pub const fn name(self) -> &'static str {
        match self {
            Standing::Works => "works",
            Standing::Limited => "limited",
            Standing::Lacks => "lacks",
            Standing::NotPermitted => "not permitted",
        }
    }
}

/// TCX links: Linux 6.6. `sk_lookup`: Linux 5.9.
const TCX_SINCE: (u32, u32) = (6, 6);
const LOOKUP_SINCE: (u32, u32) = (5, 9);

/// Everything, in the order that `doctor` shows it. `named`: interfaces of `--interface`; none is all.
pub fn survey(pin_dir: &Path, named: &[String]) -> Vec<Fact> {
    let caps = Capabilities::current().unwrap_or_default();
    let (version, release) = kernel_release().unwrap_or(((0, 0), "unknown".into()));
    let mut facts = vec![
        object(),
        bpf_fact(caps),
        tcx(version, &release),
        since("sk_lookup", version, &release, LOOKUP_SINCE, "sk_lookup programs"),
        bpffs(pin_dir),
        low_ports(caps),
    ];
    match Netlink::open().and_then(|mut netlink| interfaces::list(&mut netlink)) {
        Ok(all) => facts.extend(candidates(&all, named).into_iter().map(xdp)),
        Err(error) => facts.push(fact("interfaces", Standing::Lacks, error.to_string())),
    }
    let left = pins::survey(pin_dir);
    if !left.is_empty() {
        let detail = format!("{} objects are pinned below {}", left.len(), pin_dir.display());
        facts.push(fact("pins", Standing::Works, detail));
    }
    facts
}

/// Whether the running kernel has TCX links.
pub fn has_tcx() -> bool {
    kernel_release().is_ok_and(|(version, _)| version >= TCX_SINCE)
}

/// The interfaces packets may come in on: those named, else every one that is up and speaks Ethernet.
pub fn candidates<'a>(all: &'a [Interface], named: &[String]) -> Vec<&'a Interface> {
    let wanted = |interface: &&Interface| {
        if named.is_empty() {
            interface.up && interface.ethernet && !interface.loopback
        } else {
            named.contains(&interface.name)
        }
    };
    all.iter().filter(wanted).collect()
}

fn fact(name: &str, standing: Standing, detail: impl Into<String>) -> Fact {
    Fact {
        name: name.into(),
        standing,
        detail: detail.into(),
    }
}

fn object() -> Fact {
    match build_facts().object {
        Some(hash) => fact("object", Standing::Works, format!("eBPF object {hash} is embedded")),
        None => fact(
            "object",
            Standing::Lacks,
            "no eBPF object is embedded: `cargo xtask ebpf`, then build again",
        ),
    }
}

fn bpf_fact(caps: Capabilities) -> Fact {
    // Making the smallest map is the only honest question: seccomp, lockdown and LSMs show in no version.
    match bpf::create_array(4, 1) {
        Ok(_) if caps.may_load() => fact("bpf", Standing::Works, "maps and programs may be loaded"),
        Ok(_) => {
            let detail = "maps may be made, but loading our programs needs CAP_BPF and CAP_NET_ADMIN: run as root";
            fact("bpf", Standing::NotPermitted, detail)
        }
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let missing: Vec<_> = [Capability::Bpf, Capability::NetAdmin]
                .into_iter()
                .filter(|capability| !caps.has(*capability) && !caps.has(Capability::SysAdmin))
                .map(Capability::name)
                .collect();
            let why = if missing.is_empty() {
                "bpf(2) is refused though the capabilities are there: seccomp, lockdown or an LSM".to_owned()
            } else {
                format!(
                    "{} missing: run as root, or give the capabilities",
                    missing.join(" and ")
                )
            };
            fact("bpf", Standing::NotPermitted, why)
        }
        Err(error) => fact("bpf", Standing::Lacks, format!("bpf(2): {error}")),
    }
}

fn since(name: &str, version: (u32, u32), release: &str, needed: (u32, u32), what: &str) -> Fact {
    let (major, minor) = needed;
    let detail = format!("{what} need Linux {major}.{minor}; this is {release}");
    fact(
        name,
        if version >= needed {
            Standing::Works
        } else {
            Standing::Lacks
        },
        detail,
    )
}

fn tcx(version: (u32, u32), release: &str) -> Fact {
    let fact = since("tcx", version, release, TCX_SINCE, "TCX links");
    match fact.standing {
        Standing::Works => fact,
        Standing::Limited | Standing::Lacks | Standing::NotPermitted => Fact {
            standing: Standing::Limited,
            detail: format!("{}: a clsact filter stands for them", fact.detail),
            ..fact
        },
    }
}

fn bpffs(pin_dir: &Path) -> Fact {
    let at = pin_dir.display();
    if pins::in_bpffs(pin_dir) {
        return fact("bpffs", Standing::Works, format!("{at} is in a bpffs"));
    }
    let detail = format!(
        "{at} is in no bpffs; `sluice run` mounts one if it may (`mount -t bpf bpf {}`)",
        pins::BPFFS
    );
    fact("bpffs", Standing::Limited, detail)
}

fn low_ports(caps: Capabilities) -> Fact {
    let start = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let start: u32 = start.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    if caps.has(Capability::NetBindService) || start == 0 {
        return fact("ports", Standing::Works, "every port may be bound");
    }
    let name = Capability::NetBindService.name();
    fact("ports", Standing::Limited, format!("ports below {start} need {name}"))
}

fn xdp(interface: &Interface) -> Fact {
    let name = format!("xdp {}", interface.name);
    if !interface.ethernet {
        return fact(
            &name,
            Standing::Lacks,
            "no Ethernet: neither XDP nor TCX programs of ours read its frames",
        );
    }
    if let Some(id) = interface.xdp {
        let program = super::inspect::program_name(id).unwrap_or_else(|| "unknown".into());
        return fact(
            &name,
            Standing::Limited,
            format!("carries XDP program `{program}` (id {id})"),
        );
    }
    match interface.kind.as_str() {
        "veth" => {
            let detail = "veth: native XDP needs GRO on the peer and no transmit checksum offload at the endpoints, \
                          and loses segmentation offload; tcx is better here";
            fact(&name, Standing::Limited, detail)
        }
        _ => fact(
            &name,
            Standing::Works,
            "free; native where the driver has it, else generic",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(
            since("tcx", (6, 12), "6.12.1", TCX_SINCE, "TCX links").standing,
            Standing::Works
        );
        assert_eq!(
            since("tcx", (6, 1), "6.1.9", TCX_SINCE, "TCX links").standing,
            Standing::Lacks
        );
    }

    #[test]
    fn named_interfaces_are_taken_whatever_they_are_and_none_named_is_all_that_fit() {
        let make = |name: &str, up: bool, ethernet: bool| Interface {
            name: name.into(),
            up,
            ethernet,
            ..Interface::default()
        };
        let all = [
            make("eth0", true, true),
            make("eth1", false, true),
            make("tun0", true, false),
        ];
        let names = |named: &[String]| -> Vec<String> {
            candidates(&all, named)
                .iter()
                .map(|interface| interface.name.clone())
                .collect()
        };
        assert_eq!(names(&[]), ["eth0"]);
        assert_eq!(names(&["eth1".into()]), ["eth1"]);
    }

    #[test]
    fn a_survey_has_a_reason_for_everything() {
        let facts = survey(Path::new("/sys/fs/bpf/slr-none"), &[]);
        assert!(facts.iter().any(|fact| fact.name == "bpf"));
        assert!(facts.iter().all(|fact| !fact.detail.is_empty()));
    }
}
