//! The engine as an HTTP/1.1 client: an endpoint says anything in any pieces to one request.
//!
//! Laws: no panic; the client gets at most one answer, well formed, in HTTP/1.1 and in HTTP/2 (no response splitting);
//! nothing is left. Input: options, how it is cut, then the endpoint's bytes.
#![no_main]

use gateway_core::ir::UpstreamProtocol;
use gateway_fuzz::frames::{self, END_HEADERS, END_STREAM, HEADERS};
use gateway_fuzz::{cut, http1, snapshot, turns::Turns};
use gateway_http::engine::DownstreamProtocol;
use gateway_http::limits::Limits;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|input: &[u8]| {
    let Some((options, input)) = input.split_first() else {
        return;
    };
    let limits = Limits {
        head_bytes_max: 1000,
        fields_max: 16,
        ..Limits::default()
    };
    let mut turns = Turns::new(snapshot(UpstreamProtocol::Http1), limits);
    let http1 = options & 1 != 0;
    let method = ["GET", "HEAD", "POST", "DELETE"][usize::from(options >> 4) % 4];
    let client = if http1 {
        let client = turns.accept(DownstreamProtocol::Http1);
        let version = if options & 8 == 0 { "1.1" } else { "1.0" };
        turns.send(
            client,
            format!("{method} /a HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes(),
        );
        client
    } else {
        let client = turns.accept(DownstreamProtocol::Http2);
        let (mut bytes, mut block) = (frames::hello(), Vec::new());
        for (name, value) in [
            (":method", method),
            (":scheme", "http"),
            (":path", "/a"),
            (":authority", "a"),
        ] {
            frames::put_literal(&mut block, name.as_bytes(), value.as_bytes());
        }
        frames::put(&mut bytes, HEADERS, END_HEADERS | END_STREAM, 1, &block);
        turns.send(client, &bytes);
        client
    };
    let mut got = Vec::new();
    for chunk in cut::chunks(input) {
        // A new connection, after this one was given up, hears the rest.
        if let Some(endpoint) = turns.opened.last().copied() {
            turns.send(endpoint, chunk);
        }
        got.extend_from_slice(&turns.take(client));
    }
    if options & 2 != 0 {
        turns
            .opened
            .clone()
            .into_iter()
            .for_each(|endpoint| turns.end(endpoint));
    }
    if options & 4 != 0 {
        turns.pass(Duration::from_secs(100));
    }
    got.extend_from_slice(&turns.take(client));
    if http1 {
        http1::check_responses(&got, &[method]);
    } else {
        let frames = frames::Reader::new(false).read(&got);
        let ends = frames
            .iter()
            .filter(|frame| frame.kind <= HEADERS && frame.flags & END_STREAM != 0);
        assert!(ends.count() <= 1, "a stream ends once");
    }
    turns.finish();
});
