//! The body of a message as it comes in, whatever its framing (RFC 9112 6).

use super::chunked::{Decoder, Piece, TrailerLimits};
use super::{Framing, Rejected};
use crate::head::FieldList;

/// Reads one body.
#[derive(Clone, Debug)]
pub enum Reader {
    /// So many bytes are left.
    Length(u64),
    Chunked(Decoder),
    /// Only the end of the connection ends it.
    UntilClose,
}

impl Reader {
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Reader::Length(0),
            Framing::Length(length) => Reader::Length(length),
            Framing::Chunked => Reader::Chunked(Decoder::new()),
            Framing::UntilClose => Reader::UntilClose,
        }
    }

    /// Looks at `input` from `at` on and moves `at` behind what was used. Trailers are appended to `trailers`.
    pub fn next(
        &mut self,
        input: &[u8],
        at: &mut usize,
        trailers: &mut FieldList,
        limits: TrailerLimits,
    ) -> Result<Piece, Rejected> {
        let here = input.len() - *at;
        match self {
            Reader::Length(0) => Ok(Piece::End),
            Reader::Length(_) | Reader::UntilClose if here == 0 => Ok(Piece::More),
            Reader::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(here);
                *left -= taken as u64;
                *at += taken;
                Ok(Piece::Data(*at - taken..*at))
            }
            Reader::UntilClose => {
                *at = input.len();
                Ok(Piece::Data(input.len() - here..input.len()))
            }
            Reader::Chunked(decoder) => decoder.next(input, at, trailers, limits),
        }
    }

    /// Whether the end of the connection now ends the body in order.
    pub fn may_end(&self) -> bool {
        matches!(self, Reader::UntilClose | Reader::Length(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TrailerLimits = TrailerLimits {
        bytes_max: 1000,
        fields_max: 10,
    };

    fn next(reader: &mut Reader, input: &[u8], at: &mut usize) -> Piece {
        reader
            .next(input, at, &mut FieldList::new(), LIMITS)
            .expect("well formed")
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let mut reader = Reader::new(Framing::Length(5));
        let mut at = 1;
        assert_eq!(next(&mut reader, b"_abc", &mut at), Piece::Data(1..4));
        assert_eq!(next(&mut reader, b"_abc", &mut at), Piece::More);
        assert!(!reader.may_end());
        let mut at = 0;
        assert_eq!(next(&mut reader, b"deNEXT", &mut at), Piece::Data(0..2));
        assert_eq!((next(&mut reader, b"deNEXT", &mut at), at), (Piece::End, 2));
        assert!(reader.may_end());
    }

    #[test]
    fn no_body_ends_at_once_and_an_open_one_never() {
        assert_eq!(next(&mut Reader::new(Framing::None), b"", &mut 0), Piece::End);
        let mut open = Reader::new(Framing::UntilClose);
        let mut at = 0;
        assert_eq!(next(&mut open, b"abc", &mut at), Piece::Data(0..3));
        assert_eq!(next(&mut open, b"abc", &mut at), Piece::More);
        assert!(open.may_end());
    }
}
