//! The control state: a pure function from events to effects. The rim runs the effects in order.
//!
//! A configuration is *settled* in two steps, because whether the kernel plane can carry a listener depends on the
//! host's routes: [`Event::Configured`] asks for them ([`Effect::Probe`]), [`Event::KernelReach`] answers, and then
//! everything follows at once. A kernel listener that packets cannot serve is spliced, with the reason in its `why`.
//!
//! Laws: a configuration equal to the last one has no effect. What the workers must know comes before the packets
//! that need it: snapshot, then maps, then local addresses, then sockets (which bind to those). All map writes of one
//! revision are one [`Effect::Kernel`].

mod planes;

use crate::ids::ListenerId;
use crate::ir::{Bind, Ir, Revision, Transport};
use crate::lower::kernel::{self, KernelIndexes};
use crate::lower::{Ids, KernelTables, snapshot};
use crate::reconcile::{self, MapOp};
use crate::snapshot::Snapshot;
use crate::time::Moment;
use gateway_common::abi::EndpointState;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// After a failed write to the maps, the next try.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether replies of an endpoint provably come back through us, or why not.
pub type Reach = BTreeMap<SocketAddr, Result<(), String>>;

/// What can happen.
#[derive(Debug)]
pub enum Event {
    /// A configuration was compiled.
    Configured(Arc<Ir>),
    /// The maps of an earlier process were adopted and hold this. Comes before the first configuration.
    Adopted(KernelTables),
    /// The answer to [`Effect::Probe`]: which endpoints the kernel plane can take (return path, interface) and why
    /// not the others. May also come unasked, when routes changed.
    KernelReach(Reach),
    /// A write to the maps failed; they were read again and hold this. It is tried again after [`RETRY_AFTER`].
    KernelIs(KernelTables),
    /// No live kernel flow names these endpoint indexes any more, and they have been draining for a whole sweep.
    EndpointsIdle(Vec<u16>),
    /// At most closing flows name these draining endpoint indexes: the end of the process would cut nothing of theirs.
    EndpointsQuiet(Vec<u16>),
    /// Time passed: some times a second.
    Tick,
    /// SIGTERM. The second one ends at once.
    Drain,
    /// A successor serves: finish what is open, write nothing any more.
    HandedOver,
    /// A worker has no live stream or connection left: all of them.
    WorkersIdle,
}

/// What to do about it, in order.
#[derive(Debug)]
pub enum Effect {
    /// Find out whether the kernel plane can take these endpoints; answer with [`Event::KernelReach`].
    Probe(Vec<SocketAddr>),
    /// Write the kernel's maps.
    Kernel(Vec<MapOp>),
    /// Give the workers a new revision.
    Publish(Arc<Snapshot>),
    /// Serve exactly these binds with own sockets. With `sk_lookup` that is only listeners on every address.
    Listen(Vec<Bind>),
    /// Make exactly these addresses local.
    Local(Vec<IpAddr>),
    /// Tell the workers to drain.
    DrainWorkers,
    /// Leave.
    Exit,
}

/// What the rim can do on this host, and how long a drain may last.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// Whether a program forwards packets (`xdp`, `tcx`), or why not.
    pub ingress: Result<(), String>,
    /// Whether `sk_lookup` hands connections to the workers, or they need own sockets.
    pub lookup: bool,
    /// From SIGTERM to the end, at most.
    pub drain_time: Duration,
    /// Whether the kernel keeps forwarding after the process ended: then a drain leaves its flows alone.
    pub keep_kernel: bool,
}

impl Default for ControlOptions {
    fn default() -> Self {
        Self {
            ingress: Err("the datapath is off".into()),
            lookup: false,
            drain_time: Duration::from_secs(30),
            keep_kernel: false,
        }
    }
}

/// Everything control remembers.
#[derive(Debug, Default)]
pub struct ControlState {
    options: ControlOptions,
    phase: Phase,
    revision: Revision,
    /// As compiled.
    configured: Option<Arc<Ir>>,
    /// As served: planes moved where packets cannot.
    served: Option<Arc<Ir>>,
    /// Of `served`.
    snapshot: Arc<Snapshot>,
    /// `configured` waits for its [`Event::KernelReach`].
    probing: bool,
    reach: Reach,
    ids: Ids,
    indexes: KernelIndexes,
    /// What the maps hold once every [`Effect::Kernel`] so far is done.
    tables: KernelTables,
    retry_at: Option<Moment>,
    listening: Option<BTreeSet<Bind>>,
    local: BTreeSet<IpAddr>,
    left_out: Vec<Bind>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Serving,
    Draining {
        until: Moment,
        workers_idle: bool,
    },
    Over,
}

impl ControlState {
    pub fn new(options: ControlOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// What follows from an event. `now` decides the end of a drain.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        if self.phase == Phase::Over {
            return Vec::new();
        }
        match event {
            Event::Configured(ir) => self.configure(ir),
            Event::Adopted(tables) => self.adopt(tables),
            Event::KernelReach(reach) => self.reached(reach),
            Event::KernelIs(tables) => {
                self.tables = tables;
                self.retry_at = Some(now + RETRY_AFTER);
                Vec::new()
            }
            Event::EndpointsIdle(indexes) => self.idle(&indexes),
            Event::EndpointsQuiet(indexes) => self.quiet(&indexes),
            Event::Tick => self.tick(now),
            Event::Drain => self.drain(now),
            Event::HandedOver => self.handed_over(now),
            Event::WorkersIdle => {
                if let Phase::Draining { workers_idle, .. } = &mut self.phase {
                    *workers_idle = true;
                }
                self.end_of_drain()
            }
        }
    }

    /// The configuration as it is served, each listener on the plane that carries it, with the reason.
    pub fn served(&self) -> Option<&Arc<Ir>> {
        self.served.as_ref()
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// The addresses that should be local.
    pub fn local(&self) -> Vec<IpAddr> {
        self.local.iter().copied().collect()
    }

    /// What the maps should hold.
    pub fn tables(&self) -> &KernelTables {
        &self.tables
    }

    /// Listeners for which there was no id left.
    pub fn left_out(&self) -> &[Bind] {
        &self.left_out
    }

    fn configure(&mut self, ir: Arc<Ir>) -> Vec<Effect> {
        if self.configured.as_ref() == Some(&ir) || self.phase != Phase::Serving {
            return Vec::new();
        }
        let endpoints = planes::endpoints_to_probe(&ir, &self.options);
        self.configured = Some(ir);
        self.probing = !endpoints.is_empty();
        if self.probing {
            return vec![Effect::Probe(endpoints.into_iter().collect())];
        }
        self.settle()
    }

    fn reached(&mut self, reach: Reach) -> Vec<Effect> {
        let news = reach.iter().any(|(addr, answer)| self.reach.get(addr) != Some(answer));
        self.reach.extend(reach);
        if std::mem::take(&mut self.probing) || news {
            return self.settle();
        }
        Vec::new()
    }

    /// Goes on with the ids and indexes in the maps, so that nothing in them has to move.
    fn adopt(&mut self, tables: KernelTables) -> Vec<Effect> {
        for (key, vip) in &tables.vips {
            if let Some(bind) = kernel::bind_of(key) {
                self.ids.adopt_listener(bind, ListenerId(vip.id));
            }
        }
        for (index, entry) in &tables.endpoints {
            self.indexes.adopt(*index, entry.addr);
        }
        self.tables = tables;
        Vec::new()
    }

    /// Makes the configuration that is there the one that is served.
    fn settle(&mut self) -> Vec<Effect> {
        let (Some(configured), Phase::Serving) = (&self.configured, self.phase) else {
            return Vec::new();
        };
        let listeners = || configured.listeners.values();
        let endpoints: BTreeSet<_> = listeners()
            .flat_map(|l| kernel::kernel_endpoints(configured, l))
            .collect();
        self.reach.retain(|addr, _| endpoints.contains(addr));
        let served = planes::serve(configured, &self.options, &self.reach, &self.indexes);
        let mut effects = Vec::new();
        if self.served.as_deref() != Some(&served) {
            self.revision = Revision(self.revision.0 + 1);
            self.left_out = self.ids.assign(&served);
            let snapshot = snapshot::lower_from(&served, self.revision, &self.ids, &self.snapshot);
            self.snapshot = Arc::new(snapshot);
            effects.push(Effect::Publish(Arc::clone(&self.snapshot)));
            self.served = Some(Arc::new(served));
        }
        effects.extend(self.write_tables());
        effects.extend(self.addresses_and_sockets());
        effects
    }

    /// The writes from what the maps hold to what they should.
    fn write_tables(&mut self) -> Option<Effect> {
        let served = self.served.clone()?;
        let mut desired = if self.options.lookup || self.options.ingress.is_ok() {
            kernel::lower(&served, &self.ids, &mut self.indexes)
        } else {
            KernelTables::default()
        };
        if self.phase != Phase::Serving && !self.options.keep_kernel {
            refuse_new_flows(&mut desired);
        }
        let ops = reconcile::plan(&self.tables, &desired);
        self.tables = desired;
        (!ops.is_empty()).then_some(Effect::Kernel(ops))
    }

    fn addresses_and_sockets(&mut self) -> Vec<Effect> {
        let Some(served) = &self.served else { return Vec::new() };
        let mut effects = Vec::new();
        let here = served
            .listeners
            .values()
            .filter(|listener| !listener.exposure.elsewhere);
        let local: BTreeSet<IpAddr> = here.filter_map(|listener| listener.bind.addr).collect();
        if self.local != local {
            effects.push(Effect::Local(local.iter().copied().collect()));
            self.local = local;
        }
        let needs_socket = |bind: &&Bind| match bind.transport {
            Transport::Tcp => bind.addr.is_none() || !self.options.lookup,
            // Only a socket that is bound to a VIP and its port can answer from there.
            Transport::Udp => true,
        };
        // Where another listener has the address, a connection that comes for this one is refused rather than lost.
        let reached = |bind: &&Bind| bind.addr.is_none_or(|addr| self.local.contains(&addr));
        let binds = served.listeners.keys().filter(needs_socket).filter(reached);
        let binds: BTreeSet<Bind> = binds.copied().collect();
        if self.listening.as_ref() != Some(&binds) {
            effects.push(Effect::Listen(binds.iter().copied().collect()));
            self.listening = Some(binds);
        }
        effects
    }

    fn idle(&mut self, indexes: &[u16]) -> Vec<Effect> {
        let mut released = false;
        for index in indexes {
            released |= self.indexes.release(*index);
        }
        if let Phase::Draining { .. } = self.phase {
            return self.quiet(indexes);
        }
        if released {
            return self.write_tables().into_iter().collect();
        }
        Vec::new()
    }

    fn quiet(&mut self, indexes: &[u16]) -> Vec<Effect> {
        let Phase::Draining { .. } = self.phase else {
            return Vec::new();
        };
        for index in indexes {
            self.tables.endpoints.remove(index);
        }
        self.end_of_drain()
    }

    fn tick(&mut self, now: Moment) -> Vec<Effect> {
        if let Phase::Draining { until, .. } = self.phase
            && now >= until
        {
            self.phase = Phase::Over;
            return vec![Effect::Exit];
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            return self.write_tables().into_iter().collect();
        }
        Vec::new()
    }

    fn drain(&mut self, now: Moment) -> Vec<Effect> {
        if self.phase != Phase::Serving {
            self.phase = Phase::Over;
            return vec![Effect::Exit];
        }
        self.phase = Phase::Draining {
            until: now + self.options.drain_time,
            workers_idle: false,
        };
        let mut effects = vec![Effect::DrainWorkers];
        effects.extend(self.write_tables());
        effects
    }

    /// The maps are the successor's: neither their flows nor writes that failed are this process's concern any more.
    fn handed_over(&mut self, now: Moment) -> Vec<Effect> {
        self.retry_at = None;
        self.options.keep_kernel = true;
        if self.phase != Phase::Serving {
            return Vec::new();
        }
        self.phase = Phase::Draining {
            until: now + self.options.drain_time,
            workers_idle: false,
        };
        vec![Effect::DrainWorkers]
    }

    /// A drain ends when no worker has anything left, and no kernel flow would be cut.
    fn end_of_drain(&mut self) -> Vec<Effect> {
        let Phase::Draining { workers_idle: true, .. } = self.phase else {
            return Vec::new();
        };
        if !self.options.keep_kernel && !self.tables.endpoints.is_empty() {
            return Vec::new();
        }
        self.phase = Phase::Over;
        vec![Effect::Exit]
    }
}

/// Rings without endpoints, and endpoints that keep what they have: live flows go on, a new one is refused.
fn refuse_new_flows(tables: &mut KernelTables) {
    for ring in tables.rings.values_mut() {
        ring.turns.clear();
    }
    for entry in tables.endpoints.values_mut() {
        if entry.state == EndpointState::Serving {
            entry.state = EndpointState::Draining;
        }
    }
}

#[cfg(test)]
mod tests;
