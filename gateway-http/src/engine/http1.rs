//! What an HTTP/1.1 connection remembers, and what it sends. How it reads is in `http1/downstream.rs` and
//! `http1/upstream.rs`, its body bytes in `http1/body.rs`.
//!
//! # Laws
//! * One exchange at a time: a client's next request stays unread until the answer to the last one is out
//!   (RFC 9112 9.3.2).
//! * Backpressure is not reading: what was received and not yet passed on is at most a stream's window and one chunk.
//! * A connection is used again only when both messages of the exchange were whole.

mod body;
mod downstream;
mod upstream;

use super::ending::Closing;
use super::stream::Leg;
use crate::h1::body::Reader;
use crate::h1::{Framing, Persistence, Version, chunked, write};
use crate::h2::frame::ErrorCode;
use crate::h2::headers::parse_status;
use crate::head::facts::{Method, ResponseFacts, decimal};
use crate::head::{FieldList, Token};
use crate::limits::Limits;
use gateway_core::model::Side;
use gateway_core::time::Moment;

/// The id of every stream: an HTTP/1.1 connection has one at a time.
pub const STREAM_ID: u32 = 1;
/// Request body that is read and dropped after an early answer, so that the connection can go on, bytes.
const DRAIN_BYTES_MAX: u64 = 256 * 1024;

/// Where in the peer's message the next byte is.
#[derive(Debug)]
enum Reading {
    Head,
    Body(Reader),
    /// What comes is a tunnel's.
    Tunnel,
    /// The message is whole; the next one begins when the exchange is over.
    Whole,
}

/// State of one HTTP/1.1 connection.
pub struct Http1 {
    side: Side,
    /// The stream that is being served, if any: there is one at a time.
    pub stream: Option<u32>,
    reading: Reading,
    /// Of the exchange under way: the request's method, how our message's end is told, whether another may follow.
    method: Method,
    sending: Framing,
    persistence: Persistence,
    /// Body bytes received and not yet passed on.
    held: usize,
    /// The driver does not read for now.
    paused: bool,
    /// There are bytes that cannot be looked at before the exchange is over, or before the output has room.
    stalled: bool,
    /// Bytes of an incomplete head that were looked through, and since when it is incomplete.
    searched: usize,
    head_since: Option<Moment>,
    /// Downstream: what the client speaks.
    client: Version,
    /// Downstream: the client waits for 100 before it sends the body.
    awaits_continue: bool,
    /// Downstream: this exchange is the last one.
    last: bool,
    /// The peer sends nothing more.
    ended: bool,
    /// Bytes of an unwanted body dropped so far.
    drained: u64,
    /// Upstream: an exchange went well before, so a connection that breaks now may just have been idle too long.
    reused: bool,
    /// Upstream: a byte of the response came.
    answered: bool,
    /// Upstream: what was written on the connection before this request, bytes.
    written_before: u64,
    /// Upstream: the rest of the response is read for nobody; then the connection goes on.
    dropping: bool,
    /// Upstream: interim responses of this exchange.
    interims: u8,
    /// Upstream: the next request asks for another protocol.
    upgrades: bool,
    /// The exchange became a tunnel.
    tunnel: bool,
}

impl Http1 {
    pub fn new(side: Side) -> Self {
        Self {
            side,
            stream: None,
            reading: Reading::Head,
            method: Method::Other,
            sending: Framing::None,
            persistence: Persistence::KeepAlive,
            held: 0,
            paused: false,
            stalled: false,
            searched: 0,
            head_since: None,
            client: Version::Http11,
            awaits_continue: false,
            last: false,
            ended: false,
            drained: 0,
            reused: false,
            answered: false,
            written_before: 0,
            dropping: false,
            interims: 0,
            upgrades: false,
            tunnel: false,
        }
    }

    /// A request's head (upstream) or a response's (downstream). `leg.sent_end` is set already.
    pub fn put_head(&mut self, leg: &Leg, fields: &FieldList, informational: bool, end: bool, out: &mut Vec<u8>) {
        match self.side {
            Side::Upstream => self.put_request(fields, end, out),
            Side::Downstream if informational => self.put_interim(fields, out),
            Side::Downstream => self.put_response(leg, fields, end, out),
        }
    }

    fn put_request(&mut self, fields: &FieldList, end: bool, out: &mut Vec<u8>) {
        self.method = Method::of(fields.get(Token::METHOD).unwrap_or_default());
        self.sending = write::request_framing(content_length(fields), self.method, end);
        self.reading = Reading::Head;
        self.answered = false;
        self.interims = 0;
        if std::mem::take(&mut self.upgrades) {
            write::put_upgrade_request(out, fields, self.sending);
        } else {
            write::put_request(out, fields, self.sending);
        }
    }

    /// HTTP/1.0 has no interim responses (RFC 9110 15.2).
    fn put_interim(&mut self, fields: &FieldList, out: &mut Vec<u8>) {
        let status = status_of(fields);
        self.awaits_continue &= status != 100;
        if self.client == Version::Http11 {
            write::put_response(out, fields, status, Framing::None, Persistence::KeepAlive, self.client);
        }
    }

    fn put_response(&mut self, leg: &Leg, fields: &FieldList, end: bool, out: &mut Vec<u8>) {
        if self.tunnel {
            return write::put_opening(out, fields, status_of(fields));
        }
        let facts = ResponseFacts {
            status: status_of(fields),
            content_length: content_length(fields),
        };
        self.sending = write::response_framing(&facts, self.method, self.client, end);
        let rest_is_long = !leg.received_end && !self.may_drain();
        if self.sending == Framing::UntilClose || self.last || rest_is_long {
            self.persistence = Persistence::Close;
        }
        write::put_response(out, fields, facts.status, self.sending, self.persistence, self.client);
    }

    /// Whether the rest of a request's body is little enough to be read and dropped. A client that waits for 100 and
    /// gets a final answer may or may not send it: then nobody knows what comes next (RFC 9110 10.1.1).
    fn may_drain(&self) -> bool {
        match &self.reading {
            Reading::Body(Reader::Length(left)) => !self.awaits_continue && *left <= DRAIN_BYTES_MAX,
            Reading::Body(Reader::Chunked(_)) => !self.awaits_continue,
            Reading::Body(Reader::UntilClose) | Reading::Tunnel => false,
            Reading::Head | Reading::Whole => true,
        }
    }

    /// Trailers go only behind chunks (RFC 9112 7.1.2); elsewhere they are dropped, as a proxy may (RFC 9110 6.5.1).
    pub fn put_trailers(&mut self, fields: &FieldList, out: &mut Vec<u8>) {
        if self.sending == Framing::Chunked {
            chunked::put_last_chunk(out, Some(fields));
        }
    }

    /// The exchange is broken off; what becomes of the connection. A whole response stands, and what the client
    /// still sends is dropped as far as that is worth while.
    pub fn reset(&mut self, leg: &Leg, error: ErrorCode) -> Closing {
        let whole = self.side == Side::Downstream && leg.sent_end && error == ErrorCode::NoError;
        match (whole, self.persistence) {
            (true, Persistence::KeepAlive) => Closing::No,
            (true, Persistence::Close) => Closing::AfterFlush,
            (false, _) => {
                self.persistence = Persistence::Close;
                Closing::Now
            }
        }
    }

    /// The exchange is over; what becomes of the connection.
    pub fn detach(&mut self, leg: &Leg) -> Closing {
        self.stream = None;
        self.held = 0;
        match self.side {
            Side::Downstream if self.persistence == Persistence::Close => return Closing::AfterFlush,
            Side::Downstream if self.ended && !self.stalled => return Closing::AfterFlush,
            Side::Downstream => {}
            // Not opened yet, because the socket was not connected: nothing happened.
            Side::Upstream if !leg.sent_head || self.dropping => return Closing::No,
            Side::Upstream => {
                let whole = matches!(self.reading, Reading::Whole) && leg.is_over();
                if !whole || self.persistence == Persistence::Close {
                    return Closing::AfterFlush;
                }
                self.reused = true;
            }
        }
        if let Reading::Whole = self.reading {
            self.reading = Reading::Head;
        }
        Closing::No
    }

    /// Nobody wants the response whose head came: whether the rest of it is little enough to be read and dropped, so
    /// that the connection can go on.
    pub fn drop_response(&mut self, leg: &Leg) -> bool {
        let little = match &self.reading {
            Reading::Body(Reader::Length(left)) => *left <= DRAIN_BYTES_MAX,
            Reading::Body(Reader::Chunked(_)) => true,
            Reading::Body(Reader::UntilClose) | Reading::Tunnel | Reading::Head | Reading::Whole => false,
        };
        self.dropping = little && leg.sent_end && self.persistence == Persistence::KeepAlive;
        self.drained = 0;
        self.dropping
    }

    /// The next request asks for another protocol.
    pub fn ask_upgrade(&mut self) {
        self.upgrades = true;
    }

    /// Bytes go both ways from here on, and nothing else ever.
    pub fn begin_tunnel(&mut self) {
        self.tunnel = true;
        self.reading = Reading::Tunnel;
        self.sending = Framing::UntilClose;
        self.persistence = Persistence::Close;
    }

    /// Whether bytes wait that could not be looked at.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether the peer sends nothing more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// A request is about to be queued behind `written` bytes.
    pub fn open(&mut self, written: u64) {
        self.written_before = written;
    }

    /// Body bytes were passed on or dropped.
    pub fn credit(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
    }

    pub fn wants_read(&self) -> bool {
        !self.paused
    }

    /// Whether a pause is over; if so, it is now.
    pub fn resume(&mut self, limits: &Limits) -> bool {
        let resumes = self.paused && !self.stalled && self.held <= limits.stream_window as usize / 2;
        self.paused &= !resumes;
        resumes
    }

    /// Sees whether reading has to pause.
    fn pause(&mut self, limits: &Limits) {
        self.paused = self.stalled || self.held >= limits.stream_window as usize;
    }

    /// The gateway is leaving: the next response says so.
    pub fn leave(&mut self) {
        self.last = true;
    }

    /// Whether bytes wait that can be looked at now.
    pub fn may_go_on(&self) -> bool {
        self.stalled && self.stream.is_none()
    }

    /// Whether the client waits for 100 before it sends the body.
    pub fn awaits_continue(&self) -> bool {
        self.awaits_continue
    }

    /// How the end of what is sent is told.
    #[inline]
    pub fn sending(&self) -> Framing {
        self.sending
    }

    /// Whether the exchange became a tunnel.
    #[inline]
    pub fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Since when a head is coming in.
    pub fn head_since(&self) -> Option<Moment> {
        self.head_since
    }
}

fn content_length(fields: &FieldList) -> Option<u64> {
    fields.get(Token::CONTENT_LENGTH).and_then(decimal)
}

fn status_of(fields: &FieldList) -> u16 {
    fields
        .get(Token::STATUS)
        .and_then(|text| parse_status(text).ok())
        .unwrap_or(502)
}
