//! A request's head is complete: who answers it?
//!
//! `complete the head -> normalise authority and path -> Decide::request -> an upstream leg, or a local reply`.

use super::Engine;
use super::connection::{Codec, Connection, Role};
use super::path::{self, Normal};
use super::request_id::request_id;
use super::stream::{DOWN, TRIED_MAX, UP};
use crate::grpc;
use crate::head::authority;
use crate::head::facts::{Method, RequestFacts};
use crate::head::{FieldList, Token};
use gateway_core::decide::{Decide, Decision, RequestHead};
use gateway_core::fault::Fault;
use gateway_core::ids::ListenerId;
use gateway_core::snapshot::ListenerPlan;

impl Engine {
    /// A checked request came on `c` under `id`; `fields` is taken. `end`: it has no body.
    pub(super) fn on_request(
        &mut self,
        c: &mut Connection,
        id: u32,
        fields: &mut FieldList,
        facts: RequestFacts,
        end: bool,
    ) {
        let index = self.open_stream(c, id, fields, facts, end);
        if !self.admit(c, index) {
            return;
        }
        if facts.upgrade || facts.method == Method::Connect {
            self.ask_tunnel(index);
        }
        if facts.claims && !self.settle_claims(index) {
            return self.fail(c, index, Fault::BadRequest);
        }
        let listener = self.streams[index].facts.listener;
        let server_name = match &c.role {
            Role::Downstream { facts: Some(facts), .. } => Some(facts.server_name.as_deref().unwrap_or_default()),
            Role::Downstream { .. } | Role::Upstream { .. } => None,
        };
        let decision = self.decide(index, listener, server_name);
        self.carry_out(c, index, decision);
    }

    /// `c` is the client's connection unless filters of the listener let the request pass before.
    pub(super) fn carry_out(&mut self, c: &mut Connection, index: u32, decision: Result<Decision, Fault>) {
        match decision {
            Ok(Decision::Forward(forward)) => {
                let first = self.streams[index].passed == 0;
                if first {
                    self.stamp(c, index);
                }
                self.set_scheme(index, forward.tls);
                self.adopt_rule(index, forward.rule);
                if self.limit_body(index) {
                    return self.fail(c, index, Fault::BodyTooLarge);
                }
                if !first && let Err(fault) = self.transform_waiting(index) {
                    return self.fail(c, index, fault);
                }
                let stream = &mut self.streams[index];
                stream.forward = Some(forward);
                stream.replayable |= first;
                stream.retrying.on = forward.retries;
                let by_client = stream
                    .grpc_timeout
                    .map(|timeout| stream.started + timeout.min(self.limits.grpc_timeout_max));
                stream.deadline = match (forward.deadline, by_client) {
                    (Some(route), Some(client)) => Some(route.min(client)),
                    (route, client) => route.or(client),
                };
                if let Some(deadline) = stream.deadline {
                    stream.timer = self.timers.set(deadline, super::timer::Timed::Stream(index));
                }
                if forward.retries {
                    self.allow_retries(index, &forward);
                }
                let stream = &self.streams[index];
                if stream.mirrored && !stream.guarded && stream.tunnel.is_none() {
                    self.open_mirrors(c, index);
                }
                self.dispatch(c, index);
            }
            Ok(Decision::Reply(reply)) => self.reply(c, index, &reply),
            Ok(Decision::Ask(rule)) => self.ask_first(c, index, rule),
            Err(fault) => self.fail(c, index, fault),
        }
    }

    /// A stream whose downstream leg lies on `c`.
    pub(super) fn open_stream(
        &mut self,
        c: &mut Connection,
        id: u32,
        fields: &mut FieldList,
        facts: RequestFacts,
        end: bool,
    ) -> u32 {
        let index = self.streams.open();
        c.streams += 1;
        c.streams_total += 1;
        let listener = match c.role {
            Role::Downstream { listener, .. } => listener,
            Role::Upstream { .. } => ListenerId(0),
        };
        let stream = &mut self.streams[index];
        let leg = &mut stream.legs[DOWN];
        leg.conn = Some(c.id);
        leg.id = id;
        leg.received_head = true;
        leg.received_end = end;
        leg.length_left = facts
            .content_length
            .map_or(-1, |length| i64::try_from(length).unwrap_or(i64::MAX));
        match &mut c.codec {
            Codec::Http2(http2) => {
                http2.ids.insert(id, index);
                leg.send_window = i64::from(http2.peer.window);
                leg.recv_window = i64::from(self.limits.stream_window);
                leg.window = self.limits.stream_window;
                stream.facts.protocol = "HTTP/2";
            }
            Codec::Http1(http1) => {
                http1.stream = Some(index);
                stream.facts.protocol = "HTTP/1.1";
            }
            Codec::Detecting => {}
        }
        stream.facts.listener = listener;
        stream.facts.peer = c.peer;
        stream.started = self.now;
        stream.method = facts.method;
        stream.grpc = facts.is_grpc;
        stream.revision = Some(self.revisions.acquire());
        std::mem::swap(&mut stream.head, fields);
        *fields = self.lists.take();
        self.recognise_web(index, &facts);
        self.metrics.request_started(listener);
        self.complete_for_log(index);
        index
    }

    /// Every request has an id, the client's or one of ours.
    fn complete_for_log(&mut self, index: u32) {
        let stream = &mut self.streams[index];
        if stream.head.find(Token::X_REQUEST_ID).is_none() {
            self.request_counter = self.request_counter.wrapping_add(1);
            let text = request_id(self.config.request_id_seed, self.config.worker, self.request_counter);
            stream.head.push_known(Token::X_REQUEST_ID, &text);
        }
        if stream.grpc {
            stream.grpc_timeout = stream.head.get(Token::GRPC_TIMEOUT).and_then(grpc::parse_timeout);
        }
        if let Some(sampling) = self.sampling {
            self.begin_trace(index, sampling);
        }
    }

    /// What the endpoint is told of the client, whose connection is `c`; the same on every attempt.
    pub(super) fn stamp(&mut self, c: &Connection, index: u32) {
        let Role::Downstream { stamp, .. } = &c.role else {
            return;
        };
        let head = &mut self.streams[index].head;
        // Whom a client claims to be by certificate is ours to say.
        if head.find(Token::X_FORWARDED_CLIENT_CERT).is_some() {
            head.remove(Token::X_FORWARDED_CLIENT_CERT);
        }
        for field in stamp.fields() {
            let token = field.token();
            if head.find(token).is_none() {
                head.push_copy(field, stamp.name_value(field));
            } else if token == Token::X_FORWARDED_FOR {
                self.text.clear();
                for before in head.fields().iter().filter(|before| before.token() == token) {
                    self.text.extend_from_slice(head.value(before));
                    self.text.extend_from_slice(b", ");
                }
                self.text.extend_from_slice(stamp.value(field));
                head.set_known(token, &self.text);
            } else {
                head.set_known(token, stamp.value(field));
            }
        }
    }

    /// What goes upstream, whatever came in (RFC 9113 8.3.1).
    fn set_scheme(&mut self, index: u32, tls: bool) {
        let head = &mut self.streams[index].head;
        let scheme: &[u8] = if tls { b"https" } else { b"http" };
        if let Some(place) = head.place_of(Token::SCHEME)
            && head.value(&head.fields()[place]) != scheme
        {
            head.set_value(place, scheme);
        }
    }

    /// `server_name`: of the TLS handshake, empty without one; `None` without TLS.
    pub(super) fn decide(
        &mut self,
        index: u32,
        listener: ListenerId,
        server_name: Option<&str>,
    ) -> Result<Decision, Fault> {
        let stream = &mut self.streams[index];
        let head = &mut stream.head;
        if head.is_too_large() {
            return Err(Fault::HeadTooLarge);
        }
        let target = match (stream.method, head.get(Token::PATH)) {
            // It has none (RFC 9113 8.5): rules for every path take it, if they ask for the method.
            (Method::Connect, _) => b"/",
            (_, Some(target)) => target,
            (_, None) => return Err(Fault::BadRequest),
        };
        if target.len() > self.limits.target_bytes_max {
            return Err(Fault::TargetTooLong);
        }
        let authority = head.get(Token::AUTHORITY).unwrap_or_default();
        if authority != self.authority || authority.is_empty() {
            self.authority.clear();
            if !authority::canonical(authority, &mut self.host, &mut self.canonical) {
                return Err(Fault::BadRequest);
            }
            self.authority.extend_from_slice(authority);
        }
        let rules = path::Rules {
            slashes: self.limits.path_slashes,
            escaped: self.limits.path_escaped_slashes,
        };
        let normal = path::normalise(target, rules, &mut self.text);
        if self.canonical.as_bytes() != authority {
            head.set_known(Token::AUTHORITY, self.canonical.as_bytes());
        }
        match normal {
            Normal::AsIs => {}
            Normal::Rewritten => head.set_known(Token::PATH, &self.text),
            Normal::Malformed => return Err(Fault::BadRequest),
        }
        let head = &*head;
        let target = head.get(Token::PATH).unwrap_or(b"/");
        let (path, query) = path::split(target);
        let request = RequestHead {
            method: head.get(Token::METHOD).unwrap_or_default(),
            host: &self.host,
            path,
            query,
            fields: head,
        };
        let revision = stream
            .revision
            .expect("a live stream holds a revision until its response began");
        let snapshot = self.revisions.get(revision);
        if let Some(server_name) = server_name
            && server_name != self.host
            && let Some(http) = snapshot.listener(listener).and_then(ListenerPlan::http)
            && http.misdirects(server_name, &self.host)
        {
            return Err(Fault::Misdirected);
        }
        Ok(Decide {
            snapshot,
            balancers: &mut self.balancers,
        }
        .request_after(listener, &request, stream.passed, self.now))
    }

    /// Finds a connection for the stream's next attempt and opens the upstream leg there, or lets it wait. There is no
    /// other way upstream, so none past an authorization service.
    pub(super) fn dispatch(&mut self, c: &mut Connection, index: u32) {
        let stream = &mut self.streams[index];
        if stream.guarded {
            return self.ask(c, index);
        }
        let Some(forward) = stream.forward else { return };
        let attempt = usize::from(stream.attempts);
        stream.tried[attempt % TRIED_MAX] = Some(forward.endpoint);
        stream.attempts = stream.attempts.saturating_add(1);
        stream.facts.endpoint = Some(forward.endpoint);
        let revision = stream
            .revision
            .expect("a stream holds its revision as long as it may be tried again");
        let Some(addr) = self
            .revisions
            .get(revision)
            .endpoint(forward.endpoint)
            .map(|endpoint| endpoint.addr)
        else {
            return self.fail(c, index, Fault::NoEndpoint);
        };
        if let Some(timeout) = forward.attempt_timeout {
            stream.retrying.due = Some(self.now + timeout);
            self.arm_stream(index);
        }
        self.streams[index].balanced = true;
        self.balancers.started(forward.endpoint);
        self.metrics.endpoint_started(forward.endpoint);
        match self.upstream_for(c, forward.endpoint, addr, forward.protocol) {
            Ok(target) => self.enter_upstream(c, index, target),
            Err(fault) => {
                debug_assert!(self.streams[index].legs[UP].conn.is_none());
                self.fail(c, index, fault);
            }
        }
    }
}
