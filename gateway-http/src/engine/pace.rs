//! Streams that do not move: a body the client owes, a response it does not take, a stream on which nothing happens.
//!
//! # Laws
//! * A request pays nothing for this: while a connection has streams its own timer looks at them, [`LOOKS`] times in the
//!   shortest timeout, and compares byte counts. A stream is ended at most an eighth of that late, and never early.
//! * Only who holds things up is blamed: a client that gets no credit owes nothing, and one that takes what others of
//!   its streams have to say is not slow.
//! * Responses that stand still may use up most of the window an endpoint's clients share; then they go at the next look.
//! * A drip is no movement: what is slower than `body_bytes_per_second_min` counts as standing still.
//! * gRPC streams may be silent for ever. Their client must only be there: it answers PING. Open tunnels have a bound
//!   of their own (`tunnel.rs`).

use super::connection::{Closing, Codec, Connection};
use super::stream::{DOWN, UP, Wait};
use super::{ConnId, Engine};
use crate::h2::frame::{self, ErrorCode};
use crate::limits::Limits;
use gateway_core::fault::Fault;
use gateway_core::time::Moment;
use std::time::Duration;

/// Looks in the shortest of the timeouts.
const LOOKS: u32 = 8;
/// Between two looks at the least.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// A client has this long to answer a PING.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

impl Limits {
    /// Between two looks at the streams of a connection.
    pub(super) fn look_interval(&self) -> Duration {
        let shortest = self.body_timeout.min(self.stall_timeout).min(self.stream_idle_timeout);
        (shortest / LOOKS).max(LOOK_MIN)
    }

    /// Whether `bytes` in `span` are movement.
    fn is_movement(&self, bytes: u64, span: Duration) -> bool {
        let needed = u128::from(self.body_bytes_per_second_min) * span.as_nanos() / 1_000_000_000;
        bytes > 0 && u128::from(bytes) >= needed
    }
}

impl Engine {
    /// Ends the streams of a downstream connection that stood still for too long.
    pub(super) fn look_at_streams(&mut self, c: &mut Connection) {
        let before = std::mem::replace(&mut c.looked, self.now);
        let mut indices = std::mem::take(&mut self.indices);
        indices.clear();
        match &c.codec {
            Codec::Http2(http2) => indices.extend(http2.ids.values()),
            Codec::Http1(http1) => indices.extend(http1.stream),
            Codec::Detecting => {}
        }
        let taken_in_all: u64 = indices
            .iter()
            .map(|index| {
                let stream = &self.streams[*index];
                stream.taken().saturating_sub(stream.pace.taken)
            })
            .sum();
        let waits_for_continue = matches!(&c.codec, Codec::Http1(http1) if http1.awaits_continue());
        for index in &indices {
            let stream = &self.streams[*index];
            if !stream.live || stream.legs[DOWN].conn != Some(c.id) || c.closing != Closing::No {
                continue;
            }
            let pressed = stream.legs[UP].conn.is_some_and(|id| self.is_pressed(id));
            if let Some(fault) = self.judge(*index, before, taken_in_all, waits_for_continue, pressed) {
                self.cut(c, *index, fault);
            }
        }
        self.indices = indices;
    }

    /// Whether clients that take nothing have used up most of the window they share with others.
    fn is_pressed(&self, endpoint: ConnId) -> bool {
        match self.connections.get(endpoint).map(|c| &c.codec) {
            Some(Codec::Http2(http2)) => http2.recv_window < i64::from(self.limits.upstream_connection_window / 4),
            Some(Codec::Http1(_) | Codec::Detecting) | None => false,
        }
    }

    /// What a stream is to be ended for, if for anything. `pressed`: it stands in others' way.
    fn judge(
        &mut self,
        index: u32,
        before: Moment,
        taken_in_all: u64,
        waits_for_continue: bool,
        pressed: bool,
    ) -> Option<Fault> {
        let (now, limits) = (self.now, &self.limits);
        let stream = &mut self.streams[index];
        let (came, taken) = (stream.bytes_up, stream.taken());
        let before = before.max(stream.started);
        let span = now.since(before);
        let timed = stream.deadline.is_some() || stream.retrying.due.is_some();
        let gathers = stream.is_gathering();
        let pace = &mut stream.pace;
        let new_came = came.saturating_sub(std::mem::replace(&mut pace.came, came));
        let new_taken = taken.saturating_sub(std::mem::replace(&mut pace.taken, taken));
        for since in [&mut pace.owes_since, &mut pace.stands_since, &mut pace.still_since] {
            *since = (*since).max(stream.started);
        }
        let [down, up] = &stream.legs;
        let tunnel = stream.tunnel.as_ref().is_some_and(|tunnel| tunnel.is_open());
        let may_be_silent = (stream.grpc || tunnel) && !stream.unwanted && !gathers;
        let owes = !down.received_end
            && (!down.sent_head || stream.unwanted)
            && (up.pending_len() == 0 || gathers)
            && !may_be_silent
            && !waits_for_continue
            && stream.tunnel.is_none();
        if !owes || limits.is_movement(new_came, span) {
            pace.owes_since = now;
        }
        let stands = down.sent_head && (down.pending_len() > 0 || down.pending_end);
        let moved = match down.wait {
            Wait::No | Wait::Answer => true,
            Wait::Connection => limits.is_movement(taken_in_all, span),
            Wait::Stream => limits.is_movement(new_taken, span),
        };
        if !stands || moved {
            pace.stands_since = now;
        }
        let answered = stream.first_byte.is_some_and(|at| at >= before);
        if new_came > 0 || new_taken > 0 || answered || may_be_silent || timed {
            pace.still_since = now;
        }
        // A consumer of messages may pause for a while.
        let stall_timeout = if pressed {
            limits.look_interval()
        } else if stream.grpc || tunnel {
            limits.stream_idle_timeout.max(limits.stall_timeout)
        } else {
            limits.stall_timeout
        };
        if now >= pace.owes_since + limits.body_timeout {
            return Some(Fault::RequestTimeout);
        }
        if now >= pace.stands_since + stall_timeout {
            return Some(Fault::Stalled);
        }
        if now < pace.still_since + limits.stream_idle_timeout {
            return None;
        }
        Some(match (down.sent_head, down.received_end || stream.tunnel.is_some()) {
            (true, _) => Fault::Stalled,
            (false, true) => Fault::DeadlineExceeded,
            (false, false) => Fault::RequestTimeout,
        })
    }

    /// Answers a stream that stood still, or breaks it off.
    fn cut(&mut self, c: &mut Connection, index: u32, fault: Fault) {
        self.leave_upstream(c, index, ErrorCode::Cancel);
        let key = self.streams.key(index);
        let stream = &mut self.streams[index];
        if stream.legs[DOWN].sent_head {
            stream.fault = stream.fault.or(Some(fault));
            return self.end_stream(c, index, ErrorCode::Cancel);
        }
        if let Codec::Http1(_) = c.codec {
            return self.on_body_timeout(c, index, fault);
        }
        self.fail(c, index, fault);
        if self.streams.is_live(key) {
            // The rest of the request is not waited for (RFC 9113 8.1).
            self.end_stream(c, index, ErrorCode::NoError);
        }
    }

    /// Asks a client that was silent for long whether it is there; `false`: it is not.
    pub(super) fn ask_for_life(&mut self, c: &mut Connection) -> bool {
        let Some(after) = self.limits.ping_after else {
            return true;
        };
        let silent = self.now.since(c.active.max(c.opened));
        let Codec::Http2(http2) = &mut c.codec else { return true };
        if silent < after {
            http2.asked = None;
            return true;
        }
        if let Some(asked) = http2.asked {
            return self.now < asked + PING_TIMEOUT;
        }
        http2.asked = Some(self.now);
        http2.queue.control += 1;
        frame::put_ping(c.out.tail(&mut self.pool), *b"there?  ");
        self.turn.mark(c);
        true
    }
}
