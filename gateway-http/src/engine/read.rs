//! Bytes of an HTTP/2 connection: frames in place, large DATA forwarded while it comes in.
//!
//! `Err` ends the connection (RFC 9113 5.4.1); errors of one stream are dealt with here (5.4.2).

use super::Engine;
use super::connection::{Closing, Connection};
use super::guard::Verdict;
use super::http2::{ConnectionError, Partial, broken};
use super::leg::Body;
use super::stream::{DOWN, UP};
use crate::flood::Flood;
use crate::h2::frame::{self, ErrorCode, HEADER_LEN, Header, Kind, PAYLOAD_MAX, PREFACE, flags};
use gateway_core::fault::Fault;
use gateway_core::model::Side;

/// A DATA frame of which this much is there is forwarded in part; less waits for the rest.
const PARTIAL_BYTES_MIN: usize = 2048;

/// What frames come to.
pub type Done = Result<(), ConnectionError>;

impl Engine {
    /// Parses `chunk` as far as it goes; returns how much of it is used up.
    pub(super) fn read_http2(&mut self, c: &mut Connection, chunk: &[u8]) -> Result<usize, ConnectionError> {
        let mut at = 0;
        if !c.http2_ref().preface_seen {
            let len = chunk.len().min(PREFACE.len());
            if chunk[..len] != PREFACE[..len] {
                return broken(ErrorCode::ProtocolError, "not the preface of HTTP/2");
            }
            if len < PREFACE.len() {
                return Ok(0);
            }
            c.http2().preface_seen = true;
            at = len;
        }
        loop {
            let http2 = c.http2();
            if let Some(partial) = http2.partial {
                let count = partial.left.min(chunk.len() - at);
                if count == 0 {
                    return Ok(at);
                }
                let left = partial.left - count;
                http2.partial = (left > 0).then_some(Partial { left, ..partial });
                self.on_data(c, partial.id, chunk, at, at + count, count, partial.end && left == 0)?;
                at += count;
                continue;
            }
            let Some(header) = Header::parse(&chunk[at..]) else {
                return Ok(at);
            };
            if header.len > PAYLOAD_MAX {
                return broken(ErrorCode::FrameSizeError, "frame larger than SETTINGS_MAX_FRAME_SIZE");
            }
            let payload = at + HEADER_LEN;
            let there = chunk.len() - payload;
            if there < header.len {
                let forwardable = header.kind == Kind::Data
                    && !header.has(flags::PADDED)
                    && header.stream != 0
                    && there >= PARTIAL_BYTES_MIN
                    && http2.assembly.is_none()
                    && http2.settings_seen;
                if !forwardable {
                    return Ok(at);
                }
                let end = header.has(flags::END_STREAM);
                http2.partial = Some(Partial {
                    id: header.stream,
                    left: header.len,
                    end,
                });
                at = payload;
                continue;
            }
            at = payload + header.len;
            self.on_frame(c, &header, chunk, payload)?;
            if c.closing != Closing::No {
                return Ok(chunk.len());
            }
        }
    }

    #[inline]
    fn on_frame(&mut self, c: &mut Connection, header: &Header, chunk: &[u8], payload: usize) -> Done {
        let http2 = c.http2();
        let bytes = &chunk[payload..payload + header.len];
        if let Some(assembly) = &http2.assembly
            && (header.kind != Kind::Continuation || header.stream != assembly.id)
        {
            return broken(ErrorCode::ProtocolError, "a field block was interrupted");
        }
        if !http2.settings_seen && header.kind != Kind::Settings {
            return broken(ErrorCode::ProtocolError, "the first frame is not SETTINGS");
        }
        match header.kind {
            Kind::Data => {
                if header.stream == 0 {
                    return broken(ErrorCode::ProtocolError, "DATA on stream 0");
                }
                let body = frame::strip(header, bytes).map_err(padding_error)?.bytes;
                if !header.has(flags::END_STREAM) {
                    let verdict = http2.guard.data(body.len(), &self.limits, self.now);
                    self.keep_calm(verdict)?;
                }
                // Padding is behind the data, its length before it.
                let from = if header.has(flags::PADDED) {
                    payload + 1
                } else {
                    payload
                };
                self.on_data(
                    c,
                    header.stream,
                    chunk,
                    from,
                    from + body.len(),
                    header.len,
                    header.has(flags::END_STREAM),
                )
            }
            Kind::Headers => self.on_headers_frame(c, header, bytes),
            Kind::Continuation => self.on_continuation(c, header, bytes),
            Kind::Priority
            | Kind::RstStream
            | Kind::Settings
            | Kind::PushPromise
            | Kind::Ping
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Unknown(_) => self.on_control(c, header, bytes),
        }
    }

    /// `chunk[from..to]` is body; `wire` is what it costs of the windows, padding included (RFC 9113 6.9.1).
    fn on_data(
        &mut self,
        c: &mut Connection,
        id: u32,
        chunk: &[u8],
        from: usize,
        to: usize,
        wire: usize,
        end: bool,
    ) -> Done {
        let side = c.side();
        let http2 = c.http2();
        http2.recv_window -= wire as i64;
        if http2.recv_window < 0 {
            return broken(ErrorCode::FlowControlError, "more DATA than the connection's window");
        }
        let Some(index) = http2.ids.get(id) else {
            return self.on_late_data(c, id, wire);
        };
        let me = if side == Side::Downstream { DOWN } else { UP };
        let leg = &mut self.streams[index].legs[me];
        leg.recv_window -= wire as i64;
        let len = (to - from) as i64;
        let error = if leg.received_end {
            Some(ErrorCode::StreamClosed)
        } else if !leg.received_head {
            Some(ErrorCode::ProtocolError)
        } else if leg.recv_window < 0 {
            Some(ErrorCode::FlowControlError)
        } else if leg.length_left >= 0 && (leg.length_left < len || (end && leg.length_left > len)) {
            Some(ErrorCode::ProtocolError)
        } else {
            None
        };
        if let Some(error) = error {
            self.credit_connection(c, wire);
            return self.stream_error(c, id, error);
        }
        if leg.length_left >= 0 {
            leg.length_left -= len;
        }
        let padding = wire - (to - from);
        if padding > 0 && c.credit(Some(leg), padding, &self.limits, &mut self.pool) {
            self.turn.mark(c);
        }
        if from == to && !end {
            return Ok(());
        }
        self.on_body(c, index, me, Body::in_chunk(chunk, from, to), end);
        Ok(())
    }

    /// DATA of a stream that is over (RFC 9113 5.1): the connection's window is given back.
    #[cold]
    fn on_late_data(&mut self, c: &mut Connection, id: u32, wire: usize) -> Done {
        let side = c.side();
        if c.http2().is_idle(id, side) {
            return broken(ErrorCode::ProtocolError, "DATA on an idle stream");
        }
        self.credit_connection(c, wire);
        if side == Side::Downstream && id <= c.http2().served_max && !c.http2().closed.reset_by_us(id) {
            return self.stream_error(c, id, ErrorCode::StreamClosed);
        }
        Ok(())
    }

    fn credit_connection(&mut self, c: &mut Connection, bytes: usize) {
        if c.credit(None, bytes, &self.limits, &mut self.pool) {
            self.turn.mark(c);
        }
    }

    /// An error of one stream (RFC 9113 5.4.2): by the peer of `c`.
    pub(super) fn stream_error(&mut self, c: &mut Connection, id: u32, error: ErrorCode) -> Done {
        let down = c.side() == Side::Downstream;
        let verdict = if down {
            c.http2().guard.made_reset(&self.limits, self.now)
        } else {
            Ok(())
        };
        match c.http2().ids.get(id) {
            Some(index) if down => {
                self.streams[index].fault = Some(Fault::BadRequest);
                self.end_stream(c, index, error);
            }
            Some(index) => {
                self.leave_upstream(c, index, error);
                self.fail(c, index, Fault::BadResponse);
            }
            None => self.refuse_stream(c, id, error),
        }
        self.keep_calm(verdict)
    }

    /// RST_STREAM for a stream that has no slot here.
    pub(super) fn refuse_stream(&mut self, c: &mut Connection, id: u32, error: ErrorCode) {
        frame::put_rst_stream(c.out.tail(&mut self.pool), id, error);
        let http2 = c.http2();
        http2.queue.control += 1;
        http2.closed.note(id, true);
        self.turn.mark(c);
    }

    /// The peer does cheaply what costs us: the connection ends.
    #[cold]
    pub(super) fn flood(&mut self, flood: Flood) -> Done {
        self.metrics.floods[flood as usize] += 1;
        broken(ErrorCode::EnhanceYourCalm, flood.why())
    }

    /// Within the bound, or a flood.
    #[inline]
    pub(super) fn keep_calm(&mut self, verdict: Verdict) -> Done {
        match verdict {
            Ok(()) => Ok(()),
            Err(flood) => self.flood(flood),
        }
    }
}

pub(super) fn padding_error(code: ErrorCode) -> ConnectionError {
    ConnectionError {
        code,
        why: "malformed padding or priority",
    }
}
