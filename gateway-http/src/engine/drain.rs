//! Leaving without losing a request: GOAWAY with the highest id first, so that what is on its way is still served,
//! after `limits.goaway_pause` GOAWAY with the last id served, and close when the last stream ended (RFC 9113 6.8).
//!
//! HTTP/1.1 has no such words: the next response says `connection: close`. A connection that was idle for the pause already
//! closes at once; one that was not gets the pause for a request that may be on its way, as does one that is accepted
//! late, because its handshake had begun before.

use super::connection::{Closing, Codec, Connection, Farewell};
use super::{ConnId, Engine};
use gateway_core::model::Side;
use gateway_core::time::Moment;
use std::time::Duration;

/// Connections that come later after the beginning of a drain are refused.
pub const LATE_ACCEPT_MAX: Duration = Duration::from_secs(10);

impl Engine {
    /// Says the first farewell to every client.
    pub(super) fn drain_all(&mut self) {
        self.draining_since = Some(self.now);
        for slot in 0..self.connections.len() {
            self.with(ConnId(slot as u32), |engine, c| engine.drain_connection(c));
        }
    }

    pub(super) fn drain_connection(&mut self, c: &mut Connection) {
        if !c.is_downstream() || c.farewell != Farewell::None || c.closing != Closing::No {
            return;
        }
        self.leave_tunnels(c);
        c.told = self.now;
        match &mut c.codec {
            Codec::Http2(http2) => {
                http2.put_farewell(Farewell::Announced, Side::Downstream, c.out.tail(&mut self.pool));
                c.farewell = Farewell::Announced;
                self.turn.mark(c);
                self.arm_timer(c);
            }
            Codec::Http1(http1) => {
                http1.leave();
                c.farewell = Farewell::Announced;
                self.wait_or_close(c);
            }
            Codec::Detecting => {
                c.farewell = Farewell::Announced;
                self.wait_or_close(c);
            }
        }
    }

    fn wait_or_close(&mut self, c: &mut Connection) {
        if c.streams == 0 && self.now >= c.active + self.limits.goaway_pause {
            Self::close_after_flush(c, &mut self.turn);
        }
        self.arm_timer(c);
    }

    /// What a connection that began to speak after the drain began has to be told.
    pub(super) fn drain_late(&mut self, c: &mut Connection) {
        if self.draining_since.is_some() {
            c.farewell = Farewell::None;
            self.drain_connection(c);
        }
    }

    /// Whether connections are refused: the drain began too long ago for a handshake that began before it.
    pub(super) fn is_shut(&self) -> bool {
        self.draining_since
            .is_some_and(|since| self.now >= since + LATE_ACCEPT_MAX)
    }

    /// When the first step of a farewell is followed by the second.
    pub(super) fn farewell_due(&self, c: &Connection) -> Option<Moment> {
        let since = self.draining_since.map_or(c.told, |since| since.max(c.opened));
        (c.farewell == Farewell::Announced).then(|| since + self.limits.goaway_pause)
    }

    /// The pause is over: later streams are not served, the client may try them elsewhere.
    pub(super) fn say_final_farewell(&mut self, c: &mut Connection) {
        if let Codec::Http2(http2) = &mut c.codec {
            http2.put_farewell(Farewell::Final, Side::Downstream, c.out.tail(&mut self.pool));
        }
        c.farewell = Farewell::Final;
        self.turn.mark(c);
        if c.streams == 0 {
            Self::close_after_flush(c, &mut self.turn);
        }
        self.arm_timer(c);
    }
}
