//! One worker's HTTP engine: every connection, every stream, no I/O model.
//!
//! # A turn, as the driver calls it
//!
//! ```text
//! poll
//! for each readable socket (at most READS_PER_TURN chunks each):
//!     lead = engine.restore(conn, &mut buf)           the unparsed rest of the last chunk, copied to the front
//!     n    = read into buf[lead..]
//!     engine.received(conn, &buf[..lead + n], now)    parses in place; large payloads are referenced, not copied
//!     while let Some(c) = engine.next_borrower():     whoever references buf must be written before buf is reused
//!         engine.transmit(c, &buf, |slices| writev)   what the socket refuses is copied into the engine
//! while let Some(action) = engine.next_action():      Connect and Close
//! while let Some(c) = engine.next_dirty():            one write per connection per turn
//!     engine.transmit(c, &[], |slices| writev)
//! again from next_resumed until engine.is_settled()    a connection that closes here frees what others waited for
//! engine.take_outcomes(|outcome| ...)                 finished requests: access log
//! engine.poll_timeout() -> when to call engine.handle_timeout(now)
//! ```
//!
//! A socket that reports RDHUP, HUP or ERR is read until it gives 0 (`engine.ended`) or an error (`engine.lost`): a
//! FIN that arrives with data must not be lost to "short read = drained".
//!
//! # Laws
//! * A connection is taken out of its slot while its bytes are parsed; no two are out when one can be killed.
//! * Credit goes back to a sender only when its bytes entered a bounded out buffer: memory is at most the sum of the
//!   advertised windows plus `limits.out_bytes_max` per connection.
//! * A request sees one snapshot: the one that was current when its head was complete.
//! * No allocation per request once warm (asserted by a test with a counting allocator).

mod auth;
mod block;
mod claims;
mod connection;
mod connections;
mod control;
mod credit;
mod drain;
mod edit;
mod ending;
mod fail;
mod finish;
mod forward;
mod guard;
mod http1;
mod http2;
mod idmap;
mod keepalive;
mod leg;
mod life;
mod mirror;
mod out;
mod pace;
pub mod path;
mod pool;
mod pressure;
mod pump;
mod read;
mod reply;
mod request;
mod request_id;
mod response;
mod retry;
mod revisions;
mod stream;
mod timer;
mod tracing;
mod transform;
mod tunnel;
mod upstream;
mod view;

use self::connection::{Closing, Codec, Connection, Role};
use self::connections::{Connections, Turn, at};
use self::finish::Finished;
use self::out::Written;
use self::pool::{Lists, Pool};
pub use self::pressure::Pressure;
use self::pressure::{Admission, admission};
use self::revisions::Revisions;
use self::stream::{DOWN, Streams, UP};
use self::timer::{Timed, TimerId, Wheel};
use self::upstream::EndpointPool;
use crate::head::FieldList;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::trace::Sampling;
use gateway_core::balance::Balancers;
use gateway_core::fault::{Fault, Refusal};
use gateway_core::ids::{EndpointId, ListenerId};
use gateway_core::ir::UpstreamProtocol;
use gateway_core::model::{ConnectionView, StreamView};
use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A connection's slot in the engine and in the driver's socket table. Reused only after `Action::Close` was carried
/// out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u32);

impl ConnId {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A downstream connection the driver accepted; after the TLS handshake if there is one.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub listener: ListenerId,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// `None` for plain TCP.
    pub tls: Option<TlsFacts>,
    pub protocol: DownstreamProtocol,
}

/// What the TLS handshake settled.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// Server name, lower case.
    pub server_name: Option<String>,
    /// Of a verified client certificate.
    pub client: Option<ClientFacts>,
}

/// Who a client is by its certificate.
#[derive(Clone, Debug, Default)]
pub struct ClientFacts {
    /// For people: its first URI or DNS name, else its subject.
    pub identity: String,
    /// Value of `x-forwarded-client-cert`; `None`: endpoints are told nothing. What clients say there is always
    /// removed.
    pub forwarded: Option<String>,
}

/// What is spoken downstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DownstreamProtocol {
    /// ALPN `h2`.
    Http2,
    /// ALPN `http/1.1`.
    Http1,
    /// Plain TCP, or TLS without ALPN: HTTP/2 if the client begins with its preface (RFC 9113 3.3), else HTTP/1.1.
    Detect,
}

/// What the engine asks its driver to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Open a socket for this new upstream connection; then call `connected` or `connect_failed`. Its frames are
    /// already being queued. The engine times the connect itself.
    Connect {
        conn: ConnId,
        endpoint: EndpointId,
        addr: SocketAddr,
        protocol: UpstreamProtocol,
    },
    /// Nothing follows what was written: shut the socket's sending side (FIN; with TLS its close_notify). The peer
    /// may go on sending.
    Finish { conn: ConnId },
    /// Close the socket. After this the slot may be given again at once.
    /// `reset`: abort (RST) instead of closing in order.
    Close { conn: ConnId, reset: bool },
}

/// What `transmit` came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transmitted {
    /// Everything is out.
    Drained,
    /// The socket is full: call `writable` when it is not.
    Blocked,
    /// The socket takes nothing more. What the peer said before may still be there to be read: read it to its end,
    /// then call `ended` or `lost`. `Action::Close` follows.
    Lost,
}

/// How a worker's engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub limits: Limits,
    /// Which worker this is: makes connection ids and request ids unique in the process.
    pub worker: u16,
    /// Seed of request ids; from the rim, because the engine has no randomness.
    pub request_id_seed: u64,
}

/// One worker's connections and streams.
pub struct Engine {
    config: EngineConfig,
    limits: Limits,
    /// The moment of the call under way.
    now: Moment,
    revisions: Revisions,
    balancers: Balancers,
    connections: Connections,
    streams: Streams,
    /// Connections to endpoints, by `EndpointId`.
    pools: Vec<EndpointPool>,
    turn: Turn,
    timers: Wheel,
    finished: Vec<Finished>,
    /// Whether anyone asks for outcomes.
    keeps_outcomes: bool,
    /// Requests are traced, and so many of the traces that begin here are recorded.
    sampling: Option<Sampling>,
    metrics: Metrics,
    draining_since: Option<Moment>,
    /// Streams that are mirrors.
    mirrors_live: usize,
    questions_live: usize,
    /// Largest gRPC message from clients and from endpoints, bytes.
    messages_max: [u32; 2],
    admission: Admission,
    /// Bytes that wait for slow readers though their connections got their credit, and how many may.
    held: u64,
    held_max: u64,
    /// By how much windows have grown, and how much they may.
    grown: u64,
    grown_max: u64,
    /// Bytes that `restore` gave back and `received` will see again.
    restored: usize,
    serial: u64,
    request_counter: u64,
    /// The last authority and its host in normal form: mostly the next request has the same.
    authority: Vec<u8>,
    host: String,
    /// The same as it is logged and sent on.
    canonical: String,
    // Spare memory and scratch buffers; nothing in them lives across calls.
    pool: Pool,
    lists: Lists,
    edited: FieldList,
    text: Vec<u8>,
    texts: [String; 5],
    limit_text: String,
    indices: Vec<u32>,
    scratch: Vec<u8>,
}

impl Engine {
    pub fn new(config: EngineConfig, snapshot: Arc<Snapshot>, now: Moment) -> Self {
        let messages_max = transform::messages_max(config.limits.body_bytes_max, config.limits.grpc_message_bytes_max);
        Self {
            admission: admission(&config.limits, Pressure::None),
            held: 0,
            held_max: config.limits.held_bytes_max,
            grown: 0,
            grown_max: config.limits.window_growth_max,
            limits: config.limits.clone(),
            config,
            now,
            revisions: Revisions::new(snapshot),
            balancers: Balancers::default(),
            connections: Connections::default(),
            streams: Streams::default(),
            pools: Vec::new(),
            turn: Turn::default(),
            timers: Wheel::new(now),
            finished: Vec::new(),
            keeps_outcomes: true,
            sampling: None,
            metrics: Metrics::default(),
            draining_since: None,
            mirrors_live: 0,
            questions_live: 0,
            messages_max,
            restored: 0,
            serial: 0,
            request_counter: 0,
            authority: Vec::new(),
            host: String::new(),
            canonical: String::new(),
            pool: Pool::default(),
            lists: Lists::default(),
            edited: FieldList::new(),
            text: Vec::new(),
            texts: Default::default(),
            limit_text: String::new(),
            indices: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// New requests see this snapshot; streams under way keep theirs. Connections to endpoints that left are closed
    /// when their last stream ends.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>, now: Moment) {
        self.now = now;
        let gone: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|c| {
                c.endpoint().is_some_and(|id| {
                    let moved = snapshot.endpoint(id).is_none_or(|endpoint| endpoint.addr != c.peer);
                    moved || snapshot.endpoint_tls(id) != self.revisions.current().endpoint_tls(id)
                })
            })
            .map(|c| c.id)
            .collect();
        self.revisions.publish(snapshot);
        for id in gone {
            self.with(id, |engine, c| engine.retire(c));
        }
    }

    /// Sets the clock on the wall: from 1970 to the start of the process. Only the times of sessions depend on it.
    pub fn set_epoch(&mut self, epoch: Duration) {
        self.balancers.set_epoch(epoch);
    }

    /// A downstream connection is there.
    pub fn accept(&mut self, accepted: Accepted, now: Moment) -> Result<ConnId, Refusal> {
        self.now = now;
        if self.is_shut() {
            return Err(Refusal::Draining);
        }
        if self.downstream_len() >= self.limits.connections_max || self.admission.pressure == Pressure::Refuse {
            return Err(Refusal::TooMany);
        }
        let listener = accepted.listener;
        let protocol = accepted.protocol;
        let id = self.connections.reserve();
        let serial = self.next_serial();
        let mut c = Box::new(Connection::downstream(id, serial, accepted, &self.limits, now));
        match protocol {
            DownstreamProtocol::Http2 => self.start_http2(&mut c),
            DownstreamProtocol::Http1 | DownstreamProtocol::Detect => {}
        }
        self.arm_timer(&mut c);
        self.drain_late(&mut c);
        self.metrics.downstream_opened(listener);
        self.connections.put(c);
        Ok(id)
    }

    /// Copies the unparsed rest of the last chunk to the front of `buf` and forgets it; returns its length
    /// (less than `RESTORE_MAX`). Always followed by `received` with at least these bytes.
    pub fn restore(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        let Some(c) = self.connections.get_mut(conn) else {
            return 0;
        };
        let len = c.leftover.len();
        buf[..len].copy_from_slice(&c.leftover);
        self.pool.put(&mut c.leftover);
        self.restored = len;
        len
    }

    /// Bytes came (TLS removed).
    pub fn received(&mut self, conn: ConnId, chunk: &[u8], now: Moment) {
        self.now = now;
        debug_assert!(
            self.turn.borrowers.is_empty(),
            "borrowers are written before the next chunk is parsed"
        );
        let new = chunk.len() - std::mem::take(&mut self.restored);
        self.metrics.bytes_received += new as u64;
        self.with(conn, |engine, c| {
            c.bytes_in += new as u64;
            c.active = now;
            if c.asleep {
                c.asleep = false;
                engine.arm_timer(c);
            }
            if let Role::Upstream { answered, .. } = &mut c.role {
                *answered = true;
            }
            engine.feed(c, chunk);
        });
    }

    /// Whether the engine wants more bytes from this connection; when not (HTTP/1.1 backpressure), the driver stops
    /// reading and resumes when `next_resumed` names it.
    pub fn wants_read(&self, conn: ConnId) -> bool {
        self.connections.get(conn).is_some_and(Connection::wants_read)
    }

    /// A connection that is to be read again though its socket may report no new edge.
    pub fn next_resumed(&mut self) -> Option<ConnId> {
        while let Some(id) = self.turn.stalled.pop() {
            self.read_stalled(id);
        }
        self.turn.resumed.pop()
    }

    /// The peer finished sending (FIN, or TLS close_notify).
    pub fn ended(&mut self, conn: ConnId, now: Moment) {
        self.now = now;
        self.restored = 0;
        self.with(conn, Engine::on_end);
    }

    /// The socket is broken.
    pub fn lost(&mut self, conn: ConnId, now: Moment) {
        self.now = now;
        self.restored = 0;
        self.with(conn, |engine, c| engine.kill(c, true));
    }

    /// An upstream socket is connected.
    pub fn connected(&mut self, conn: ConnId, now: Moment) {
        self.now = now;
        self.with(conn, |engine, c| {
            if let Role::Upstream { connecting, .. } = &mut c.role {
                *connecting = false;
            }
            c.active = now;
            engine.arm_timer(c);
            engine.turn.mark(c);
            let id = c.id;
            engine.open_waiting(c, id);
            engine.open_http1(c);
        });
    }

    /// An upstream socket is connected and now agrees on TLS; what goes wrong before `connected` is `TlsFailed`.
    pub fn securing(&mut self, conn: ConnId) {
        if let Some(c) = self.connections.get_mut(conn)
            && let Role::Upstream { unconnected, .. } = &mut c.role
        {
            *unconnected = Fault::TlsFailed;
        }
    }

    /// The address of an upstream socket on this side, for views; any time after `connected`.
    pub fn name_local(&mut self, conn: ConnId, local: SocketAddr) {
        if let Some(c) = self.connections.get_mut(conn) {
            c.local = local;
        }
    }

    /// An upstream socket could not be connected.
    pub fn connect_failed(&mut self, conn: ConnId, now: Moment) {
        self.now = now;
        self.with(conn, |engine, c| engine.kill(c, true));
    }

    /// A socket that was full takes bytes again.
    pub fn writable(&mut self, conn: ConnId, now: Moment) {
        self.now = now;
        if let Some(c) = self.connections.get_mut(conn)
            && c.blocked
        {
            c.blocked = false;
            self.turn.mark(c);
        }
    }

    /// Next thing to do with sockets.
    pub fn next_action(&mut self) -> Option<Action> {
        let action = self.turn.actions.pop_front()?;
        match action {
            Action::Close { conn, .. } => self.connections.free(conn),
            Action::Connect { .. } | Action::Finish { .. } => {}
        }
        Some(action)
    }

    /// Next connection whose output references the current chunk.
    pub fn next_borrower(&mut self) -> Option<ConnId> {
        while let Some(id) = self.turn.borrowers.pop() {
            if self.connections.get(id).is_some_and(|c| c.out.borrows()) {
                return Some(id);
            }
        }
        None
    }

    /// Next connection with something to write at the end of the turn.
    pub fn next_dirty(&mut self) -> Option<ConnId> {
        while let Some(id) = self.turn.dirty.pop() {
            let Some(c) = self.connections.get_mut(id) else {
                continue;
            };
            if !std::mem::take(&mut c.dirty) {
                continue;
            }
            match c.closing {
                Closing::Now => self.with(id, |engine, c| engine.kill(c, true)),
                Closing::AfterFlush if c.out.is_empty() || c.is_connecting() => {
                    self.with(id, |engine, c| engine.kill(c, false));
                }
                Closing::No if c.overflows(&self.limits) => {
                    // What comes of it is looked at again below.
                    self.with(id, Engine::on_overflow);
                    if self
                        .connections
                        .get(id)
                        .is_some_and(|c| !c.out.is_empty() && !c.blocked)
                    {
                        return Some(id);
                    }
                }
                Closing::No | Closing::AfterFlush => {
                    let something = !c.out.is_empty() || c.has_waiting();
                    if something && !c.blocked && !c.is_connecting() {
                        return Some(id);
                    }
                }
            }
        }
        None
    }

    /// Whether the turn is over: nothing is left to be resumed, done or written. What `next_dirty` closed leaves actions
    /// behind though it named no connection.
    pub fn is_settled(&self) -> bool {
        let turn = &self.turn;
        turn.actions.is_empty() && turn.resumed.is_empty() && turn.stalled.is_empty() && turn.dirty.is_empty()
    }

    /// Hands the connection's output to `write`, in as few calls as it takes. `chunk` is what the last `received` got
    /// (empty outside of the borrower loop).
    pub fn transmit(
        &mut self,
        conn: ConnId,
        chunk: &[u8],
        now: Moment,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Transmitted {
        self.now = now;
        let Some(mut c) = self.connections.take(conn) else {
            return Transmitted::Lost;
        };
        let before = c.bytes_out;
        let transmitted = self.transmit_all(&mut c, chunk, &mut write);
        self.metrics.bytes_sent += c.bytes_out - before;
        if !c.dead {
            self.connections.put(c);
        }
        transmitted
    }

    fn transmit_all(
        &mut self,
        c: &mut Connection,
        chunk: &[u8],
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Transmitted {
        if c.is_connecting() {
            return Transmitted::Blocked;
        }
        loop {
            let before = c.bytes_out;
            match c.out.write(chunk, &mut self.pool, &mut c.bytes_out, write) {
                Written::Everything => {
                    c.blocked = false;
                    c.stalled_since = None;
                    if let Codec::Http2(http2) = &mut c.codec {
                        http2.queue.drained();
                    }
                    if !c.owes_slots.is_empty() {
                        self.free_slots(c);
                    }
                }
                Written::Blocked => {
                    c.blocked = true;
                    self.note_stall(c, before);
                    return Transmitted::Blocked;
                }
                Written::Lost => {
                    self.break_off(c);
                    return Transmitted::Lost;
                }
            }
            if c.closing != Closing::No {
                self.kill(c, c.closing == Closing::Now);
                return Transmitted::Drained;
            }
            self.pump_ring(c);
            if c.out.is_empty() {
                if std::mem::take(&mut c.finishing) {
                    self.turn.actions.push_back(Action::Finish { conn: c.id });
                }
                return Transmitted::Drained;
            }
        }
    }

    /// The socket is full: its peer has `limits.stall_timeout` to take anything at all.
    fn note_stall(&mut self, c: &mut Connection, before: u64) {
        let new = c.stalled_since.is_none();
        if new || c.bytes_out > before {
            c.stalled_since = Some(self.now);
        }
        if new {
            self.arm_timer(c);
        }
    }

    /// Whether finished requests are kept for `take_outcomes` (they are unless said otherwise). Without an access log
    /// nobody reads them, and making them is a tenth of a request's work.
    pub fn keep_outcomes(&mut self, keep: bool) {
        self.keeps_outcomes = keep;
    }

    /// Gives every request finished since the last call to `sink`; the borrowed texts live only for the call.
    pub fn take_outcomes(&mut self, sink: impl FnMut(&Outcome<'_>)) {
        self.drain_outcomes(sink);
    }

    /// When `handle_timeout` is next due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// Deadlines, connect timeouts, idle connections, steps of the farewell.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.now = now;
        while let Some(timed) = self.timers.expire(now) {
            match timed {
                Timed::Stream(index) => {
                    self.streams[index].timer = TimerId::NONE;
                    if let Some(conn) = self.streams[index].legs[DOWN].conn {
                        self.with(conn, |engine, c| engine.on_stream_timer(c, index));
                    } else if let Some(conn) = self.streams[index].legs[UP].conn {
                        self.with(conn, |engine, c| engine.fail_aside(c, index, Fault::DeadlineExceeded));
                    }
                }
                Timed::Connection(index) => self.with(ConnId(index), Engine::on_connection_timer),
            }
        }
    }

    /// Stop taking new work: two-step GOAWAY, `connection: close`. Connections close as their last stream ends; call
    /// it once, and go on with the turns until `live` says zero.
    pub fn drain(&mut self, now: Moment) {
        self.now = now;
        self.drain_all();
    }

    /// Downstream connections and streams that are live.
    pub fn live(&self) -> (usize, usize) {
        (
            self.downstream_len(),
            self.streams.live() - self.mirrors_live - self.questions_live,
        )
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Every live connection, for the admin.
    pub fn connections(&self, now: Moment) -> Vec<ConnectionView> {
        self.connection_views(now)
    }

    /// Every live stream, for the admin.
    pub fn streams(&self, now: Moment) -> Vec<StreamView> {
        self.stream_views(now)
    }

    fn downstream_len(&self) -> usize {
        self.metrics.downstream_connections_active as usize
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

/// Upper bound of what `restore` gives back: an unfinished HTTP/2 frame or HTTP/1.1 head.
/// A larger `head_bytes_max` is this for HTTP/1.1.
pub const RESTORE_MAX: usize = 256 * 1024;
