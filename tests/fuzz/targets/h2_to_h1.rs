//! One HTTP/2 request with any fields and body, then a second one, to an HTTP/1.1 endpoint.
//!
//! Laws: the endpoint sees at most one request for the first, with its method and exactly its body, and exactly one for
//! the second, whatever the first was (no smuggling: RFC 9113 10.3); the second is answered.
//! Input: options, fields as lines of `name:value`, an empty line, the body.
#![no_main]

use gateway_core::ir::UpstreamProtocol;
use gateway_fuzz::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS};
use gateway_fuzz::{endpoint::Endpoints, snapshot, turns::Turns};
use gateway_http::engine::DownstreamProtocol;
use gateway_http::limits::Limits;
use libfuzzer_sys::fuzz_target;

const TEXT_BYTES_MAX: usize = 126;

fn put_request(out: &mut Vec<u8>, stream: u32, fields: &[(&[u8], &[u8])], end: bool) {
    let mut block = Vec::new();
    for (name, value) in fields {
        frames::put_literal(&mut block, name, value);
    }
    let end = if end { END_STREAM } else { 0 };
    frames::put(out, HEADERS, END_HEADERS | end, stream, &block);
}

fuzz_target!(|input: &[u8]| {
    let Some((options, mut rest)) = input.split_first() else {
        return;
    };
    let mut fields: Vec<(&[u8], &[u8])> = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let colon = line
            .iter()
            .skip(1)
            .position(|byte| *byte == b':')
            .map_or(line.len(), |at| at + 1);
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        fields.push((
            &name[..name.len().min(TEXT_BYTES_MAX)],
            &value[..value.len().min(TEXT_BYTES_MAX)],
        ));
    }
    if fields.len() > 60 {
        return;
    }
    let body = &rest[..rest.len().min(10_000)];
    let mut turns = Turns::new(snapshot(UpstreamProtocol::Http1), Limits::default());
    let client = turns.accept(DownstreamProtocol::Http2);
    let mut bytes = frames::hello();
    let ends = options & 3;
    put_request(&mut bytes, 1, &fields, body.is_empty() && ends == 0);
    for piece in body.chunks(1 + usize::from(options >> 2) * 40) {
        frames::put(&mut bytes, DATA, 0, 1, piece);
    }
    match ends {
        0 if body.is_empty() => {}
        0 | 1 => frames::put(&mut bytes, DATA, END_STREAM, 1, &[]),
        2 => {
            let mut block = Vec::new();
            frames::put_literal(&mut block, b"x-trailer", b"1");
            frames::put(&mut bytes, HEADERS, END_HEADERS | END_STREAM, 1, &block);
        }
        _ => {} // never ends
    }
    turns.send(client, &bytes);
    let mut endpoints = Endpoints::default();
    endpoints.serve(&mut turns);
    let second: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/second"),
        (b":authority", b"second"),
    ];
    let mut bytes = Vec::new();
    put_request(&mut bytes, 3, &second, true);
    let before = endpoints.requests.len();
    assert!(before <= 1, "one request became {:?}", endpoints.requests);
    turns.send(client, &bytes);
    endpoints.serve(&mut turns);
    // Extended CONNECT becomes an upgrade (RFC 8441 5.1, RFC 9110 7.8), and what follows is no body.
    let upgrade = fields.iter().any(|(name, _)| *name == b":protocol");
    if let [first, ..] = &endpoints.requests[..before]
        && upgrade
    {
        assert_eq!((&first.method[..], &first.body[..]), (&b"GET"[..], &b""[..]));
    } else if let [first, ..] = &endpoints.requests[..before] {
        let method = fields
            .iter()
            .find(|(name, _)| *name == b":method")
            .map(|(_, value)| *value);
        assert_eq!(Some(&first.method[..]), method);
        assert_eq!(first.body, body);
        let said = first.fields.iter().any(|(name, _)| name == b"content-length");
        assert!(ends != 3 || said, "what has not ended is whole only by its length");
    }
    let [second] = &endpoints.requests[before..] else {
        panic!("the second became {:?}", &endpoints.requests[before..])
    };
    assert_eq!(
        (&second.target[..], &second.host[..], &second.body[..]),
        (&b"/second"[..], &b"second"[..], &b""[..])
    );
    let answered = frames::Reader::new(false).read(&turns.take(client));
    assert!(
        answered
            .iter()
            .any(|frame| frame.stream == 3 && frame.flags & END_STREAM != 0 && frame.kind <= HEADERS)
    );
    turns.finish();
});
