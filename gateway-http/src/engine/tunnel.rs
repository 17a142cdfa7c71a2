//! Tunnels: a request after whose answer its connection or stream carries bytes both ways (RFC 9110 7.8, 9.3.6,
//! RFC 8441).
//!
//! Between the codecs a request for a protocol is a GET with an `upgrade` field, whoever spoke HTTP/1.1 or HTTP/2, and
//! CONNECT is CONNECT. How it is asked of an endpoint and answered to a client is in `tunnel/ask.rs` and
//! `tunnel/answer.rs`; what WebSocket clients are told when the gateway leaves is in `tunnel/farewell.rs`.
//!
//! # Laws
//! * Until the endpoint agreed, no byte of the tunnel reaches it: an HTTP/1.1 client's stay unread behind its request,
//!   an HTTP/2 client's wait on the leg, both within the stream's window. If it does not agree they are the next
//!   request or nothing.
//! * An open tunnel is two streams of bytes: each direction ends by itself (END_STREAM and FIN are the same), a reset
//!   of one side resets the other, and credit is given as for bodies.
//! * Neither the route's timeout nor a drain before its end cuts an open tunnel; silence for `tunnel_idle_timeout` does.

mod answer;
mod ask;
mod farewell;

pub use self::ask::Opening;
use super::Engine;
use super::connection::{Codec, Connection};
use super::leg::Body;
use super::stream::{DOWN, UP};
use super::timer::{Timed, TimerId};
use crate::h2::frame::ErrorCode;
use crate::websocket;
use gateway_core::fault::Fault;

impl Connection {
    fn is_http2(&self) -> bool {
        matches!(self.codec, Codec::Http2(_))
    }
}

impl Engine {
    /// Bytes came from leg `from` of an open tunnel; `c` is its connection.
    #[cold]
    pub(super) fn on_tunnel_body(&mut self, c: &mut Connection, index: u32, from: usize, body: Body<'_>, end: bool) {
        let Some(tunnel) = &mut self.streams[index].tunnel else {
            return;
        };
        tunnel.active = self.now;
        match &mut tunnel.words {
            Some(words) if from == UP => {
                let passed = words.pass(body.bytes);
                let rest = body.bytes.len() - passed.bytes;
                let ends_here = end && rest == 0 && !passed.farewell;
                if passed.bytes > 0 || ends_here {
                    self.pass_body(c, index, UP, body.first(passed.bytes), ends_here, passed.bytes);
                }
                if passed.farewell {
                    self.say_going_away(c, index);
                }
                if rest > 0 {
                    self.swallow(c, index, rest);
                }
                if end && !ends_here {
                    self.pass_body(c, index, UP, Body::own(b""), true, 0);
                }
            }
            Some(_) | None => self.pass_body(c, index, from, body, end, body.bytes.len()),
        }
        if end {
            self.set_tunnel_timer(index);
        }
    }

    /// Bytes of the endpoint's on `c` that go nowhere: it gets its credit.
    fn swallow(&mut self, c: &mut Connection, index: u32, len: usize) {
        let stream = &mut self.streams[index];
        stream.bytes_down = stream.bytes_down.saturating_sub(len as u64);
        if stream.live && c.credit(Some(&mut stream.legs[UP]), len, &self.limits, &mut self.pool) {
            self.turn.mark(c);
        }
    }

    // === Time ===

    /// How long an open tunnel may be silent. Half of one that lost its other half is not kept for as long.
    fn silence_max(&self, index: u32) -> Option<std::time::Duration> {
        let [down, up] = &self.streams[index].legs;
        if down.received_end || up.received_end {
            let half = self.limits.idle_timeout;
            return Some(self.limits.tunnel_idle_timeout.map_or(half, |whole| whole.min(half)));
        }
        self.limits.tunnel_idle_timeout
    }

    /// Sets the stream's timer to when silence is too long.
    fn set_tunnel_timer(&mut self, index: u32) {
        let due = self.silence_max(index);
        let stream = &mut self.streams[index];
        let Some(tunnel) = stream.tunnel.as_ref().filter(|_| stream.live) else {
            return;
        };
        self.timers.cancel(&mut stream.timer);
        if let Some(silence) = due {
            stream.timer = self.timers.set(tunnel.active + silence, Timed::Stream(index));
        }
    }

    /// A stream's timer fired: its deadline, an attempt's, a pause, or a tunnel's silence. `c` is its downstream connection.
    pub(super) fn on_stream_timer(&mut self, c: &mut Connection, index: u32) {
        let open = self.streams[index].tunnel.as_ref().filter(|tunnel| tunnel.is_open());
        let Some(active) = open.map(|tunnel| tunnel.active) else {
            return self.on_stream_due(c, index);
        };
        match self.silence_max(index) {
            Some(silence) if self.now >= active + silence => self.end_silent(c, index),
            Some(_) | None => self.set_tunnel_timer(index),
        }
    }

    /// Nothing went through for too long: both sides are closed, in order where HTTP/1.1 is spoken.
    fn end_silent(&mut self, c: &mut Connection, index: u32) {
        let stream = &mut self.streams[index];
        stream.timer = TimerId::NONE;
        stream.fault = Some(Fault::TunnelIdle);
        for side in [DOWN, UP] {
            let leg = &mut self.streams[index].legs[side];
            let Some(id) = leg.conn else { continue };
            if !super::at(&mut self.connections, c, id).is_http2() {
                leg.received_end = true;
                leg.sent_end = true;
            }
        }
        self.end_stream(c, index, ErrorCode::Cancel);
    }

    /// The stream ends: what it was is counted.
    #[cold]
    pub(super) fn forget_tunnel(&mut self, index: u32) {
        if let Some(tunnel) = self.streams[index].tunnel.take()
            && tunnel.is_open()
        {
            self.metrics.tunnels_active -= 1;
        }
    }
}

/// Whether a list of protocols (RFC 9110 7.8) is WebSocket alone.
fn is_websocket(protocols: &[u8]) -> bool {
    protocols.eq_ignore_ascii_case(websocket::NAME)
}
