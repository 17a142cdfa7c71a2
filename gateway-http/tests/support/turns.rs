//! An engine driven turn by turn, as a worker drives it; its peers are byte buffers. No clock but the one that is told.
//!
//! Shared with the fuzz targets (`tests/fuzz`). Law: a byte that was sent reaches the engine once and in order, however
//! long the engine does not want to read.

use gateway_core::ids::ListenerId;
use gateway_core::ir::UpstreamProtocol;
use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use gateway_http::engine::{Accepted, Action, ConnId, DownstreamProtocol, Engine, EngineConfig, RESTORE_MAX};
use gateway_http::limits::Limits;
use gateway_http::outcome::Outcome;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Bytes given to the engine at once.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Rounds after which a turn that still finds work is taken for one that never ends.
const ROUNDS_MAX: usize = 10_000;

/// The far end of one of the engine's sockets.
pub struct Wire {
    pub conn: ConnId,
    /// What is spoken to the endpoint; `None`: a client.
    pub upstream: Option<UpstreamProtocol>,
    /// What the engine wrote; the test takes it away.
    pub written: Vec<u8>,
    /// Bytes the socket still takes before it is full.
    pub room: usize,
    /// The engine closed it.
    pub closed: bool,
    /// Sent, and not wanted by the engine yet.
    unread: Vec<u8>,
    /// The far end will send no more.
    ended: bool,
}

/// The engine and its far ends.
pub struct Turns {
    pub engine: Engine,
    pub now: Moment,
    /// By connection id; closed ones stay until the slot is given again.
    pub wires: BTreeMap<u32, Wire>,
    /// Upstream connections in order of their opening.
    pub opened: Vec<ConnId>,
    pub outcomes: u64,
    /// Status of each finished request.
    pub statuses: Vec<u16>,
    chunk: Vec<u8>,
}

impl Turns {
    pub fn new(snapshot: Arc<Snapshot>, limits: Limits) -> Self {
        let now = Moment::from_millis(1);
        let setup = EngineConfig {
            limits,
            worker: 0,
            request_id_seed: 1,
        };
        Self {
            engine: Engine::new(setup, snapshot, now),
            now,
            wires: BTreeMap::new(),
            opened: Vec::new(),
            outcomes: 0,
            statuses: Vec::new(),
            chunk: vec![0; RESTORE_MAX + CHUNK_BYTES_MAX],
        }
    }

    /// A client connects.
    pub fn accept(&mut self, protocol: DownstreamProtocol) -> ConnId {
        let accepted = Accepted {
            listener: ListenerId(0),
            peer: SocketAddr::from(([198, 18, 1, 2], 40_000)),
            local: SocketAddr::from(([198, 18, 0, 10], 8080)),
            tls: None,
            protocol,
        };
        let conn = self.engine.accept(accepted, self.now).expect("a listener takes it");
        self.wire(conn, None);
        conn
    }

    fn wire(&mut self, conn: ConnId, upstream: Option<UpstreamProtocol>) {
        let wire = Wire {
            conn,
            upstream,
            written: Vec::new(),
            room: usize::MAX,
            closed: false,
            unread: Vec::new(),
            ended: false,
        };
        self.wires.insert(conn.0, wire);
    }

    /// The far end of `conn` sends; then the turn is finished.
    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(wire) = self.open(conn) {
            wire.unread.extend_from_slice(bytes);
        }
        self.settle();
    }

    /// The far end sends no more.
    pub fn end(&mut self, conn: ConnId) {
        if let Some(wire) = self.open(conn) {
            wire.ended = true;
        }
        self.settle();
    }

    /// The socket breaks.
    pub fn lose(&mut self, conn: ConnId) {
        if self.open(conn).is_some() {
            self.engine.lost(conn, self.now);
        }
        self.settle();
    }

    /// The socket takes `room` more bytes.
    pub fn make_room(&mut self, conn: ConnId, room: usize) {
        if let Some(wire) = self.open(conn) {
            wire.room = room;
        }
        self.settle();
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.engine.handle_timeout(self.now);
        self.settle();
    }

    /// What the engine wrote on `conn` since the last call.
    pub fn take(&mut self, conn: ConnId) -> Vec<u8> {
        let wire = self.wires.get_mut(&conn.0);
        wire.map(|wire| std::mem::take(&mut wire.written)).unwrap_or_default()
    }

    pub fn is_closed(&self, conn: ConnId) -> bool {
        self.wires.get(&conn.0).is_none_or(|wire| wire.closed)
    }

    fn open(&mut self, conn: ConnId) -> Option<&mut Wire> {
        self.wires.get_mut(&conn.0).filter(|wire| !wire.closed)
    }

    /// Everything that can be done without another byte, tick or connection.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "the engine never comes to rest");
            let mut busy = false;
            let ids: Vec<u32> = self.wires.keys().copied().collect();
            for id in ids {
                busy |= self.read(ConnId(id));
                if self.wires.get(&id).is_some_and(|wire| wire.room > 0) {
                    self.engine.writable(ConnId(id), self.now);
                }
            }
            while self.engine.next_resumed().is_some() {
                busy = true;
            }
            busy |= self.act();
            while let Some(conn) = self.engine.next_dirty() {
                busy |= self.transmit(conn, &[]);
            }
            busy |= self.act();
            if !busy {
                break;
            }
        }
        let (outcomes, statuses) = (&mut self.outcomes, &mut self.statuses);
        self.engine.take_outcomes(|outcome: &Outcome<'_>| {
            *outcomes += 1;
            statuses.push(outcome.status);
        });
    }

    /// One chunk, or the end.
    fn read(&mut self, conn: ConnId) -> bool {
        let wants = self.engine.wants_read(conn);
        let now = self.now;
        let Some(wire) = self.open(conn).filter(|_| wants) else {
            return false;
        };
        if wire.unread.is_empty() {
            if std::mem::take(&mut wire.ended) {
                self.engine.ended(conn, now);
                return true;
            }
            return false;
        }
        let rest = wire.unread.split_off(wire.unread.len().min(CHUNK_BYTES_MAX));
        let bytes = std::mem::replace(&mut wire.unread, rest);
        let mut buffer = std::mem::take(&mut self.chunk);
        let lead = self.engine.restore(conn, &mut buffer);
        let chunk = &mut buffer[..lead + bytes.len()];
        chunk[lead..].copy_from_slice(&bytes);
        self.engine.received(conn, chunk, now);
        while let Some(borrower) = self.engine.next_borrower() {
            self.transmit(borrower, chunk);
        }
        self.chunk = buffer;
        true
    }

    /// Whether anything was taken.
    fn transmit(&mut self, conn: ConnId, chunk: &[u8]) -> bool {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&conn.0).filter(|wire| !wire.closed) else {
            return false;
        };
        let before = wire.written.len();
        self.engine.transmit(conn, chunk, now, |slices| {
            let mut taken = 0;
            for slice in slices {
                let len = slice.len().min(wire.room);
                wire.written.extend_from_slice(&slice[..len]);
                wire.room -= len;
                taken += len;
            }
            let any = taken > 0 || slices.iter().all(|slice| slice.is_empty());
            any.then_some(taken).ok_or(io::ErrorKind::WouldBlock.into())
        });
        self.wires[&conn.0].written.len() > before
    }

    fn act(&mut self) -> bool {
        let mut busy = false;
        while let Some(action) = self.engine.next_action() {
            busy = true;
            match action {
                Action::Connect { conn, protocol, .. } => {
                    self.wire(conn, Some(protocol));
                    self.opened.push(conn);
                    self.engine.connected(conn, self.now);
                }
                // The far end sees the end of what is written; it may go on sending.
                Action::Finish { .. } => {}
                Action::Close { conn, .. } => {
                    if let Some(wire) = self.wires.get_mut(&conn.0) {
                        wire.closed = true;
                        wire.unread.clear();
                    }
                }
            }
        }
        busy
    }

    /// Everybody leaves: nothing may stay.
    pub fn finish(&mut self) {
        let ids: Vec<u32> = self.wires.keys().copied().collect();
        for id in ids {
            self.lose(ConnId(id));
        }
        for _ in 0..10 {
            self.pass(Duration::from_secs(400));
        }
        assert_eq!(self.engine.live(), (0, 0), "connections or streams are left");
        let metrics = self.engine.metrics();
        assert_eq!(metrics.requests_active, 0);
        assert_eq!(metrics.upstream_connections_active, 0);
        assert_eq!(metrics.requests_total, self.outcomes, "every request has one outcome");
        assert!(metrics.endpoints.iter().all(|endpoint| endpoint.requests_active == 0));
    }
}
