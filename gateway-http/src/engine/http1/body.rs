//! Body bytes of either side, from the wire to the stream.

use super::super::connection::{Closing, Codec, Connection};
use super::super::http2::ConnectionError;
use super::super::leg::Body;
use super::super::stream::{DOWN, UP};
use super::super::{ConnId, Engine, RESTORE_MAX};
use super::{DRAIN_BYTES_MAX, Reading};
use crate::h1::Rejected;
use crate::h1::chunked::Piece;
use crate::h1::chunked::TrailerLimits;
use crate::h2::hpack::SectionLimits;
use gateway_core::model::Side;
use std::ops::Range;

/// The bytes that are being read.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub bytes: &'a [u8],
    /// They are the driver's chunk, which may be referenced, and not a buffer of ours.
    pub in_chunk: bool,
}

impl Engine {
    /// Parses `chunk` as far as it goes; returns how much of it is used up.
    pub(in crate::engine) fn read_http1(&mut self, c: &mut Connection, chunk: &[u8]) -> Result<usize, ConnectionError> {
        self.read_messages(
            c,
            Input {
                bytes: chunk,
                in_chunk: true,
            },
        )
    }

    fn read_messages(&mut self, c: &mut Connection, input: Input<'_>) -> Result<usize, ConnectionError> {
        c.http1().stalled = false;
        let used = match c.side() {
            Side::Downstream => self.read_requests(c, input),
            Side::Upstream => self.read_responses(c, input)?,
        };
        c.http1().pause(&self.limits);
        Ok(used)
    }

    /// Looks again at bytes that had to wait. They are not in the driver's chunk.
    pub(in crate::engine) fn read_stalled(&mut self, id: ConnId) {
        self.with(id, |engine, c| {
            let Codec::Http1(_) = c.codec else { return };
            if c.closing != Closing::No {
                return;
            }
            let mut rest = std::mem::take(&mut c.leftover);
            match engine.read_messages(
                c,
                Input {
                    bytes: &rest,
                    in_chunk: false,
                },
            ) {
                Ok(used) => {
                    rest.drain(..used);
                    c.leftover = rest;
                    if c.leftover.is_empty() {
                        engine.pool.put(&mut c.leftover);
                    }
                    if !c.http1().paused {
                        engine.turn.resumed.push(id);
                    }
                }
                Err(error) => engine.connection_error(c, error),
            }
        });
    }

    /// What a head may hold. An incomplete one must fit where the driver puts it back.
    pub(super) fn section_limits(&self) -> SectionLimits {
        SectionLimits {
            size_max: self.limits.head_bytes_max.min(RESTORE_MAX - 1),
            fields_max: self.limits.fields_max,
        }
    }

    /// Passes on the body that `input` has from `at` on. `true` when the message is whole.
    pub(super) fn read_body(&mut self, c: &mut Connection, input: Input<'_>, at: &mut usize) -> Result<bool, Rejected> {
        let SectionLimits { size_max, fields_max } = self.section_limits();
        let limits = TrailerLimits {
            bytes_max: size_max,
            fields_max,
        };
        let mut trailers = self.lists.take();
        // One piece is held back: the last one carries the end.
        let mut piece = 0..0;
        let whole = loop {
            let Reading::Body(reader) = &mut c.http1().reading else {
                break Ok(false);
            };
            match reader.next(input.bytes, at, &mut trailers, limits) {
                Ok(Piece::Data(next)) => {
                    let before = std::mem::replace(&mut piece, next);
                    self.pass(c, input, before, false);
                    if c.closing != Closing::No {
                        break Ok(false);
                    }
                }
                Ok(Piece::More) => {
                    self.pass(c, input, piece, false);
                    break Ok(false);
                }
                Ok(Piece::End) => {
                    c.http1().reading = Reading::Whole;
                    self.pass(c, input, piece, trailers.is_empty());
                    if let (false, Some(index)) = (trailers.is_empty(), c.http1().stream) {
                        let from = if c.is_downstream() { DOWN } else { UP };
                        self.on_trailers(c, index, from, &mut trailers);
                    }
                    let http1 = c.http1();
                    if http1.stream.is_none() {
                        http1.reading = Reading::Head;
                    }
                    break Ok(true);
                }
                Err(rejected) => break Err(rejected),
            }
        };
        self.lists.put(&mut trailers);
        whole
    }

    /// Passes on the tunnel's bytes that `input` has from `at` on.
    pub(super) fn read_tunnel(&mut self, c: &mut Connection, input: Input<'_>, at: &mut usize) {
        let here = *at..input.bytes.len();
        *at = here.end;
        self.pass(c, input, here, false);
        if c.http1().ended {
            self.end_tunnel(c);
        }
    }

    /// The peer's direction of the tunnel is over.
    pub(super) fn end_tunnel(&mut self, c: &mut Connection) {
        let from = if c.is_downstream() { DOWN } else { UP };
        if let Some(index) = c.http1().stream
            && !self.streams[index].legs[from].received_end
        {
            self.on_body(c, index, from, Body::own(b""), true);
        }
    }

    /// A piece of body goes to the stream, or nowhere when it is over.
    fn pass(&mut self, c: &mut Connection, input: Input<'_>, piece: Range<usize>, end: bool) {
        let from = if c.is_downstream() { DOWN } else { UP };
        let http1 = c.http1();
        http1.awaits_continue &= piece.is_empty();
        match http1.stream {
            Some(_) if piece.is_empty() && !end => {}
            Some(index) => {
                http1.held += piece.len();
                let body = if input.in_chunk {
                    Body::in_chunk(input.bytes, piece.start, piece.end)
                } else {
                    Body::own(&input.bytes[piece])
                };
                self.on_body(c, index, from, body, end);
            }
            None => {
                http1.drained += piece.len() as u64;
                if http1.drained > DRAIN_BYTES_MAX {
                    Self::close_after_flush(c, &mut self.turn);
                }
            }
        }
    }
}
