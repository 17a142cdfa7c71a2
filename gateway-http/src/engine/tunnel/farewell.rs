//! What the gateway says to a WebSocket client itself: 1001, Going Away, when it drains (RFC 6455 7.4.1).
//!
//! The word stands between two frames of the endpoint's. After it the endpoint has nothing more to say to this client;
//! the client's own close frame reaches the endpoint, which closes the tunnel as it always does.

use super::super::Engine;
use super::super::connection::{Codec, Connection};
use super::super::stream::{DOWN, Wait, Words};
use crate::websocket::GOING_AWAY;

impl Engine {
    /// Says farewell to the WebSocket clients on `c`, each at the end of the frame under way.
    pub(in crate::engine) fn leave_tunnels(&mut self, c: &mut Connection) {
        let mut indices = std::mem::take(&mut self.indices);
        indices.clear();
        match &c.codec {
            Codec::Http2(http2) => indices.extend(http2.ids.values()),
            Codec::Http1(http1) => indices.extend(http1.stream),
            Codec::Detecting => {}
        }
        for index in &indices {
            self.leave_tunnel(c, *index);
        }
        self.indices = indices;
    }

    pub(super) fn leave_tunnel(&mut self, c: &mut Connection, index: u32) {
        let tunnel = self.streams[index].tunnel.as_mut().filter(|tunnel| tunnel.is_open());
        if tunnel
            .and_then(|tunnel| tunnel.words.as_mut())
            .is_some_and(Words::leave)
        {
            self.say_going_away(c, index);
        }
    }

    /// The farewell, behind what waits for the client already.
    pub(super) fn say_going_away(&mut self, c: &mut Connection, index: u32) {
        let stream = &mut self.streams[index];
        let leg = &mut stream.legs[DOWN];
        if leg.sent_end || leg.pending_end {
            return;
        }
        stream.bytes_down += GOING_AWAY.len() as u64;
        self.pool.arm(&mut leg.pending);
        leg.pending.extend_from_slice(&GOING_AWAY);
        // Nobody sent it: nobody gets credit for it.
        leg.surplus -= GOING_AWAY.len() as isize;
        if leg.wait == Wait::No {
            self.pump_and_wait(c, index, DOWN);
        }
    }
}
