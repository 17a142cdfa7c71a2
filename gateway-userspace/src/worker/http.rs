//! The HTTP plane of a worker: sockets on one side, the engine on the other, in the order of calls that the engine's
//! head prescribes.

pub mod close;
pub mod open;
pub mod read;

use super::context::Context;
use super::slab::{Key, Slab};
use super::socket::Socket;
use super::splice::Strayed;
use crate::telemetry::report::TlsMetrics;
use gateway_core::time::Moment;
use gateway_http::engine::{Action, ConnId, Engine, EngineConfig, RESTORE_MAX, Transmitted};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes read from a socket at once.
pub const READ_BYTES: usize = 128 * 1024;
/// Full reads of one socket in one turn; then others come first.
pub const READS_PER_TURN: usize = 4;
/// Rounds of actions and writes in one turn; what is left waits one poll with zero timeout.
pub const ROUNDS_PER_TURN: usize = 16;

/// Everything HTTP of one worker.
pub struct HttpPlane {
    pub(super) engine: Engine,
    sockets: Slab<Socket>,
    /// By `ConnId`: where its socket is.
    by_conn: Vec<Option<Key>>,
    /// What a socket gave, behind room for the rest of the chunk before.
    buffer: Box<[u8]>,
    /// Ciphertext as it came.
    sealed: Box<[u8]>,
    /// Sockets with more to read than their share of the last turn.
    again: Vec<Key>,
    handshakes: usize,
    lingering: usize,
    /// When the log last heard of a handshake with an endpoint that failed.
    told_at: Option<Moment>,
    /// Connections that belong to TLS listeners of their port.
    strayed: Vec<Strayed>,
    pub(super) tls: TlsMetrics,
    pub(super) reads_total: u64,
    pub(super) writes_total: u64,
}

impl HttpPlane {
    pub fn new(config: EngineConfig, context: &Context) -> Self {
        let mut engine = Engine::new(config, Arc::clone(&context.snapshot), context.now);
        // A clock before 1970 is no clock: sessions then never seem old.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        engine.set_epoch(unix.saturating_sub(context.now.since(Moment::ZERO)));
        Self {
            engine,
            sockets: Slab::default(),
            by_conn: Vec::new(),
            buffer: vec![0; RESTORE_MAX + READ_BYTES].into_boxed_slice(),
            sealed: vec![0; READ_BYTES].into_boxed_slice(),
            again: Vec::new(),
            handshakes: 0,
            lingering: 0,
            told_at: None,
            strayed: Vec::new(),
            tls: TlsMetrics::default(),
            reads_total: 0,
            writes_total: 0,
        }
    }

    /// Downstream connections whose TLS is being agreed on.
    pub fn handshakes(&self) -> usize {
        self.handshakes
    }

    /// The next connection that is not for this plane.
    pub fn next_strayed(&mut self) -> Option<Strayed> {
        self.strayed.pop()
    }

    /// Whether the next poll must not wait.
    pub fn is_eager(&self) -> bool {
        !self.again.is_empty()
    }

    /// Reads on where the last turn stopped.
    pub fn read_again(&mut self, context: &mut Context) {
        let mut again = std::mem::take(&mut self.again);
        for key in again.drain(..) {
            self.read(key, context);
        }
        // Sockets that are still not empty were put on the new list; the old one gives its room to it.
        if self.again.is_empty() {
            self.again = again;
        }
    }

    pub fn event(&mut self, key: Key, event: &mio::event::Event, context: &mut Context) {
        use super::socket::Stage;
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        socket.closing |= event.is_read_closed() || event.is_error();
        match socket.stage {
            Stage::Connecting { conn } => {
                if event.is_writable() || event.is_error() || event.is_write_closed() {
                    self.connecting(key, conn, context);
                }
            }
            Stage::Open { conn, .. } => {
                if socket.blocked && event.is_writable() {
                    self.unblocked(key, conn, context);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(key, context);
                }
            }
            Stage::Handshaking { .. } | Stage::Securing { .. } => {
                if socket.blocked && event.is_writable() {
                    socket.blocked = !socket.flush().unwrap_or(true);
                }
                self.read(key, context);
            }
            Stage::Lingering { .. } => self.linger(key),
        }
    }

    fn unblocked(&mut self, key: Key, conn: ConnId, context: &mut Context) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        socket.blocked = false;
        match socket.flush() {
            Ok(true) => self.engine.writable(conn, context.now),
            Ok(false) => socket.blocked = true,
            Err(_) => self.engine.lost(conn, context.now),
        }
    }

    /// Everything the engine wants done: sockets resumed, opened, closed, and each dirty connection written once.
    /// True: there is more than one turn's share.
    pub fn settle(&mut self, context: &mut Context) -> bool {
        for _ in 0..ROUNDS_PER_TURN {
            let mut busy = false;
            while let Some(conn) = self.engine.next_resumed() {
                busy = true;
                if let Some(key) = self.key(conn) {
                    self.read(key, context);
                }
            }
            while let Some(action) = self.engine.next_action() {
                busy = true;
                match action {
                    Action::Connect {
                        conn,
                        endpoint,
                        addr,
                        protocol,
                    } => self.connect(conn, endpoint, addr, protocol, context),
                    Action::Finish { conn } => self.finish(conn),
                    Action::Close { conn, reset } => self.close(conn, reset, context),
                }
            }
            while let Some(conn) = self.engine.next_dirty() {
                busy = true;
                self.transmit(conn, 0, context.now);
            }
            if !busy && self.engine.is_settled() {
                return false;
            }
        }
        true
    }

    /// Writes a connection's output; the first `chunk` bytes of the buffer are what the engine refers to.
    fn transmit(&mut self, conn: ConnId, chunk: usize, now: Moment) {
        let key = self.key(conn);
        let mut socket = key.and_then(|key| self.sockets.get_mut(key));
        let writes = &mut self.writes_total;
        let sent = self
            .engine
            .transmit(conn, &self.buffer[..chunk], now, |slices| match &mut socket {
                Some(socket) => {
                    *writes += 1;
                    socket.write(slices)
                }
                None => Err(io::Error::from(ErrorKind::NotConnected)),
            });
        match sent {
            Transmitted::Drained => {}
            Transmitted::Lost => {
                // Read to the end first: what the peer said before it closed counts.
                if let (Some(key), Some(socket)) = (key, socket) {
                    socket.closing = true;
                    self.again.push(key);
                }
            }
            Transmitted::Blocked => {
                if let Some(socket) = socket {
                    socket.blocked = true;
                }
            }
        }
    }

    fn key(&self, conn: ConnId) -> Option<Key> {
        *self.by_conn.get(conn.index())?
    }

    fn name(&mut self, conn: ConnId, key: Key) {
        if self.by_conn.len() <= conn.index() {
            self.by_conn.resize(conn.index() + 1, None);
        }
        self.by_conn[conn.index()] = Some(key);
    }
}
