//! A question that is a gRPC call: `ext_authz` as Envoy speaks it.
//!
//! # Laws
//! * Only a whole, readable message in a call that ended with status OK is an answer. Every other end of it refuses the
//!   request, and is counted by its name ([`Unanswered`]).
//! * At most [`CALL_BYTES_MAX`] of an answer are kept.
//! * What the service sets is set as it says or the request does not pass: a field that cannot be one, a pseudo-field or
//!   `host` refuses it. Fields that frame messages are the engine's, and left out.

use super::super::connection::{Connection, Role};
use super::super::edit::framing;
use super::super::stream::{DOWN, Stream};
use super::super::{Engine, at};
use super::fields::is_twin;
use super::gather::put;
use crate::authorization::Unanswered;
use crate::ext_authz::answer::{self, Answer, Denial, Edit, Permission};
use crate::ext_authz::question::About;
use crate::ext_authz::{self, Unread, query, question};
use crate::grpc::{self, TimeoutText};
use crate::h2::frame::ErrorCode;
use crate::head::facts::{Method, decimal, is_grpc};
use crate::head::{FieldList, Token};
use std::net::SocketAddr;
use std::time::Duration;

/// Of an answer so many bytes are kept; a longer one is none.
const CALL_BYTES_MAX: usize = 128 * 1024;

/// What a client's connection says about it.
pub(super) struct Client {
    local: SocketAddr,
    tls: bool,
    principal: String,
}

/// What a call is made of, besides the request.
pub(super) struct Call<'a> {
    pub client: Client,
    /// `namespace/name:port`.
    pub service: &'a str,
    pub shown: &'a [String],
    /// The service is spoken to over TLS.
    pub tls: bool,
    pub came_s: u64,
    pub timeout: Duration,
    /// What is shown of the request's body.
    pub body: &'a [u8],
}

impl Engine {
    /// Who asks for what a stream asks.
    pub(super) fn client_of(&mut self, c: &mut Connection, index: u32) -> Option<Client> {
        let id = self.streams[index].legs[DOWN].conn?;
        let c = at(&mut self.connections, c, id);
        let (tls, facts) = match &c.role {
            Role::Downstream { tls, facts, .. } => (*tls, facts.as_ref()),
            Role::Upstream { .. } => return None,
        };
        let certified = facts.and_then(|facts| facts.client.as_ref());
        Some(Client {
            local: c.local,
            tls,
            principal: certified.map_or(String::new(), |client| client.identity.clone()),
        })
    }

    /// The head of a call's answer.
    pub(super) fn on_call_head(&mut self, c: &mut Connection, index: u32, fields: &FieldList, status: u16, end: bool) {
        let encoding = fields.get(Token::GRPC_ENCODING).unwrap_or(b"identity");
        let why = if status != 200 {
            Unanswered::Status
        } else if !fields.get(Token::CONTENT_TYPE).is_some_and(is_grpc) {
            Unanswered::Malformed
        } else if end {
            match grpc::status_of(fields) {
                Some(0) => Unanswered::Malformed,
                status => failed(status),
            }
        } else if encoding != b"identity" {
            Unanswered::Compressed
        } else {
            return;
        };
        self.give_up(c, index, why);
    }

    /// Body of a call's answer; `end`: the call is over, and its trailers are known.
    pub(super) fn on_call_body(&mut self, c: &mut Connection, index: u32, bytes: &[u8], end: bool) {
        let stream = &mut self.streams[index];
        let (Some(question), status) = (&mut stream.question, stream.grpc_status) else {
            return;
        };
        if question.body.len() + bytes.len() > CALL_BYTES_MAX {
            return self.give_up(c, index, Unanswered::TooLarge);
        }
        question.body.extend_from_slice(bytes);
        if !end {
            return;
        }
        if status != Some(0) {
            return self.give_up(c, index, failed(status));
        }
        match ext_authz::message(&question.body).and_then(answer::read) {
            Ok(Answer::Allowed(permission)) => self.permit(c, index, permission),
            Ok(Answer::Denied(denial)) => self.forbid(c, index, denial),
            Ok(Answer::Failed) => self.give_up(c, index, Unanswered::Failed),
            Err(Unread::Malformed) => self.give_up(c, index, Unanswered::Malformed),
            Err(Unread::Compressed) => self.give_up(c, index, Unanswered::Compressed),
        }
    }

    /// The call ends without an answer.
    fn give_up(&mut self, c: &mut Connection, index: u32, why: Unanswered) {
        if let Some(question) = &mut self.streams[index].question {
            question.why = Some(why);
        }
        self.end_stream(c, index, ErrorCode::Cancel);
    }

    fn permit(&mut self, c: &mut Connection, index: u32, permission: Permission) {
        let target_max = self.limits.target_bytes_max;
        let passes = self.let_pass(c, index, |_, head| carry_out(&permission, head, target_max));
        let Some(of) = passes else { return };
        if !permission.response.is_empty() {
            let stream = &mut self.streams[of];
            let said = &mut stream.vetting.get_or_insert_default().response;
            said.extend(permission.response);
            stream.detour = true;
        }
        self.pass_on(c, of);
    }

    fn forbid(&mut self, c: &mut Connection, index: u32, denial: Denial) {
        let mut fields = self.lists.take();
        for Edit { name, value, .. } in &denial.fields {
            fields.push(name, value);
        }
        // It is refused in any case: what cannot be said is left out.
        fields.retain_fields(|field| !field.is_bad());
        if !denial.body.is_empty() && fields.find(Token::CONTENT_TYPE).is_none() {
            fields.push_known(Token::CONTENT_TYPE, b"text/plain; charset=utf-8");
        }
        let Some(question) = &mut self.streams[index].question else {
            return self.lists.put(&mut fields);
        };
        question.status = denial.status;
        question.body = denial.body;
        question.body.truncate(super::ANSWER_BYTES_MAX);
        question.refusal = Some(fields);
        self.deny(c, index);
    }
}

/// What it means that a call ended with another status than OK. Its server knows how long it may take, and may say first
/// that it took too long (4, DEADLINE_EXCEEDED).
fn failed(status: Option<u32>) -> Unanswered {
    match status {
        Some(4) => Unanswered::TimedOut,
        Some(_) | None => Unanswered::Status,
    }
}

/// Makes the head and the body of a call about a request.
pub(super) fn compose(call: &Call<'_>, stream: &Stream, head: &mut FieldList, body: &mut Vec<u8>) -> Option<Method> {
    let [down, up] = &stream.legs;
    let length = stream.head.get(Token::CONTENT_LENGTH).and_then(decimal);
    let size = match length.map(i64::try_from) {
        Some(Ok(length)) => length,
        _ if down.received_end => up.pending_len() as i64,
        _ => -1,
    };
    let about = About {
        client: stream.facts.peer,
        principal: &call.client.principal,
        local: call.client.local,
        came_s: call.came_s,
        scheme: if call.client.tls { b"https" } else { b"http" },
        protocol: stream.facts.protocol,
        head: &stream.head,
        shown: call.shown,
        size,
        body: call.body,
    };
    question::put(&about, body)?;
    head.push_known(Token::METHOD, b"POST");
    head.push_known(Token::SCHEME, if call.tls { b"https" } else { b"http" });
    head.push_known(Token::AUTHORITY, authority(call.service).as_bytes());
    head.push_known(Token::PATH, ext_authz::PATH);
    head.push_known(Token::TE, b"trailers");
    head.push_known(Token::CONTENT_TYPE, b"application/grpc");
    head.push_known(Token::GRPC_TIMEOUT, TimeoutText::new(call.timeout).as_bytes());
    if let Some(id) = stream.head.get(Token::X_REQUEST_ID) {
        head.push_known(Token::X_REQUEST_ID, id);
    }
    (!head.is_too_large()).then_some(Method::Post)
}

/// What a service is called in its cluster: `name.namespace:port`.
fn authority(service: &str) -> String {
    let parts = service.split_once('/');
    match parts.and_then(|(namespace, rest)| Some((namespace, rest.rsplit_once(':')?))) {
        Some((namespace, (name, port))) => format!("{name}.{namespace}:{port}"),
        None => service.to_owned(),
    }
}

/// Makes of a request's head what the service says; `false`: that cannot be done.
fn carry_out(permission: &Permission, head: &mut FieldList, target_max: usize) -> bool {
    let mut response = FieldList::new();
    for Edit { name, value, .. } in &permission.response {
        response.push(name, value);
    }
    let is_ours = |edit: &Edit| edit.name.starts_with(b":") || edit.name == b"host" || edit.name.is_empty();
    if permission.edits.iter().chain(&permission.response).any(is_ours) {
        return false;
    }
    for edit in &permission.edits {
        put(edit, head);
        // CGI and its heirs cannot tell an underscore from a hyphen: what the client forged so does not stay.
        head.retain(|_, name, _| name == edit.name || !is_twin(name, &edit.name));
    }
    for removed in &permission.removed {
        if !removed.starts_with(b":") && removed != b"host" && !framing(removed) {
            head.retain(|_, name, _| !is_twin(name, removed));
        }
    }
    if !permission.query_set.is_empty() || !permission.query_removed.is_empty() {
        let Some(target) = head.get(Token::PATH) else {
            return false;
        };
        let mut edited = Vec::with_capacity(target.len());
        query::edit(target, &permission.query_set, &permission.query_removed, &mut edited);
        if edited.len() > target_max {
            return false;
        }
        head.set_known(Token::PATH, &edited);
    }
    let bad = |list: &FieldList| list.is_too_large() || list.fields().iter().any(|field| field.is_bad());
    !bad(head) && !bad(&response)
}
