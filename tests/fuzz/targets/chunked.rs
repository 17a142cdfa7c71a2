//! The chunked coding, in one piece, in many, and as an independent reader reads it.
//!
//! Laws: pieces change nothing; a body that ends for us ends at the same byte with the same payload for the other.
//! Input: how it is cut, then the coded body.
#![no_main]

use gateway_fuzz::cut;
use gateway_fuzz::http1::{self, Read};
use gateway_http::h1::chunked::{Decoder, Piece, TrailerLimits};
use gateway_http::head::FieldList;
use libfuzzer_sys::fuzz_target;

const LIMITS: TrailerLimits = TrailerLimits {
    bytes_max: 2000,
    fields_max: 16,
};

/// Payload, and how it ended: behind which byte; not yet; refused.
type Decoded = (Vec<u8>, Option<Result<usize, ()>>);

fn decode<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let (mut decoder, mut trailers) = (Decoder::new(), FieldList::new());
    let (mut payload, mut window, mut used) = (Vec::new(), Vec::new(), 0);
    for chunk in chunks {
        window.extend_from_slice(chunk);
        let mut at = 0;
        loop {
            match decoder.next(&window, &mut at, &mut trailers, LIMITS) {
                Ok(Piece::Data(range)) => {
                    assert!(!range.is_empty(), "progress");
                    payload.extend_from_slice(&window[range]);
                }
                Ok(Piece::More) => break,
                Ok(Piece::End) => return (payload, Some(Ok(used + at))),
                Err(_) => return (payload, Some(Err(()))),
            }
        }
        used += at;
        window.drain(..at);
    }
    (payload, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((_, coded)) = input.split_first() else { return };
    let whole = decode([coded].into_iter());
    let pieces = decode(cut::chunks(input));
    assert_eq!(whole, pieces, "pieces change nothing");
    if let (payload, Some(Ok(len))) = whole {
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        match http1::read(&[&head[..], coded].concat()) {
            Read::Whole(request, end) => assert_eq!((request.body, end - head.len()), (payload, len)),
            other => panic!("ended for us, but {other:?}"),
        }
    }
});
