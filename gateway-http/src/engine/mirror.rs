//! Mirrors: copies of requests to a second service, whose answers nobody reads.
//!
//! A mirror is a stream of its own without a downstream leg on any connection; its request is fed by copy.
//!
//! # Laws
//! * The original never waits for a mirror and never hears of it: a mirror that takes its copy too slowly is dropped
//!   when [`PENDING_BYTES_MAX`] wait, and counted.
//! * A mirror outlives its original by [`LINGER`] at most, and its own answer not at all.

use super::Engine;
use super::connection::Connection;
use super::stream::{DOWN, StreamKey, UP, Wait};
use super::timer::Timed;
use crate::h2::frame::ErrorCode;
use crate::head::facts::ResponseFacts;
use crate::head::{FieldList, Token};
use gateway_core::decide::{Decide, MirrorTo};
use gateway_core::fault::Fault;
use std::time::Duration;

/// Bytes of a request that may wait for a mirror.
const PENDING_BYTES_MAX: usize = 256 * 1024;
/// Mirrors of a worker that live at once.
const LIVE_MAX: usize = 1024;
/// How long a mirror may go on after its original ended.
const LINGER: Duration = Duration::from_secs(15);

impl Engine {
    /// Opens the mirrors of a request whose rule has some and whose turn it is.
    pub(super) fn open_mirrors(&mut self, c: &mut Connection, index: u32) {
        let stream = &self.streams[index];
        let (Some(rule), Some(revision)) = (stream.facts.rule, stream.revision) else {
            return;
        };
        let count = self
            .revisions
            .get(revision)
            .rule(rule)
            .map_or(0, |plan| plan.mirrors.len());
        for which in 0..count {
            let to = Decide {
                snapshot: self.revisions.get(revision),
                balancers: &mut self.balancers,
            }
            .mirror(rule, which, self.now);
            let Some(to) = to else { continue };
            if self.mirrors_live < LIVE_MAX {
                self.open_mirror(c, index, to);
            } else {
                self.metrics.mirrors_dropped_total += 1;
            }
        }
    }

    fn open_mirror(&mut self, c: &mut Connection, of: u32, to: MirrorTo) {
        if self.streams[of].legs[UP].pending_len() > PENDING_BYTES_MAX {
            self.metrics.mirrors_dropped_total += 1;
            return;
        }
        let index = self.streams.open();
        let key = self.streams.key(index);
        self.mirrors_live += 1;
        self.metrics.mirrors_total += 1;
        let mut head = self.lists.take();
        let original = &mut self.streams[of];
        original.mirrors.push(key);
        original.detour = true;
        for field in original.head.fields() {
            // Nobody waits for a mirror's 100.
            if field.token() != Token::EXPECT {
                head.push_copy(field, original.head.name_value(field));
            }
        }
        let forward = original.forward.map(|mut forward| {
            forward.endpoint = to.endpoint;
            forward.protocol = to.protocol;
            forward.tls = to.tls;
            forward.attempt_timeout = None;
            forward
        });
        let (facts, method, started) = (original.facts, original.method, original.started);
        let attempt = original.forward.and_then(|forward| forward.attempt_timeout);
        let deadline = [original.deadline, attempt.map(|timeout| self.now + timeout)];
        let (deadline, timeout) = (deadline.into_iter().flatten().min(), original.grpc_timeout);
        let whole = original.legs[DOWN].received_end;
        let revision = original.revision;
        // Body that came while the request was not allowed to pass yet.
        let up = &original.legs[UP];
        let waits = up.pending[up.pending_start..].to_vec();
        let stream = &mut self.streams[index];
        stream.aside = true;
        stream.detour = true;
        stream.head = head;
        stream.forward = forward;
        stream.facts = facts;
        stream.method = method;
        stream.started = started;
        stream.deadline = deadline;
        stream.grpc_timeout = timeout;
        stream.revision = revision.map(|revision| self.revisions.share(revision));
        let down = &mut stream.legs[DOWN];
        down.received_head = true;
        down.received_end = whole;
        down.sent_head = true;
        down.sent_end = true;
        if !waits.is_empty() {
            let up = &mut stream.legs[UP];
            self.pool.arm(&mut up.pending);
            up.pending.extend_from_slice(&waits);
            up.pending_end = whole;
        }
        if let Some(deadline) = deadline {
            stream.timer = self.timers.set(deadline, Timed::Stream(index));
        }
        self.dispatch(c, index);
    }

    /// What the original's client sent, once more for each mirror.
    pub(super) fn feed_mirrors(&mut self, c: &mut Connection, index: u32, from: usize, bytes: &[u8], end: bool) {
        if from != DOWN || self.streams[index].mirrors.is_empty() {
            return;
        }
        let mirrors = std::mem::take(&mut self.streams[index].mirrors);
        for key in &mirrors {
            if self.streams.is_live(*key) {
                self.feed_mirror(c, key.index, bytes, end);
            }
        }
        self.streams[index].mirrors = mirrors;
    }

    fn feed_mirror(&mut self, c: &mut Connection, index: u32, bytes: &[u8], end: bool) {
        let [down, up] = &mut self.streams[index].legs;
        down.received_end |= end;
        if up.pending_len() + bytes.len() > PENDING_BYTES_MAX {
            self.metrics.mirrors_dropped_total += 1;
            return self.end_stream(c, index, ErrorCode::Cancel);
        }
        self.pool.arm(&mut up.pending);
        up.pending.extend_from_slice(bytes);
        up.pending_end |= end;
        if up.sent_head && up.wait == Wait::No {
            self.pump_and_wait(c, index, UP);
        }
    }

    /// The original is over: a mirror that has all of its request may finish it, another one ends.
    pub(super) fn leave_mirrors(&mut self, c: &mut Connection, mirrors: Vec<StreamKey>) {
        for key in mirrors {
            if !self.streams.is_live(key) {
                continue;
            }
            let stream = &mut self.streams[key.index];
            if stream.legs[DOWN].received_end {
                self.timers.cancel(&mut stream.timer);
                stream.timer = self.timers.set(self.now + LINGER, Timed::Stream(key.index));
            } else {
                self.end_stream(c, key.index, ErrorCode::Cancel);
            }
        }
    }

    /// The head of an answer to a mirror or a question.
    pub(super) fn on_aside_response(
        &mut self,
        c: &mut Connection,
        index: u32,
        fields: &mut FieldList,
        facts: ResponseFacts,
        end: bool,
    ) {
        if facts.is_interim() {
            return;
        }
        let stream = &mut self.streams[index];
        let length = facts.body_length(stream.method);
        let leg = &mut stream.legs[UP];
        leg.received_head = true;
        leg.received_end = end;
        leg.length_left = length.map_or(-1, |length| i64::try_from(length).unwrap_or(i64::MAX));
        if let Some(endpoint) = stream.facts.endpoint {
            self.balancers.answered(endpoint);
        }
        if self.streams[index].question.is_some() {
            self.on_answer_head(c, index, fields, facts.status, end);
        }
        if end {
            self.finish_if_over(c, index);
        }
    }

    /// Body of such an answer: dropped, unless it is a refusal's.
    pub(super) fn on_aside_body(&mut self, c: &mut Connection, index: u32, bytes: &[u8], end: bool) {
        let leg = &mut self.streams[index].legs[UP];
        leg.received_end |= end;
        if c.credit(Some(leg), bytes.len(), &self.limits, &mut self.pool) {
            self.turn.mark(c);
        }
        if self.streams[index].question.is_some() {
            self.on_answer_body(c, index, bytes, end);
        }
        if end {
            self.finish_if_over(c, index);
        }
    }

    /// The attempt of a mirror or a question failed, or its time is over.
    pub(super) fn fail_aside(&mut self, c: &mut Connection, index: u32, fault: Fault) {
        if self.streams[index].question.is_some() {
            return self.fail_question(c, index, fault);
        }
        self.metrics.mirrors_failed_total += 1;
        self.end_stream(c, index, ErrorCode::Cancel);
    }
}
