//! Field blocks of HTTP/2: from HEADERS and CONTINUATION frames to checked requests, responses and trailers.

use super::Engine;
use super::connection::Connection;
use super::http2::{Assembly, broken};
use super::read::{Done, padding_error};
use super::stream::{DOWN, UP};
use crate::flood::Flood;
use crate::h2::frame::{self, ErrorCode, Header, flags};
use crate::h2::headers;
use crate::h2::hpack::{HpackError, SectionLimits};
use crate::head::facts::{Method, RequestFacts, ResponseFacts, is_grpc};
use crate::head::{FieldList, Token};
use gateway_core::fault::Fault;
use gateway_core::model::Side;

/// A field block in CONTINUATION frames, bytes as encoded, in heads: what is just too large shall be answered (431).
const BLOCK_HEADS_MAX: usize = 2;
/// Pseudo-fields of a request; they are not counted as fields.
pub(super) const REQUEST_PSEUDO_FIELDS: usize = 4;

impl Engine {
    pub(super) fn on_headers_frame(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
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

    pub(super) fn on_continuation(&mut self, c: &mut Connection, header: &Header, bytes: &[u8]) -> Done {
        let Some(mut assembly) = c.http2().assembly.take() else {
            return broken(ErrorCode::ProtocolError, "CONTINUATION without HEADERS");
        };
        assembly.continuations += 1;
        if assembly.continuations > self.limits.continuations_max {
            return self.flood(Flood::Continuations);
        }
        if assembly.block.len() + bytes.len() > BLOCK_HEADS_MAX * self.limits.head_bytes_max {
            return self.flood(Flood::FieldBlock);
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
            fields_max: self.limits.fields_max + REQUEST_PSEUDO_FIELDS,
        };
        c.http2().guard.head();
        let done = match c.http2().decoder().decode(block, &mut fields, limits) {
            Ok(()) if c.side() == Side::Downstream => self.on_request_block(c, id, &mut fields, end),
            Ok(()) => self.on_response_block(c, id, &mut fields, end),
            Err(HpackError::Flood) => self.flood(Flood::FieldBlock),
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
        if http2.ids.len() as u32 + http2.held >= limits.streams_max {
            let verdict = http2.guard.refused(limits, self.now);
            self.refuse_stream(c, id, ErrorCode::RefusedStream);
            return self.keep_calm(verdict);
        }
        let facts = if fields.is_too_large() {
            Ok(RequestFacts {
                method: fields.get(Token::METHOD).map_or(Method::Other, Method::of),
                upgrade: false,
                content_length: None,
                is_grpc: fields.get(Token::CONTENT_TYPE).is_some_and(is_grpc),
                expects_continue: false,
                claims: false,
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
        // In a tunnel there is DATA alone (RFC 9113 8.5).
        let tunnel = self.streams[index].tunnel.as_ref();
        if tunnel.is_some_and(|tunnel| from == DOWN || tunnel.is_open()) {
            return self.stream_error(c, id, ErrorCode::ProtocolError);
        }
        let leg = &self.streams[index].legs[from];
        let well_formed = headers::check_trailers(fields).is_ok() && !fields.is_too_large();
        if !end || leg.length_left > 0 || !well_formed {
            return self.stream_error(c, id, ErrorCode::ProtocolError);
        }
        self.on_trailers(c, index, from, fields);
        Ok(())
    }
}
