//! The end of a stream: both legs leave their connections, the outcome is kept for the log, everything it held goes
//! back to its pool.

use super::connection::{Codec, Connection, Farewell, Role};
use super::stream::{DOWN, Facts, UP};
use super::{Engine, Turn, at};
use crate::h2::frame::ErrorCode;
use crate::head::{FieldList, Token};
use crate::outcome::{Outcome, TEXT_BYTES_MAX};
use crate::retry::Retried;
use crate::trace::Trace;
use gateway_core::fault::Fault;
use gateway_core::time::Moment;

/// Outcomes kept between two calls of `take_outcomes`; more are counted as dropped.
pub const OUTCOMES_MAX: usize = 8192;

/// What is left of a stream until the driver took its outcome.
pub struct Finished {
    facts: Facts,
    head: FieldList,
    started: Moment,
    ended: Moment,
    first_byte: Option<Moment>,
    attempts: u8,
    retried: Option<Retried>,
    status: u16,
    grpc_status: Option<u32>,
    grpc_messages: Option<[u64; 2]>,
    fault: Option<Fault>,
    bytes_received: u64,
    bytes_sent: u64,
    trace: Option<Trace>,
}

impl Engine {
    /// Ends the stream if both its messages are over.
    #[inline]
    pub(super) fn finish_if_over(&mut self, c: &mut Connection, index: u32) {
        let stream = &self.streams[index];
        if !stream.live {
            return;
        }
        let [down, up] = &stream.legs;
        let answered = down.sent_end && up.received_end;
        let asked = up.conn.is_none() || (up.sent_end && down.received_end);
        if answered && (asked || stream.tunnel.as_ref().is_some_and(|tunnel| tunnel.is_refused())) {
            self.end_stream(c, index, ErrorCode::NoError);
        }
    }

    /// Ends the stream now. `error` goes to the client if its leg is not over: NO_ERROR after a whole response means
    /// "stop sending" (RFC 9113 8.1).
    pub(super) fn end_stream(&mut self, c: &mut Connection, index: u32, error: ErrorCode) {
        if !self.streams[index].live {
            return;
        }
        self.hold_slot(c, index);
        self.leave_upstream(c, index, ErrorCode::Cancel);
        self.leave_downstream(c, index, error);
        self.drop_pending(c, index, DOWN);
        self.drop_pending(c, index, UP);
        self.release_revision(index);
        if self.streams[index].tunnel.is_some() {
            self.forget_tunnel(index);
        }
        let stream = &mut self.streams[index];
        self.timers.cancel(&mut stream.timer);
        self.pool.put(&mut stream.replay);
        let mirrors = std::mem::take(&mut stream.mirrors);
        let asks = stream.asks.take();
        if stream.aside {
            let question = stream.question.take();
            self.lists.put(&mut stream.head);
            let key = self.streams.key(index);
            self.streams.close(index);
            return match question {
                None => self.mirrors_live -= 1,
                Some(question) => self.end_question(c, key, *question),
            };
        }
        let facts = stream.facts;
        let (status, fault, took) = (stream.status, stream.fault, self.now.since(stream.started));
        self.metrics
            .request_finished(facts.listener, facts.endpoint, status, fault, took);
        let mut head = std::mem::take(&mut stream.head);
        let messages = stream.counts.then(|| stream.messages.map(|messages| messages.count()));
        if let (Some(messages), Some(_)) = (messages, facts.endpoint) {
            let path = head.get(Token::PATH).unwrap_or_default();
            self.metrics.grpc.finished(path, stream.grpc_status, messages);
        }
        if self.keeps_outcomes && self.finished.len() < OUTCOMES_MAX {
            self.finished.push(Finished {
                facts,
                head,
                started: stream.started,
                ended: self.now,
                first_byte: stream.first_byte,
                attempts: stream.attempts,
                retried: stream.retrying.why,
                status,
                grpc_status: stream.grpc_status,
                grpc_messages: messages,
                fault,
                bytes_received: stream.bytes_up,
                bytes_sent: stream.bytes_down,
                trace: stream.trace,
            });
        } else {
            self.metrics.outcomes_dropped_total += u64::from(self.keeps_outcomes);
            self.lists.put(&mut head);
        }
        self.streams.close(index);
        if !mirrors.is_empty() {
            self.leave_mirrors(c, mirrors);
        }
        if let Some(key) = asks {
            self.withdraw(c, key);
        }
    }

    /// A stream ends before its endpoint is done with it: its slot on the client's connection (`streams_max`) is free
    /// when RST_STREAM is on its way, or the endpoint's connection closed. Else a client could make endpoints work on
    /// more requests than it may have open.
    #[inline]
    pub(super) fn hold_slot(&mut self, c: &mut Connection, index: u32) {
        let [down, up] = &self.streams[index].legs;
        if let (Some(client), Some(endpoint)) = (down.conn, up.conn)
            && up.id != 0
            && !up.is_over()
        {
            let client = at(&mut self.connections, c, client);
            let Codec::Http2(http2) = &mut client.codec else { return };
            http2.held += 1;
            let slot = (client.id, client.serial);
            at(&mut self.connections, c, endpoint).owes_slots.push(slot);
        }
    }

    /// What was queued on `c` is out, or never will be.
    #[inline]
    pub(super) fn free_slots(&mut self, c: &mut Connection) {
        for (id, serial) in c.owes_slots.drain(..) {
            if let Some(client) = self.connections.get_mut(id)
                && client.serial == serial
                && let Codec::Http2(http2) = &mut client.codec
            {
                http2.held -= 1;
            }
        }
    }

    fn leave_downstream(&mut self, c: &mut Connection, index: u32, error: ErrorCode) {
        let stream = &mut self.streams[index];
        let [leg, up] = &mut stream.legs;
        let Some(id) = leg.conn.take() else { return };
        let target = at(&mut self.connections, c, id);
        let unfinished = !leg.is_over() && !target.dead;
        if unfinished {
            target.reset(leg, error, &mut self.pool);
            self.turn.mark(target);
        }
        let left = up.owed(stream.replayed).saturating_sub(up.early);
        if left > 0 && !target.dead && target.credit(None, left, &self.limits, &mut self.pool) {
            self.turn.mark(target);
        }
        target.detach(leg, unfinished);
        let farewell = target.farewell;
        if farewell == Farewell::Final && target.streams == 0 {
            Self::close_after_flush(target, &mut self.turn);
        }
        self.turn.settle_http1(target, &self.limits);
        debug_assert!(matches!(target.role, Role::Downstream { .. }));
    }

    /// Gives every finished request to `sink`.
    pub(super) fn drain_outcomes(&mut self, mut sink: impl FnMut(&Outcome<'_>)) {
        let mut finished = std::mem::take(&mut self.finished);
        for mut done in finished.drain(..) {
            let [method, authority, path, user_agent, request_id] = &mut self.texts;
            let head = &done.head;
            let outcome = Outcome {
                started: done.started,
                ended: done.ended,
                listener: done.facts.listener,
                rule: done.facts.rule,
                endpoint: done.facts.endpoint,
                attempts: done.attempts,
                retried: done.retried,
                peer: done.facts.peer,
                protocol: done.facts.protocol,
                method: text(head, Token::METHOD, method),
                authority: text(head, Token::AUTHORITY, authority),
                path: text(head, Token::PATH, path),
                user_agent: text(head, Token::USER_AGENT, user_agent),
                request_id: text(head, Token::X_REQUEST_ID, request_id),
                status: done.status,
                grpc_status: done.grpc_status,
                grpc_messages: done.grpc_messages,
                fault: done.fault,
                bytes_received: done.bytes_received,
                bytes_sent: done.bytes_sent,
                first_byte: done.first_byte,
                trace: done.trace,
            };
            sink(&outcome);
            self.lists.put(&mut done.head);
        }
        self.finished = finished;
    }

    /// Nothing new is read; the connection closes when its output is written.
    pub(super) fn close_after_flush(c: &mut Connection, turn: &mut Turn) {
        c.close_after_flush();
        turn.mark(c);
    }
}

/// A field as text of at most [`TEXT_BYTES_MAX`] bytes; lossy text is made in `scratch`.
fn text<'a>(head: &'a FieldList, token: Token, scratch: &'a mut String) -> &'a str {
    let bytes = head.get(token).unwrap_or_default();
    let bytes = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => {
            scratch.clear();
            scratch.push_str(&String::from_utf8_lossy(bytes));
            scratch.truncate(scratch.floor_char_boundary(TEXT_BYTES_MAX));
            scratch
        }
    }
}
