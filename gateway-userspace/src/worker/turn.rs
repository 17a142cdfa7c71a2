//! The loop of a worker: poll, read, decide, write once, again.
//!
//! A worker shares nothing that is written to but its load figure, and takes no lock in a turn. (Two libraries have one
//! inside: a TLS handshake looks at the ticket keys, and a command queue may wake its sender.)
//!
//! # When a turn panics
//! All connections of a worker live in one engine, so a panic while one of them is driven leaves the others' state in
//! doubt. The worker then throws away its connections, keeps its listening sockets, counts, and goes on: a bug costs
//! the connections of one worker, not the process. More than [`PANICS_PER_MINUTE_MAX`] in a minute end the worker,
//! because a gateway that only crashes must be seen to.

use super::Seed;
use super::accept::{self, Acceptors, BACKLOG};
use super::command::{self, COMMANDS_PER_TURN, Command};
use super::context::{Context, PAST_THE_KERNEL};
use super::datagrams::DatagramPlane;
use super::http::HttpPlane;
use super::slab::Key;
use super::splice::SplicePlane;
use super::timers::Timers;
use super::token::Source;
use crate::sys::clock::Clock;
use crate::telemetry::access_log::AccessLogger;
use crate::telemetry::report::{Refusals, Report, TurnMetrics};
use crate::telemetry::spans::SpanRecorder;
use gateway_core::fault::Refusal;
use gateway_core::snapshot::Serve;
use gateway_http::engine::EngineConfig;
use mio::net::TcpStream;
use mio::{Events, Poll};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Events taken from the kernel at once.
pub const EVENTS_MAX: usize = 1024;
/// Looks for more events before the writes, if the turn began with several: answers to what was just read may be there
/// already, and then one write serves both.
pub const REPOLLS_MAX: usize = 2;
/// Timers looked at in one turn.
pub const TIMERS_PER_TURN: usize = 1024;
/// Goes at the queue of a listening socket that is to be closed.
pub const LAST_ACCEPTS_MAX: usize = BACKLOG as usize / accept::ACCEPTS_PER_TURN;
/// A worker that panics more often than this ends.
pub const PANICS_PER_MINUTE_MAX: u32 = 30;

/// One worker, on its own thread.
pub struct Worker {
    number: u16,
    clock: Clock,
    poll: Poll,
    commands: Receiver<Command>,
    load: Arc<AtomicU32>,
    /// Counts turns, for the watchdog.
    pulse: Arc<AtomicU32>,
    /// The revision of the snapshot, for whoever waits for it.
    taken: Arc<AtomicU64>,
    context: Context,
    acceptors: Acceptors,
    http: HttpPlane,
    splice: SplicePlane,
    datagrams: DatagramPlane,
    log: AccessLogger,
    spans: SpanRecorder,
    /// Listening sockets whose queue may hold more.
    accepting: Vec<Key>,
    /// Something is left to do without an event.
    unsettled: bool,
    stopped: bool,
    metrics: TurnMetrics,
}

impl Worker {
    /// Everything is opened by the one who starts the thread, so that errors are told there.
    pub fn new(seed: Seed) -> io::Result<Self> {
        let Seed {
            number,
            poll,
            commands,
            load,
            pulse,
            taken,
            lookup,
            clock,
            request_id_seed,
            options,
            tls,
            log,
            spans,
        } = seed;
        let context = Context {
            now: clock.now(),
            snapshot: Arc::default(),
            tls,
            registry: poll.registry().try_clone()?,
            timers: Timers::default(),
            refusals: Refusals::default(),
            options,
            request_id_seed,
            draining: false,
        };
        let mut acceptors = Acceptors::default();
        let mut accepting = Vec::new();
        for socket in lookup {
            accepting.push(acceptors.add(&context.registry, None, socket)?);
        }
        let mut http = HttpPlane::new(engine_config(number, &context), &context);
        http.engine.trace(spans.sampling());
        http.engine
            .keep_outcomes(log.wants_requests() || spans.sampling().is_some());
        let splice = SplicePlane::new(number, context.options.relay.pipes_max);
        Ok(Self {
            number,
            clock,
            poll,
            commands,
            load,
            pulse,
            taken,
            context,
            acceptors,
            http,
            splice,
            datagrams: DatagramPlane::new(number),
            log,
            spans,
            accepting,
            unsettled: false,
            stopped: false,
            metrics: TurnMetrics::default(),
        })
    }

    /// Turns until told to stop.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let (mut minute, mut panics) = (self.context.now, 0);
        while !self.stopped {
            let turned = catch_unwind(AssertUnwindSafe(|| self.turn(&mut events)));
            if turned.is_ok() {
                continue;
            }
            if self.context.now.since(minute) > Duration::from_secs(60) {
                (minute, panics) = (self.context.now, 0);
            }
            panics += 1;
            if panics > PANICS_PER_MINUTE_MAX {
                tracing::error!(worker = self.number, "the worker panics without end and stops");
                return;
            }
            self.start_over();
        }
        self.log.flush();
        self.spans.flush();
        self.load.store(0, Ordering::Relaxed);
    }

    /// Forgets every connection after a panic; its sockets close with it.
    fn start_over(&mut self) {
        tracing::error!(
            worker = self.number,
            "a turn panicked: this worker's connections are lost, it goes on"
        );
        self.metrics.panics_total += 1;
        self.context.timers.clear();
        self.http = HttpPlane::new(engine_config(self.number, &self.context), &self.context);
        self.http.engine.trace(self.spans.sampling());
        self.http
            .engine
            .keep_outcomes(self.log.wants_requests() || self.spans.sampling().is_some());
        self.splice = SplicePlane::new(self.number, self.context.options.relay.pipes_max);
        self.datagrams.start_over(self.number);
        // Edges may have been eaten by the turn that failed.
        self.context.timers.wake(self.context.now, Source::Mailbox);
        self.accepting = self.acceptors.keys(true);
        self.accepting.extend(self.acceptors.keys(false));
        if self.context.draining {
            self.http.engine.drain(self.context.now);
        }
    }

    fn turn(&mut self, events: &mut Events) {
        let timeout = self.patience();
        let got = self.poll(events, timeout);
        self.context.now = self.clock.now();
        self.http.read_again(&mut self.context);
        self.splice.pump_again(&mut self.context);
        self.datagrams.read_again(&mut self.context);
        self.dispatch(events);
        if got > 1 {
            for _ in 0..REPOLLS_MAX {
                if self.poll(events, Some(Duration::ZERO)) == 0 {
                    break;
                }
                self.dispatch(events);
            }
        }
        self.accept();
        self.time();
        while let Some(strayed) = self.http.next_strayed() {
            if let Err(refusal) = self.splice.adopt(strayed, &mut self.context) {
                self.context.refusals.count(refusal);
            }
        }
        self.unsettled = self.http.settle(&mut self.context);
        self.tell();
        self.pulse
            .store(self.pulse.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// How long the poll may wait.
    fn patience(&self) -> Option<Duration> {
        if self.unsettled
            || self.http.is_eager()
            || self.splice.is_eager()
            || self.datagrams.is_eager()
            || !self.accepting.is_empty()
        {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.http.engine.poll_timeout(),
            self.context.timers.next(),
            self.log.flush_at(),
            self.spans.flush_at(),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.since(self.clock.now()))
    }

    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> usize {
        self.metrics.polls_total += 1;
        match self.poll.poll(events, timeout) {
            Ok(()) => events.iter().count(),
            Err(error) => {
                debug_assert_eq!(
                    error.kind(),
                    ErrorKind::Interrupted,
                    "epoll_wait fails for no other reason"
                );
                events.clear();
                0
            }
        }
    }

    fn dispatch(&mut self, events: &Events) {
        for event in events {
            match Source::of(event.token()) {
                Some(Source::Http(key)) => self.http.event(key, event, &mut self.context),
                Some(Source::RelayDown(key)) => self.splice.event(key, false, event, &mut self.context),
                Some(Source::RelayUp(key)) => self.splice.event(key, true, event, &mut self.context),
                Some(Source::DatagramDown(key)) => self.datagrams.read_clients(key, &mut self.context),
                Some(Source::DatagramUp(key)) => self.datagrams.read_endpoint(key, &mut self.context),
                Some(Source::Listener(key)) => self.note(key),
                Some(Source::Mailbox) => self.obey(),
                None => {}
            }
        }
    }

    /// A listening socket has connections.
    fn note(&mut self, key: Key) {
        if !self.accepting.contains(&key) {
            self.accepting.push(key);
        }
    }

    /// Takes connections from every listening socket that has some.
    fn accept(&mut self) {
        for key in std::mem::take(&mut self.accepting) {
            match self.accept_from(key) {
                accept::Turn::Empty => {}
                accept::Turn::More => self.accepting.push(key),
                accept::Turn::Pause => {
                    self.context
                        .timers
                        .wake(accept::rested(self.context.now), Source::Listener(key));
                }
            }
        }
    }

    fn accept_from(&mut self, key: Key) -> accept::Turn {
        for _ in 0..accept::ACCEPTS_PER_TURN {
            match self.acceptors.next(key) {
                Ok(Some((stream, peer))) => {
                    self.learn(&stream);
                    let served = accept::identify(stream, peer, &self.context.snapshot)
                        .and_then(|incoming| self.serve(incoming));
                    if let Err(refusal) = served {
                        self.context.refusals.count(refusal);
                    }
                }
                Ok(None) => self.context.refusals.count(Refusal::TooMany),
                Err(turn) => return turn,
            }
        }
        accept::Turn::More
    }

    /// A connection can be quicker than the command that names its listener. Nobody could connect before the command
    /// was in the queue, so there it is.
    fn learn(&mut self, stream: &TcpStream) {
        let known = |local| self.context.snapshot.listener_at(accept::unmapped(local)).is_some();
        if !stream.local_addr().is_ok_and(known) {
            self.obey();
        }
    }

    /// Gives a connection to the plane of its listener. Dropped, it is closed.
    fn serve(&mut self, incoming: accept::Incoming) -> Result<(), Refusal> {
        if self.http.engine.pressure() == gateway_http::engine::Pressure::Refuse {
            return Err(Refusal::TooMany);
        }
        let snapshot = Arc::clone(&self.context.snapshot);
        let plan = snapshot.listener(incoming.listener).ok_or(Refusal::NoListener)?;
        if !plan.exposure.admits(incoming.peer.ip()) {
            return Err(Refusal::NotAllowed);
        }
        match &plan.serve {
            Serve::Http(http) if http.tls => self.http.accept_tls(incoming, &mut self.context),
            Serve::Http(_) => self.http.accept_plain(incoming, &mut self.context),
            Serve::Splice(plan) => self.splice.accept(incoming, plan, None, &mut self.context),
            Serve::KernelRelay(plan) => self
                .splice
                .accept(incoming, plan, Some(PAST_THE_KERNEL), &mut self.context),
        }
    }

    /// Whatever time brought.
    fn time(&mut self) {
        let now = self.context.now;
        if self.http.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.http.engine.handle_timeout(now);
        }
        for _ in 0..TIMERS_PER_TURN {
            let Some(source) = self.context.timers.due(now) else {
                return;
            };
            match source {
                Source::Http(key) => self.http.timeout(key, &mut self.context),
                Source::RelayDown(key) | Source::RelayUp(key) => self.splice.timeout(key, &mut self.context),
                Source::DatagramUp(key) => self.datagrams.timeout(key, &mut self.context),
                Source::DatagramDown(_) => {}
                Source::Listener(key) => self.note(key),
                Source::Mailbox => self.obey(),
            }
        }
    }

    /// Access log and load.
    fn tell(&mut self) {
        let Self {
            http,
            splice,
            datagrams,
            log,
            spans,
            context,
            ..
        } = self;
        http.engine.take_outcomes(|outcome| {
            log.log(outcome, &context.snapshot);
            spans.record(outcome, &context.snapshot);
        });
        for outcome in splice.take_ended().chain(datagrams.take_ended()) {
            log.log_relay(&outcome, &context.snapshot);
        }
        log.end_turn(context.now);
        spans.end_turn(context.now);
        let (connections, streams) = http.engine.live();
        let load = connections + streams + http.handshakes() + self.splice.len() + self.datagrams.len();
        let load = u32::try_from(load).unwrap_or(u32::MAX);
        if self.load.load(Ordering::Relaxed) != load {
            self.load.store(load, Ordering::Relaxed);
        }
    }

    fn obey(&mut self) {
        for _ in 0..COMMANDS_PER_TURN {
            let Some(command) = command::next(&self.commands) else {
                return;
            };
            match command {
                Command::Lend { reply } => {
                    // The asker may have given up waiting.
                    let _ = reply.send(self.acceptors.lend());
                }
                Command::GiveAway => self.give_away(),
                Command::Publish { snapshot, tls } => {
                    self.context.snapshot = Arc::clone(&snapshot);
                    self.context.tls = tls;
                    let revision = snapshot.revision.0;
                    self.http.engine.publish(snapshot, self.context.now);
                    self.taken.store(revision, Ordering::Release);
                }
                Command::Listen {
                    added,
                    datagrams,
                    removed,
                } => self.listen(added, datagrams, removed),
                Command::Inspect { views, reply } => {
                    // The asker may have given up waiting.
                    let _ = reply.send(self.report(views));
                }
                Command::Drain => self.drain(),
                Command::Pressure(pressure) => self.http.engine.set_pressure(pressure, self.context.now),
                Command::CloseLookup => {
                    for key in self.acceptors.keys(true) {
                        self.acceptors.close(&self.context.registry, key);
                    }
                }
                #[cfg(test)]
                Command::Panic => panic!("as a bug would"),
                #[cfg(test)]
                Command::Hang(time) => std::thread::sleep(time),
                Command::Stop => {
                    self.stopped = true;
                    return;
                }
            }
        }
        // More commands than a turn's share: the waker's edge is spent, so this worker reminds itself.
        self.context.timers.wake(self.context.now, Source::Mailbox);
    }

    fn listen(
        &mut self,
        added: Vec<(gateway_core::ir::Bind, std::net::TcpListener)>,
        datagrams: Vec<(gateway_core::ir::Bind, std::net::UdpSocket)>,
        removed: Vec<gateway_core::ir::Bind>,
    ) {
        for bind in &removed {
            self.close_listeners(self.acceptors.of_bind(bind));
            self.datagrams.remove(bind, &mut self.context);
        }
        for (bind, socket) in datagrams {
            if let Err(error) = self.datagrams.add(&self.context.registry, bind, socket) {
                tracing::error!(worker = self.number, %bind, %error, "cannot poll a UDP socket");
            }
        }
        for (bind, socket) in added {
            match self.acceptors.add(&self.context.registry, Some(bind), socket) {
                Ok(key) => self.accepting.push(key),
                Err(error) => tracing::error!(worker = self.number, %bind, %error, "cannot poll a listening socket"),
            }
        }
    }

    /// Serves what waits in their queues first: the kernel would reset it.
    fn close_listeners(&mut self, keys: Vec<Key>) {
        for key in keys {
            for _ in 0..LAST_ACCEPTS_MAX {
                if self.accept_from(key) != accept::Turn::More {
                    break;
                }
            }
            self.acceptors.close(&self.context.registry, key);
        }
    }

    /// Another process serves what waits in their queues.
    fn give_away(&mut self) {
        for key in self.acceptors.keys(false) {
            self.acceptors.close(&self.context.registry, key);
        }
        self.datagrams.give_away(&mut self.context);
    }

    fn drain(&mut self) {
        self.close_listeners(self.acceptors.keys(false));
        self.context.draining = true;
        self.datagrams.drain(&mut self.context);
        self.http.engine.drain(self.context.now);
    }

    fn report(&self, views: bool) -> Report {
        let now = self.context.now;
        let (connections, streams) = self.http.engine.live();
        let mut report = Report {
            worker: self.number,
            http: self.http.engine.measure(),
            relays: self.splice.metrics.clone(),
            tls: self.http.tls,
            turns: self.metrics,
            refusals: self.context.refusals,
            connections_active: (connections + self.http.handshakes() + self.splice.len() + self.datagrams.len())
                as u64,
            streams_active: streams as u64,
            draining: self.context.draining,
            pressure: self.http.engine.pressure(),
            memory_used_bytes: 0,
            memory_limit_bytes: 0,
            connections: Vec::new(),
            streams: Vec::new(),
        };
        report.tls.add(&self.splice.tls);
        report.tls.handshakes_active = (self.http.handshakes() + self.splice.handshakes()) as u64;
        report.relays.add(&self.datagrams.metrics);
        report.turns.reads_total = self.http.reads_total;
        report.turns.writes_total = self.http.writes_total;
        report.turns.accept_failures_total = self.acceptors.failures_total;
        report.turns.log_lines_dropped_total = self.log.dropped_total();
        let turns = &mut report.turns;
        (turns.spans_total, turns.spans_lost_total, turns.spans_exported_total) = self.spans.totals();
        if views {
            report.connections = self.http.engine.connections(now);
            report.connections.extend(self.splice.views(now));
            report.connections.extend(self.datagrams.views(now));
            report.streams = self.http.engine.streams(now);
        }
        report
    }
}

fn engine_config(number: u16, context: &Context) -> EngineConfig {
    EngineConfig {
        limits: context.options.limits.clone(),
        worker: number,
        request_id_seed: context.request_id_seed,
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::access_log::{AccessLogOptions, Format};
    use crate::worker::{Command, WorkerOptions, Workers};
    use gateway_core::fault::Refusal;
    use std::io::Read;
    use std::net::TcpStream;
    use std::time::Duration;

    fn start() -> Workers {
        let access_log = AccessLogOptions {
            format: Format::Off,
            ..AccessLogOptions::default()
        };
        Workers::start(WorkerOptions {
            access_log,
            ..WorkerOptions::default()
        })
        .unwrap()
    }

    /// Connects to a lookup socket directly: it is no listener's address, so the worker closes it and counts.
    fn poke(workers: &Workers) {
        let mut stream = TcpStream::connect(workers.lookup_sockets()[0].addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(matches!(stream.read(&mut [0]), Ok(0)));
    }

    #[test]
    fn a_worker_goes_on_after_a_panic_and_counts_it() {
        let workers = start();
        poke(&workers);
        workers.tell(|| Command::Panic);
        // A connection accepted in the turn that panics is the one it costs; this one comes after.
        let _ = workers.inspect(false, Duration::from_secs(10));
        poke(&workers);
        let report = workers.inspect(true, Duration::from_secs(10)).remove(0);
        assert_eq!(
            (report.turns.panics_total, report.refusals.of(Refusal::NoListener)),
            (1, 2)
        );
    }

    #[test]
    fn a_worker_that_panics_without_end_stops_and_says_so() {
        let workers = start();
        assert!(workers.is_alive());
        for _ in 0..=super::PANICS_PER_MINUTE_MAX {
            workers.tell(|| Command::Panic);
        }
        for _ in 0..1000 {
            if !workers.is_alive() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it goes on");
    }
}
