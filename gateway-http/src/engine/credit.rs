//! Credit: what a peer may send (RFC 9113 6.9), and how its windows grow and shrink.
//!
//! # Laws
//! * A stream's credit goes back when its bytes entered a bounded out buffer. A client connection's goes back earlier,
//!   when they begin to wait for a slow endpoint, as long as such bytes are at most `limits.held_bytes_max` in the
//!   worker: an upload that nobody takes does not hold up its neighbours. Beyond that it does, and memory stays bounded
//!   by that limit and the sum of the connections' windows. (What waits for slow clients is bounded by
//!   `limits.upstream_connection_window`.)
//! * Windows start as `limits.stream_window` and the like say. A PING measures how much is consumed in a
//!   round trip; where that is most of a window, the window was what limited, and it is doubled: a stream's up to
//!   `limits.stream_window_max`, a connection's up to `limits.connection_window_max` and as long as all growth in the
//!   worker is at most `limits.window_growth_max`.
//! * A connection without streams gives its growth back; what its peer still could send is kept from its next credit.

use super::Engine;
use super::connection::{Codec, Connection};
use super::http2::Http2;
use super::pool::Pool;
use super::stream::Leg;
use crate::h2::frame;
use crate::limits::Limits;

/// What a PING that measures carries.
const OPAQUE: [u8; 8] = *b"sluice\0\x02";

impl Http2 {
    /// So much is consumed that the peer is told.
    #[cold]
    fn return_credit(&mut self, limits: &Limits, out: &mut Vec<u8>) -> bool {
        let windows = &mut self.windows;
        let withheld = windows.withheld.min(self.unacked);
        windows.withheld -= withheld;
        self.unacked -= withheld;
        let credit = std::mem::take(&mut self.unacked);
        if credit > 0 {
            self.queue.control += 1;
            frame::put_window_update(out, 0, credit);
            self.recv_window += i64::from(credit);
            windows.returned += u64::from(credit);
        }
        let may_grow = windows.connection < limits.connection_window_max || windows.stream < limits.stream_window_max;
        if may_grow && windows.probe.is_none() && windows.withheld == 0 {
            windows.probe = Some(windows.returned);
            self.queue.control += 1;
            frame::put_ping(out, OPAQUE);
        }
        credit > 0 || may_grow
    }
}

impl Connection {
    /// Body bytes from this peer were passed on or dropped: it may send as many again. Without a leg only the
    /// connection's share is given back. `true` when something has to be written.
    #[inline]
    pub fn credit(&mut self, leg: Option<&mut Leg>, bytes: usize, limits: &Limits, pool: &mut Pool) -> bool {
        self.credit_both(leg, bytes, bytes, true, limits, pool)
    }

    /// The same for bytes that waited: the connection's share of some was given back before.
    #[inline]
    pub fn credit_waited(
        &mut self,
        leg: &mut Leg,
        bytes: usize,
        connection_bytes: usize,
        limits: &Limits,
        pool: &mut Pool,
    ) -> bool {
        self.credit_both(Some(leg), bytes, connection_bytes, false, limits, pool)
    }

    #[inline(always)]
    fn credit_both(
        &mut self,
        leg: Option<&mut Leg>,
        bytes: usize,
        connection_bytes: usize,
        fast: bool,
        limits: &Limits,
        pool: &mut Pool,
    ) -> bool {
        match &mut self.codec {
            Codec::Http2(http2) => {
                let mut wrote = false;
                http2.unacked += connection_bytes as u32;
                if http2.unacked >= limits.connection_window / 2 {
                    wrote = http2.return_credit(limits, self.out.tail(pool));
                }
                if let Some(leg) = leg {
                    leg.unacked += bytes as u32;
                    if leg.unacked >= leg.window / 2 && !leg.received_end {
                        // Only who is read as fast as it sends needs more room.
                        let window = if fast {
                            http2.windows.stream.max(leg.window)
                        } else {
                            leg.window
                        };
                        let credit = leg.unacked + (window - leg.window);
                        http2.queue.control += 1;
                        frame::put_window_update(self.out.tail(pool), leg.id, credit);
                        leg.recv_window += i64::from(credit);
                        leg.window = window;
                        leg.unacked = 0;
                        wrote = true;
                    }
                }
                wrote
            }
            Codec::Http1(http1) => {
                http1.credit(connection_bytes);
                false
            }
            Codec::Detecting => false,
        }
    }
}

impl Engine {
    /// Bytes for `leg` begin to wait: the connection they came on, `c`, gets its share of their credit while there is
    /// room for such bytes.
    #[inline]
    pub(super) fn hold(&mut self, c: &mut Connection, index: u32, to: usize, bytes: usize) {
        let there_is_room = self.held + bytes as u64 <= self.held_max;
        if bytes == 0 || !there_is_room || !c.is_downstream() || !matches!(c.codec, Codec::Http2(_)) {
            return;
        }
        self.held += bytes as u64;
        self.streams[index].legs[to].early += bytes;
        if c.credit(None, bytes, &self.limits, &mut self.pool) {
            self.turn.mark(c);
        }
    }

    /// A measurement's answer came; `false` when there was none under way.
    pub(super) fn on_probe_answer(&mut self, c: &mut Connection, opaque: [u8; 8]) -> bool {
        let http2 = c.http2();
        let (OPAQUE, Some(before)) = (opaque, http2.windows.probe) else {
            return false;
        };
        let windows = &mut http2.windows;
        windows.probe = None;
        let consumed = windows.returned + u64::from(http2.unacked) - before;
        let limited = |window: u32| consumed >= u64::from(window) / 3 * 2;
        if limited(windows.stream) {
            let most = self.limits.stream_window_max.max(windows.stream);
            windows.stream = windows.stream.saturating_mul(2).min(most);
        }
        let most = self.limits.connection_window_max.max(windows.connection);
        let more = windows.connection.saturating_mul(2).min(most) - windows.connection;
        let affordable = self.grown + u64::from(more) <= self.grown_max;
        if more > 0 && limited(windows.connection) && affordable {
            windows.connection += more;
            http2.recv_window += i64::from(more);
            self.grown += u64::from(more);
            frame::put_window_update(c.out.tail(&mut self.pool), 0, more);
            self.turn.mark(c);
        }
        true
    }

    /// The connection's windows are what they were in the beginning.
    pub(super) fn shrink_windows(&mut self, c: &mut Connection) {
        let side = c.side();
        let Codec::Http2(http2) = &mut c.codec else { return };
        let windows = &mut http2.windows;
        let before = Http2::window(side, &self.limits);
        let grown = windows.connection - before;
        windows.withheld += grown;
        windows.connection = before;
        windows.stream = self.limits.stream_window;
        self.grown -= u64::from(grown);
    }
}
