//! The chunked coding (RFC 9112 7.1), strict: CRLF only, at most fifteen digits, bounded extensions.
//!
//! The decoder walks over the input and names the ranges that are payload; nothing is copied. A trailer section is
//! left in the input until it is whole.

use super::{Rejected, has_bare_lf};
use crate::head::facts::Malformed;
use crate::head::{FieldList, Token};
use std::ops::Range;

/// Digits of a chunk's size: 60 bits, so nothing overflows.
const DIGITS_MAX: u8 = 15;
/// Extensions mean nothing to us and are skipped up to this many bytes a chunk (RFC 9112 7.1.1).
const EXTENSION_BYTES_MAX: u16 = 256;
/// Fields of a trailer section, whatever the configured limit.
const TRAILERS_MAX: usize = 64;

/// What a trailer section may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailerLimits {
    pub bytes_max: usize,
    pub fields_max: usize,
}

/// Where in the coding the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the size; so many digits were seen.
    Size {
        size: u64,
        digits: u8,
    },
    /// Blanks behind the size, which some servers write; only an extension or the line's end may follow.
    Blank {
        size: u64,
        skipped: u16,
    },
    /// Behind the size, up to CR; so many bytes were skipped.
    Extension {
        size: u64,
        skipped: u16,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// What is next in the input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// These bytes of the input are payload.
    Data(Range<usize>),
    /// The rest of the input is to be given again, with more behind it (it may be empty).
    More,
    /// The body is complete; trailers, if there were any, are in the list.
    End,
}

/// Decodes one body.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    pub fn new() -> Self {
        Self {
            state: State::Size { size: 0, digits: 0 },
        }
    }

    /// See [`super::body::Reader::next`].
    pub fn next(
        &mut self,
        input: &[u8],
        at: &mut usize,
        trailers: &mut FieldList,
        limits: TrailerLimits,
    ) -> Result<Piece, Rejected> {
        loop {
            match self.state {
                State::Done => return Ok(Piece::End),
                State::Trailers => return self.trailers(input, at, trailers, limits),
                State::Data { left: 0 } => self.state = State::DataCr,
                _ if *at == input.len() => return Ok(Piece::More),
                State::Data { left } => return Ok(Piece::Data(self.data(left, input.len(), at))),
                state => {
                    self.state = step(state, input[*at])?;
                    *at += 1;
                }
            }
        }
    }

    fn data(&mut self, left: u64, end: usize, at: &mut usize) -> Range<usize> {
        let start = *at;
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(end - start);
        self.state = State::Data {
            left: left - taken as u64,
        };
        *at = start + taken;
        start..*at
    }

    /// The whole section at once (RFC 9112 7.1.2). Fields that frame or route a message have no place here
    /// (RFC 9110 6.5.1) and are an error.
    fn trailers(
        &mut self,
        input: &[u8],
        at: &mut usize,
        list: &mut FieldList,
        limits: TrailerLimits,
    ) -> Result<Piece, Rejected> {
        let rest = &input[*at..];
        let mut storage = [httparse::EMPTY_HEADER; TRAILERS_MAX];
        let (len, fields) = match httparse::parse_headers(rest, &mut storage) {
            Ok(httparse::Status::Complete(complete)) => complete,
            Ok(httparse::Status::Partial) if rest.len() < limits.bytes_max => return Ok(Piece::More),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Rejected::TooLarge),
            Err(_) => return Err(Malformed::Syntax.into()),
        };
        if len > limits.bytes_max || fields.len() > limits.fields_max {
            return Err(Rejected::TooLarge);
        }
        if has_bare_lf(&rest[..len]) {
            return Err(Malformed::Syntax.into());
        }
        for field in fields {
            list.push_any_case(field.name.as_bytes(), field.value);
            if list
                .fields()
                .last()
                .is_none_or(|field| field.is_bad() || is_framing(field.token()))
            {
                return Err(Malformed::Field.into());
            }
        }
        *at += len;
        self.state = State::Done;
        Ok(Piece::End)
    }
}

/// Whether a field of this name would frame or route another message if it were taken for a part of a head. Others
/// that have no place in a trailer section are dropped ([`Token::may_trail`]).
fn is_framing(token: Token) -> bool {
    let framing = matches!(
        token,
        Token::CONTENT_LENGTH | Token::HOST | Token::TE | Token::TRAILER | Token::EXPECT
    );
    framing || token.is_connection_specific() || token.is_pseudo()
}

fn step(state: State, byte: u8) -> Result<State, Malformed> {
    Ok(match (state, byte) {
        (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < DIGITS_MAX => {
            let digit = (byte as char).to_digit(16).map_or(0, u64::from);
            State::Size {
                size: size << 4 | digit,
                digits: digits + 1,
            }
        }
        (State::Size { size, digits: 1.. }, b'\r') => State::SizeLf { size },
        (State::Size { size, digits: 1.. }, b';') => State::Extension { size, skipped: 0 },
        (State::Size { size, digits: 1.. }, b' ' | b'\t') => State::Blank { size, skipped: 1 },
        (State::Blank { size, skipped }, b' ' | b'\t') if skipped < EXTENSION_BYTES_MAX => State::Blank {
            size,
            skipped: skipped + 1,
        },
        (State::Blank { size, skipped }, b';') => State::Extension { size, skipped },
        (State::Blank { size, .. } | State::Extension { size, .. }, b'\r') => State::SizeLf { size },
        (State::Extension { size, skipped }, b'\t' | b' '..=0x7e | 0x80..) if skipped < EXTENSION_BYTES_MAX => {
            State::Extension {
                size,
                skipped: skipped + 1,
            }
        }
        (State::SizeLf { size: 0 }, b'\n') => State::Trailers,
        (State::SizeLf { size }, b'\n') => State::Data { left: size },
        (State::DataCr, b'\r') => State::DataLf,
        (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
        (_, _) => return Err(Malformed::Framing),
    })
}

// === Writing ===

/// The line before `len` (more than 0) bytes of payload; [`put_chunk_end`] follows them.
pub fn put_chunk_header(out: &mut Vec<u8>, len: usize) {
    debug_assert!(len > 0, "a chunk of no bytes would end the body");
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[len >> (4 * place) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Behind a chunk's payload.
pub fn put_chunk_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// The end of the body, with its trailers. Fields that cannot trail are left out: HTTP/2 allows some that HTTP/1.1
/// does not.
pub fn put_last_chunk(out: &mut Vec<u8>, trailers: Option<&FieldList>) {
    out.extend_from_slice(b"0\r\n");
    for field in trailers.map_or(&[][..], FieldList::fields) {
        if let Some(list) = trailers
            && field.token().may_trail()
        {
            super::write::put_field(out, list, field);
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TrailerLimits = TrailerLimits {
        bytes_max: 200,
        fields_max: 3,
    };

    /// Decodes `input`, given in pieces of `step` bytes; what was not used is given again, as the engine does.
    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, FieldList, usize), Rejected> {
        let (mut decoder, mut trailers, mut body) = (Decoder::new(), FieldList::new(), Vec::new());
        let (mut used, mut end) = (0, 0);
        loop {
            let window = &input[used..end];
            let mut at = 0;
            loop {
                match decoder.next(window, &mut at, &mut trailers, LIMITS)? {
                    Piece::Data(range) => body.extend_from_slice(&window[range]),
                    Piece::More => break,
                    Piece::End => return Ok((body, trailers, used + at)),
                }
            }
            used += at;
            assert!(end < input.len(), "the body never ends");
            end = (end + step).min(input.len());
        }
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let input =
            b"4\r\nWiki\r\n7;a=\"b\"\r\npedia i\r\nB \r\nn \r\nchunks.\r\n0\r\nGrpc-Status: 0\r\nx: y\r\n\r\nNEXT";
        for step in 1..=input.len() {
            let (body, trailers, used) = decode(input, step).expect("well formed");
            assert_eq!(body, b"Wikipedia in \r\nchunks.");
            assert_eq!(trailers.get(Token::GRPC_STATUS), Some(&b"0"[..]));
            assert_eq!(trailers.len(), 2);
            assert_eq!(&input[used..], b"NEXT");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for input in [
            &b"4\nWiki\r\n0\r\n\r\n"[..],
            b"4\r\nWiki\n0\r\n\r\n",
            b"4\r\nWikiX\r\n0\r\n\r\n",
            b"\r\n4\r\nWiki\r\n",
            b";a\r\n",
            b"0x4\r\nWiki\r\n",
            b"+4\r\nWiki\r\n",
            b"-1\r\n",
            b" 4\r\n",
            b"4\r\rWiki",
            b"4;a\nWiki",
            b"4 a\r\nWiki\r\n",
            b"0 t0\r\n\r\n",
            b"4;\x00\r\nWiki",
            b"1000000000000000\r\n",
            b"0\r\nx: y\n\r\n",
            b"0\r\nx : y\r\n\r\n",
            b"0\r\nx: y\r\n z\r\n\r\n",
            b"0\r\ncontent-length: 3\r\n\r\n",
            b"0\r\ntransfer-encoding: chunked\r\n\r\n",
            b"0\r\nhost: a\r\n\r\n",
            b"0\r\n\n",
        ] {
            for step in [1, 2, input.len()] {
                assert!(
                    matches!(decode(input, step), Err(Rejected::Malformed(_))),
                    "{:?}",
                    String::from_utf8_lossy(input)
                );
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = format!(
            "4;{}\r\nWiki\r\n0\r\n\r\n",
            "a".repeat(usize::from(EXTENSION_BYTES_MAX))
        );
        assert!(decode(extension.as_bytes(), 7).is_ok());
        let longer = format!(
            "4;{}\r\nWiki\r\n0\r\n\r\n",
            "a".repeat(usize::from(EXTENSION_BYTES_MAX) + 1)
        );
        assert!(decode(longer.as_bytes(), 7).is_err());
        let endless = format!("0\r\na: {}", "b".repeat(300));
        assert_eq!(decode(endless.as_bytes(), 300).map(|_| ()), Err(Rejected::TooLarge));
        let many = b"0\r\na: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\n\r\n";
        assert_eq!(decode(many, 100).map(|_| ()), Err(Rejected::TooLarge));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut trailers = FieldList::new();
        trailers.push(b"grpc-status", b"0");
        trailers.push(b"content-length", b"1");
        let mut out = Vec::new();
        for len in [1, 15, 16, 17, 255, 256, 4096, 70_000] {
            put_chunk_header(&mut out, len);
            out.extend(std::iter::repeat_n(b'x', len));
            put_chunk_end(&mut out);
        }
        put_last_chunk(&mut out, Some(&trailers));
        let (body, got, used) = decode(&out, 1000).expect("well formed");
        assert_eq!(body.len(), 1 + 15 + 16 + 17 + 255 + 256 + 4096 + 70_000);
        assert_eq!((got.len(), got.get(Token::GRPC_STATUS)), (1, Some(&b"0"[..])));
        assert_eq!(used, out.len());
        assert!(out.starts_with(b"1\r\nx\r\nf\r\n"));
    }

    #[test]
    fn an_empty_body_is_five_bytes() {
        let mut out = Vec::new();
        put_last_chunk(&mut out, None);
        assert_eq!(out, b"0\r\n\r\n");
        assert_eq!(decode(&out, 1).map(|(body, _, used)| (body.len(), used)), Ok((0, 5)));
    }
}
