//! No allocation per request once warm, HTTP/1.1 on one side and HTTP/2 on the other. A test binary of its own: it
//! counts what the allocator does, and has one test, so that no other is counted.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/counted.rs"]
mod counted;

use config::Config;
use counted::{Counted, Peer};
use gateway_core::ir::UpstreamProtocol;
use gateway_http::engine::DownstreamProtocol;
use gateway_http::h2::frame;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: u32 = 400;
/// Requests at once, from an HTTP/2 client: each needs an HTTP/1.1 connection.
const STREAMS: u32 = 4;

/// One in four bodies is referenced, not copied.
fn body(round: u32) -> Vec<u8> {
    vec![b'x'; if round.is_multiple_of(4) { 12_000 } else { 64 }]
}

/// A message of HTTP/1.1: with its length, or in chunks and with a trailer.
fn text(head: &str, body: &[u8], chunked: bool) -> Vec<u8> {
    let mut message = head.as_bytes().to_vec();
    if chunked {
        message.extend_from_slice(format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).as_bytes());
        message.extend_from_slice(body);
        message.extend_from_slice(b"\r\n0\r\nX-Sum: 1\r\n\r\n");
    } else {
        message.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        message.extend_from_slice(body);
    }
    message
}

fn new_clients_old_endpoints() -> usize {
    let config = Config::new(1).rule(|rule| rule.destinations[0].to.protocol = UpstreamProtocol::Http1);
    let mut sides = Counted::new(&config);
    let client = sides.accept(DownstreamProtocol::Http2);
    let mut peer = Peer::new();
    let mut hello = frame::PREFACE.to_vec();
    frame::put_settings(&mut hello, &[]);
    sides.turn(client, &hello);
    let mut next = 1;
    for round in 0..ROUNDS {
        if round == ROUNDS / 2 {
            sides.begin_counting();
        }
        let body = body(round);
        let mut bytes = Vec::new();
        for _ in 0..STREAMS {
            let path = format!("/api/echo?stream={next}");
            let length = body.len().to_string();
            let mut request = vec![
                (":method", "POST"),
                (":scheme", "http"),
                (":path", &*path),
                (":authority", "example.com"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
            ];
            // Without its length a body goes on in chunks.
            let whole = round % 3 == 0;
            request.extend(whole.then_some(("content-length", &*length)));
            peer.put_section(&mut bytes, next, &request, false);
            Peer::put_data(&mut bytes, next, &body, whole);
            if !whole {
                peer.put_section(&mut bytes, next, &[("x-sum", "1")], true);
            }
            next += 2;
        }
        sides.turn(client, &bytes);
        for endpoint in sides.opened.clone() {
            let sent = sides.take(endpoint);
            assert!(
                sent.starts_with(b"POST /api/echo?stream="),
                "a request on each connection"
            );
            assert!(sent.windows(64).any(|part| part == [b'x'; 64]), "with its body");
            let response = text("HTTP/1.1 200 OK\r\nDate: now\r\n", &body, round % 2 == 1);
            sides.turn(endpoint, &response);
        }
        let (sections, data) = peer.read(&sides.take(client));
        let trailers = if round % 2 == 1 { STREAMS } else { 0 };
        assert_eq!(sections.len(), (STREAMS + trailers) as usize, "round {round}");
        assert!(data == body.repeat(STREAMS as usize), "round {round}");
        let mut more = Vec::new();
        frame::put_window_update(&mut more, 0, 100_000);
        sides.turn(client, &more);
    }
    assert_eq!(sides.outcomes, u64::from(ROUNDS * STREAMS));
    assert_eq!(sides.opened.len(), STREAMS as usize, "connections are used again");
    sides.allocations
}

fn old_clients_new_endpoints() -> usize {
    let mut sides = Counted::new(&Config::new(1));
    let client = sides.accept(DownstreamProtocol::Http1);
    let mut peer = Peer::new();
    for round in 0..ROUNDS {
        if round == ROUNDS / 2 {
            sides.begin_counting();
        }
        let body = body(round);
        let head = format!(
            "POST /api/echo?round={round} HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nCookie: a=1\r\n\
             TE: trailers\r\n"
        );
        sides.turn(client, &text(&head, &body, round % 2 == 0));
        let endpoint = sides.opened[0];
        let mut bytes = Vec::new();
        if round == 0 {
            frame::put_settings(&mut bytes, &[]);
        }
        let (sections, data) = peer.read(&sides.take(endpoint));
        assert_eq!(sections.len(), if round % 2 == 0 { 2 } else { 1 }, "round {round}");
        assert!(data == body, "round {round}");
        let stream = sections[0].0;
        let length = body.len().to_string();
        let mut response = vec![(":status", "200"), ("date", "now")];
        let whole = round % 3 == 0;
        response.extend(whole.then_some(("content-length", &*length)));
        peer.put_section(&mut bytes, stream, &response, false);
        Peer::put_data(&mut bytes, stream, &body, whole);
        if !whole {
            peer.put_section(&mut bytes, stream, &[("x-sum", "1")], true);
        }
        frame::put_window_update(&mut bytes, 0, 100_000);
        sides.turn(endpoint, &bytes);
        let got = sides.take(client);
        assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"), "round {round}");
        let end: &[u8] = if whole { b"xx" } else { b"x-sum: 1\r\n\r\n" };
        assert!(got.ends_with(end), "round {round}");
    }
    assert_eq!(sides.outcomes, u64::from(ROUNDS));
    assert_eq!(sides.opened.len(), 1);
    sides.allocations
}

#[test]
fn a_warm_engine_translates_between_versions_without_allocating() {
    assert_eq!(new_clients_old_endpoints(), 0, "HTTP/2 clients, HTTP/1.1 endpoints");
    assert_eq!(old_clients_new_endpoints(), 0, "HTTP/1.1 clients, HTTP/2 endpoints");
}
