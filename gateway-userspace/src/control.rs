//! The control loop: one thread that turns what happens into events, asks [`ControlState`] what follows, and carries
//! the effects out in order. The way of a configuration change begins and ends here.

mod cluster;
pub mod configuration;
mod succession;
pub mod told;
mod watchdog;

use crate::admin::server::Doors;
use crate::admin::state::{AdminState, Published};
use crate::handover::giver::{Ask, Giver};
use crate::kernel::Kernel;
use crate::source::file::Watch;
use crate::source::kube::Cluster;
use crate::worker::Workers;
use configuration::Configuration;
use gateway_core::control::{ControlState, Effect, Event};
use gateway_core::ir::{Bind, Ir};
use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};
use succession::Standing;
use tracing::{error, info, warn};
use watchdog::Watchdog;

/// Between two ticks.
const TICK: Duration = Duration::from_millis(100);

/// What reaches the loop from outside.
#[derive(Debug)]
pub enum Message {
    /// The files changed, or SIGHUP.
    Reload,
    /// Host names that are endpoints have other addresses.
    Names,
    /// Changes of the cluster wait to be taken.
    Cluster,
    /// SIGTERM: the first drains, the second ends.
    Drain,
    /// SIGINT: end at once.
    Stop,
    /// SIGUSR1: the access log was moved away.
    ReopenLog,
    /// SIGUSR2: start a successor.
    Upgrade,
    /// A step of a hand-over.
    HandOver(Ask),
    /// From the sweep of the kernel's flow table.
    EndpointsIdle(crate::kernel::flows::Idle),
}

/// Everything the loop works with.
pub struct Control {
    pub state: ControlState,
    pub configuration: Configuration,
    pub kernel: Arc<Kernel>,
    pub workers: Arc<Workers>,
    pub admin: Arc<AdminState>,
    /// The zero of [`Moment`].
    pub started: Instant,
    /// Binds that could not be served with own sockets, and why.
    unlistened: BTreeMap<Bind, String>,
    /// Addresses that could not be made local, and why.
    unlocal: BTreeMap<std::net::IpAddr, String>,
    snapshot: Arc<Snapshot>,
    /// What of its TLS could not be had as configured.
    tls: Vec<String>,
    /// SIGTERM or SIGINT came.
    told: bool,
    /// The process must not go on: its end is no success.
    failed: bool,
    watchdog: Watchdog,
    /// Who writes the kernel's maps.
    standing: Standing,
    /// None where there can be no hand-over: the reason.
    giver: Result<Giver, String>,
    doors: Doors,
    /// When the drain began, if it did.
    draining_since: Option<Instant>,
    /// Where the watch of the files says that they changed.
    changes: SyncSender<Message>,
    cluster: Option<Arc<Cluster>>,
    /// Problems of the configuration that the log has.
    warned: BTreeSet<String>,
    /// The watch, and the files beside the configuration that it covers.
    watch: Option<(Watch, Vec<PathBuf>)>,
}

impl Control {
    pub fn new(
        state: ControlState,
        configuration: Configuration,
        kernel: Arc<Kernel>,
        workers: Arc<Workers>,
        admin: Arc<AdminState>,
        started: Instant,
        changes: SyncSender<Message>,
    ) -> Self {
        Self {
            state,
            configuration,
            kernel,
            workers,
            admin,
            started,
            unlistened: BTreeMap::new(),
            unlocal: BTreeMap::new(),
            snapshot: Arc::default(),
            tls: Vec::new(),
            told: false,
            failed: false,
            watchdog: Watchdog::default(),
            standing: Standing::Ours,
            giver: Err("it has not begun".into()),
            doors: Doors::default(),
            draining_since: None,
            changes,
            cluster: None,
            warned: BTreeSet::new(),
            watch: None,
        }
    }

    /// Whether the loop ended because something broke.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// After so long without a turn a worker is the end of the process; zero is never.
    pub fn watch_workers(&mut self, limit: Duration) {
        self.watchdog.limit = limit;
    }

    /// Whether a successor serves: nothing that it uses may be removed.
    pub fn has_given(&self) -> bool {
        // A process that is stopped in the middle leaves everything to whoever comes.
        self.standing != Standing::Ours
    }

    fn now(&self) -> Moment {
        Moment::ZERO + self.started.elapsed()
    }

    /// Applies what the maps hold from an earlier process, then the first configuration.
    pub fn begin(&mut self) {
        if let Some(tables) = self.kernel.adopted() {
            info!(
                vips = tables.vips.len(),
                endpoints = tables.endpoints.len(),
                "adopted the maps of an earlier process"
            );
            self.handle(Event::Adopted(tables));
        }
        self.reload();
        // A change may have come between the reading and the watching.
        self.reload();
    }

    /// Watches the files, anew when the objects name others than before.
    fn watch(&mut self) {
        let named = self.configuration.named_files();
        if self.watch.as_ref().is_some_and(|(_, before)| *before == named) {
            return;
        }
        let changes = self.changes.clone();
        // A full queue has a reload in it already.
        let changed = move || drop(changes.try_send(Message::Reload));
        match self.configuration.watch(&named, changed) {
            Ok(watch) => self.watch = Some((watch, named)),
            Err(error) => warn!("files are not watched: {error:#}; SIGHUP reloads"),
        }
    }

    /// Runs until an effect says to leave or SIGINT comes.
    pub fn run(&mut self, messages: &Receiver<Message>) {
        while !self.step(messages) {}
        if self.stays() {
            info!("drained; as the first process of a container this one stays until it is told to end");
            while !matches!(messages.recv(), Ok(Message::Drain | Message::Stop) | Err(_)) {}
        }
    }

    /// One message, or a tick; true to leave.
    fn step(&mut self, messages: &Receiver<Message>) -> bool {
        self.admin.health.turned();
        match messages.recv_timeout(TICK) {
            Ok(Message::Reload) => self.reload(),
            Ok(Message::Names) => self.apply(Configuration::resolved),
            Ok(Message::Cluster) => self.take_in(),
            Ok(Message::Drain) => self.drain(),
            Ok(Message::ReopenLog) => {
                self.workers.reopen_log();
                false
            }
            Ok(Message::Upgrade) => {
                self.upgrade();
                false
            }
            Ok(Message::HandOver(ask)) => self.hand_over(ask),
            Ok(Message::EndpointsIdle(_)) if self.standing != Standing::Ours => false,
            Ok(Message::EndpointsIdle(idle)) => {
                self.handle(Event::EndpointsQuiet(idle.quiet)) || self.handle(Event::EndpointsIdle(idle.unnamed))
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                self.told = true;
                true
            }
            Err(RecvTimeoutError::Timeout) => self.tick(),
        }
    }

    fn tick(&mut self) -> bool {
        if !self.workers.is_alive() {
            error!("a worker ended after panicking again and again: leaving, so that a new process can start");
            self.failed = true;
            return true;
        }
        let hangs = self.watchdog.look(&self.workers);
        self.admin.health.late(self.watchdog.late());
        if let Some(worker) = hangs {
            error!("worker {worker} hangs: leaving, so that a new process can start");
            self.failed = true;
            return true;
        }
        if let Standing::Yielded { .. } = self.standing {
            return false;
        }
        self.kernel.announce();
        let settled = self
            .draining_since
            .is_some_and(|since| since.elapsed() >= self.linger());
        let idle = settled && self.workers.draining() && self.workers.live() == 0;
        self.handle(Event::Tick) || (idle && self.handle(Event::WorkersIdle))
    }

    /// Reads, compiles, applies. What is broken is reported and keeps its last good version.
    fn reload(&mut self) -> bool {
        self.apply(Configuration::load)
    }

    /// Applies what there is to apply, as long as the kernel's maps are ours.
    fn apply(&mut self, compile: fn(&mut Configuration) -> Option<Arc<Ir>>) -> bool {
        match &mut self.standing {
            Standing::Ours => {}
            Standing::Yielded { reload, .. } => {
                *reload = true;
                return false;
            }
            Standing::Given => return false,
        }
        let began = Instant::now();
        match compile(&mut self.configuration) {
            Some(ir) => self.configure(ir, began, None),
            None => false,
        }
    }

    /// Applies what was compiled, and says what came of it. `since`: when the cluster's oldest change in it was seen.
    fn configure(&mut self, ir: Arc<Ir>, began: Instant, since: Option<Instant>) -> bool {
        let before = self.snapshot.revision;
        let problems: BTreeSet<String> = self.configuration.problems().into_iter().collect();
        for line in problems.difference(&self.warned) {
            warn!("{line}");
        }
        self.warned = problems;
        let leave = self.handle(Event::Configured(ir));
        // Also when the compiled configuration is the same as before: its problems may not be.
        self.tell_admin();
        if self.snapshot.revision != before {
            let ms = began.elapsed().as_secs_f64() * 1e3;
            info!(revision = self.snapshot.revision.0, ms, "configuration applied");
        }
        self.watch();
        self.tell_cluster(since);
        leave
    }

    /// Carries out an event's effects, and the effects of what they bring back; true to leave.
    fn handle(&mut self, event: Event) -> bool {
        let mut effects: VecDeque<Effect> = self.state.handle(event, self.now()).into();
        while let Some(effect) = effects.pop_front() {
            let answer = match effect {
                Effect::Probe(endpoints) => Some(Event::KernelReach(self.probe(&endpoints))),
                Effect::Kernel(ops) => self.kernel.apply(ops).err().map(|failure| {
                    error!("writing the kernel's maps failed: {failure}; trying again");
                    Event::KernelIs(self.kernel.read_tables())
                }),
                Effect::Publish(snapshot) => {
                    self.snapshot = snapshot;
                    let problems = self.workers.publish(&self.snapshot);
                    let problems = self.configuration.told(&problems);
                    for problem in problems.iter().filter(|one| !self.tls.contains(one)) {
                        warn!("{problem}");
                    }
                    self.tls = problems;
                    self.tell_admin();
                    None
                }
                Effect::Listen(binds) => {
                    self.unlistened = self.workers.listen(&binds);
                    self.tell_admin();
                    None
                }
                Effect::Local(addresses) => {
                    self.unlocal = self.kernel.set_local(&addresses);
                    self.tell_admin();
                    None
                }
                Effect::DrainWorkers => {
                    self.draining_since = Some(Instant::now());
                    if self.standing == Standing::Ours {
                        // After a hand-over the gateway is as ready as before, whichever process is asked.
                        self.admin.set_ready(false);
                        self.kernel.shut_door();
                    }
                    self.workers.drain();
                    None
                }
                Effect::Exit => return true,
            };
            if let Some(event) = answer {
                effects.extend(self.state.handle(event, self.now()));
            }
        }
        false
    }

    fn probe(&self, endpoints: &[SocketAddr]) -> gateway_core::control::Reach {
        endpoints
            .iter()
            .map(|endpoint| (*endpoint, self.kernel.reach(*endpoint)))
            .collect()
    }

    /// Listeners that are not served, and why.
    fn unprogrammed(&self, ir: &Ir) -> BTreeMap<Bind, String> {
        let mut unprogrammed = self.unlistened.clone();
        for bind in self.state.left_out() {
            unprogrammed.insert(
                *bind,
                "more listeners than the kernel tables hold: remove some".to_owned(),
            );
        }
        for bind in ir.listeners.keys() {
            if let Some(why) = bind.addr.and_then(|addr| self.unlocal.get(&addr)) {
                unprogrammed.entry(*bind).or_insert_with(|| why.clone());
            }
        }
        unprogrammed
    }

    fn tell_admin(&self) {
        let ir = self.state.served().cloned().unwrap_or_default();
        let unprogrammed = self.unprogrammed(&ir);
        let told = self.admin.published();
        for (bind, why) in unprogrammed
            .iter()
            .filter(|(bind, _)| !told.unprogrammed.contains_key(bind))
        {
            warn!("listener {bind} is not served: {why}");
        }
        self.admin.publish(Published {
            snapshot: self.snapshot.clone(),
            ir,
            statuses: self.configuration.verdicts(),
            diagnostics: [self.configuration.problems(), self.tls.clone()].concat(),
            unprogrammed,
        });
    }
}
