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

use crate::limits::Limits;
use crate::outcome::Outcome;
use gateway_core::fault::Refusal;
use gateway_core::ids::{EndpointId, ListenerId};
use gateway_core::ir::UpstreamProtocol;
use gateway_core::model::{ConnectionView, StreamView};
use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

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
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// Server name, lower case.
    pub server_name: Option<String>,
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
    Connect { conn: ConnId, endpoint: EndpointId, addr: SocketAddr, protocol: UpstreamProtocol },
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
    /// The connection is lost; `Action::Close` follows.
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
pub struct Engine {}

#[expect(unused_variables, clippy::todo, reason = "interface first")]
impl Engine {
    pub fn new(config: EngineConfig, snapshot: Arc<Snapshot>, now: Moment) -> Self {
        todo!()
    }

    /// New requests see this snapshot; streams under way keep theirs. Connections to endpoints that left are closed
    /// when their last stream ends.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>, now: Moment) {
        todo!()
    }

    /// A downstream connection is there.
    pub fn accept(&mut self, accepted: Accepted, now: Moment) -> Result<ConnId, Refusal> {
        todo!()
    }

    /// Copies the unparsed rest of the last chunk to the front of `buf` and forgets it; returns its length
    /// (less than `RESTORE_MAX`). Always followed by `received` with at least these bytes.
    pub fn restore(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        todo!()
    }

    /// Bytes came (TLS removed).
    pub fn received(&mut self, conn: ConnId, chunk: &[u8], now: Moment) {
        todo!()
    }

    /// Whether the engine wants more bytes from this connection; when not (HTTP/1.1 backpressure), the driver stops
    /// reading and resumes when `next_resumed` names it.
    pub fn wants_read(&self, conn: ConnId) -> bool {
        todo!()
    }

    /// A connection that is to be read again though its socket may report no new edge.
    pub fn next_resumed(&mut self) -> Option<ConnId> {
        todo!()
    }

    /// The peer finished sending (FIN, or TLS close_notify).
    pub fn ended(&mut self, conn: ConnId, now: Moment) {
        todo!()
    }

    /// The socket is broken.
    pub fn lost(&mut self, conn: ConnId, now: Moment) {
        todo!()
    }

    /// An upstream socket is connected.
    pub fn connected(&mut self, conn: ConnId, now: Moment) {
        todo!()
    }

    /// An upstream socket could not be connected.
    pub fn connect_failed(&mut self, conn: ConnId, now: Moment) {
        todo!()
    }

    /// A socket that was full takes bytes again.
    pub fn writable(&mut self, conn: ConnId, now: Moment) {
        todo!()
    }

    /// Next thing to do with sockets.
    pub fn next_action(&mut self) -> Option<Action> {
        todo!()
    }

    /// Next connection whose output references the current chunk.
    pub fn next_borrower(&mut self) -> Option<ConnId> {
        todo!()
    }

    /// Next connection with something to write at the end of the turn.
    pub fn next_dirty(&mut self) -> Option<ConnId> {
        todo!()
    }

    /// Hands the connection's output to `write`, in as few calls as it takes. `chunk` is what the last `received` got
    /// (empty outside of the borrower loop).
    pub fn transmit(
        &mut self,
        conn: ConnId,
        chunk: &[u8],
        now: Moment,
        write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Transmitted {
        todo!()
    }

    /// Gives every request finished since the last call to `sink`; the borrowed texts live only for the call.
    pub fn take_outcomes(&mut self, sink: impl FnMut(&Outcome<'_>)) {
        todo!()
    }

    /// When `handle_timeout` is next due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        todo!()
    }

    /// Deadlines, connect timeouts, idle connections, decay of the flood guards.
    pub fn handle_timeout(&mut self, now: Moment) {
        todo!()
    }

    /// Stop taking new work: two-step GOAWAY, `connection: close`, idle connections close at once.
    pub fn drain(&mut self, now: Moment) {
        todo!()
    }

    /// Downstream connections and streams that are live.
    pub fn live(&self) -> (usize, usize) {
        todo!()
    }

    pub fn metrics(&self) -> &crate::metrics::Metrics {
        todo!()
    }

    /// Every live connection, for the admin.
    pub fn connections(&self, now: Moment) -> Vec<ConnectionView> {
        todo!()
    }

    /// Every live stream, for the admin.
    pub fn streams(&self, now: Moment) -> Vec<StreamView> {
        todo!()
    }
}

/// Upper bound of what `restore` gives back: an unfinished HTTP/2 frame or HTTP/1.1 head.
pub const RESTORE_MAX: usize = 64 * 1024;
