//! Start-up: from what was asked and what works here to what runs.

use super::apply::Writer;
use super::attach::{Hook, How};
use super::flows::Sweep;
use super::load::{self, Ingress};
use super::locate::Locator;
use super::pins::Pins;
use super::{Active, Datapath, Kernel, KernelError, KernelOptions, KernelStatus, Sweeping, features};
use crate::sys::caps::Capabilities;
use crate::sys::interfaces::{self, Interface};
use crate::sys::netlink::Netlink;
use crate::warden::{Answer, Request, Warden};
use gateway_common::abi::TICKS_PER_SECOND;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Interfaces that may carry a program at once.
pub const INTERFACES_MAX: usize = 64;

/// What is running once it is attached.
struct Attached {
    carrying: BTreeSet<u32>,
    names: Vec<String>,
    adopted: bool,
    reasons: Vec<String>,
}

impl Kernel {
    /// Starts what was asked for. `auto` never fails for want of a kernel: it takes less, with reasons.
    pub fn start(options: KernelOptions) -> Result<Self, KernelError> {
        let KernelOptions {
            datapath,
            interfaces,
            pin_dir,
            return_path_gateway,
            on_idle,
            udp_idle,
        } = options;
        let asked: &[Ingress] = match datapath {
            Datapath::Auto => &[Ingress::Tcx, Ingress::None],
            Datapath::Xdp => &[Ingress::Xdp],
            Datapath::Tcx => &[Ingress::Tcx],
            Datapath::Lookup => &[Ingress::None],
            Datapath::Off => &[],
        };
        let mut reasons = Vec::new();
        if datapath == Datapath::Off {
            reasons.push("the datapath is off, as was asked".to_owned());
        }
        let mut on_idle = Some(on_idle);
        for ingress in asked {
            match Starting::new(&pin_dir, *ingress).and_then(|starting| starting.attach(*ingress, &interfaces)) {
                Ok((warden, maps, mut attached)) => {
                    reasons.append(&mut attached.reasons);
                    if *ingress == Ingress::None && datapath == Datapath::Lookup {
                        reasons.push("no program forwards packets: only sk_lookup was asked for".into());
                    }
                    let status = KernelStatus {
                        ingress: ingress_name(*ingress),
                        lookup: true,
                        interfaces: attached.names.clone(),
                        adopted: attached.adopted,
                        reasons,
                    };
                    let on_idle = on_idle.take().unwrap_or_else(|| Box::new(drop));
                    let active = Active::begin(&warden, maps, attached, *ingress, on_idle, udp_idle)?;
                    return Self::assemble(status, warden, Some(active), pin_dir, return_path_gateway);
                }
                Err(error) if datapath == Datapath::Auto => {
                    reasons.push(format!(
                        "no {}: {error}",
                        if *ingress == Ingress::None { "sk_lookup" } else { "tcx" }
                    ));
                }
                Err(error) => return Err(demanded(datapath, error)),
            }
        }
        let status = KernelStatus {
            ingress: "off",
            lookup: false,
            interfaces: Vec::new(),
            adopted: false,
            reasons,
        };
        let warden = Arc::new(Mutex::new(Warden::new(None)?));
        Self::assemble(status, warden, None, pin_dir, return_path_gateway)
    }

    fn assemble(
        status: KernelStatus,
        warden: Arc<Mutex<Warden>>,
        active: Option<Active>,
        pin_dir: std::path::PathBuf,
        return_path_gateway: bool,
    ) -> Result<Self, KernelError> {
        let locals = if status.adopted {
            let adopted = super::lock(&warden).adopt_locals();
            adopted
                .map_err(|error| KernelError::from_io("list local addresses", &error))?
                .into_iter()
                .collect()
        } else {
            BTreeSet::new()
        };
        Ok(Self {
            status,
            warden,
            active,
            netlink: Mutex::new(Netlink::open().ok()),
            return_path_gateway,
            pin_dir,
            locals: Mutex::new(locals),
            announcements: Mutex::default(),
        })
    }
}

/// The word in `status`, in `ready` and in the laboratory's report.
pub const fn ingress_name(ingress: Ingress) -> &'static str {
    match ingress {
        Ingress::None => "off",
        Ingress::Tcx => "tcx",
        Ingress::Xdp => "xdp",
    }
}

/// Says what was demanded, and what would do instead.
fn demanded(datapath: Datapath, error: KernelError) -> KernelError {
    let say = |text: String| {
        format!(
            "--datapath {}: {text} (`sluice doctor` shows what works here)",
            datapath.name()
        )
    };
    match error {
        KernelError::Unavailable(text) => KernelError::Unavailable(say(text)),
        KernelError::NotPermitted(text) => KernelError::NotPermitted(say(text)),
        KernelError::Failed(text) => KernelError::Failed(say(text)),
    }
}

/// Loaded, not attached.
struct Starting {
    warden: Warden,
    maps: load::Maps,
    had_maps: bool,
    /// The bpffs ends with this process's mount namespace, and the pins with it.
    fleeting: bool,
}

impl Starting {
    fn new(pin_dir: &std::path::Path, ingress: Ingress) -> Result<Self, KernelError> {
        if load::build_facts().object.is_none() {
            return Err(KernelError::Unavailable(
                "this binary embeds no eBPF object: run `cargo xtask ebpf` and build again".into(),
            ));
        }
        let caps = Capabilities::current().unwrap_or_default();
        if !caps.may_load() {
            return Err(KernelError::NotPermitted(
                "CAP_BPF and CAP_NET_ADMIN are needed: run as root, or give them (systemd: AmbientCapabilities=)"
                    .into(),
            ));
        }
        let pins = Pins::open(pin_dir)?;
        let fleeting = pins.mounted && in_own_mounts();
        let had_maps = pins.path("VIPS").exists();
        let (maps, programs) = load::load(&pins, ingress)?;
        let warden = Warden::new(Some((pins, programs)))?;
        Ok(Self {
            warden,
            maps,
            had_maps,
            fleeting,
        })
    }

    /// Attaches where it was asked, then takes away what an earlier process had attached elsewhere. A failure takes away
    /// what this run has added, unless there was something to adopt.
    fn attach(
        mut self,
        ingress: Ingress,
        named: &[String],
    ) -> Result<(Arc<Mutex<Warden>>, load::Maps, Attached), KernelError> {
        match self.attach_all(ingress, named) {
            Ok(mut attached) => {
                attached.adopted |= self.had_maps;
                Ok((Arc::new(Mutex::new(self.warden)), self.maps, attached))
            }
            Err(error) => {
                if !self.had_maps {
                    self.warden.handle(Request::RemoveAll);
                }
                Err(error)
            }
        }
    }

    fn attach_all(&mut self, ingress: Ingress, named: &[String]) -> Result<Attached, KernelError> {
        let mut attached = Attached {
            carrying: BTreeSet::new(),
            names: Vec::new(),
            adopted: false,
            reasons: Vec::new(),
        };
        if self.fleeting {
            let why =
                "the bpffs is this process's own (ip netns exec hides the host's): if it is killed, nothing is kept";
            attached.reasons.push(why.into());
        }
        let tcx = features::has_tcx();
        if !tcx && ingress != Ingress::None {
            attached
                .reasons
                .push("a clsact filter stands for TCX, which needs Linux 6.6".into());
        }
        let mut hooks = vec![Hook::Lookup];
        for interface in if ingress == Ingress::None {
            Vec::new()
        } else {
            choose(named)?
        } {
            // TCX first: a packet that XDP leaves must not meet the bare stack.
            let index = interface.index;
            let classifier = if tcx { Hook::Tcx(index) } else { Hook::Clsact(index) };
            let wanted: &[Hook] = match ingress {
                Ingress::None => &[],
                Ingress::Tcx => &[classifier],
                Ingress::Xdp => &[classifier, Hook::Xdp(index)],
            };
            for hook in wanted {
                let how = self.attach_one(*hook)?;
                attached.adopted |= how == How::Adopted;
                if how == How::AttachedGeneric {
                    attached
                        .reasons
                        .push(format!("{}: generic XDP, its driver has no native", interface.name));
                }
                hooks.push(*hook);
            }
            if ingress == Ingress::Xdp && interface.kind == "veth" {
                attached.reasons.push(format!(
                    "{}: veth under native XDP loses packets silently unless its peer has GRO on and transmit checksum \
                     offload off (ethtool -K PEER gro on tx off)",
                    interface.name
                ));
            }
            attached.carrying.insert(interface.index);
            attached.names.push(interface.name);
        }
        attached.adopted |= self.attach_one(Hook::Lookup)? == How::Adopted;
        let left = self
            .warden
            .pinned_hooks()
            .map_err(|error| KernelError::from_io("list the pins", &error))?;
        for hook in left.into_iter().filter(|hook| !hooks.contains(hook)) {
            if let Answer::Failed(error) = self.warden.handle(Request::Detach(hook)) {
                return Err(error);
            }
        }
        Ok(attached)
    }

    fn attach_one(&mut self, hook: Hook) -> Result<How, KernelError> {
        match self.warden.handle(Request::Attach(hook)) {
            Answer::Attached(how) => Ok(how),
            Answer::Failed(error) => Err(error),
            Answer::Done | Answer::Socket(_) | Answer::Map(_) => Err(KernelError::Failed(format!(
                "attach {}: an answer to something else",
                hook.pin_name()
            ))),
        }
    }
}

/// Whether this process sees other mounts than the first one, as after `ip netns exec`.
fn in_own_mounts() -> bool {
    let inode = |path: &str| std::fs::metadata(path).map(|facts| facts.ino()).ok();
    inode("/proc/self/ns/mnt") != inode("/proc/1/ns/mnt")
}

/// The interfaces to attach to.
fn choose(named: &[String]) -> Result<Vec<Interface>, KernelError> {
    let all = Netlink::open().and_then(|mut netlink| interfaces::list(&mut netlink));
    let all = all.map_err(|error| KernelError::from_io("list the interfaces", &error))?;
    if let Some(missing) = named
        .iter()
        .find(|name| !all.iter().any(|interface| interface.name == **name))
    {
        let there: Vec<_> = all.iter().map(|interface| interface.name.as_str()).collect();
        return Err(KernelError::Unavailable(format!(
            "there is no interface {missing}, only {}",
            there.join(", ")
        )));
    }
    let chosen: Vec<Interface> = features::candidates(&all, named).into_iter().cloned().collect();
    if let Some(strange) = chosen.iter().find(|interface| !interface.ethernet) {
        return Err(KernelError::Unavailable(format!("{} speaks no Ethernet", strange.name)));
    }
    if chosen.is_empty() {
        return Err(KernelError::Unavailable(
            "no interface is up and speaks Ethernet".into(),
        ));
    }
    if chosen.len() > INTERFACES_MAX {
        let count = chosen.len();
        return Err(KernelError::Unavailable(format!(
            "{count} interfaces, {INTERFACES_MAX} at most: name some (--interface)"
        )));
    }
    Ok(chosen)
}

/// An age of more is a stamp in the future.
const UDP_IDLE_TICKS_MAX: u32 = (1 << 31) - 1;

impl Active {
    fn begin(
        warden: &Arc<Mutex<Warden>>,
        maps: load::Maps,
        attached: Attached,
        ingress: Ingress,
        on_idle: Box<dyn Fn(super::flows::Idle) + Send>,
        udp_idle: Duration,
    ) -> Result<Self, KernelError> {
        let maps = Arc::new(maps);
        let netlink = Netlink::open().map_err(|error| KernelError::from_io("open a netlink socket", &error))?;
        let locator = Locator::new(netlink, ingress == Ingress::Xdp);
        let writer = Writer::new(maps.clone(), warden.clone(), locator)?;
        let adopted = attached.adopted.then(|| writer.tables().clone());
        let ticks = udp_idle.as_millis() * u128::from(TICKS_PER_SECOND) / 1000;
        let udp_idle_ticks = u32::try_from(ticks).unwrap_or(u32::MAX).clamp(1, UDP_IDLE_TICKS_MAX);
        writer
            .write_udp_idle(udp_idle_ticks)
            .map_err(|error| KernelError::from_io("write CONFIG", &error))?;
        let writer = Arc::new(Mutex::new(writer));
        let loads = Arc::default();
        let sweep = Sweep {
            maps: maps.clone(),
            writer: writer.clone(),
            loads: Arc::clone(&loads),
            on_idle,
            udp_idle_ticks,
        };
        Ok(Self {
            maps,
            writer,
            adopted,
            carrying: attached.carrying,
            loads,
            sweep: Mutex::new(Sweeping::run(sweep)?),
        })
    }
}
