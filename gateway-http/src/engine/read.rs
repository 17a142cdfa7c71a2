//! Bytes of an HTTP/2 connection: frames in place, large DATA forwarded while it comes in.
//!
//! `Err` ends the connection (RFC 9113 5.4.1); errors of one stream are dealt with here (5.4.2).

use super::Engine;
use super::connection::{Closing, Connection};
use super::guard::Cheap;
use super::http2::{Assembly, ConnectionError, Partial, broken};
use super::leg::Body;
use super::stream::{DOWN, UP};
use crate::h2::frame::{self, ErrorCode, HEADER_LEN, Header, Kind, PAYLOAD_MAX, PREFACE, flags};
use crate::h2::headers;
use crate::h2::hpack::{HpackError, SectionLimits};
use crate::head::facts::{Method, RequestFacts, ResponseFacts, is_grpc};
use crate::head::{FieldList, Token};
use gateway_core::fault::Fault;
use gateway_core::model::Side;

/// A DATA frame of which this much is there is forwarded in part; less waits for the rest.
const PARTIAL_BYTES_MIN: usize = 2048;
/// A field block in CONTINUATION frames, bytes as encoded. What it decodes to has its own limit.
const BLOCK_BYTES_MAX: usize = 64 * 1024;

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

    fn on_headers_frame(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
        if header.stream == 0 {
            return broken(ErrorCode::ProtocolError, "HEADERS on stream 0");
        }
        let body = frame::strip(header, bytes).map_err(padding_error)?;
        if body.depends_on == Some(header.stream) {
            return broken(ErrorCode::ProtocolError, "a stream that depends on itself");
        }
        let end = header.has(flags::END_STREAM);
        if header.has(flags::END_HEADERS) {
            return self.on_block(c, header.stream, body.bytes, end);
        }
        let since = self.now;
        let block = body.bytes.to_vec();
        c.http2().assembly = Some(Box::new(Assembly {
            id: header.stream,
            end,
            continuations: 0,
            block,
            since,
        }));
        self.arm_timer(c);
        Ok(())
    }

    fn on_continuation(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
        let Some(mut assembly) = c.http2().assembly.take() else {
            return broken(ErrorCode::ProtocolError, "CONTINUATION without HEADERS");
        };
        assembly.continuations += 1;
        if assembly.continuations > self.limits.continuations_max
            || assembly.block.len() + bytes.len() > BLOCK_BYTES_MAX
        {
            self.metrics.floods_total += 1;
            return broken(ErrorCode::EnhanceYourCalm, "field block too long");
        }
        assembly.block.extend_from_slice(bytes);
        if header.has(flags::END_HEADERS) {
            return self.on_block(c, assembly.id, &assembly.block, assembly.end);
        }
        c.http2().assembly = Some(assembly);
        Ok(())
    }

    /// A whole field block: it must be decoded whatever becomes of its stream, for the table's sake.
    fn on_block(&mut self, c: &mut Connection, id: u32, block: &[u8], end: bool) -> Done {
        let mut fields = self.lists.take();
        let limits = SectionLimits {
            size_max: self.limits.head_bytes_max,
            fields_max: self.limits.fields_max,
        };
        let done = match c.http2().decoder().decode(block, &mut fields, limits) {
            Ok(()) if c.side() == Side::Downstream => self.on_request_block(c, id, &mut fields, end),
            Ok(()) => self.on_response_block(c, id, &mut fields, end),
            Err(HpackError::Flood) => {
                self.metrics.floods_total += 1;
                broken(ErrorCode::EnhanceYourCalm, "field section too large")
            }
            Err(_) => broken(ErrorCode::CompressionError, "field block cannot be decoded"),
        };
        self.lists.put(&mut fields);
        done
    }

    fn on_request_block(&mut self, c: &mut Connection, id: u32, fields: &mut FieldList, end: bool) -> Done {
        let limits = &self.limits;
        let http2 = c.http2();
        if id.is_multiple_of(2) {
            return broken(ErrorCode::ProtocolError, "a client's stream has an even id");
        }
        if id <= http2.last_id {
            return match http2.ids.get(id) {
                Some(index) => self.on_trailer_block(c, index, DOWN, id, fields, end),
                None if http2.closed.reset_by_us(id) => Ok(()),
                None if http2.closed.ended(id) => broken(ErrorCode::StreamClosed, "HEADERS on a closed stream"),
                None => broken(ErrorCode::ProtocolError, "stream ids must grow"),
            };
        }
        if id > http2.served_max {
            return Ok(());
        }
        http2.last_id = id;
        if http2.ids.len() as u32 >= limits.streams_max {
            let calm = http2.guard.allows(Cheap::Idle, limits, self.now);
            self.refuse_stream(c, id, ErrorCode::RefusedStream);
            return if calm { Ok(()) } else { self.flood("too many streams") };
        }
        let facts = if fields.is_too_large() {
            Ok(RequestFacts {
                method: fields.get(Token::METHOD).map_or(Method::Other, Method::of),
                content_length: None,
                is_grpc: fields.get(Token::CONTENT_TYPE).is_some_and(is_grpc),
                expects_continue: false,
            })
        } else {
            headers::check_request(fields, end)
        };
        match facts {
            Ok(facts) => self.on_request(c, id, fields, facts, end),
            Err(_) => {
                self.metrics.faults[Fault::BadRequest as usize] += 1;
                return self.stream_error(c, id, ErrorCode::ProtocolError);
            }
        }
        Ok(())
    }

    fn on_response_block(&mut self, c: &mut Connection, id: u32, fields: &mut FieldList, end: bool) -> Done {
        let http2 = c.http2();
        let Some(index) = http2.ids.get(id) else {
            return if http2.is_idle(id, Side::Upstream) {
                broken(ErrorCode::ProtocolError, "HEADERS on an idle stream")
            } else {
                Ok(())
            };
        };
        let stream = &self.streams[index];
        if stream.legs[UP].received_head {
            return self.on_trailer_block(c, index, UP, id, fields, end);
        }
        let method = stream.method;
        let too_large = fields.is_too_large();
        let well_formed = |facts: &ResponseFacts| {
            // No head can end a message whose body must still come.
            let cut = end && (facts.is_interim() || facts.body_length(method).is_some_and(|length| length > 0));
            !too_large && !cut
        };
        match headers::check_response(fields).ok().filter(well_formed) {
            Some(facts) => self.on_response(c, index, fields, facts, end),
            None => return self.stream_error(c, id, ErrorCode::ProtocolError),
        }
        Ok(())
    }

    fn on_trailer_block(
        &mut self,
        c: &mut Connection,
        index: u32,
        from: usize,
        id: u32,
        fields: &mut FieldList,
        end: bool,
    ) -> Done {
        let leg = &self.streams[index].legs[from];
        if leg.received_end {
            return self.stream_error(c, id, ErrorCode::StreamClosed);
        }
        let well_formed = headers::check_trailers(fields).is_ok() && !fields.is_too_large();
        if !end || leg.length_left > 0 || !well_formed {
            return self.stream_error(c, id, ErrorCode::ProtocolError);
        }
        self.on_trailers(c, index, from, fields);
        Ok(())
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
            let calm = c.http2().guard.allows(Cheap::Idle, &self.limits, self.now);
            return if calm {
                Ok(())
            } else {
                self.flood("too many empty DATA frames")
            };
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
        let calm = !down || c.http2().guard.allows(Cheap::MadeReset, &self.limits, self.now);
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
        if calm {
            Ok(())
        } else {
            self.flood("too many stream errors")
        }
    }

    /// RST_STREAM for a stream that has no slot here.
    fn refuse_stream(&mut self, c: &mut Connection, id: u32, error: ErrorCode) {
        frame::put_rst_stream(c.out.tail(&mut self.pool), id, error);
        c.http2().closed.note(id, true);
        self.turn.mark(c);
    }

    /// The peer does cheaply what costs us: the connection ends.
    #[cold]
    pub(super) fn flood(&mut self, why: &'static str) -> Done {
        self.metrics.floods_total += 1;
        broken(ErrorCode::EnhanceYourCalm, why)
    }
}

fn padding_error(code: ErrorCode) -> ConnectionError {
    ConnectionError {
        code,
        why: "malformed padding or priority",
    }
}
