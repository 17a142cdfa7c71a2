//! Connections to endpoints: which one a stream goes to, and when it is opened there.
//!
//! * One HTTP/2 connection per worker and endpoint, because a second one splits batches of writes; another is opened
//!   only when every one is full, up to `limits.upstream_connections_max`. Then requests wait for the connection with
//!   the fewest, up to `limits.upstream_pending_max` for the endpoint; more are turned away.
//! * A connection belongs to an endpoint *and* an address: an endpoint that moved never shares one with its old
//!   address.
//! * No stream is opened before the socket is connected: until then its head and body stay here, and a failed
//!   connect loses nothing.

use super::connection::{Closing, Codec, Connection, Role};
use super::http1;
use super::http2::{Http2, STREAM_ID_LAST};
use super::stream::{StreamKey, UP, Wait};
use super::tunnel::Opening;
use super::{Action, ConnId, Engine, at};
use gateway_core::fault::Fault;
use gateway_core::ids::EndpointId;
use gateway_core::ir::UpstreamProtocol;
use gateway_core::model::Side;
use std::net::SocketAddr;

/// Streams that wait for a connect before another connection is opened beside it.
const WAITING_FOR_CONNECT_MAX: usize = 100;

/// One endpoint's connections.
#[derive(Default)]
pub struct EndpointPool {
    pub http2: Vec<ConnId>,
    /// Idle ones, the last used at the end.
    pub http1_idle: Vec<ConnId>,
    /// HTTP/1.1 connections, busy ones included.
    pub http1_open: u32,
}

impl Connection {
    /// Whether new streams for this address may go here.
    pub(super) fn serves(&self, addr: SocketAddr) -> bool {
        !self.dead && self.peer == addr && matches!(self.role, Role::Upstream { leaving: false, .. })
    }

    /// Streams that wait to be opened here.
    fn waiting_len(&self) -> usize {
        match &self.codec {
            Codec::Http2(http2) => http2.waiting.len(),
            Codec::Http1(_) | Codec::Detecting => 0,
        }
    }

    /// Whether a stream can be opened at once.
    fn has_free_stream(&self) -> bool {
        match &self.codec {
            Codec::Http2(http2) => {
                !self.is_connecting() && http2.waiting.is_empty() && (http2.ids.len() as u32) < http2.streams_max()
            }
            Codec::Http1(_) | Codec::Detecting => false,
        }
    }

    /// Takes no new streams from now on.
    pub(super) fn leave(&mut self) {
        if let Role::Upstream { leaving, .. } = &mut self.role {
            *leaving = true;
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.role, Role::Upstream { leaving: true, .. })
    }
}

impl Engine {
    /// The connection a stream to this endpoint goes to; opened if there is none.
    pub(super) fn upstream_for(
        &mut self,
        c: &mut Connection,
        endpoint: EndpointId,
        addr: SocketAddr,
        protocol: UpstreamProtocol,
    ) -> Result<ConnId, Fault> {
        if self.pools.len() <= endpoint.index() {
            self.pools.resize_with(endpoint.index() + 1, EndpointPool::default);
        }
        match protocol {
            UpstreamProtocol::H2c => self.http2_for(c, endpoint, addr),
            UpstreamProtocol::Http1 => self.http1_for(c, endpoint, addr),
        }
    }

    fn http2_for(&mut self, c: &mut Connection, endpoint: EndpointId, addr: SocketAddr) -> Result<ConnId, Fault> {
        let pool = &self.pools[endpoint.index()];
        let mut best: Option<(usize, ConnId)> = None;
        let mut pending = 0;
        for id in &pool.http2 {
            let candidate = at(&mut self.connections, c, *id);
            if !candidate.serves(addr) {
                continue;
            }
            if candidate.has_free_stream() {
                return Ok(*id);
            }
            let waiting = candidate.waiting_len();
            if candidate.is_connecting() && waiting < WAITING_FOR_CONNECT_MAX {
                return Ok(*id);
            }
            pending += waiting;
            if best.is_none_or(|(least, _)| waiting < least) {
                best = Some((waiting, *id));
            }
        }
        if pool.http2.len() < self.limits.upstream_connections_max {
            return self.connect(endpoint, addr, UpstreamProtocol::H2c);
        }
        match best {
            Some((_, id)) if pending < self.limits.upstream_pending_max => Ok(id),
            Some(_) | None => {
                self.metrics.endpoint_overflowed(endpoint);
                Err(Fault::Overloaded)
            }
        }
    }

    /// A new connection; the driver is asked to open its socket.
    pub(super) fn connect(
        &mut self,
        endpoint: EndpointId,
        addr: SocketAddr,
        protocol: UpstreamProtocol,
    ) -> Result<ConnId, Fault> {
        let id = self.connections.reserve();
        let serial = self.next_serial();
        let mut c = Box::new(Connection::upstream(
            id,
            serial,
            endpoint,
            addr,
            protocol,
            &self.limits,
            self.now,
        ));
        if let Codec::Http2(_) = c.codec {
            Http2::greet(Side::Upstream, &self.limits, c.out.tail(&mut self.pool));
            self.pools[endpoint.index()].http2.push(id);
        }
        self.arm_timer(&mut c);
        self.metrics.upstream_opened(endpoint);
        self.connections.put(c);
        self.turn.actions.push_back(Action::Connect {
            conn: id,
            endpoint,
            addr,
            protocol,
        });
        Ok(id)
    }

    /// The stream's upstream leg joins a connection: it is opened there now or when its turn comes.
    pub(super) fn enter_upstream(&mut self, c: &mut Connection, index: u32, target: ConnId) {
        let key = self.streams.key(index);
        let stream = &mut self.streams[index];
        let leg = &mut stream.legs[UP];
        leg.conn = Some(target);
        leg.id = 0;
        let target = at(&mut self.connections, c, target);
        target.streams += 1;
        target.streams_total += 1;
        if target.has_free_stream() {
            return self.open_upstream(c, index);
        }
        match &mut target.codec {
            Codec::Http2(http2) => http2.waiting.push_back(key),
            Codec::Http1(http1) => {
                http1.stream = Some(index);
                if !target.is_connecting() {
                    self.open_upstream(c, index);
                }
            }
            Codec::Detecting => {}
        }
    }

    /// Sends the request's head, then what of its body is there.
    pub(super) fn open_upstream(&mut self, c: &mut Connection, index: u32) {
        debug_assert!(!self.streams[index].guarded, "nobody said that it may pass");
        let (edited, ends) = if self.streams[index].tunnel.is_none() {
            (self.edit_request(index), None)
        } else {
            match self.open_tunnel_upstream(c, index) {
                Opening::Now { edited, ends } => (edited, ends),
                Opening::Later => return self.wait_to_open(c, index),
                Opening::Never => return,
            }
        };
        let stream = &mut self.streams[index];
        let [down, leg] = &mut stream.legs;
        let Some(target) = leg.conn else { return };
        let target = at(&mut self.connections, c, target);
        leg.received_head = false;
        leg.received_end = false;
        leg.length_left = -1;
        if let Codec::Http2(http2) = &mut target.codec {
            leg.id = http2.last_id;
            leg.send_window = i64::from(http2.peer.window);
            leg.recv_window = i64::from(self.limits.stream_window);
            leg.unacked = 0;
            leg.window = self.limits.stream_window;
            http2.ids.insert(leg.id, index);
            http2.last_id += 2;
            if http2.last_id > STREAM_ID_LAST {
                target.leave();
            }
        } else if let Codec::Http1(http1) = &mut target.codec {
            leg.id = http1::STREAM_ID;
            http1.open(target.bytes_out + target.out.len() as u64);
        }
        let nothing_follows = ends.unwrap_or(down.received_end && leg.pending_len() == 0 && leg.trailers.is_none());
        let fields = if edited { &self.edited } else { &stream.head };
        target.send_head(leg, fields, false, nothing_follows, &mut self.pool);
        self.turn.mark(target);
        if !nothing_follows && leg.wait == Wait::No && (leg.pending_len() > 0 || leg.pending_end) {
            self.pump_and_wait(c, index, UP);
        }
    }

    /// Opens streams that waited for `target`, as many as it takes.
    pub(super) fn open_waiting(&mut self, c: &mut Connection, target: ConnId) {
        // Who cannot be opened yet stands in line again.
        let waiting = at(&mut self.connections, c, target).waiting_len();
        for _ in 0..waiting {
            let t = at(&mut self.connections, c, target);
            if t.dead || t.is_connecting() {
                return;
            }
            // A connection whose endpoint left keeps what it has, waiting streams too.
            let Codec::Http2(http2) = &mut t.codec else { return };
            if http2.ids.len() as u32 >= http2.streams_max() {
                return;
            }
            let exhausted = http2.last_id > STREAM_ID_LAST;
            let Some(key) = http2.waiting.pop_front() else { return };
            match (self.waits_on(key, target), exhausted) {
                (true, false) => self.open_upstream(c, key.index),
                // The connection has no stream id left: another one is found.
                (true, true) => self.fail(c, key.index, Fault::Refused),
                (false, _) => {}
            }
        }
    }

    /// The stream waits until it is known what the endpoint takes.
    fn wait_to_open(&mut self, c: &mut Connection, index: u32) {
        let key = self.streams.key(index);
        let Some(target) = self.streams[index].legs[UP].conn else {
            return;
        };
        if let Codec::Http2(http2) = &mut at(&mut self.connections, c, target).codec {
            http2.waiting.push_back(key);
        }
    }

    /// Whether the stream still waits to be opened on `target`.
    pub(super) fn waits_on(&self, key: StreamKey, target: ConnId) -> bool {
        self.streams.is_live(key) && {
            let leg = &self.streams[key.index].legs[UP];
            leg.conn == Some(target) && leg.id == 0
        }
    }

    /// Nothing can be written any more. What an endpoint said before it closed decides what becomes of its streams: an
    /// answer, or a GOAWAY that leaves some of them out.
    pub(super) fn break_off(&mut self, c: &mut Connection) {
        if c.is_downstream() || c.streams == 0 || c.closing != Closing::No {
            return self.kill(c, true);
        }
        self.retire(c);
        if let Codec::Http2(_) = c.codec {
            self.move_waiting(c);
        }
        c.blocked = true;
        c.stalled_since.get_or_insert(self.now);
        self.arm_timer(c);
    }

    /// No stream goes to this connection any more: it leaves its endpoint's pool, and closes once it is empty.
    pub(super) fn retire(&mut self, c: &mut Connection) {
        c.leave();
        if let Some(endpoint) = c.endpoint()
            && let Some(pool) = self.pools.get_mut(endpoint.index())
        {
            pool.http2.retain(|id| *id != c.id);
            pool.http1_idle.retain(|id| *id != c.id);
        }
        if c.streams == 0 {
            self.farewell_and_close(c);
        }
    }
}
