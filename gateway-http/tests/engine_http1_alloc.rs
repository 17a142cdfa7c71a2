//! No allocation per request once warm, HTTP/1.1 on both sides. A test binary of its own: it counts what the allocator
//! does.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/counted.rs"]
mod counted;

use config::Config;
use counted::Counted;
use gateway_core::ir::UpstreamProtocol;
use gateway_http::engine::DownstreamProtocol;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_warm_engine_serves_http1_requests_without_allocating() {
    let config = Config::new(1).rule(|rule| rule.destinations[0].to.protocol = UpstreamProtocol::Http1);
    let mut sides = Counted::new(&config);
    let client = sides.accept(DownstreamProtocol::Http1);
    for round in 0..400_u32 {
        if round == 200 {
            sides.begin_counting();
        }
        let body = "x".repeat(if round % 4 == 0 { 20_000 } else { 64 });
        let request = format!(
            "POST /api/echo?round={round} HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\
             Cookie: a=1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        sides.turn(client, request.as_bytes());
        let endpoint = sides.opened[0];
        let sent = sides.take(endpoint);
        assert!(sent.ends_with(body.as_bytes()), "the request went through");
        let response = if round % 2 == 0 {
            format!(
                "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        } else {
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
        };
        sides.turn(endpoint, response.as_bytes());
        let got = sides.take(client);
        assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"), "the response went through");
    }
    assert_eq!(sides.allocations, 0, "allocations in 200 warm requests");
    assert_eq!(sides.engine.metrics().upstream_connections_total, 1);
}
