//! Filters at work on heads, once per attempt and once per response.
//!
//! A request that no filter touches is encoded from the list it came in; only an edited one is copied.

use super::Engine;
use super::path;
use super::stream::Stream;
use crate::grpc::TimeoutText;
use crate::head::{FieldList, Token};
use gateway_core::decide::Forward;
use gateway_core::filter;
use gateway_core::ir::{Cors, FieldEdits, Filter, Rewrite, Session};
use gateway_core::session;
use gateway_core::snapshot::{ListenerPlan, Snapshot};
use gateway_core::time::Moment;
use std::time::Duration;

/// `grpc-timeout` is left as it came while less than this has passed.
const ELAPSED_MIN: Duration = Duration::from_millis(1);

impl Engine {
    /// Makes the head of this attempt in `self.edited`; `false` when the stream's own head goes as it is.
    pub(super) fn edit_request(&mut self, index: u32) -> bool {
        let stream = &self.streams[index];
        let (Some(forward), Some(revision)) = (stream.forward, stream.revision) else {
            return false;
        };
        let Some(rule) = self.revisions.get(revision).rule(forward.rule) else {
            return false;
        };
        let destination = rule.destinations.get(usize::from(forward.destination));
        let more = destination.map_or(&[][..], |destination| &destination.filters);
        let timeout = remaining_timeout(stream.grpc_timeout, stream.started, stream.attempt_deadline(), self.now);
        let again = if stream.grpc { stream.retrying.count } else { 0 };
        if rule.filters.is_empty() && more.is_empty() && timeout.is_none() && again == 0 {
            return false;
        }
        self.edited.clear();
        for field in stream.head.fields() {
            self.edited.push_copy(field, stream.head.name_value(field));
        }
        if let Some(timeout) = timeout {
            self.edited
                .set_known(Token::GRPC_TIMEOUT, TimeoutText::new(timeout).as_bytes());
        }
        if again > 0 {
            Self::number_attempt(again, &mut self.edited);
        }
        for filter in rule.filters.iter().chain(more) {
            match filter {
                Filter::RequestHeaders(edits) => apply(edits, &mut self.edited),
                Filter::Rewrite(to) => {
                    let target = stream.head.get(Token::PATH);
                    let prefix_len = usize::from(forward.prefix_len);
                    rewrite(to, target, prefix_len, &mut self.edited, &mut self.text);
                }
                // These act on responses, have answered, or are streams of their own.
                Filter::ResponseHeaders(_)
                | Filter::Redirect(_)
                | Filter::Cors(_)
                | Filter::Mirror(_)
                | Filter::ExternalAuth(_) => {}
            }
        }
        true
    }

    /// Applies the response filters of the stream's rule.
    pub(super) fn edit_response(&mut self, index: u32, fields: &mut FieldList) {
        let stream = &self.streams[index];
        let (Some(forward), Some(revision)) = (stream.forward, stream.revision) else {
            return;
        };
        let Some(rule) = self.revisions.get(revision).rule(forward.rule) else {
            return;
        };
        let destination = rule.destinations.get(usize::from(forward.destination));
        let more = destination.map_or(&[][..], |destination| &destination.filters);
        if let Some(session) = &rule.session {
            let snapshot = self.revisions.get(revision);
            let now_s = self.balancers.unix_s(self.now);
            put_session(session, snapshot, stream, &forward, now_s, fields, &mut self.text);
        }
        for filter in rule.filters.iter().chain(more) {
            match filter {
                Filter::ResponseHeaders(edits) => apply(edits, fields),
                Filter::Cors(cors) => put_cors(cors, &stream.head, fields),
                Filter::RequestHeaders(_)
                | Filter::Rewrite(_)
                | Filter::Redirect(_)
                | Filter::Mirror(_)
                | Filter::ExternalAuth(_) => {}
            }
        }
    }

    /// Lets pages of the rule's origins read a local answer.
    pub(super) fn add_cors(&self, index: u32, fields: &mut FieldList) {
        let stream = &self.streams[index];
        let rule = stream
            .revision
            .zip(stream.facts.rule)
            .and_then(|(revision, rule)| self.revisions.get(revision).rule(rule));
        if let Some(cors) = rule.and_then(|rule| filter::cors(&rule.filters)) {
            put_cors(cors, &stream.head, fields);
        }
    }
}

/// Gives a client the token of its session where it has none, or an old one. `forward.endpoint` is who answers.
#[cold]
fn put_session(
    rules: &Session,
    snapshot: &Snapshot,
    stream: &Stream,
    forward: &Forward,
    now_s: u64,
    fields: &mut FieldList,
    scratch: &mut Vec<u8>,
) {
    let Some(endpoint) = snapshot.endpoint(forward.endpoint).map(|endpoint| endpoint.addr) else {
        return;
    };
    if !rules.renews(forward.session, endpoint) {
        return;
    }
    // At another endpoint it is another session.
    let same = forward.session.filter(|token| token.endpoint == endpoint);
    let began_s = same.map_or(now_s, |token| token.began_s);
    let secure = snapshot
        .listener(stream.facts.listener)
        .and_then(ListenerPlan::http)
        .is_some_and(|http| http.tls);
    let token = session::Token {
        endpoint,
        began_s,
        made_s: now_s,
    };
    let name = rules.give(token, secure, now_s, scratch);
    fields.push(name.as_bytes(), scratch);
}

/// The `grpc-timeout` to send when it is not the client's own.
fn remaining_timeout(
    asked: Option<Duration>,
    started: Moment,
    deadline: Option<Moment>,
    now: Moment,
) -> Option<Duration> {
    let (asked, deadline) = (asked?, deadline?);
    let left = deadline.since(now);
    (now.since(started) >= ELAPSED_MIN || left + ELAPSED_MIN < asked).then_some(left)
}

fn apply(edits: &FieldEdits, fields: &mut FieldList) {
    for (name, value) in &edits.set {
        fields.set(http2_name(name), value.as_bytes());
    }
    for (name, value) in &edits.add {
        fields.push(http2_name(name), value.as_bytes());
    }
    for name in &edits.remove {
        fields.remove_named(name.as_bytes());
    }
}

/// Fields that frame a message or belong to one hop (RFC 9110 7.6.1): none is copied between messages.
pub(super) fn framing(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"content-length"
            | b"expect"
            | b"keep-alive"
            | b"proxy-connection"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
    )
}

/// What an answer says about other origins, in the place of what the endpoint may have said.
fn put_cors(cors: &Cors, request: &FieldList, fields: &mut FieldList) {
    let Some(origin) = request.get(Token::ORIGIN) else {
        return;
    };
    for (name, value) in cors.answer(origin) {
        match name {
            "vary" => fields.push(name.as_bytes(), value.as_bytes()),
            name => fields.set(name.as_bytes(), value.as_bytes()),
        }
    }
}

/// `host` is `:authority` here (RFC 9113 8.3.1).
fn http2_name(name: &str) -> &[u8] {
    if name == "host" { b":authority" } else { name.as_bytes() }
}

/// `target` is what the client asked for: a backendRef's rewrite takes the place of its rule's.
fn rewrite(to: &Rewrite, target: Option<&[u8]>, prefix_len: usize, fields: &mut FieldList, scratch: &mut Vec<u8>) {
    if let Some(hostname) = &to.hostname {
        fields.set_known(Token::AUTHORITY, hostname.as_bytes());
    }
    if let (Some(by), Some(target)) = (&to.path, target) {
        scratch.clear();
        let (path, query) = path::split(target);
        filter::rewrite_path(by, path, prefix_len, scratch);
        if let Some(query) = query {
            scratch.push(b'?');
            scratch.extend_from_slice(query);
        }
        fields.set_known(Token::PATH, scratch);
    }
}
