//! Bytes that waited, once there is room again.
//!
//! A stream that waits for its own window is in no list: a WINDOW_UPDATE names it. Streams that wait for their
//! connection stand in its ring and take turns, [`SLICE_BYTES_MAX`] each. So a blocked stream costs nothing.

use super::connection::{Codec, Connection};
use super::leg::Body;
use super::stream::{DOWN, StreamKey, UP, Wait};
use super::{Engine, at};

/// Bytes one stream may send before the next one has its turn.
const SLICE_BYTES_MAX: usize = 32 * 1024;
/// Sent bytes at the front of a waiting buffer that are worth moving the rest for.
const COMPACT_BYTES_MIN: usize = 64 * 1024;

impl Connection {
    /// The stream's next bytes wait for this connection.
    #[inline]
    pub(super) fn wait_in_ring(&mut self, key: StreamKey) {
        if let Codec::Http2(http2) = &mut self.codec {
            http2.ring.push_back(key);
        }
    }
}

impl Engine {
    /// Sends what waits for leg `to`; says what the rest waits for. The leg is in no list.
    pub(super) fn pump(&mut self, c: &mut Connection, index: u32, to: usize) -> Wait {
        let stream = &mut self.streams[index];
        let keeps = to == UP && stream.replayable;
        let mut nothing = 0;
        let replayed = if to == UP { &mut stream.replayed } else { &mut nothing };
        let [down, up] = &mut stream.legs;
        let (source, dest) = if to == UP { (down, up) } else { (up, down) };
        let (true, Some(target)) = (dest.sent_head && !dest.sent_end, dest.conn) else {
            return Wait::No;
        };
        let target = at(&mut self.connections, c, target);
        let left = dest.pending_len();
        let count = target.room(dest, &self.limits).min(left).min(SLICE_BYTES_MAX);
        let all = count == left;
        let end = all && dest.pending_end && dest.trailers.is_none();
        let mut buffer = std::mem::take(&mut dest.pending);
        let range = dest.pending_start..dest.pending_start + count;
        if count > 0 || end {
            target.send_body(
                dest,
                Body::own(&buffer[range.clone()]),
                end,
                &self.limits,
                &mut self.pool,
            );
            self.turn.mark(target);
        }
        dest.pending_start = range.end;
        dest.wait = Wait::No;
        if all {
            dest.pending_start = 0;
            if let Some(mut trailers) = dest.trailers.take() {
                target.send_trailers(dest, &trailers, &mut self.pool);
                self.turn.mark(target);
                self.lists.put(&mut trailers);
            }
        } else {
            let blocked = target.room(dest, &self.limits) == 0;
            dest.wait = if blocked {
                target.wait_for(dest)
            } else {
                Wait::Connection
            };
        }
        let wait = dest.wait;
        // What was given back when it went upstream the first time is not given back again.
        let again = count.min(*replayed);
        *replayed -= again;
        let mut credit = count - again;
        if dest.surplus != 0 {
            // Both are in bytes left; what is empty owes nothing.
            let owed = (left - count - *replayed + credit).saturating_add_signed(dest.surplus);
            let now = if all { owed } else { credit.min(owed) };
            dest.surplus = if all {
                0
            } else {
                dest.surplus + credit as isize - now as isize
            };
            credit = now;
        }
        let early = dest.early.min(credit);
        dest.early -= early;
        self.held -= early as u64;
        if let (true, Some(id)) = (credit > 0, source.conn) {
            let origin = at(&mut self.connections, c, id);
            if origin.credit_waited(source, credit, credit - early, &self.limits, &mut self.pool) {
                self.turn.mark(origin);
            }
            self.turn.settle_http1(origin, &self.limits);
        }
        if again > 0 {
            self.free_gathered(index, again);
        }
        if keeps && count > 0 {
            self.keep_for_replay(index, &buffer[range]);
        }
        self.settle_buffer(index, to, &mut buffer, all);
        if wait == Wait::No {
            self.finish_if_over(c, index);
        }
        wait
    }

    /// Puts a waiting buffer back, or away when it is empty.
    fn settle_buffer(&mut self, index: u32, to: usize, buffer: &mut Vec<u8>, empty: bool) {
        if empty {
            return self.pool.put(buffer);
        }
        let leg = &mut self.streams[index].legs[to];
        if leg.pending_start > COMPACT_BYTES_MIN {
            buffer.drain(..leg.pending_start);
            leg.pending_start = 0;
        }
        leg.pending = std::mem::take(buffer);
    }

    /// Pumps a leg that just got its head or its credit, and lets it wait where it must.
    pub(super) fn pump_and_wait(&mut self, c: &mut Connection, index: u32, to: usize) {
        let key = self.streams.key(index);
        if self.pump(c, index, to) == Wait::Connection
            && let Some(target) = self.streams[index].legs[to].conn
        {
            let target = at(&mut self.connections, c, target);
            target.wait_in_ring(key);
            if !target.blocked {
                self.turn.mark(target);
            }
        }
    }

    /// The connection has room again: its waiting streams take turns until it has none.
    pub(super) fn pump_ring(&mut self, c: &mut Connection) {
        loop {
            let Codec::Http2(http2) = &mut c.codec else {
                return self.pump_http1(c);
            };
            if http2.send_window <= 0 || c.out.len() >= self.limits.out_bytes_max {
                return;
            }
            let Some(key) = http2.ring.pop_front() else { return };
            if !self.streams.is_live(key) {
                continue;
            }
            let to = self.streams[key.index].side_on(c.id);
            let leg = &self.streams[key.index].legs[to];
            if leg.conn != Some(c.id) || leg.wait != Wait::Connection {
                continue;
            }
            if self.pump(c, key.index, to) == Wait::Connection {
                c.wait_in_ring(key);
            }
        }
    }

    /// The one stream of an HTTP/1.1 connection.
    fn pump_http1(&mut self, c: &mut Connection) {
        let Codec::Http1(http1) = &c.codec else { return };
        let Some(index) = http1.stream else {
            return self.turn.settle_http1(c, &self.limits);
        };
        let to = if c.is_downstream() { DOWN } else { UP };
        while c.out.len() < self.limits.out_bytes_max
            && self.streams[index].legs[to].wait == Wait::Connection
            && self.pump(c, index, to) == Wait::Connection
        {}
    }
}
