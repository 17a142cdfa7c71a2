//! The life of a connection outside of its messages: bytes come, the peer ends, the socket breaks, time passes.

use super::connection::{Closing, Codec, Connection, Farewell, Role};
use super::http2::{ConnectionError, Http2};
use super::stream::{DOWN, UP};
use super::timer::{TICK, Timed};
use super::{Action, ConnId, Engine};
use crate::flood::Flood;
use crate::h2::frame::{self, ErrorCode};
use gateway_core::fault::Fault;
use gateway_core::model::Side;
use gateway_core::time::Moment;
use std::time::Duration;

/// A connection that is to be closed may take this long to take its last bytes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// GOAWAY's debug data for a protocol error begins with this.
const _: () = assert!(TICK.as_millis() <= 2);

impl Connection {
    /// Nothing more is read; the socket closes when the output is written.
    pub(super) fn close_after_flush(&mut self) {
        if self.closing == Closing::No {
            self.closing = Closing::AfterFlush;
        }
    }

    /// The HTTP/2 state; only called where the codec is known.
    #[inline]
    pub(super) fn http2(&mut self) -> &mut Http2 {
        match &mut self.codec {
            Codec::Http2(http2) => http2,
            Codec::Http1(_) | Codec::Detecting => unreachable!("frames are read from HTTP/2 connections alone"),
        }
    }

    #[inline]
    pub(super) fn http2_ref(&self) -> &Http2 {
        match &self.codec {
            Codec::Http2(http2) => http2,
            Codec::Http1(_) | Codec::Detecting => unreachable!("frames are read from HTTP/2 connections alone"),
        }
    }

    /// The connection ends like this, if it was not ending faster already.
    pub(super) fn end_as(&mut self, closing: Closing) {
        self.closing = self.closing.max(closing);
    }
}

impl Engine {
    /// Parses `chunk` and keeps what is not used up.
    pub(super) fn feed(&mut self, c: &mut Connection, chunk: &[u8]) {
        if c.closing != Closing::No {
            return;
        }
        if let Codec::Detecting = c.codec {
            self.detect(c, chunk);
            if !matches!(c.codec, Codec::Detecting) {
                self.drain_late(c);
            }
        }
        let used = match c.codec {
            Codec::Http2(_) => self.read_http2(c, chunk),
            Codec::Http1(_) => self.read_http1(c, chunk),
            Codec::Detecting => Ok(0),
        };
        match used {
            Ok(used) => {
                if used < chunk.len() && c.closing == Closing::No {
                    self.pool.arm(&mut c.leftover);
                    c.leftover.extend_from_slice(&chunk[used..]);
                }
            }
            Err(error) => self.connection_error(c, error),
        }
    }

    /// The peer sends nothing more. An HTTP/2 peer that cannot answer SETTINGS, PING and flow control is gone.
    pub(super) fn on_end(&mut self, c: &mut Connection) {
        match c.codec {
            Codec::Http2(_) | Codec::Detecting => self.kill(c, false),
            Codec::Http1(_) if c.is_downstream() => self.on_client_end(c),
            Codec::Http1(_) => self.on_endpoint_end(c),
        }
    }

    /// Tells HTTP/2's preface from anything else (RFC 9113 3.3).
    fn detect(&mut self, c: &mut Connection, chunk: &[u8]) {
        let len = chunk.len().min(frame::PREFACE.len());
        if chunk[..len] != frame::PREFACE[..len] {
            c.codec = Codec::Http1(Box::new(super::http1::Http1::new(Side::Downstream)));
        } else if len == frame::PREFACE.len() {
            self.start_http2(c);
        }
    }

    /// A downstream connection speaks HTTP/2: our SETTINGS go first.
    pub(super) fn start_http2(&mut self, c: &mut Connection) {
        c.codec = Codec::Http2(Box::new(Http2::new(Side::Downstream, &self.limits)));
        Http2::greet(Side::Downstream, &self.limits, c.out.tail(&mut self.pool));
        self.turn.mark(c);
    }

    /// An error of the whole connection (RFC 9113 5.4.1): its streams end, GOAWAY says why.
    #[cold]
    pub(super) fn connection_error(&mut self, c: &mut Connection, error: ConnectionError) {
        if c.closing != Closing::No {
            return;
        }
        if let Codec::Http2(http2) = &c.codec {
            let last = if c.is_downstream() { http2.last_id } else { 0 };
            frame::put_goaway(c.out.tail(&mut self.pool), last, error.code, error.why);
        }
        self.end_streams_of(c, Fault::BadResponse);
        if error.code == ErrorCode::EnhanceYourCalm && c.blocked {
            // It does not read either: what waits for it is not kept any longer.
            c.end_as(Closing::Now);
        }
        Self::close_after_flush(c, &mut self.turn);
        self.arm_timer(c);
    }

    /// More waits for the peer than may: it does not read, so it is not told.
    #[cold]
    pub(super) fn on_overflow(&mut self, c: &mut Connection) {
        let downstream = c.is_downstream();
        let verdict = match &mut c.codec {
            Codec::Http2(http2) if downstream && http2.queue.is_long(&self.limits) => {
                http2.queue.look(c.bytes_out, c.out.len(), &self.limits)
            }
            Codec::Http2(_) | Codec::Http1(_) | Codec::Detecting => Ok(()),
        };
        let verdict = verdict.and(if c.out.len() > self.limits.waiting_bytes_max() {
            Err(Flood::OutboundBytes)
        } else {
            Ok(())
        });
        if let Err(flood) = verdict {
            self.metrics.floods[flood as usize] += 1;
            self.kill(c, true);
        }
    }

    /// Every stream on `c` loses this leg.
    fn end_streams_of(&mut self, c: &mut Connection, fault: Fault) {
        let was = std::mem::replace(&mut c.dead, true);
        c.leave();
        let down = c.is_downstream();
        let mut indices = std::mem::take(&mut self.indices);
        indices.clear();
        match &mut c.codec {
            Codec::Http2(http2) => {
                for key in http2.waiting.drain(..) {
                    let waits = self.streams.is_live(key) && self.streams[key.index].legs[UP].conn == Some(c.id);
                    if waits && self.streams[key.index].legs[UP].id == 0 && !indices.contains(&key.index) {
                        indices.push(key.index);
                    }
                }
                indices.extend(http2.ids.values());
            }
            Codec::Http1(http1) => indices.extend(http1.stream),
            Codec::Detecting => {}
        }
        for index in &indices {
            let stream = &self.streams[*index];
            let me = if down { DOWN } else { UP };
            if !stream.live || stream.legs[me].conn != Some(c.id) {
                continue;
            }
            if down {
                self.streams[*index].fault = Some(Fault::ClientGone);
                self.end_stream(c, *index, ErrorCode::Cancel);
            } else if stream.legs[UP].received_end {
                // The response is whole: only the rest of the request has nowhere to go.
                self.on_reset(c, *index, UP, ErrorCode::NoError);
            } else {
                // What was not opened yet cannot have had an effect.
                let unsent = stream.legs[UP].id == 0 && !stream.legs[UP].sent_head;
                let fault = if unsent {
                    c.unconnected()
                } else {
                    self.http1_fault(c, fault)
                };
                self.fail(c, *index, fault);
            }
        }
        self.indices = indices;
        c.dead = was;
    }

    /// The socket is gone or has to go: what lived on it ends or moves on. The slot is free after `Action::Close`.
    pub(super) fn kill(&mut self, c: &mut Connection, reset: bool) {
        if c.dead {
            return;
        }
        let fault = match c.role {
            Role::Upstream {
                connecting: true,
                unconnected,
                ..
            } => unconnected,
            Role::Upstream { .. } | Role::Downstream { .. } => Fault::ConnectionLost,
        };
        if let Role::Upstream {
            endpoint,
            connecting,
            answered,
            ..
        } = c.role
        {
            // An endpoint that closes an idle connection is not failing.
            if connecting || (!answered && c.streams > 0) {
                self.balancers.failed(endpoint, self.now);
                self.metrics.endpoint_failed(endpoint);
            }
            self.unpool(c);
        }
        self.end_streams_of(c, fault);
        self.free_slots(c);
        c.dead = true;
        self.shrink_windows(c);
        self.timers.cancel(&mut c.timer);
        c.out.clear(&mut self.pool);
        self.pool.put(&mut c.leftover);
        match c.role {
            Role::Downstream { listener, .. } => self.metrics.downstream_closed(listener),
            Role::Upstream { endpoint, .. } => self.metrics.upstream_closed(endpoint),
        }
        self.turn.actions.push_back(Action::Close { conn: c.id, reset });
    }

    /// Leaves its endpoint's pool.
    fn unpool(&mut self, c: &Connection) {
        if let Some(pool) = c.endpoint().and_then(|endpoint| self.pools.get_mut(endpoint.index())) {
            pool.http2.retain(|id| *id != c.id);
            pool.http1_idle.retain(|id| *id != c.id);
            if let Codec::Http1(_) = c.codec {
                pool.http1_open -= 1;
            }
        }
    }

    /// Ends a connection that nobody uses in good order.
    pub(super) fn farewell_and_close(&mut self, c: &mut Connection) {
        let side = c.side();
        if let Codec::Http2(http2) = &mut c.codec
            && c.farewell < Farewell::Final
            && !matches!(c.role, Role::Upstream { connecting: true, .. })
        {
            http2.put_farewell(Farewell::Final, side, c.out.tail(&mut self.pool));
        }
        c.farewell = Farewell::Final;
        Self::close_after_flush(c, &mut self.turn);
        self.arm_timer(c);
    }

    // === Time ===

    /// When something of the connection is due if nothing happens before.
    fn due(&self, c: &Connection) -> Moment {
        let limits = &self.limits;
        if c.closing != Closing::No {
            return self.now + FLUSH_TIMEOUT;
        }
        let mut due = match c.role {
            Role::Upstream { connecting: true, .. } => c.opened + limits.connect_timeout,
            Role::Upstream { .. } => c.active.max(c.opened) + limits.upstream_idle_timeout,
            Role::Downstream { .. } if c.asleep => c.active.max(c.looked) + limits.idle_timeout,
            Role::Downstream { .. } => self.now + limits.look_interval(),
        };
        if c.is_downstream() && self.is_mute(c) {
            due = due.min(c.opened + limits.head_timeout);
        }
        if let Codec::Http2(http2) = &c.codec
            && let Some(assembly) = &http2.assembly
        {
            due = due.min(assembly.since + limits.block_timeout);
        }
        if let Codec::Http1(http1) = &c.codec
            && let Some(since) = http1.head_since()
        {
            due = due.min(since + limits.head_timeout);
        }
        if let Some(at) = self.farewell_due(c) {
            due = due.min(at);
        }
        if let Some(since) = c.stalled_since {
            due = due.min(since + limits.stall_timeout);
        }
        if let Some(at) = self.keepalive_due(c) {
            due = due.min(at);
        }
        if let (Farewell::None, Some(at)) = (c.farewell, self.age_due(c)) {
            due = due.min(at);
        }
        due
    }

    /// Whether a client has not even begun to speak HTTP.
    fn is_mute(&self, c: &Connection) -> bool {
        match &c.codec {
            Codec::Detecting => true,
            Codec::Http2(http2) => !http2.settings_seen,
            Codec::Http1(_) => c.streams_total == 0,
        }
    }

    /// Sets the connection's one timer.
    pub(super) fn arm_timer(&mut self, c: &mut Connection) {
        let at = self.due(c);
        self.timers.cancel(&mut c.timer);
        c.timer = self.timers.set(at, Timed::Connection(c.id.0));
    }

    /// The connection's timer fired: see what is due.
    pub(super) fn on_connection_timer(&mut self, c: &mut Connection) {
        c.timer = super::timer::TimerId::NONE;
        if c.closing != Closing::No {
            return self.kill(c, true);
        }
        if self.farewell_due(c).is_some_and(|at| self.now >= at) {
            self.say_final_farewell(c);
            if c.closing != Closing::No {
                return;
            }
        }
        if c.farewell == Farewell::None && self.age_due(c).is_some_and(|at| at <= self.now) {
            self.drain_connection(c);
            if c.closing != Closing::No {
                return self.arm_timer(c);
            }
        }
        if c.streams == 0 {
            self.shrink_windows(c);
        }
        if !self.keep_alive(c) {
            return;
        }
        if c.is_connecting() && self.now >= c.opened + self.limits.connect_timeout {
            return self.kill(c, true);
        }
        if c.stalled_since
            .is_some_and(|since| self.now >= since + self.limits.stall_timeout)
        {
            return self.kill(c, true);
        }
        let assembling = match &c.codec {
            Codec::Http2(http2) => http2.assembly.as_ref().map(|assembly| assembly.since),
            Codec::Http1(_) | Codec::Detecting => None,
        };
        if assembling.is_some_and(|since| self.now >= since + self.limits.block_timeout) {
            if let Err(error) = self.flood(Flood::FieldBlockTime) {
                self.connection_error(c, error);
            }
            return;
        }
        if let Codec::Http1(http1) = &c.codec
            && http1
                .head_since()
                .is_some_and(|since| self.now >= since + self.limits.head_timeout)
        {
            return self.on_head_timeout(c);
        }
        match c.side() {
            Side::Upstream => self.on_upstream_timer(c),
            Side::Downstream => self.on_downstream_timer(c),
        }
    }

    fn on_upstream_timer(&mut self, c: &mut Connection) {
        if c.streams > 0 {
            c.active = c.active.max(self.now);
        }
        if self.due(c) > self.now {
            return self.arm_timer(c);
        }
        if let Codec::Http2(http2) = &mut c.codec {
            http2.shrink();
        }
        self.retire(c);
    }

    fn on_downstream_timer(&mut self, c: &mut Connection) {
        let mute = self.is_mute(c) && self.now >= c.opened + self.limits.head_timeout;
        let unused = c.streams == 0 && self.now >= c.active.max(c.looked) + self.limits.idle_timeout;
        if mute && matches!(&c.codec, Codec::Http1(http1) if http1.head_since().is_some()) {
            // It has spoken, if too late: it is told.
            return self.on_head_timeout(c);
        }
        if mute || unused {
            if let Codec::Http2(http2) = &mut c.codec {
                http2.shrink();
            }
            return self.farewell_and_close(c);
        }
        if c.streams > 0 {
            self.look_at_streams(c);
            if c.dead || c.closing != Closing::No {
                return;
            }
            if !self.ask_for_life(c) {
                return self.kill(c, true);
            }
        }
        c.asleep = c.streams == 0;
        self.arm_timer(c);
    }

    /// Takes a connection out of its slot, lets `act` work on it, and puts it back unless it died.
    #[inline]
    pub(super) fn with(&mut self, id: ConnId, act: impl FnOnce(&mut Self, &mut Connection)) {
        let Some(mut c) = self.connections.take(id) else { return };
        act(self, &mut c);
        if !c.dead {
            self.connections.put(c);
        }
    }
}
