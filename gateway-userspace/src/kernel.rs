//! The kernel plane from outside: start it, write its tables, ask what it does, stop it.
//!
//! [`Kernel::start`] takes the best datapath that was asked for and works here, adopting what an earlier process left
//! pinned. With [`Datapath::Off`] nothing is loaded, and no privilege is needed.

mod announcements;
pub mod apply;
pub mod attach;
pub mod bpf;
pub mod counters;
pub mod error;
pub mod features;
pub mod flows;
pub mod inspect;
pub mod load;
pub mod locate;
pub mod map;
pub mod pins;
mod start;

use crate::sys::netlink::Netlink;
use crate::warden::{Answer, Request, Warden};
use announcements::Announcements;
use apply::Writer;
pub use error::KernelError;
use flows::{KernelFlow, Sweep, Wake};
use gateway_common::abi::Reason;
use gateway_core::ids::{EndpointId, ListenerId};
use gateway_core::lower::KernelTables;
use gateway_core::model::{ConnectionView, LivePlane, Side};
use gateway_core::reconcile::MapOp;
use load::Maps;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::time::Instant;

/// Which programs to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Datapath {
    /// The best that works, with a reason for what does not.
    #[default]
    Auto,
    /// XDP on the interfaces, and sk_lookup.
    Xdp,
    /// TCX on the interfaces, and sk_lookup.
    Tcx,
    /// sk_lookup alone.
    Lookup,
    /// Nothing: own sockets.
    Off,
}

impl Datapath {
    pub const fn name(self) -> &'static str {
        match self {
            Datapath::Auto => "auto",
            Datapath::Xdp => "xdp",
            Datapath::Tcx => "tcx",
            Datapath::Lookup => "lookup",
            Datapath::Off => "off",
        }
    }
}

/// What [`Kernel::start`] is told.
pub struct KernelOptions {
    pub datapath: Datapath,
    /// Interfaces to attach to; none is every one that is up and speaks Ethernet.
    pub interfaces: Vec<String>,
    pub pin_dir: PathBuf,
    /// Replies of endpoints behind a gateway are declared to come back through this host.
    pub return_path_gateway: bool,
    /// Called (from the sweep's thread) with endpoint indexes that drain and have no open flow.
    pub on_idle: Box<dyn Fn(flows::Idle) + Send>,
    /// After so long without a datagram a UDP flow that goes both ways is forgotten.
    pub udp_idle: Duration,
}

/// What runs, and why not more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelStatus {
    /// `tcx`, `xdp` or `off`.
    pub ingress: &'static str,
    pub lookup: bool,
    /// Names of the interfaces that carry a program.
    pub interfaces: Vec<String>,
    /// Links of an earlier process were taken over.
    pub adopted: bool,
    /// One sentence for everything that is less than it could be.
    pub reasons: Vec<String>,
}

impl KernelStatus {
    /// How packets and connections come in, in one word: `tcx`, `xdp`, `lookup` or `off`.
    pub fn word(&self) -> &'static str {
        match (self.ingress, self.lookup) {
            ("off", true) => "lookup",
            (ingress, _) => ingress,
        }
    }
}

/// The kernel plane of this process.
pub struct Kernel {
    status: KernelStatus,
    warden: Arc<Mutex<Warden>>,
    /// None with the datapath off.
    active: Option<Active>,
    netlink: Mutex<Option<Netlink>>,
    return_path_gateway: bool,
    pin_dir: PathBuf,
    /// Addresses that [`Kernel::set_local`] is in charge of.
    locals: Mutex<BTreeSet<IpAddr>>,
    announcements: Mutex<Announcements>,
}

struct Active {
    maps: Arc<Maps>,
    writer: Arc<Mutex<Writer>>,
    adopted: Option<KernelTables>,
    /// Interfaces that carry our program, by index.
    carrying: BTreeSet<u32>,
    loads: Arc<Mutex<Vec<Arc<AtomicU32>>>>,
    sweep: Mutex<Sweeping>,
}

/// The sweep's thread; it ends and begins again with the right to write the maps.
enum Sweeping {
    Runs {
        wake: SyncSender<Wake>,
        thread: JoinHandle<Sweep>,
    },
    Rests(Box<Sweep>),
    /// It panicked, or its thread could not be started.
    Over,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kernel {
    /// What runs, and why not more.
    pub fn status(&self) -> KernelStatus {
        self.status.clone()
    }

    /// What the maps of an earlier process held when this one took them over.
    pub fn adopted(&self) -> Option<KernelTables> {
        self.active.as_ref()?.adopted.clone()
    }

    /// Writes the maps. Blocks for the grace period of a ring swap: never called from a worker.
    pub fn apply(&self, ops: Vec<MapOp>) -> Result<(), KernelError> {
        let Some(active) = &self.active else {
            return Err(KernelError::Failed("the datapath is off".into()));
        };
        let done = lock(&active.writer).apply(&ops);
        if let Sweeping::Runs { wake, .. } = &*lock(&active.sweep) {
            // A full queue has a wake-up waiting in it already.
            let _ = wake.try_send(Wake::Soon);
        }
        done
    }

    /// What the maps really hold, read now: after a failed write.
    pub fn read_tables(&self) -> KernelTables {
        let Some(active) = &self.active else {
            return KernelTables::default();
        };
        let mut writer = lock(&active.writer);
        match writer.read_tables() {
            Ok(tables) => tables.clone(),
            Err(error) => {
                tracing::error!("read the maps: {error}");
                writer.tables().clone()
            }
        }
    }

    /// Makes exactly these addresses local (and those not any more that an earlier call made so). Returns those that
    /// could not be, with the reason.
    pub fn set_local(&self, addresses: &[IpAddr]) -> BTreeMap<IpAddr, String> {
        let mut warden = lock(&self.warden);
        let mut failed = BTreeMap::new();
        let wanted: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        let mut locals = lock(&self.locals);
        let news = wanted.difference(&locals).filter(|addr| !addr.is_loopback());
        lock(&self.announcements).set(news, locals.difference(&wanted), Instant::now());
        for addr in locals.difference(&wanted) {
            if let Answer::Failed(error) = warden.handle(Request::UndoLocal(*addr)) {
                tracing::warn!("{error}");
            }
        }
        for addr in &wanted {
            if let Answer::Failed(error) = warden.handle(Request::MakeLocal(*addr)) {
                failed.insert(*addr, error.to_string());
            }
        }
        *locals = wanted;
        failed
    }

    /// Tells the neighbours about new addresses, as often as it takes. Called some times a second.
    pub fn announce(&self) {
        let due = lock(&self.announcements).due(Instant::now());
        for addr in due {
            if let Answer::Failed(error) = lock(&self.warden).handle(Request::Announce(addr))
                && lock(&self.announcements).first_failure()
            {
                tracing::warn!("{error}; neighbours learn by themselves (CAP_NET_RAW would let it be said)");
            }
        }
    }

    /// New connections to VIPs are refused from now on.
    pub fn shut_door(&self) {
        if let Some(active) = &self.active
            && let Err(error) = lock(&active.writer).shut_door()
        {
            tracing::error!("stop sk_lookup: {error}");
        }
    }

    /// Whether the kernel plane can take an endpoint: replies provably come back through us.
    pub fn reach(&self, endpoint: SocketAddr) -> Result<(), String> {
        let Some(active) = &self.active else {
            return Err("the datapath is off".into());
        };
        let mut netlink = lock(&self.netlink);
        let Some(netlink) = netlink.as_mut() else {
            return Err("netlink cannot be asked".into());
        };
        locate::reach(netlink, endpoint.ip(), &active.carrying, self.return_path_gateway)
    }

    /// Puts a worker's listening socket where `sk_lookup` finds it, in the place of a predecessor's. The socket stays the
    /// worker's. Workers are numbered from 0 without a gap; [`Kernel::open_door`] comes after them.
    pub fn register_listener(&self, worker: u16, ipv6: bool, socket: RawFd) -> Result<(), KernelError> {
        let Some(active) = self.active.as_ref().filter(|_| self.status.lookup) else {
            return Ok(());
        };
        lock(&active.writer)
            .register_listener(u32::from(worker), ipv6, socket)
            .map_err(|error| KernelError::from_io(&format!("register the socket of worker {worker}"), &error))
    }

    /// Lets `sk_lookup` hand connections to the registered workers, and to no others.
    pub fn open_door(&self) -> Result<(), KernelError> {
        let Some(active) = &self.active else { return Ok(()) };
        lock(&active.writer)
            .open_door()
            .map_err(|error| KernelError::from_io("let sk_lookup hand connections over", &error))
    }

    /// Leaves maps, pins and addresses to a successor: this process writes nothing any more. Sockets that are registered
    /// go on taking connections.
    pub fn yield_to_successor(&self) {
        if let Some(active) = &self.active {
            active.stop_sweep();
        }
        lock(&self.warden).handle(Request::Yield);
    }

    /// Undoes [`Kernel::yield_to_successor`] after a successor failed; returns what the maps hold. The sockets have to be
    /// registered again.
    pub fn take_back(&self) -> Result<KernelTables, KernelError> {
        if let Answer::Failed(error) = lock(&self.warden).handle(Request::TakeBack) {
            return Err(error);
        }
        let tables = self.read_tables();
        if let Some(active) = &self.active {
            active.start_sweep()?;
        }
        Ok(tables)
    }

    /// From now on each worker's load, by number, is copied into the kernel some dozen times a second.
    pub fn watch_load(&self, loads: Vec<Arc<AtomicU32>>) {
        if let Some(active) = &self.active {
            *lock(&active.loads) = loads;
        }
    }

    /// Verdicts by VIP id and reason; zeros are left out.
    pub fn counters(&self) -> Vec<(u32, Reason, u64)> {
        let Some(active) = &self.active else { return Vec::new() };
        let vips: BTreeSet<u32> = {
            let writer = lock(&active.writer);
            let vips = writer.tables().vips.values().map(|vip| vip.id);
            vips.filter(|id| *id < gateway_common::abi::VIPS_MAX).collect()
        };
        counters::read(&active.maps, vips.into_iter()).unwrap_or_else(|error| {
            tracing::warn!("read the counters: {error}");
            Vec::new()
        })
    }

    /// Live flows of the kernel plane.
    pub fn live_flows(&self) -> Vec<KernelFlow> {
        let Some(active) = &self.active else { return Vec::new() };
        flows::list(&active.maps).unwrap_or_else(|error| {
            tracing::warn!("read the flows: {error}");
            Vec::new()
        })
    }

    /// Live flows as connections. The maps know addresses; which endpoint has one, the caller knows.
    pub fn flows(&self, endpoint_at: impl Fn(SocketAddr) -> Option<EndpointId>) -> Vec<ConnectionView> {
        let view = |(id, flow): (u64, KernelFlow)| view(id, &flow, endpoint_at(flow.endpoint));
        (0..).zip(self.live_flows()).map(view).collect()
    }

    /// Our attached programs.
    pub fn programs(&self) -> Vec<inspect::ProgramView> {
        inspect::programs(&lock(&self.warden).program_ids())
    }

    /// Our pinned maps.
    pub fn maps(&self) -> Vec<inspect::MapView> {
        if self.active.is_some() {
            inspect::maps(&self.pin_dir)
        } else {
            Vec::new()
        }
    }

    /// Ends the sweep. Unless `keep`, detaches, unpins and undoes everything; with it, the kernel goes on forwarding.
    pub fn stop(&self, keep: bool) -> Result<(), KernelError> {
        if let Some(active) = &self.active {
            active.stop_sweep();
        }
        if keep {
            return Ok(());
        }
        match lock(&self.warden).handle(Request::RemoveAll) {
            Answer::Failed(error) => Err(error),
            Answer::Done | Answer::Attached(_) | Answer::Socket(_) | Answer::Map(_) => Ok(()),
        }
    }
}

impl Active {
    fn stop_sweep(&self) {
        let mut sweep = lock(&self.sweep);
        let Sweeping::Runs { wake, thread } = std::mem::replace(&mut *sweep, Sweeping::Over) else {
            return;
        };
        // An ended sweep takes no message, and needs none.
        let _ = wake.send(Wake::Stop);
        match thread.join() {
            Ok(rests) => *sweep = Sweeping::Rests(Box::new(rests)),
            Err(_) => tracing::error!("the sweep of the kernel flows had panicked"),
        }
    }

    fn start_sweep(&self) -> Result<(), KernelError> {
        let mut sweep = lock(&self.sweep);
        match std::mem::replace(&mut *sweep, Sweeping::Over) {
            Sweeping::Rests(rests) => *sweep = Sweeping::run(*rests)?,
            runs @ (Sweeping::Runs { .. } | Sweeping::Over) => *sweep = runs,
        }
        Ok(())
    }
}

impl Sweeping {
    fn run(sweep: Sweep) -> Result<Self, KernelError> {
        // One place: a wake-up that finds it full is not needed.
        let (wake, wakes) = sync_channel::<Wake>(1);
        let thread = thread::Builder::new().name("kernel-sweep".into()).spawn(move || {
            sweep.run(&wakes);
            sweep
        });
        let thread = thread.map_err(|error| KernelError::from_io("start the sweep", &error))?;
        Ok(Sweeping::Runs { wake, thread })
    }
}

/// Removes what an earlier process left below `pin_dir`, and its local addresses in this network namespace. Refused
/// while a process uses it. Returns what was removed.
pub fn clean(pin_dir: &Path) -> Result<Vec<String>, KernelError> {
    let mut removed = pins::survey(pin_dir);
    let kernel = if pins::versioned(pin_dir).is_dir() {
        let none = load::Programs {
            tcx: None,
            xdp: None,
            lookup: None,
        };
        Some((pins::Pins::open(pin_dir)?, none))
    } else {
        None
    };
    let mut warden = Warden::new(kernel)?;
    let locals = warden
        .adopt_locals()
        .map_err(|error| KernelError::from_io("list local addresses", &error))?;
    removed.extend(locals.iter().map(|addr| format!("local {addr}")));
    match warden.handle(Request::RemoveAll) {
        Answer::Failed(error) => Err(error),
        Answer::Done | Answer::Attached(_) | Answer::Socket(_) | Answer::Map(_) => Ok(removed),
    }
}

fn view(id: u64, flow: &KernelFlow, endpoint: Option<EndpointId>) -> ConnectionView {
    ConnectionView {
        id,
        plane: LivePlane::Kernel,
        protocol: if flow.udp { "udp" } else { "tcp" },
        side: Side::Downstream,
        peer: flow.client,
        local: flow.vip,
        listener: Some(ListenerId(flow.vip_id)),
        endpoint,
        streams: 0,
        streams_total: 0,
        bytes_in: 0,
        bytes_out: 0,
        age_ms: 0,
        server_name: None,
        identity: None,
        why: None,
    }
}

#[cfg(test)]
mod tests;
