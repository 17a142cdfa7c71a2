//! What a stream asks of the connection one of its legs lies on: one `match` over the codec each.
//!
//! Nothing here looks at the other leg, and nothing here fails: a connection that cannot go on is marked and killed
//! by the turn.

use super::connection::{Codec, Connection};
use super::pool::Pool;
use super::stream::{Leg, Wait};
use crate::h1::{Framing, chunked};
use crate::h2::frame::{self, ErrorCode, PAYLOAD_MAX};
use crate::head::FieldList;
use crate::limits::Limits;

/// Body bytes, and where they lie in the driver's chunk if they do.
#[derive(Clone, Copy)]
pub struct Body<'a> {
    pub bytes: &'a [u8],
    pub chunk_at: Option<usize>,
}

impl<'a> Body<'a> {
    /// `chunk[from..to]`, which may be referenced instead of copied.
    #[inline]
    pub fn in_chunk(chunk: &'a [u8], from: usize, to: usize) -> Self {
        Self {
            bytes: &chunk[from..to],
            chunk_at: Some(from),
        }
    }

    /// Bytes of a buffer of ours.
    #[inline]
    pub fn own(bytes: &'a [u8]) -> Self {
        Self { bytes, chunk_at: None }
    }

    #[inline]
    pub fn first(self, len: usize) -> Self {
        Self {
            bytes: &self.bytes[..len],
            ..self
        }
    }
}

impl Connection {
    /// Body bytes that may go to this leg now; bounded by `out_bytes_max`.
    #[inline]
    pub fn room(&self, leg: &Leg, limits: &Limits) -> usize {
        let free = limits.out_bytes_max.saturating_sub(self.out.len());
        match &self.codec {
            Codec::Http2(http2) => free.min(http2.send_window.min(leg.send_window).max(0) as usize),
            Codec::Http1(_) => free,
            Codec::Detecting => 0,
        }
    }

    /// What a leg without room waits for.
    #[inline]
    pub fn wait_for(&self, leg: &Leg) -> Wait {
        match &self.codec {
            Codec::Http2(_) if leg.send_window <= 0 => Wait::Stream,
            Codec::Http2(_) | Codec::Http1(_) | Codec::Detecting => Wait::Connection,
        }
    }

    /// A head; `end` when no body and no trailers follow. `informational`: another head follows.
    pub fn send_head(&mut self, leg: &mut Leg, fields: &FieldList, informational: bool, end: bool, pool: &mut Pool) {
        leg.sent_head |= !informational;
        leg.sent_end |= end;
        let out = self.out.tail(pool);
        match &mut self.codec {
            Codec::Http2(http2) => http2.put_headers(leg.id, fields, end, out),
            Codec::Http1(http1) => http1.put_head(leg, fields, informational, end, out),
            Codec::Detecting => {}
        }
    }

    /// Body bytes, at most what `room` allowed. `true` when the output now references the chunk.
    #[inline]
    pub fn send_body(&mut self, leg: &mut Leg, body: Body<'_>, end: bool, limits: &Limits, pool: &mut Pool) -> bool {
        leg.sent_end |= end;
        match &mut self.codec {
            Codec::Http2(_) => self.send_data(leg, body, end, limits, pool),
            Codec::Http1(_) => send_http1_body(self, body, end, limits, pool),
            Codec::Detecting => false,
        }
    }

    /// DATA frames, each no larger than the peer takes them (RFC 9113 6.1).
    #[inline]
    fn send_data(&mut self, leg: &mut Leg, body: Body<'_>, end: bool, limits: &Limits, pool: &mut Pool) -> bool {
        let may_borrow = self.may_borrow();
        let Codec::Http2(http2) = &mut self.codec else {
            return false;
        };
        http2.send_window -= body.bytes.len() as i64;
        leg.send_window -= body.bytes.len() as i64;
        let mut at = 0;
        let mut borrowed = false;
        loop {
            http2.guard.data_sent();
            let len = PAYLOAD_MAX.min(body.bytes.len() - at);
            let last = at + len == body.bytes.len();
            frame::put_data_header(self.out.tail(pool), leg.id, len, last && end);
            match body.chunk_at {
                Some(chunk_at) if may_borrow && len >= limits.borrow_bytes_min => {
                    self.out.borrow(chunk_at + at, chunk_at + at + len);
                    borrowed = true;
                }
                _ => self.out.tail(pool).extend_from_slice(&body.bytes[at..at + len]),
            }
            at += len;
            if last {
                return borrowed;
            }
        }
    }

    /// Trailers; the message is over.
    pub fn send_trailers(&mut self, leg: &mut Leg, fields: &FieldList, pool: &mut Pool) {
        leg.sent_end = true;
        let out = self.out.tail(pool);
        match &mut self.codec {
            Codec::Http2(http2) => http2.put_headers(leg.id, fields, true, out),
            Codec::Http1(http1) => http1.put_trailers(fields, out),
            Codec::Detecting => {}
        }
    }

    /// Breaks the stream off. HTTP/1.1 can only do that with the whole connection.
    pub fn reset(&mut self, leg: &Leg, error: ErrorCode, pool: &mut Pool) {
        match &mut self.codec {
            Codec::Http2(http2) => {
                http2.queue.control += 1;
                frame::put_rst_stream(self.out.tail(pool), leg.id, error);
            }
            Codec::Http1(http1) => {
                let closing = http1.reset(leg, error);
                self.end_as(closing);
            }
            Codec::Detecting => {}
        }
    }

    /// The leg leaves the connection.
    #[inline]
    pub fn detach(&mut self, leg: &Leg, reset_by_us: bool) {
        self.streams -= 1;
        match &mut self.codec {
            Codec::Http2(http2) if leg.id != 0 => {
                http2.ids.remove(leg.id);
                http2.closed.note(leg.id, reset_by_us);
            }
            Codec::Http2(_) | Codec::Detecting => {}
            Codec::Http1(http1) => {
                let closing = http1.detach(leg);
                self.end_as(closing);
            }
        }
    }
}

/// Body bytes as the framing wants them. `true` when the output now references the chunk.
fn send_http1_body(connection: &mut Connection, body: Body<'_>, end: bool, limits: &Limits, pool: &mut Pool) -> bool {
    let may_borrow = connection.may_borrow() && body.bytes.len() >= limits.borrow_bytes_min;
    let framing = connection.http1().sending();
    let mut borrowed = false;
    if !body.bytes.is_empty() && framing != Framing::None {
        let out = connection.out.tail(pool);
        if framing == Framing::Chunked {
            chunked::put_chunk_header(out, body.bytes.len());
        }
        match body.chunk_at {
            Some(from) if may_borrow => {
                connection.out.borrow(from, from + body.bytes.len());
                borrowed = true;
            }
            Some(_) | None => out.extend_from_slice(body.bytes),
        }
        if framing == Framing::Chunked {
            chunked::put_chunk_end(connection.out.tail(pool));
        }
    }
    if end && framing == Framing::Chunked {
        chunked::put_last_chunk(connection.out.tail(pool), None);
    }
    if end {
        connection.finishing |= connection.http1().is_tunnel();
    }
    borrowed
}
