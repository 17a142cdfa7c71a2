//! The engine as an HTTP/2 server: a client says anything in any pieces, endpoints answer.
//!
//! Laws: no panic; what the client gets are well-formed frames; when everybody is gone nothing is left.
//! Input: options, how it is cut, then the client's bytes (behind the preface and an empty SETTINGS, unless bit 1 is set).
#![no_main]

use gateway_core::ir::UpstreamProtocol;
use gateway_fuzz::{cut, endpoint::Endpoints, frames, snapshot, turns::Turns};
use gateway_http::engine::DownstreamProtocol;
use gateway_http::limits::Limits;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|input: &[u8]| {
    let Some((options, input)) = input.split_first() else {
        return;
    };
    let upstream = if options & 1 == 0 {
        UpstreamProtocol::Http1
    } else {
        UpstreamProtocol::H2c
    };
    let limits = if options & 4 == 0 {
        Limits::default()
    } else {
        // Small enough that a short input meets them.
        Limits {
            stream_window: 1000,
            connection_window: 70_000,
            out_bytes_max: 500,
            borrow_bytes_min: 50,
            head_bytes_max: 400,
            fields_max: 8,
            continuations_max: 2,
            streams_max: 3,
            replay_bytes_max: 100,
            ..Limits::default()
        }
    };
    let mut turns = Turns::new(snapshot(upstream), limits);
    let client = turns.accept(DownstreamProtocol::Http2);
    let (mut endpoints, mut reader) = (Endpoints::default(), frames::Reader::new(false));
    if options & 2 == 0 {
        turns.send(client, &frames::hello());
    }
    for chunk in cut::chunks(input) {
        if turns.is_closed(client) {
            break;
        }
        turns.send(client, chunk);
        if options & 8 == 0 {
            endpoints.serve(&mut turns);
        }
        reader.read(&turns.take(client));
    }
    endpoints.serve(&mut turns);
    if options & 16 != 0 {
        turns.pass(Duration::from_secs(20));
        turns.end(client);
    }
    reader.read(&turns.take(client));
    turns.finish();
});
