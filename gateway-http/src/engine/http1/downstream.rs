//! Requests of an HTTP/1.1 client.

use super::super::Engine;
use super::super::connection::{Closing, Connection, Role};
use super::body::Input;
use super::{Http1, Reading, STREAM_ID};
use crate::h1::body::Reader;
use crate::h1::head::{self, Request};
use crate::h1::{Framing, Persistence, Rejected, Version};
use crate::head::facts::{Method, RequestFacts};
use crate::head::{FieldList, Token};
use gateway_core::fault::Fault;

impl Http1 {
    /// An exchange begins.
    fn begin(&mut self, request: &Request) -> bool {
        let bodiless = matches!(request.framing, Framing::None | Framing::Length(0));
        self.reading = if bodiless {
            Reading::Whole
        } else {
            Reading::Body(Reader::new(request.framing))
        };
        self.method = request.facts.method;
        self.client = request.version;
        // What follows a refused CONNECT may be anything: no request is looked for in it.
        self.persistence = if request.facts.method == Method::Connect {
            Persistence::Close
        } else {
            request.persistence
        };
        self.awaits_continue = request.facts.expects_continue && !bodiless;
        self.head_over();
        bodiless
    }

    fn head_over(&mut self) {
        self.searched = 0;
        self.head_since = None;
        self.drained = 0;
    }
}

impl Engine {
    /// Requests and their bodies, one after the other; returns how much is used up.
    pub(super) fn read_requests(&mut self, c: &mut Connection, input: Input<'_>) -> usize {
        let mut at = 0;
        loop {
            if c.closing != Closing::No {
                return input.bytes.len();
            }
            let full = c.out.len() >= self.limits.out_bytes_max;
            let http1 = c.http1();
            match http1.reading {
                Reading::Head if at == input.bytes.len() => {
                    if http1.ended {
                        Self::close_after_flush(c, &mut self.turn);
                    }
                    return at;
                }
                Reading::Head if !full => match self.read_request(c, &input.bytes[at..]) {
                    Some(len) => at += len,
                    None => return at,
                },
                Reading::Tunnel => {
                    self.read_tunnel(c, input, &mut at);
                    return at;
                }
                // The next request waits its turn, and for answers to be taken.
                Reading::Head | Reading::Whole => {
                    http1.stalled = at < input.bytes.len();
                    return at;
                }
                Reading::Body(_) => match self.read_body(c, input, &mut at) {
                    Ok(true) => {}
                    Ok(false) => {
                        return if c.closing == Closing::No {
                            at
                        } else {
                            input.bytes.len()
                        };
                    }
                    Err(rejected) => {
                        self.reject_body(c, rejected);
                        return input.bytes.len();
                    }
                },
            }
        }
    }

    /// The head at the front of `bytes`; `None` when it is incomplete. What is malformed is answered and used up.
    fn read_request(&mut self, c: &mut Connection, bytes: &[u8]) -> Option<usize> {
        let limits = self.section_limits();
        let Role::Downstream { tls, .. } = c.role else {
            return None;
        };
        let http1 = c.http1();
        let known = std::mem::replace(&mut http1.searched, bytes.len());
        if known > 0 && bytes.len() < limits.size_max && !head::may_be_complete(bytes, known) {
            return self.wait_for_head(c);
        }
        let mut fields = self.lists.take();
        let scheme: &[u8] = if tls { b"https" } else { b"http" };
        let used = match head::read_request(bytes, scheme, &mut fields, limits) {
            Ok(Some(request)) => {
                let end = c.http1().begin(&request);
                if fields.find(Token::AUTHORITY).is_none() {
                    // HTTP/1.0 without `host`: what the client connected to.
                    fields.push_front(Token::AUTHORITY.name(), c.local.to_string().as_bytes());
                }
                self.on_request(c, STREAM_ID, &mut fields, request.facts, end);
                Some(request.len)
            }
            Ok(None) => self.wait_for_head(c),
            Err(_) if c.streams_total == 0 && !speaks_http(bytes) => {
                self.metrics.faults[Fault::BadRequest as usize] += 1;
                Self::close_after_flush(c, &mut self.turn);
                Some(bytes.len())
            }
            Err(rejected) => {
                self.reject(c, &mut fields, rejected);
                Some(bytes.len())
            }
        };
        self.lists.put(&mut fields);
        used
    }

    /// The client has `head_timeout` from the first byte on.
    fn wait_for_head(&mut self, c: &mut Connection) -> Option<usize> {
        let now = self.now;
        let http1 = c.http1();
        if http1.ended {
            Self::close_after_flush(c, &mut self.turn);
        } else if http1.head_since.is_none() {
            http1.head_since = Some(now);
            self.arm_timer(c);
        }
        None
    }

    /// Answers what is no request, for the log too, and closes: nobody knows where the next one would begin.
    fn reject(&mut self, c: &mut Connection, fields: &mut FieldList, rejected: Rejected) {
        let fault = match rejected {
            Rejected::Malformed(_) | Rejected::NotImplemented => Fault::BadRequest,
            Rejected::TooLarge => Fault::HeadTooLarge,
            Rejected::TooMany => {
                fields.mark_too_many();
                Fault::HeadTooLarge
            }
        };
        self.refuse_request(c, fields, fault, rejected.status());
    }

    /// The answer to a request that never became one; the connection ends with it.
    fn refuse_request(&mut self, c: &mut Connection, fields: &mut FieldList, fault: Fault, status: u16) {
        let http1 = c.http1();
        http1.reading = Reading::Whole;
        http1.persistence = Persistence::Close;
        http1.client = Version::Http11;
        http1.method = Method::Other;
        http1.head_over();
        let facts = RequestFacts {
            method: Method::Other,
            upgrade: false,
            content_length: None,
            is_grpc: false,
            expects_continue: false,
            claims: false,
        };
        let index = self.open_stream(c, STREAM_ID, fields, facts, true);
        self.reply_fault(c, index, fault, status);
    }

    /// The head did not come in time.
    pub(in crate::engine) fn on_head_timeout(&mut self, c: &mut Connection) {
        let mut fields = self.lists.take();
        self.refuse_request(c, &mut fields, Fault::RequestTimeout, 408);
        self.lists.put(&mut fields);
    }

    /// The body did not come, or no answer to it.
    pub(in crate::engine) fn on_body_timeout(&mut self, c: &mut Connection, index: u32, fault: Fault) {
        c.http1().persistence = Persistence::Close;
        self.fail(c, index, fault);
        Self::close_after_flush(c, &mut self.turn);
    }

    /// A body that cannot be followed: the request fails, and so does the connection.
    fn reject_body(&mut self, c: &mut Connection, rejected: Rejected) {
        let http1 = c.http1();
        http1.persistence = Persistence::Close;
        http1.reading = Reading::Whole;
        let Some(index) = http1.stream else {
            return Self::close_after_flush(c, &mut self.turn);
        };
        // The endpoint must not take what it got for the whole.
        self.leave_upstream(c, index, crate::h2::frame::ErrorCode::Cancel);
        let fault = match rejected {
            Rejected::Malformed(_) | Rejected::NotImplemented => Fault::BadRequest,
            Rejected::TooLarge | Rejected::TooMany => Fault::HeadTooLarge,
        };
        self.fail(c, index, fault);
        Self::close_after_flush(c, &mut self.turn);
    }

    /// The client sends nothing more. A whole request is still answered (half-closed connections are allowed).
    pub(in crate::engine) fn on_client_end(&mut self, c: &mut Connection) {
        let http1 = c.http1();
        http1.ended = true;
        match (http1.stream, &http1.reading) {
            (_, Reading::Tunnel) => self.end_tunnel(c),
            // It ends when everything that was asked is answered.
            (_, Reading::Head | Reading::Whole) if http1.stalled => {}
            (Some(_), Reading::Whole) => http1.persistence = Persistence::Close,
            (Some(_), Reading::Head | Reading::Body(_)) => self.kill(c, false),
            (None, _) => Self::close_after_flush(c, &mut self.turn),
        }
    }
}

/// Whether the first line names a version of HTTP. Who speaks something else (a broken HTTP/2 preface, TLS to a plain
/// port) would take an answer in HTTP/1.1 for garbage: the connection just closes (RFC 9113 3.4).
fn speaks_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.windows(5).any(|window| window == b"HTTP/")
}
