//! The engine as an HTTP/1.1 server: a client says anything in any pieces, endpoints answer.
//!
//! Laws: no panic; every request that reaches an HTTP/1.1 endpoint is one that the strictest reader finds in the
//! client's bytes, in order, with the same method and body (no smuggling); every answer is one message; nothing is left.
//! Input: options, how it is cut, then the client's bytes.
#![no_main]

use gateway_core::ir::UpstreamProtocol;
use gateway_fuzz::{cut, endpoint::Endpoints, http1, snapshot, turns::Turns};
use gateway_http::engine::DownstreamProtocol;
use gateway_http::limits::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((options, input)) = input.split_first() else {
        return;
    };
    let upstream = if options & 1 == 0 {
        UpstreamProtocol::Http1
    } else {
        UpstreamProtocol::H2c
    };
    let limits = Limits {
        head_bytes_max: 1000,
        fields_max: 16,
        ..Limits::default()
    };
    let mut turns = Turns::new(snapshot(upstream), limits);
    let client = turns.accept(DownstreamProtocol::Http1);
    let mut endpoints = Endpoints::default();
    let mut got = Vec::new();
    for chunk in cut::chunks(input) {
        turns.send(client, chunk);
        endpoints.serve(&mut turns);
        got.extend_from_slice(&turns.take(client));
    }
    if options & 2 != 0 {
        turns.end(client);
        endpoints.serve(&mut turns);
    }
    got.extend_from_slice(&turns.take(client));
    let said = http1::read_all(input.get(1..).unwrap_or_default());
    let mut unseen = said.iter();
    for request in &endpoints.requests {
        let found = unseen.any(|said| said.method == request.method && said.body == request.body);
        assert!(found, "nobody asked this: {request:?}\nasked: {said:?}");
    }
    let methods: Vec<&str> = said
        .iter()
        .filter_map(|request| std::str::from_utf8(&request.method).ok())
        .collect();
    http1::check_responses(&got, &methods);
    turns.finish();
});
