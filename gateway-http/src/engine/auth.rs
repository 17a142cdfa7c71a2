//! External authorization: a service is asked whether a request may pass, before it goes anywhere.
//!
//! The question is a stream of its own without a downstream leg, as a mirror is; meanwhile the request waits as for a
//! connect, its body held back by its own windows.
//!
//! # Laws
//! * A guarded stream gets no upstream leg: [`Engine::dispatch`] asks instead. Only an answer of 200 takes the guard away.
//! * A question that ends in any other way refuses its request, whatever ended it ([`Engine::end_question`]).
//! * A request that is over, or was answered here, withdraws its question; an answer that comes too late does nothing.
//! * At most [`QUESTIONS_MAX`] questions of a worker, `limits.auth_timeout` and two attempts for each, and
//!   [`ANSWER_BYTES_MAX`] of a refusal's body.

use super::Engine;
use super::connection::Connection;
use super::edit::framing;
use super::stream::{DOWN, StreamKey, UP};
use super::timer::Timed;
use crate::h2::frame::ErrorCode;
use crate::head::facts::Method;
use crate::head::{FieldList, Token};
use gateway_core::decide::{Decide, Forward};
use gateway_core::fault::Fault;
use gateway_core::ids::{EndpointId, RuleId};
use gateway_core::snapshot::AuthPlan;
use std::io::Write;

/// Questions of a worker under way at once; more requests are refused.
const QUESTIONS_MAX: usize = 4096;
/// Of a refusal's body so much goes to the client; the rest is cut off.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// No filter of a rule edits a question.
const NO_RULE: RuleId = RuleId(u32::MAX);

/// What is asked about whom, and what came back.
pub struct Question {
    of: StreamKey,
    /// It went to a second endpoint.
    again: bool,
    /// A refusal: its head, its status, and what came of its body.
    refusal: Option<FieldList>,
    status: u16,
    body: Vec<u8>,
}

impl Engine {
    /// Asks whether a guarded request may pass. It waits, or is refused.
    #[cold]
    pub(super) fn ask(&mut self, c: &mut Connection, of: u32) {
        let stream = &self.streams[of];
        if stream.asks.is_some() {
            return;
        }
        let (Some(rule), Some(revision)) = (stream.asking(), stream.revision) else {
            return self.refuse(c, of);
        };
        let snapshot = self.revisions.get(revision);
        let to = Decide {
            snapshot,
            balancers: &mut self.balancers,
        }
        .authorizer(rule, &[], self.now);
        let to = match to {
            Ok(to) if self.questions_live < QUESTIONS_MAX => to,
            Err(Fault::Broken) => return self.fail(c, of, Fault::Broken),
            Ok(_) | Err(_) => return self.refuse(c, of),
        };
        let mut head = self.lists.take();
        let auth = snapshot.rule(rule).and_then(|rule| rule.auth.as_ref());
        let Some(method) = auth.and_then(|auth| compose(auth, &stream.head, stream.method, to.tls, &mut head)) else {
            self.lists.put(&mut head);
            return self.refuse(c, of);
        };
        let of = self.streams.key(of);
        let facts = stream.facts;
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
        let down = &mut stream.legs[DOWN];
        down.received_head = true;
        down.received_end = true;
        down.sent_head = true;
        down.sent_end = true;
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

    /// Nobody says that the request may pass.
    fn refuse(&mut self, c: &mut Connection, of: u32) {
        self.metrics.auth_failed_total += 1;
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
        if status == 200 {
            return self.let_pass(c, index, fields);
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

    /// The answer was 200: the request goes on, with what the service said of it.
    fn let_pass(&mut self, c: &mut Connection, index: u32, answer: &FieldList) {
        let key = self.streams.key(index);
        let Some(of) = self.streams[index].question.as_ref().map(|question| question.of) else {
            return;
        };
        let Some(of) = self.take_asker(key, of) else { return };
        let stream = &mut self.streams[of];
        let rule = stream
            .asking()
            .zip(stream.revision)
            .and_then(|(rule, revision)| self.revisions.get(revision).rule(rule));
        let Some(auth) = rule.and_then(|rule| rule.auth.as_ref()) else {
            return self.refuse(c, of);
        };
        take_fields(auth, answer, &mut stream.head);
        if stream.head.is_too_large() || stream.legs[DOWN].sent_head {
            return self.refuse(c, of);
        }
        stream.guarded = false;
        self.metrics.auth_allowed_total += 1;
        if stream.guard.take().is_some() {
            stream.passed = stream.passed.saturating_add(1);
            let listener = stream.facts.listener;
            // Whether it came on the right connection was decided before anybody was asked.
            let decision = self.decide(of, listener, None);
            return self.carry_out(c, of, decision);
        }
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
            let mut digits = [0; 20];
            let mut left = &mut digits[..];
            // Twenty bytes hold any length.
            let _ = write!(left, "{len}");
            let unused = left.len();
            fields.push_known(Token::CONTENT_LENGTH, &digits[..digits.len() - unused]);
        }
        fields
    }

    /// The attempt of a question failed: it goes to another endpoint if it had no effect, else it is over.
    pub(super) fn fail_question(&mut self, c: &mut Connection, index: u32, fault: Fault) {
        self.leave_upstream(c, index, ErrorCode::Cancel);
        let another = self.another_authorizer(index, fault);
        let stream = &mut self.streams[index];
        let (Some(endpoint), Some(question), Some(forward)) = (another, &mut stream.question, &mut stream.forward)
        else {
            return self.end_stream(c, index, ErrorCode::Cancel);
        };
        question.again = true;
        forward.endpoint = endpoint;
        self.rewind(index);
        self.dispatch(c, index);
    }

    /// Who is asked once more after `fault`, if anybody may be.
    fn another_authorizer(&mut self, index: u32, fault: Fault) -> Option<EndpointId> {
        let stream = &self.streams[index];
        let (question, forward, revision) = (stream.question.as_ref()?, stream.forward?, stream.revision?);
        let answered = stream.legs[UP].received_head;
        if answered || question.again || !fault.provably_unprocessed() || !self.streams.is_live(question.of) {
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
            self.refuse(c, of);
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

/// Makes the head of a question about a request; `None`: there is no such question, as about a CONNECT.
fn compose(auth: &AuthPlan, of: &FieldList, method: Method, tls: bool, head: &mut FieldList) -> Option<Method> {
    // What asks for a WebSocket with CONNECT is GET in HTTP/1.1 (RFC 8441 5).
    let websocket = method == Method::Connect && of.get(Token::PROTOCOL).is_some();
    let (name, method): (&[u8], _) = match method {
        Method::Connect if !websocket => return None,
        Method::Connect => (b"GET", Method::Get),
        method => (of.get(Token::METHOD)?, method),
    };
    let target = of.get(Token::PATH)?;
    let target = if auth.prefix.is_empty() || target.starts_with(b"/") {
        target
    } else {
        b"/"
    };
    head.push_known(Token::METHOD, name);
    head.push_known(Token::SCHEME, if tls { b"https" } else { b"http" });
    head.push_known(Token::AUTHORITY, of.get(Token::AUTHORITY)?);
    head.push_parts(Token::PATH, &[auth.prefix.as_bytes(), target]);
    for field in of.fields() {
        let name = of.name(field);
        if is_shown(auth, name) && !framing(name) && !name.starts_with(b":") {
            head.push_copy(field, of.name_value(field));
        }
    }
    head.push_known(Token::CONTENT_LENGTH, b"0");
    (!head.is_too_large()).then_some(method)
}

fn is_shown(auth: &AuthPlan, name: &[u8]) -> bool {
    name == b"authorization" || auth.shown.iter().any(|shown| shown.as_bytes() == name)
}

/// Fields that describe the answer that carries them, or are never for a service to say.
fn is_about_answer(name: &[u8]) -> bool {
    name.starts_with(b":")
        || framing(name)
        || name.starts_with(b"content-")
        || matches!(name, b"host" | b"date" | b"server" | b"trailer")
}

/// Sets in a request what the service said of it. What only the service may say, and the client forged, does not stay:
/// a named field that the service was not shown is removed even if it says nothing about it.
fn take_fields(auth: &AuthPlan, answer: &FieldList, request: &mut FieldList) {
    let named = |name: &[u8]| auth.taken.iter().any(|taken| taken.as_bytes() == name);
    let takes = |name: &[u8]| match auth.taken.is_empty() {
        true => !is_about_answer(name),
        false => named(name) && !framing(name) && !name.starts_with(b":"),
    };
    let said = |name: &[u8]| takes(name) && answer.position(name).is_some();
    // CGI and its heirs cannot tell an underscore from a hyphen.
    let forged = |name: &[u8]| {
        auth.taken
            .iter()
            .map(String::as_bytes)
            .any(|taken| is_twin(name, taken) && (name != taken || !is_shown(auth, taken)))
    };
    request.retain(|_, name, _| name.starts_with(b":") || !(said(name) || forged(name)));
    for (name, value) in answer.iter() {
        if takes(name) {
            request.push(name, value);
        }
    }
}

/// Whether a name is another one but for underscores in the place of hyphens.
fn is_twin(name: &[u8], of: &[u8]) -> bool {
    let same = |(a, b): (&u8, &u8)| a == b || (*a == b'_' && *b == b'-');
    name.len() == of.len() && name.iter().zip(of).all(same)
}
