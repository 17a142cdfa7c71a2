//! Answers made here: a plain response, or for gRPC a trailers-only one (grpc/doc/PROTOCOL-HTTP2.md).

use super::Engine;
use super::connection::Connection;
use super::stream::{DOWN, UP};
use crate::grpc;
use crate::head::facts::Method;
use crate::head::{FieldList, Token};
use crate::limits::Limits;
use gateway_core::decide::Reply;
use gateway_core::fault::Fault;
use gateway_core::ids::RuleId;
use gateway_core::ir::RouteKind;

/// `Location`s that are longer go nowhere.
const LOCATION_BYTES_MAX: usize = 16 * 1024;

impl Engine {
    /// Carries out a decision to answer here.
    pub(super) fn reply(&mut self, c: &mut Connection, index: u32, reply: &Reply) {
        match reply {
            Reply::NoRoute | Reply::NoHost => self.reply_fault(c, index, Fault::NoRoute, 404),
            Reply::Broken { rule, status } => {
                self.adopt_rule(index, *rule);
                self.reply_fault(c, index, Fault::Broken, *status);
            }
            Reply::NoEndpoint { rule } => {
                self.adopt_rule(index, *rule);
                self.reply_fault(c, index, Fault::NoEndpoint, Fault::NoEndpoint.http_status());
            }
            Reply::Redirect { rule, status, location } => {
                self.adopt_rule(index, *rule);
                self.streams[index].status = *status;
                let mut fields = self.lists.take();
                fields.push_status(*status);
                if location.len() <= LOCATION_BYTES_MAX {
                    fields.push_known(Token::LOCATION, location.as_bytes());
                }
                fields.push_known(Token::CONTENT_LENGTH, b"0");
                self.send_reply(c, index, fields, b"");
            }
            Reply::Preflight { rule, fields: answer } => {
                self.adopt_rule(index, *rule);
                self.streams[index].status = 200;
                let mut fields = self.lists.take();
                fields.push_status(200);
                for (name, value) in answer {
                    fields.push(name.as_bytes(), value.as_bytes());
                }
                fields.push_known(Token::CONTENT_LENGTH, b"0");
                self.answer_head(c, index, fields, b"");
            }
        }
    }

    /// Answers with a fault: the client's own words for it.
    pub(super) fn reply_fault(&mut self, c: &mut Connection, index: u32, fault: Fault, status: u16) {
        let stream = &mut self.streams[index];
        stream.fault = Some(fault);
        let mut fields = self.lists.take();
        if let Some(web) = stream.web {
            stream.status = 200;
            stream.grpc_status = Some(u32::from(fault.grpc_code()));
            let mut body = Vec::new();
            web.reply(fault.grpc_code(), explain(fault).trim_end(), &mut fields, &mut body);
            let mut digits = [0; 3];
            fields.push_known(Token::CONTENT_LENGTH, small_decimal(body.len(), &mut digits));
            return self.send_reply(c, index, fields, &body);
        }
        if stream.grpc {
            stream.status = 200;
            stream.grpc_status = Some(u32::from(fault.grpc_code()));
            let text = explain_limit(fault, &stream.head, &self.limits, &mut self.limit_text);
            grpc::reply(&mut fields, fault.grpc_code(), text.trim_end());
            return self.send_reply(c, index, fields, b"");
        }
        stream.status = status;
        let mut limit_text = std::mem::take(&mut self.limit_text);
        let text = explain_limit(fault, &stream.head, &self.limits, &mut limit_text);
        fields.push_status(status);
        if fault == Fault::Overloaded {
            // RFC 9110 10.2.3; seconds.
            fields.push(b"retry-after", b"1");
        }
        fields.push_known(Token::CONTENT_TYPE, b"text/plain; charset=utf-8");
        let mut digits = [0; 3];
        fields.push_known(Token::CONTENT_LENGTH, small_decimal(text.len(), &mut digits));
        self.send_reply(c, index, fields, text.as_bytes());
        self.limit_text = limit_text;
    }

    /// The rule is known: local answers of a GRPCRoute are gRPC statuses whatever the content type.
    pub(super) fn adopt_rule(&mut self, index: u32, id: RuleId) {
        let stream = &mut self.streams[index];
        stream.facts.rule = Some(id);
        if let Some(rule) = stream
            .revision
            .and_then(|revision| self.revisions.get(revision).rule(id))
        {
            stream.grpc |= rule.kind == RouteKind::Grpc;
            stream.mirrored = !rule.mirrors.is_empty();
            stream.guarded = rule.auth.is_some();
            let kind = rule.kind;
            self.adopt_transform(index, kind);
        }
    }

    /// Sends a whole response that pages of other origins may read if their own answers are theirs to read.
    pub(super) fn send_reply(&mut self, c: &mut Connection, index: u32, mut fields: FieldList, body: &[u8]) {
        self.add_cors(index, &mut fields);
        self.add_said(index, &mut fields);
        self.answer_head(c, index, fields, body);
    }

    /// Sends a whole response; nobody upstream is waited for any more.
    fn answer_head(&mut self, c: &mut Connection, index: u32, mut fields: FieldList, body: &[u8]) {
        if self.streams[index].asks.is_some() {
            self.stop_asking(c, index);
        }
        let stream = &mut self.streams[index];
        let body = if stream.method == Method::Head { b"" } else { body };
        stream.first_byte = Some(self.now);
        stream.unwanted = true;
        let [down, up] = &mut stream.legs;
        debug_assert!(up.conn.is_none());
        up.received_end = true;
        up.sent_end = true;
        if !body.is_empty() {
            self.pool.arm(&mut down.pending);
            down.pending.extend_from_slice(body);
            down.pending_end = true;
        }
        self.drop_pending(c, index, UP);
        self.release_revision(index);
        self.send_response_head(c, index, &fields, false, body.is_empty());
        self.lists.put(&mut fields);
        if body.is_empty() {
            self.finish_if_over(c, index);
        } else {
            self.pump_and_wait(c, index, DOWN);
        }
    }
}

/// What the client is told; says whose fault it is and nothing about the inside.
pub fn explain(fault: Fault) -> &'static str {
    match fault {
        Fault::BadRequest => "malformed request\n",
        Fault::HeadTooLarge => "request header fields too large\n",
        Fault::TargetTooLong => "request target too long\n",
        Fault::ClientGone => "client went away\n",
        Fault::RequestTimeout => "the request did not arrive in time\n",
        Fault::Stalled => "nothing moved for too long\n",
        Fault::Misdirected => "this connection is not for this host: open another one\n",
        Fault::BodyTooLarge => "the body or a message in it is too large\n",
        Fault::AuthRequired => "who asks is not known\n",
        Fault::AuthDenied => "the request is not allowed\n",
        Fault::AuthFailed => "whether the request is allowed could not be found out\n",
        Fault::NoRoute => "no route for this host, path and method\n",
        Fault::Broken => "the route's destination is not configured correctly\n",
        Fault::NoEndpoint => "no endpoint is ready\n",
        Fault::ConnectFailed => "no endpoint could be connected to\n",
        Fault::TlsFailed => "no endpoint could be spoken to securely\n",
        Fault::Refused => "the endpoint refused the request\n",
        Fault::Reset => "the endpoint reset the request\n",
        Fault::ConnectionLost => "the connection to the endpoint was lost\n",
        Fault::BadResponse => "the endpoint sent an invalid response\n",
        Fault::MessageTooLarge => "the endpoint sent a message that is too large\n",
        Fault::DeadlineExceeded => "deadline exceeded\n",
        Fault::AttemptTimeout => "the endpoint did not answer in time\n",
        Fault::Overloaded => "the gateway is overloaded\n",
        Fault::TunnelIdle => "nothing came through the tunnel for too long\n",
        Fault::Internal => "internal error\n",
    }
}

/// The same, and where it is a limit that was passed, its setting and value: nobody shall have to guess it.
fn explain_limit<'a>(fault: Fault, head: &FieldList, limits: &Limits, into: &'a mut String) -> &'a str {
    use std::fmt::Write;
    let (max, what) = if fault == Fault::TargetTooLong {
        (limits.target_bytes_max, "bytes (limits.targetBytes)")
    } else if fault != Fault::HeadTooLarge {
        return explain(fault);
    } else if head.is_too_many() {
        (limits.fields_max, "fields (limits.fields)")
    } else {
        (limits.head_bytes_max, "bytes (limits.headBytes)")
    };
    into.clear();
    // Writing to a string cannot fail.
    let _ = writeln!(into, "{}: more than {max} {what}", explain(fault).trim_end());
    into
}

/// A number below 1,000 in decimal.
fn small_decimal(number: usize, digits: &mut [u8; 3]) -> &[u8] {
    let number = number.min(999);
    *digits = [
        b'0' + (number / 100) as u8,
        b'0' + (number / 10 % 10) as u8,
        b'0' + (number % 10) as u8,
    ];
    let skip = if number >= 100 {
        0
    } else if number >= 10 {
        1
    } else {
        2
    };
    &digits[skip..]
}
