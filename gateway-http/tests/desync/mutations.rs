//! Requests of HTTP/1.1 changed at random: what the reader takes, `httparse` takes too and means the same by it, and the
//! strict judge finds the same length; what the judge takes as one plain request, the reader does not misread.
//!
//! Failing inputs become rows of `fixtures/mutations.txt`, which are read first.

use super::judge;
use super::table::rows;
use gateway_http::h1::Framing;
use gateway_http::h1::body::Reader;
use gateway_http::h1::chunked::{Piece, TrailerLimits};
use gateway_http::h1::head::read_request;
use gateway_http::h2::hpack::SectionLimits;
use gateway_http::head::{FieldList, Token};
use proptest::prelude::*;

const LIMITS: SectionLimits = SectionLimits {
    size_max: 8192,
    fields_max: 100,
};

const SEEDS: [&str; 8] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a?b HTTP/1.1\r\nHost: example.com:80\r\nX-A: b\r\nConnection: x-a, close\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
    "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
];

const PIECES: [&str; 22] = [
    "\r",
    "\n",
    "\r\n",
    " ",
    "\t",
    ":",
    "\0",
    ",",
    ";",
    "0",
    "1",
    "a",
    "chunked",
    "Content-Length: 4\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: ",
    "Host: b\r\n",
    "HTTP/1.1",
    "\u{b}",
    "\u{e9}",
    "X",
    "+",
];

/// Where, what goes away, what comes.
type Change = (prop::sample::Index, usize, Option<usize>);

fn changed(seed: &str, changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.as_bytes().to_vec();
    for (at, gone, piece) in changes {
        let at = at.index(bytes.len() + 1);
        let end = bytes.len().min(at + gone);
        let piece = piece.map_or("", |piece| PIECES[piece]);
        bytes.splice(at..end, piece.bytes());
    }
    bytes
}

/// Where the message ends for the body reader; `None`: not yet, `Err`: it is refused.
fn body_end(bytes: &[u8], head: usize, framing: Framing) -> Result<Option<usize>, ()> {
    let mut reader = Reader::new(framing);
    let (mut at, mut trailers) = (head, FieldList::new());
    let limits = TrailerLimits {
        bytes_max: LIMITS.size_max,
        fields_max: LIMITS.fields_max,
    };
    loop {
        match reader.next(bytes, &mut at, &mut trailers, limits) {
            Ok(Piece::Data(_)) => {}
            Ok(Piece::More) => return Ok(None),
            Ok(Piece::End) => return Ok(Some(at)),
            Err(_) => return Err(()),
        }
    }
}

/// `Err` says how reader and judge disagree.
fn agree(bytes: &[u8]) -> Result<(), String> {
    let mut list = FieldList::new();
    let read = read_request(bytes, b"http", &mut list, LIMITS);
    let judged = judge::request(bytes);
    let Ok(Some(read)) = read else {
        // Refused or incomplete. An incomplete one must not be whole to the judge.
        return match (read, judged) {
            (Ok(None), Ok((_, Some(_)))) => Err("the judge has a whole request, the reader waits for more".to_owned()),
            _ => Ok(()),
        };
    };
    let ours = body_end(bytes, read.len, read.framing);
    let (seen, end) = match judged {
        Ok(judged) => judged,
        // The judge knows no extensions of chunks; the reader skips them.
        Err(why) if why.starts_with("chunk size") && (why.contains(';') || why.contains(' ')) => return Ok(()),
        Err(_) if ours.is_err() => return Ok(()),
        Err(why) => return Err(format!("taken, and the judge says: {why}")),
    };
    let agrees = match (ours, end) {
        (Ok(Some(ours)), Some(end)) => ours == end,
        // The reader may refuse more (a length among the trailers), never less.
        (Err(()), _) | (Ok(None), None) => true,
        (Ok(Some(_)), None) | (Ok(None), Some(_)) => false,
    };
    if !agrees {
        return Err(format!("{:?} to {ours:?}, and to {end:?} for the judge", read.framing));
    }
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    if text(list.get(Token::METHOD)) != seen.method {
        return Err(format!("method {:?}", seen.method));
    }
    let path = text(list.get(Token::PATH));
    if !seen.target.ends_with(&path) && path != "/" && path != "*" {
        return Err(format!("target {:?} and {path:?}", seen.target));
    }
    Ok(())
}

#[test]
fn what_once_was_read_in_two_ways_is_not_any_more() {
    for row in rows(include_str!("fixtures/mutations.txt"), 5) {
        let agreed = agree(&row.cells[0]);
        assert!(agreed.is_ok(), "{}: {agreed:?}", row.name);
        let mut list = FieldList::new();
        let taken = matches!(read_request(&row.cells[0], b"http", &mut list, LIMITS), Ok(Some(_)));
        assert_eq!(taken, row.verdict == "taken", "{}", row.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_changed_request_is_read_as_the_judge_reads_it_or_not_at_all(
        seed in 0..SEEDS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4usize, prop::option::of(0..PIECES.len())), 0..5),
    ) {
        let bytes = changed(SEEDS[seed], &changes);
        if let Err(how) = agree(&bytes) {
            prop_assert!(false, "{how}: {}", bytes.escape_ascii());
        }
    }
}
