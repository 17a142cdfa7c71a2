//! The workers: one thread each, one poll loop each, nothing shared but an immutable snapshot.
//!
//! [`Workers`] is the rest of the process's handle on them. Everything it does is a command in a bounded queue; nothing
//! here waits for a worker except [`Workers::inspect`], which gives up after a while.

pub mod accept;
pub mod command;
mod context;
mod datagrams;
mod http;
pub mod memory;
pub mod slab;
mod socket;
mod splice;
pub mod timers;
pub mod tls;
pub mod token;
mod turn;

pub use crate::sys::clock::Clock;
pub use crate::telemetry::report::Report;
pub use accept::LookupSocket;
pub use command::Command;
pub use tls::TlsProblem;

use crate::settings::tls::TlsSettings;
use crate::telemetry::access_log::{AccessLogOptions, AccessLogWriter, AccessLogger};
use crate::telemetry::spans::{SpanOptions, SpanRecorder, SpanWriter};
use accept::open_lookup;
use command::{COMMANDS_MAX, Mailbox};
use gateway_core::ir::{Bind, Transport};
use gateway_core::snapshot::Snapshot;
use gateway_http::limits::Limits;
use memory::MemoryGauge;
use mio::Poll;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tls::{TlsCompiler, TlsPlans};
use token::Source;

/// How workers run. Bounds are for one worker.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// 1..=`WORKERS_MAX` of the kernel's tables.
    pub workers: u16,
    pub limits: Limits,
    pub access_log: AccessLogOptions,
    pub spans: SpanOptions,
    /// The zero of every `Moment` in the process.
    pub started: Instant,
    /// TLS handshakes under way.
    pub handshakes_max: usize,
    /// From accept to the end of the handshake.
    pub handshake_timeout: Duration,
    pub relay: RelayOptions,
    pub tls: TlsSettings,
}

/// Bounds of the splice plane.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Relays of one worker.
    pub relays_max: usize,
    /// From accept to a whole ClientHello.
    pub hello_timeout: Duration,
    /// To one endpoint; then another is tried.
    pub connect_timeout: Duration,
    /// Endpoints tried for one connection.
    pub attempts_max: u8,
    /// Without a byte in either direction.
    pub idle_timeout: Duration,
    /// Pipes in use at once; bulk flows beyond it are copied. 0 never splices.
    pub pipes_max: usize,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            limits: Limits::default(),
            access_log: AccessLogOptions::default(),
            spans: SpanOptions::default(),
            started: Instant::now(),
            handshakes_max: 4096,
            handshake_timeout: Duration::from_secs(10),
            relay: RelayOptions::default(),
            tls: TlsSettings::default(),
        }
    }
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            relays_max: 100_000,
            hello_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            attempts_max: 3,
            idle_timeout: Duration::from_secs(3600),
            pipes_max: 256,
        }
    }
}

/// What a worker is made from.
pub struct Seed {
    number: u16,
    poll: Poll,
    commands: Receiver<Command>,
    load: Arc<AtomicU32>,
    pulse: Arc<AtomicU32>,
    taken: Arc<AtomicU64>,
    lookup: Vec<std::net::TcpListener>,
    clock: Clock,
    request_id_seed: u64,
    options: Arc<WorkerOptions>,
    tls: Arc<TlsPlans>,
    log: AccessLogger,
    spans: SpanRecorder,
}

/// All workers of the process.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Handle>,
    lookup: Vec<LookupSocket>,
    options: Arc<WorkerOptions>,
    draining: AtomicBool,
    late: AtomicU64,
    memory: Arc<MemoryGauge>,
    control: Mutex<Control>,
}

#[derive(Debug)]
struct Handle {
    mailbox: Mailbox,
    load: Arc<AtomicU32>,
    pulse: Arc<AtomicU32>,
    taken: Arc<AtomicU64>,
}

/// What only the publisher touches.
#[derive(Debug)]
struct Control {
    tls: TlsCompiler,
    listening: BTreeSet<Bind>,
    /// Sockets of a predecessor, until the first [`Workers::listen`].
    inherited: BTreeMap<Bind, Vec<std::net::TcpListener>>,
    threads: Vec<JoinHandle<()>>,
    /// Dropped after the threads have ended: then it waits until the last line is written.
    log: AccessLogWriter,
    /// Likewise.
    _spans: SpanWriter,
}

impl Workers {
    /// Starts the threads, with an empty revision.
    pub fn start(options: WorkerOptions) -> io::Result<Self> {
        let clock = Clock::since(options.started);
        let request_id_seed = RandomState::new().hash_one(options.started);
        let log = AccessLogWriter::start(options.access_log.clone())?;
        let tls = TlsCompiler::new(options.tls.clone());
        let spans = SpanWriter::start(options.spans.clone())?;
        let options = Arc::new(options);
        let (mut workers, mut lookup, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..options.workers.max(1) {
            let (queue, commands) = mpsc::sync_channel(COMMANDS_MAX);
            let poll = Poll::new()?;
            let waker = mio::Waker::new(poll.registry(), Source::Mailbox.token())?;
            let sockets = open_lookup()?;
            for socket in &sockets {
                lookup.push(LookupSocket::of(number, socket)?);
            }
            let load = Arc::new(AtomicU32::new(0));
            let pulse = Arc::new(AtomicU32::new(0));
            let taken = Arc::new(AtomicU64::new(0));
            let worker = turn::Worker::new(Seed {
                number,
                poll,
                commands,
                load: Arc::clone(&load),
                pulse: Arc::clone(&pulse),
                taken: Arc::clone(&taken),
                lookup: sockets,
                clock,
                request_id_seed,
                options: Arc::clone(&options),
                tls: Arc::default(),
                log: log.logger(clock),
                spans: spans.recorder(clock, number == 0),
            })?;
            threads.push(
                thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(move || worker.run())?,
            );
            workers.push(Handle {
                mailbox: Mailbox::new(queue, waker),
                load,
                pulse,
                taken,
            });
        }
        let mailboxes = workers.iter().map(|worker: &Handle| worker.mailbox.clone()).collect();
        let memory = memory::watch(options.limits.memory_bytes_max, mailboxes)?;
        let control = Control {
            tls,
            listening: BTreeSet::new(),
            inherited: BTreeMap::new(),
            threads,
            log,
            _spans: spans,
        };
        Ok(Self {
            workers,
            lookup,
            options,
            draining: AtomicBool::new(false),
            late: AtomicU64::new(0),
            memory,
            control: Mutex::new(control),
        })
    }

    pub fn count(&self) -> usize {
        self.workers.len()
    }

    pub fn tls_settings(&self) -> &TlsSettings {
        &self.options.tls
    }

    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// One IPv4 and one IPv6 listening socket for each worker, for the kernel's table. They live until
    /// [`Workers::close_lookup`] or the end.
    pub fn lookup_sockets(&self) -> &[LookupSocket] {
        &self.lookup
    }

    /// Each worker's load: its live connections and streams, as of its last turn.
    pub fn loads(&self) -> Vec<Arc<AtomicU32>> {
        self.workers.iter().map(|worker| Arc::clone(&worker.load)).collect()
    }

    /// Gives every worker a new revision. What could not be had of its TLS is returned; the rest is served.
    pub fn publish(&self, snapshot: &Arc<Snapshot>) -> Vec<TlsProblem> {
        let tls = Arc::new(self.control().tls.compile(snapshot));
        let problems = tls.problems.clone();
        self.tell(|| Command::Publish {
            snapshot: Arc::clone(snapshot),
            tls: Arc::clone(&tls),
        });
        problems
    }

    /// Listens with own sockets on exactly these binds. Those that cannot be opened are returned with their error and
    /// are tried again by the next call; the others are served.
    pub fn listen(&self, binds: &[Bind]) -> BTreeMap<Bind, String> {
        let control = &mut *self.control();
        let wanted: BTreeSet<Bind> = binds.iter().copied().collect();
        let removed: Vec<Bind> = control.listening.difference(&wanted).copied().collect();
        let mut failed = BTreeMap::new();
        let mut added: Vec<Vec<(Bind, std::net::TcpListener)>> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut datagrams: Vec<Vec<(Bind, std::net::UdpSocket)>> = self.workers.iter().map(|_| Vec::new()).collect();
        for bind in wanted.difference(&control.listening.clone()) {
            if bind.transport == Transport::Udp {
                let opened: io::Result<Vec<_>> = self.workers.iter().map(|_| datagrams::open(bind)).collect();
                match opened {
                    Ok(sockets) => {
                        control.listening.insert(*bind);
                        for (mine, sockets) in datagrams.iter_mut().zip(sockets) {
                            mine.extend(sockets.into_iter().map(|socket| (*bind, socket)));
                        }
                    }
                    Err(error) => _ = failed.insert(*bind, accept::remedy(bind, &error)),
                }
                continue;
            }
            let inherited = control.inherited.remove(bind).unwrap_or_default();
            match accept::share_out(bind, inherited, self.workers.len()) {
                Ok(sockets) => {
                    control.listening.insert(*bind);
                    for (mine, sockets) in added.iter_mut().zip(sockets) {
                        mine.extend(sockets.into_iter().map(|socket| (*bind, socket)));
                    }
                }
                Err(error) => _ = failed.insert(*bind, accept::remedy(bind, &error)),
            }
        }
        control.listening.retain(|bind| wanted.contains(bind));
        let (mut added, mut datagrams) = (added.into_iter(), datagrams.into_iter());
        self.tell(|| Command::Listen {
            added: added.next().unwrap_or_default(),
            datagrams: datagrams.next().unwrap_or_default(),
            removed: removed.clone(),
        });
        failed
    }

    /// Listens with these sockets where they fit, instead of opening some.
    pub fn inherit(&self, sockets: BTreeMap<Bind, Vec<std::net::TcpListener>>) {
        self.control().inherited = sockets;
    }

    /// Closes inherited sockets that no listener wanted.
    pub fn drop_inherited(&self) {
        self.control().inherited.clear();
    }

    /// Duplicates of every worker's own listening sockets, for a successor; an error when a worker does not answer within
    /// `patience`.
    pub fn lend(&self, patience: Duration) -> Result<Vec<(Bind, std::net::TcpListener)>, String> {
        let (reply, answers) = mpsc::channel();
        self.tell(|| Command::Lend { reply: reply.clone() });
        drop(reply);
        let until = Instant::now() + patience;
        let mut lent = Vec::new();
        for _ in &self.workers {
            let left = until.saturating_duration_since(Instant::now());
            let sockets = answers.recv_timeout(left);
            lent.extend(sockets.map_err(|_| "a worker does not answer".to_owned())?);
        }
        Ok(lent)
    }

    /// Stops listening with own sockets: a successor does, with the same sockets.
    pub fn give_away(&self) {
        self.control().listening.clear();
        self.tell(|| Command::GiveAway);
    }

    /// Each worker's count of turns, as of its last one.
    pub fn pulses(&self) -> Vec<u32> {
        let pulses = self.workers.iter().map(|worker| worker.pulse.load(Ordering::Relaxed));
        pulses.collect()
    }

    /// The newest revision that every worker serves by.
    pub fn taken(&self) -> u64 {
        let taken = self.workers.iter().map(|worker| worker.taken.load(Ordering::Acquire));
        taken.min().unwrap_or(0)
    }

    /// Makes a worker turn, if it can.
    pub fn poke(&self, worker: usize) {
        if let Some(worker) = self.workers.get(worker) {
            // One that has ended is found by `is_alive`.
            let _ = worker.mailbox.wake();
        }
    }

    /// A worker went without a turn for longer than it should.
    pub fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub fn late_total(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Makes a worker hang, as a bug would.
    #[cfg(test)]
    pub fn hang(&self, worker: usize, time: Duration) {
        let _ = self.workers[worker].mailbox.send(Command::Hang(time));
    }

    /// Every worker's report; fewer if one does not answer within `patience`. Waits: not for an async task.
    pub fn inspect(&self, views: bool, patience: Duration) -> Vec<Report> {
        let (reply, reports) = mpsc::channel();
        self.tell(|| Command::Inspect {
            views,
            reply: reply.clone(),
        });
        drop(reply);
        let until = Instant::now() + patience;
        let mut all = Vec::new();
        while let Ok(report) = reports.recv_timeout(until.saturating_duration_since(Instant::now())) {
            all.push(report);
        }
        all.sort_by_key(|report| report.worker);
        if let Some(first) = all.first_mut() {
            first.turns.late_total = self.late_total();
        }
        let seen = self.memory.last();
        for report in &mut all {
            report.memory_used_bytes = seen.used;
            report.memory_limit_bytes = seen.limit;
        }
        all
    }

    /// Closes own listening sockets, refuses what still comes, finishes what is open.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.control().listening.clear();
        self.tell(|| Command::Drain);
    }

    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Live connections and streams, as of each worker's last turn.
    pub fn live(&self) -> u64 {
        self.workers
            .iter()
            .map(|worker| u64::from(worker.load.load(Ordering::Relaxed)))
            .sum()
    }

    /// Closes the lookup sockets.
    pub fn close_lookup(&self) {
        self.tell(|| Command::CloseLookup);
    }

    /// Whether every worker still turns. One that does not has panicked without end.
    pub fn is_alive(&self) -> bool {
        self.control().threads.iter().all(|thread| !thread.is_finished())
    }

    /// Opens the access log's file anew, after it was moved away.
    pub fn reopen_log(&self) {
        self.control().log.reopen();
    }

    /// Ends the threads; what is open is closed, and the access log is written to its end.
    pub fn stop(&self) {
        self.memory.stop();
        self.tell(|| Command::Stop);
        for thread in std::mem::take(&mut self.control().threads) {
            // A thread that panicked said so in the log.
            let _ = thread.join();
        }
    }

    fn tell(&self, mut command: impl FnMut() -> Command) {
        for worker in &self.workers {
            // A worker that has ended said so in the log, and `is_alive` tells.
            let _ = worker.mailbox.send(command());
        }
    }

    fn control(&self) -> std::sync::MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}
