//! Another attempt.
//!
//! # Laws
//! * What provably had no effect at an endpoint goes to another one at once, under any rule: a replay. Everything else
//!   goes again only where the rule says so (`ir::Retry`), after a pause and within the service's budget: a retry.
//! * No attempt follows a byte of a final answer: a head with a status the rule names is dropped before anything of it
//!   went down, and the last attempt's is passed on as it is.
//! * A stream that pauses has no upstream leg; its request waits for it as for a connect, its one timer in the wheel.
//!   The pause ends with the request's deadline at the latest, and with the client.
//! * At most [`RETRIES_MAX`] retries, `limits.attempts_max` or, where endpoints refuse, `limits.replays_max` attempts
//!   besides.

use super::Engine;
use super::connection::{Codec, Connection};
use super::request_id;
use super::stream::{DOWN, Stream, TRIED_MAX, UP, Wait};
use super::timer::Timed;
use crate::grpc;
use crate::h2::frame::ErrorCode;
use crate::head::FieldList;
use crate::head::facts::{ResponseFacts, decimal};
use crate::retry::{NotRetried, Retried};
use gateway_core::balance::budget::Allowance;
use gateway_core::decide::{Decide, Forward};
use gateway_core::fault::Fault;
use gateway_core::ids::EndpointId;
use gateway_core::ir::Retry;
use gateway_core::time::Moment;
use std::time::Duration;

/// Retries of a request, whatever its rule says.
const RETRIES_MAX: u32 = 100;
/// A pause is at most so many times the rule's `backoff`.
const BACKOFF_TIMES_MAX: u32 = 10;
/// How long an endpoint may ask to be left alone (`grpc-retry-pushback-ms`).
const PUSHBACK_MAX: Duration = Duration::from_secs(300);
/// gRFC A6.
const PUSHBACK: &[u8] = b"grpc-retry-pushback-ms";
const PREVIOUS_ATTEMPTS: &[u8] = b"grpc-previous-rpc-attempts";

impl Stream {
    /// When the attempt under way must be over: its own time or the whole request's.
    pub fn attempt_deadline(&self) -> Option<Moment> {
        match (self.deadline, self.retrying.attempt_due()) {
            (Some(whole), Some(attempt)) => Some(whole.min(attempt)),
            (whole, attempt) => whole.or(attempt),
        }
    }

    /// The endpoints it was sent to, the last one at the end; of many attempts only the last.
    fn tried(&self) -> ([EndpointId; TRIED_MAX], usize) {
        let mut tried = [EndpointId(u32::MAX); TRIED_MAX];
        let mut count = 0;
        let oldest = usize::from(self.attempts).saturating_sub(TRIED_MAX);
        for attempt in oldest..usize::from(self.attempts) {
            if let Some(endpoint) = self.tried[attempt % TRIED_MAX] {
                tried[count] = endpoint;
                count += 1;
            }
        }
        (tried, count)
    }
}

impl Engine {
    /// Sees that the request is sent again after `fault`; `false` when it cannot or must not be.
    pub(super) fn again(&mut self, c: &mut Connection, index: u32, fault: Fault) -> bool {
        if fault.provably_unprocessed() && self.replay(c, index, fault) {
            return true;
        }
        if !self.streams[index].retrying.on {
            return false;
        }
        let Some(why) = why(fault) else { return false };
        let Some(pause) = self.grant(index, why, None) else {
            return false;
        };
        self.pause(index, why, pause);
        true
    }

    /// Sends a request that had no effect to another endpoint.
    fn replay(&mut self, c: &mut Connection, index: u32, fault: Fault) -> bool {
        let stream = &self.streams[index];
        let (Some(mut forward), Some(revision)) = (stream.forward, stream.revision) else {
            return false;
        };
        let attempts_max = if fault == Fault::Refused {
            self.limits.replays_max
        } else {
            self.limits.attempts_max.min(TRIED_MAX as u8)
        };
        let attempts = stream.attempts.saturating_sub(stream.retrying.count);
        if attempts >= attempts_max || !stream.replayable || stream.legs[DOWN].sent_head {
            return false;
        }
        let (tried, count) = stream.tried();
        let another = Decide {
            snapshot: self.revisions.get(revision),
            balancers: &mut self.balancers,
        }
        .again(&forward, &tried[..count], self.now);
        match another {
            Some(endpoint) => forward.endpoint = endpoint,
            // Nobody else is there, but this one lives: it was too full, or is going and may be back.
            None if fault == Fault::Refused => {}
            None => return false,
        }
        self.streams[index].forward = Some(forward);
        self.metrics.retries_total += 1;
        self.rewind(index);
        self.dispatch(c, index);
        true
    }

    /// An answer came on `c` for a stream whose rule has retries: drops it if another attempt follows.
    #[cold]
    pub(super) fn drop_answer(
        &mut self,
        c: &mut Connection,
        index: u32,
        fields: &FieldList,
        facts: ResponseFacts,
        end: bool,
    ) -> bool {
        let stream = &self.streams[index];
        let Some((_, policy)) = self.policy(index) else {
            return false;
        };
        let named = |status| policy.grpc_statuses.binary_search(&status).is_ok();
        let why = if policy.statuses.binary_search(&facts.status).is_ok() {
            Retried::Status
        } else if stream.grpc && end && grpc::status_of(fields).is_some_and(named) {
            Retried::GrpcStatus
        } else {
            if stream.retrying.count > 0 {
                self.metrics.retry_succeeded(stream.facts.endpoint);
            }
            return false;
        };
        let pushback = match fields.position(PUSHBACK).filter(|_| stream.grpc) {
            None => None,
            Some(place) => match decimal(fields.value(&fields.fields()[place])) {
                Some(ms) => Some(Duration::from_millis(ms).min(PUSHBACK_MAX)),
                // A negative number or none at all: do not come again.
                None => {
                    self.metrics.not_retried(stream.facts.endpoint, NotRetried::Pushback);
                    return false;
                }
            },
        };
        let Some(pause) = self.grant(index, why, pushback) else {
            return false;
        };
        if let Some(endpoint) = self.streams[index].facts.endpoint {
            self.balancers.answered(endpoint);
            self.metrics.endpoint_answered(endpoint, facts.status);
        }
        let leg = &mut self.streams[index].legs[UP];
        leg.received_head = true;
        leg.received_end = end;
        if let Codec::Http1(http1) = &mut c.codec {
            leg.received_end |= http1.drop_response(leg);
        }
        self.leave_upstream(c, index, ErrorCode::Cancel);
        self.pause(index, why, pause);
        true
    }

    fn policy(&self, index: u32) -> Option<(Forward, &Retry)> {
        let stream = &self.streams[index];
        let (forward, revision) = (stream.forward?, stream.revision?);
        let policy = self.revisions.get(revision).rule(forward.rule)?.retry.as_ref()?;
        Some((forward, policy))
    }

    /// How long the request pauses before it is sent again; `None` when it may not be.
    fn grant(&mut self, index: u32, why: Retried, pushback: Option<Duration>) -> Option<Duration> {
        let stream = &self.streams[index];
        if stream.legs[DOWN].sent_head || stream.legs[DOWN].conn.is_none() {
            return None;
        }
        if stream.deadline.is_some_and(|deadline| self.now >= deadline) {
            return None;
        }
        let (forward, policy) = self.policy(index)?;
        let count = u32::from(stream.retrying.count);
        let mut refused = None;
        if count >= policy.attempts.min(RETRIES_MAX) {
            refused = Some(NotRetried::Limit);
        } else if !stream.replayable {
            refused = Some(NotRetried::Body);
        }
        let base = policy.backoff;
        let allowance = self.retry_allowance();
        let revision = stream.revision?;
        let mut decide = Decide {
            snapshot: self.revisions.get(revision),
            balancers: &mut self.balancers,
        };
        if refused.is_none() && !decide.take_retry(&forward, allowance, self.now) {
            refused = Some(NotRetried::Budget);
        }
        let endpoint = self.streams[index].facts.endpoint;
        if let Some(refused) = refused {
            self.metrics.not_retried(endpoint, refused);
            return None;
        }
        self.metrics.retried(endpoint, why);
        Some(pushback.unwrap_or_else(|| self.backoff(base, count)))
    }

    /// A request whose rule has retries goes upstream the first time.
    #[cold]
    pub(super) fn allow_retries(&mut self, index: u32, forward: &Forward) {
        let Some(revision) = self.streams[index].revision else {
            return;
        };
        let allowance = self.retry_allowance();
        Decide {
            snapshot: self.revisions.get(revision),
            balancers: &mut self.balancers,
        }
        .allow_retries(forward, allowance, self.now);
    }

    fn retry_allowance(&self) -> Allowance {
        Allowance {
            percent: self.limits.retry_percent,
            per_second: self.limits.retries_per_second,
        }
    }

    /// The base, doubled with each retry, half as much again at the most by chance, and never above its bound.
    fn backoff(&mut self, base: Duration, count: u32) -> Duration {
        let most = base.saturating_mul(BACKOFF_TIMES_MAX);
        let least = base.saturating_mul(1 << count.min(8)).min(most);
        self.request_counter = self.request_counter.wrapping_add(1);
        let (chance, _) = request_id::words(self.config.request_id_seed, self.config.worker, self.request_counter);
        let more = (u128::from(chance >> 33) * (least / 2).as_nanos()) >> 31;
        (least + Duration::from_nanos(u64::try_from(more).unwrap_or(0))).min(most)
    }

    /// The request waits to be sent once more.
    fn pause(&mut self, index: u32, why: Retried, pause: Duration) {
        self.rewind(index);
        let due = self.now + pause;
        let stream = &mut self.streams[index];
        stream.retrying.pauses = true;
        stream.retrying.count = stream.retrying.count.saturating_add(1);
        stream.retrying.why = Some(why);
        stream.retrying.due = Some(due);
        self.arm_stream(index);
    }

    /// Sets the stream's one timer to what is due first.
    pub(super) fn arm_stream(&mut self, index: u32) {
        let stream = &mut self.streams[index];
        let due = match (stream.deadline, stream.retrying.due) {
            (Some(whole), Some(due)) => Some(whole.min(due)),
            (whole, due) => whole.or(due),
        };
        self.timers.cancel(&mut stream.timer);
        if let Some(due) = due {
            stream.timer = self.timers.set(due, Timed::Stream(index));
        }
    }

    /// The timer of a stream that is no tunnel fired. `c` is its downstream connection.
    pub(super) fn on_stream_due(&mut self, c: &mut Connection, index: u32) {
        let stream = &mut self.streams[index];
        if stream.deadline.is_some_and(|deadline| self.now >= deadline) {
            return self.fail(c, index, Fault::DeadlineExceeded);
        }
        if stream.retrying.due.is_none_or(|due| self.now < due) {
            return self.arm_stream(index);
        }
        stream.retrying.due = None;
        if !std::mem::take(&mut stream.retrying.pauses) {
            return self.fail(c, index, Fault::AttemptTimeout);
        }
        let (tried, count) = stream.tried();
        let (Some(mut forward), Some(revision)) = (stream.forward, stream.revision) else {
            return self.fail(c, index, Fault::Internal);
        };
        let endpoint = Decide {
            snapshot: self.revisions.get(revision),
            balancers: &mut self.balancers,
        }
        .retry(&forward, &tried[..count], self.now);
        let Some(endpoint) = endpoint else {
            return self.fail(c, index, Fault::NoEndpoint);
        };
        forward.endpoint = endpoint;
        self.streams[index].forward = Some(forward);
        self.metrics.retries_total += 1;
        self.arm_stream(index);
        self.dispatch(c, index);
    }

    /// What gRPC servers are told of the attempts before this one (gRFC A6); `fields` is the head of this one.
    pub(super) fn number_attempt(count: u8, fields: &mut FieldList) {
        let before = fields
            .position(PREVIOUS_ATTEMPTS)
            .and_then(|place| decimal(fields.value(&fields.fields()[place])))
            .unwrap_or(0);
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut left = before.saturating_add(u64::from(count));
        while left > 0 || at == digits.len() {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        fields.set(PREVIOUS_ATTEMPTS, &digits[at..]);
    }

    /// What went upstream waits again in front of what did not.
    pub(super) fn rewind(&mut self, index: u32) {
        let stream = &mut self.streams[index];
        let leg = &mut stream.legs[UP];
        leg.sent_head = false;
        leg.sent_end = false;
        leg.received_head = false;
        leg.received_end = false;
        leg.wait = Wait::No;
        let replay = &mut stream.replay;
        if !replay.is_empty() {
            stream.replayed += replay.len();
            replay.extend_from_slice(&leg.pending[leg.pending_start..]);
            std::mem::swap(&mut leg.pending, replay);
            replay.clear();
            leg.pending_start = 0;
        }
        // The end may have gone upstream already.
        let over = stream.legs[DOWN].received_end;
        stream.legs[UP].pending_end |= over;
    }
}

/// Failures that a rule with retries sends again.
fn why(fault: Fault) -> Option<Retried> {
    match fault {
        Fault::ConnectFailed | Fault::TlsFailed => Some(Retried::Connect),
        Fault::Refused => Some(Retried::Refused),
        Fault::Reset | Fault::ConnectionLost | Fault::BadResponse => Some(Retried::Reset),
        Fault::AttemptTimeout => Some(Retried::Timeout),
        Fault::BadRequest
        | Fault::HeadTooLarge
        | Fault::TargetTooLong
        | Fault::ClientGone
        | Fault::RequestTimeout
        | Fault::Stalled
        | Fault::Misdirected
        | Fault::BodyTooLarge
        | Fault::AuthRequired
        | Fault::AuthDenied
        | Fault::AuthFailed
        | Fault::NoRoute
        | Fault::Broken
        | Fault::NoEndpoint
        | Fault::MessageTooLarge
        | Fault::DeadlineExceeded
        | Fault::Overloaded
        | Fault::TunnelIdle
        | Fault::Internal => None,
    }
}
