//! External authorization: a service is asked whether a request may pass, before it goes anywhere.
//!
//! The question is a stream of its own without a downstream leg, as a mirror is; meanwhile the request waits as for a
//! connect, its body held back by its own windows. Over HTTP it is composed and understood by `auth/fields.rs`, as a gRPC
//! call by `auth/call.rs`; a body that goes with it is gathered first, by `auth/gather.rs`.
//!
//! # Laws
//! * A guarded stream gets no upstream leg: [`Engine::dispatch`] asks instead. Only an answer that allows it takes the
//!   guard away.
//! * A question that ends in any other way refuses its request, whatever ended it ([`Engine::end_question`]).
//! * A request that is over, or was answered here, withdraws its question; an answer that comes too late does nothing.
//! * At most [`QUESTIONS_MAX`] questions of a worker, `limits.auth_timeout` and two attempts for each, and
//!   [`ANSWER_BYTES_MAX`] of a refusal's body. Bodies that are gathered, and their copies in questions, share
//!   `limits.held_bytes_max` with what waits for slow readers.

mod call;
mod fields;
mod gather;

use self::call::Call;
use self::fields::{Asked, Decimal, compose, take_fields};
use super::Engine;
use super::connection::Connection;
use super::edit::framing;
use super::stream::{DOWN, Question, StreamKey, UP};
use super::timer::Timed;
use crate::authorization::Unanswered;
use crate::h2::frame::ErrorCode;
use crate::head::facts::Method;
use crate::head::{FieldList, Token};
use gateway_core::decide::{Decide, Forward, MirrorTo};
use gateway_core::fault::Fault;
use gateway_core::ids::{EndpointId, RuleId};
use gateway_core::ir::AuthSpeaks;
use gateway_core::snapshot::{AuthPlan, DestinationTo};

/// Questions of a worker under way at once; more requests are refused.
const QUESTIONS_MAX: usize = 4096;
/// Of a refusal's body so much goes to the client; the rest is cut off.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// No filter of a rule edits a question.
const NO_RULE: RuleId = RuleId(u32::MAX);

impl Engine {
    /// Asks whether a guarded request may pass. It waits, or is refused.
    #[cold]
    pub(super) fn ask(&mut self, c: &mut Connection, of: u32) {
        let stream = &self.streams[of];
        if stream.asks.is_some() || stream.is_gathering() {
            return;
        }
        let (Some(rule), Some(revision)) = (stream.asking(), stream.revision) else {
            return self.refuse(c, of, Unanswered::NoRoom);
        };
        let snapshot = self.revisions.get(revision);
        let to = Decide {
            snapshot,
            balancers: &mut self.balancers,
        }
        .authorizer(rule, &[], self.now);
        let to = match to {
            Ok(to) => to,
            Err(Fault::Broken) => return self.fail(c, of, Fault::Broken),
            Err(_) => return self.refuse(c, of, Unanswered::Unreachable),
        };
        let Some(auth) = snapshot.rule(rule).and_then(|rule| rule.auth.as_ref()) else {
            return self.fail(c, of, Fault::Broken);
        };
        let (call, max) = (matches!(auth.speaks, AuthSpeaks::Grpc { .. }), auth.body_bytes_max);
        if stream.shows(max) && !self.has_body(c, of, max) {
            return;
        }
        if self.questions_live >= QUESTIONS_MAX {
            return self.refuse(c, of, Unanswered::NoRoom);
        }
        let mut head = self.lists.take();
        let mut body = Vec::new();
        self.pool.arm(&mut body);
        let composed = self.question(c, of, &to, &mut head, &mut body);
        let Some(method) = composed.filter(|_| self.has_room(body.len())) else {
            self.lists.put(&mut head);
            self.pool.put(&mut body);
            let why = composed.map_or(Unanswered::Unasked, |_| Unanswered::NoRoom);
            return self.refuse(c, of, why);
        };
        let of = self.streams.key(of);
        let facts = self.streams[of.index].facts;
        let index = self.streams.open();
        self.streams[of.index].asks = Some(self.streams.key(index));
        self.questions_live += 1;
        let stream = &mut self.streams[index];
        stream.aside = true;
        stream.detour = true;
        stream.question = Some(Box::new(Question {
            of,
            again: false,
            refusal: None,
            status: 0,
            body: Vec::new(),
            call,
            why: None,
        }));
        stream.head = head;
        stream.method = method;
        stream.facts = facts;
        stream.replayable = true;
        stream.forward = Some(Forward {
            rule: NO_RULE,
            destination: 0,
            endpoint: to.endpoint,
            protocol: to.protocol,
            prefix_len: 0,
            tls: to.tls,
            attempt_timeout: None,
            deadline: None,
            retries: false,
            session: None,
        });
        stream.started = self.now;
        let deadline = self.now + self.limits.auth_timeout;
        stream.deadline = Some(deadline);
        stream.timer = self.timers.set(deadline, Timed::Stream(index));
        stream.revision = Some(self.revisions.share(revision));
        let [down, up] = &mut stream.legs;
        down.received_head = true;
        down.received_end = true;
        down.sent_head = true;
        down.sent_end = true;
        if body.is_empty() {
            self.pool.put(&mut body);
        } else {
            let len = body.len();
            up.pending = body;
            up.pending_end = true;
            self.keep_gathered(index, len);
        }
        self.dispatch(c, index);
    }

    /// A filter of the listener comes before any rule. `c` is the client's connection for the first one.
    #[cold]
    pub(super) fn ask_first(&mut self, c: &mut Connection, of: u32, rule: RuleId) {
        if self.streams[of].passed == 0 {
            self.stamp(c, of);
            let stream = &mut self.streams[of];
            stream.replayable = true;
            // gRPC-Web has no length that means anything.
            if stream.web.is_none() && self.limit_body(of) {
                return self.fail(c, of, Fault::BodyTooLarge);
            }
        }
        let stream = &mut self.streams[of];
        stream.guard = Some(rule);
        stream.guarded = true;
        self.ask(c, of);
    }

    /// Makes the head and the body of a question; `None`: there is no such question, as over HTTP about a CONNECT.
    fn question(
        &mut self,
        c: &mut Connection,
        of: u32,
        to: &MirrorTo,
        head: &mut FieldList,
        body: &mut Vec<u8>,
    ) -> Option<Method> {
        let client = self.client_of(c, of)?;
        let stream = &self.streams[of];
        let snapshot = self.revisions.get(stream.revision?);
        let auth = snapshot.rule(stream.asking()?)?.auth.as_ref()?;
        let shown_body = stream.shown_body(auth.body_bytes_max);
        match &auth.speaks {
            AuthSpeaks::Http { prefix, shown, .. } => {
                body.extend_from_slice(shown_body);
                let asked = Asked {
                    prefix,
                    shown,
                    body,
                    tls: to.tls,
                };
                compose(&asked, &stream.head, stream.method, head)
            }
            AuthSpeaks::Grpc { shown } => {
                let service = match auth.to {
                    DestinationTo::Service(id) => snapshot.service(id)?.name.as_str(),
                    DestinationTo::Fail { .. } => return None,
                };
                let call = Call {
                    client,
                    service,
                    shown,
                    tls: to.tls,
                    came_s: self.balancers.unix_s(stream.started),
                    timeout: self.limits.auth_timeout,
                    body: shown_body,
                };
                call::compose(&call, stream, head, body)
            }
        }
    }

    /// Nobody says that the request may pass.
    fn refuse(&mut self, c: &mut Connection, of: u32, why: Unanswered) {
        self.metrics.auth_failed_total += 1;
        self.metrics.auth_unanswered[why as usize] += 1;
        self.fail(c, of, Fault::AuthFailed);
    }

    /// The final head of an answer to a question. `fields` may be taken.
    pub(super) fn on_answer_head(
        &mut self,
        c: &mut Connection,
        index: u32,
        fields: &mut FieldList,
        status: u16,
        end: bool,
    ) {
        if self.streams[index]
            .question
            .as_ref()
            .is_some_and(|question| question.call)
        {
            return self.on_call_head(c, index, fields, status, end);
        }
        if status == 200 {
            let passes = self.let_pass(c, index, |auth, head| match &auth.speaks {
                AuthSpeaks::Http { shown, taken, .. } => {
                    take_fields(shown, taken, fields, head);
                    true
                }
                AuthSpeaks::Grpc { .. } => false,
            });
            if let Some(of) = passes {
                self.pass_on(c, of);
            }
            return;
        }
        let mut kept = self.lists.take();
        std::mem::swap(&mut kept, fields);
        if let Some(question) = &mut self.streams[index].question {
            question.refusal = Some(kept);
            question.status = status;
        }
        if end {
            self.deny(c, index);
        }
    }

    /// Body of such an answer; its credit was given back.
    pub(super) fn on_answer_body(&mut self, c: &mut Connection, index: u32, bytes: &[u8], end: bool) {
        let Some(question) = &mut self.streams[index].question else {
            return;
        };
        if question.call {
            return self.on_call_body(c, index, bytes, end);
        }
        // A 200's body is nobody's: it only ends before the connection is used again.
        if question.refusal.is_none() {
            return;
        }
        let room = ANSWER_BYTES_MAX - question.body.len();
        question.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if end || bytes.len() > room {
            self.deny(c, index);
            self.end_stream(c, index, ErrorCode::Cancel);
        }
    }

    /// The request a question is about, if it still waits for the answer; from now on it does not.
    fn take_asker(&mut self, key: StreamKey, of: StreamKey) -> Option<u32> {
        if !self.streams.is_live(of) || self.streams[of.index].asks != Some(key) {
            return None;
        }
        self.streams[of.index].asks = None;
        Some(of.index)
    }

    /// The request goes on, with what the service said of it: `edit` changes its head, and says whether that can be done.
    fn let_pass(
        &mut self,
        c: &mut Connection,
        index: u32,
        edit: impl FnOnce(&AuthPlan, &mut FieldList) -> bool,
    ) -> Option<u32> {
        let key = self.streams.key(index);
        let of = self.streams[index].question.as_ref().map(|question| question.of)?;
        let of = self.take_asker(key, of)?;
        let stream = &mut self.streams[of];
        let rule = stream
            .asking()
            .zip(stream.revision)
            .and_then(|(rule, revision)| self.revisions.get(revision).rule(rule));
        let edited = rule
            .and_then(|rule| rule.auth.as_ref())
            .is_some_and(|auth| edit(auth, &mut stream.head));
        if !edited || stream.head.is_too_large() || stream.legs[DOWN].sent_head {
            self.refuse(c, of, Unanswered::Malformed);
            return None;
        }
        stream.guarded = false;
        self.metrics.auth_allowed_total += 1;
        Some(of)
    }

    /// It goes upstream, or to whom else there is to ask.
    fn pass_on(&mut self, c: &mut Connection, of: u32) {
        let stream = &mut self.streams[of];
        if stream.guard.take().is_some() {
            stream.passed = stream.passed.saturating_add(1);
            let listener = stream.facts.listener;
            // Whether it came on the right connection was decided before anybody was asked.
            let decision = self.decide(of, listener, None);
            return self.carry_out(c, of, decision);
        }
        let stream = &self.streams[of];
        if stream.mirrored && stream.tunnel.is_none() {
            self.open_mirrors(c, of);
        }
        self.dispatch(c, of);
    }

    /// The answer was another one: it is the client's.
    fn deny(&mut self, c: &mut Connection, index: u32) {
        let key = self.streams.key(index);
        let Some(question) = &mut self.streams[index].question else {
            return;
        };
        let (of, status) = (question.of, question.status);
        let body = std::mem::take(&mut question.body);
        let Some(mut answer) = question.refusal.take() else {
            return;
        };
        if let Some(of) = self.take_asker(key, of) {
            self.metrics.auth_denied_total += 1;
            let fault = if status == 401 {
                Fault::AuthRequired
            } else {
                Fault::AuthDenied
            };
            let stream = &mut self.streams[of];
            if stream.grpc || stream.web.is_some() || stream.legs[DOWN].sent_head {
                self.fail(c, of, fault);
            } else {
                stream.fault = Some(fault);
                stream.status = status;
                let fields = self.refusal(&answer, status, body.len());
                let body = if matches!(status, 204 | 304) { &[][..] } else { &body };
                self.send_reply(c, of, fields, body);
            }
        }
        self.lists.put(&mut answer);
    }

    /// The head of a refusal as the client gets it.
    fn refusal(&mut self, answer: &FieldList, status: u16, len: usize) -> FieldList {
        let mut fields = self.lists.take();
        fields.push_status(status);
        for field in answer.fields() {
            let name = answer.name(field);
            if !name.starts_with(b":") && !framing(name) {
                fields.push_copy(field, answer.name_value(field));
            }
        }
        if !matches!(status, 204 | 304) {
            fields.push_known(Token::CONTENT_LENGTH, Decimal::new(len).as_bytes());
        }
        fields
    }

    /// The attempt of a question failed: it goes to another endpoint if it had no effect, else it is over.
    pub(super) fn fail_question(&mut self, c: &mut Connection, index: u32, fault: Fault) {
        self.leave_upstream(c, index, ErrorCode::Cancel);
        let another = self.another_authorizer(index, fault);
        let stream = &mut self.streams[index];
        if let Some(question) = &mut stream.question {
            question.why = question.why.or(Some(Unanswered::of(fault)));
        }
        let (Some(endpoint), Some(question), Some(forward)) = (another, &mut stream.question, &mut stream.forward)
        else {
            return self.end_stream(c, index, ErrorCode::Cancel);
        };
        question.again = true;
        question.why = None;
        forward.endpoint = endpoint;
        self.rewind(index);
        self.dispatch(c, index);
    }

    /// Who is asked once more after `fault`, if anybody may be.
    fn another_authorizer(&mut self, index: u32, fault: Fault) -> Option<EndpointId> {
        let stream = &self.streams[index];
        let (question, forward, revision) = (stream.question.as_ref()?, stream.forward?, stream.revision?);
        let answered = stream.legs[UP].received_head;
        // What went to the first one and was not kept cannot go to another.
        if answered
            || question.again
            || !stream.replayable
            || !fault.provably_unprocessed()
            || !self.streams.is_live(question.of)
        {
            return None;
        }
        let asker = &self.streams[question.of.index];
        let waits = asker.asks == Some(self.streams.key(index));
        let rule = asker.asking().filter(|_| waits)?;
        let another = Decide {
            snapshot: self.revisions.get(revision),
            balancers: &mut self.balancers,
        }
        .authorizer(rule, &[forward.endpoint], self.now);
        match another {
            Ok(to) => Some(to.endpoint),
            // Nobody else is there, but this one lives.
            Err(_) => (fault == Fault::Refused).then_some(forward.endpoint),
        }
    }

    /// A question is over. If its request still waits, nobody said that it may pass.
    pub(super) fn end_question(&mut self, c: &mut Connection, key: StreamKey, mut question: Question) {
        self.questions_live -= 1;
        if let Some(refusal) = &mut question.refusal {
            self.lists.put(refusal);
        }
        if let Some(of) = self.take_asker(key, question.of) {
            self.refuse(c, of, question.why.unwrap_or(Unanswered::BrokenOff));
        }
    }

    /// The request of a question is over.
    #[cold]
    pub(super) fn withdraw(&mut self, c: &mut Connection, key: StreamKey) {
        if self.streams.is_live(key) {
            self.end_stream(c, key.index, ErrorCode::Cancel);
        }
    }

    /// The request is answered here: it asks no more.
    #[cold]
    pub(super) fn stop_asking(&mut self, c: &mut Connection, of: u32) {
        if let Some(key) = self.streams[of].asks.take() {
            self.withdraw(c, key);
        }
    }
}
