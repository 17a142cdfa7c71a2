//! Leaving without losing a request: GOAWAY with the highest id first, so that what is on its way is still served,
//! after `limits.goaway_pause` GOAWAY with the last id served, and close when the last stream ended (RFC 9113 6.8).

use super::connection::{Closing, Codec, Connection, Farewell};
use super::{ConnId, Engine};
use gateway_core::model::Side;

impl Engine {
    /// Says the first farewell to every client.
    pub(super) fn drain_all(&mut self) {
        self.draining = true;
        for slot in 0..self.connections.len() {
            self.with(ConnId(slot as u32), |engine, c| engine.drain_connection(c));
        }
    }

    pub(super) fn drain_connection(&mut self, c: &mut Connection) {
        if !c.is_downstream() || c.farewell != Farewell::None || c.closing != Closing::No {
            return;
        }
        self.leave_tunnels(c);
        match &mut c.codec {
            Codec::Http2(http2) => {
                http2.put_farewell(Farewell::Announced, Side::Downstream, c.out.tail(&mut self.pool));
                c.farewell = Farewell::Announced;
                self.turn.mark(c);
                self.arm_timer(c);
            }
            Codec::Http1(http1) => {
                http1.leave();
                c.farewell = Farewell::Final;
                if c.streams == 0 {
                    Self::close_after_flush(c, &mut self.turn);
                }
            }
            Codec::Detecting => Self::close_after_flush(c, &mut self.turn),
        }
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
