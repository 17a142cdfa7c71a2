//! The engine as an HTTP/2 client: an endpoint says anything in any pieces to three requests.
//!
//! Laws: no panic; what client and endpoint get are well-formed frames; when everybody is gone nothing is left.
//! Input: options, how it is cut, then the endpoint's bytes (behind an empty SETTINGS, unless bit 1 is set).
#![no_main]

use gateway_core::ir::UpstreamProtocol;
use gateway_fuzz::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS};
use gateway_fuzz::{cut, http1, snapshot, turns::Turns};
use gateway_http::engine::{ConnId, DownstreamProtocol};
use gateway_http::limits::Limits;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|input: &[u8]| {
    let Some((options, input)) = input.split_first() else {
        return;
    };
    let mut turns = Turns::new(snapshot(UpstreamProtocol::H2c), Limits::default());
    let http1 = options & 1 != 0;
    let client = if http1 {
        ask_http1(&mut turns)
    } else {
        ask_http2(&mut turns)
    };
    let mut to_client = frames::Reader::new(false);
    let mut to_endpoint = frames::Reader::new(true);
    let mut endpoint = turns.opened.last().copied();
    if options & 2 == 0 {
        let mut settings = Vec::new();
        frames::put(&mut settings, frames::SETTINGS, 0, 0, &[]);
        send(&mut turns, endpoint, &settings);
    }
    let mut to_http1 = Vec::new();
    for chunk in cut::chunks(input) {
        send(&mut turns, endpoint, chunk);
        if let Some(conn) = endpoint {
            to_endpoint.read(&turns.take(conn));
        }
        // The engine gave this endpoint up and tries another connection: that one hears the rest.
        if endpoint != turns.opened.last().copied() || endpoint.is_some_and(|conn| turns.is_closed(conn)) {
            endpoint = turns.opened.last().copied();
            to_endpoint = frames::Reader::new(true);
        }
        let got = turns.take(client);
        if http1 {
            to_http1.extend_from_slice(&got);
        } else {
            to_client.read(&got);
        }
    }
    if options & 4 != 0 {
        endpoint.into_iter().for_each(|conn| turns.end(conn));
    }
    if options & 8 != 0 {
        turns.pass(Duration::from_secs(100));
    }
    if http1 {
        to_http1.extend_from_slice(&turns.take(client));
        http1::check_responses(&to_http1, &["POST"]);
    }
    turns.finish();
});

fn send(turns: &mut Turns, conn: Option<ConnId>, bytes: &[u8]) {
    if let Some(conn) = conn {
        turns.send(conn, bytes);
    }
}

fn ask_http1(turns: &mut Turns) -> ConnId {
    let client = turns.accept(DownstreamProtocol::Http1);
    turns.send(client, b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    client
}

/// GET, HEAD, and a POST that goes on.
fn ask_http2(turns: &mut Turns) -> ConnId {
    let client = turns.accept(DownstreamProtocol::Http2);
    let mut bytes = frames::hello();
    for (stream, method) in [(1, "GET"), (3, "HEAD"), (5, "POST")] {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", method),
            (":scheme", "http"),
            (":path", "/a"),
            (":authority", "a"),
        ] {
            frames::put_literal(&mut block, name.as_bytes(), value.as_bytes());
        }
        let end = if stream == 5 { 0 } else { END_STREAM };
        frames::put(&mut bytes, HEADERS, END_HEADERS | end, stream, &block);
    }
    frames::put(&mut bytes, DATA, 0, 5, &[b'd'; 5000]);
    turns.send(client, &bytes);
    client
}
