//! No allocation per request once warm, when every request is sent twice. A test binary of its own: it counts what the
//! allocator does.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/counted.rs"]
mod counted;

use config::Config;
use counted::Counted;
use gateway_core::ir::{Retry, UpstreamProtocol};
use gateway_http::engine::DownstreamProtocol;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_warm_engine_retries_requests_without_allocating() {
    let config = Config::new(1).rule(|rule| {
        rule.destinations[0].to.protocol = UpstreamProtocol::Http1;
        rule.timeouts.request = Some(Duration::from_secs(10));
        rule.timeouts.backend_request = Some(Duration::from_secs(5));
        rule.retry = Some(Retry {
            attempts: 1,
            statuses: vec![503],
            grpc_statuses: Vec::new(),
            backoff: Duration::from_millis(10),
        });
    });
    let mut sides = Counted::new(&config);
    let client = sides.accept(DownstreamProtocol::Http1);
    for round in 0..400_u32 {
        if round == 200 {
            sides.begin_counting();
        }
        let request = b"POST /echo HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\n\r\nbody";
        sides.turn(client, request);
        let endpoint = sides.opened[0];
        assert!(sides.take(endpoint).ends_with(b"body"), "the first attempt");
        sides.turn(endpoint, b"HTTP/1.1 503 No\r\nContent-Length: 6\r\n\r\nfailed");
        assert!(sides.take(client).is_empty() && sides.take(endpoint).is_empty());
        sides.now = sides.now + Duration::from_millis(20);
        // Time passes at the end of a turn, and what comes of it is written in the next one.
        sides.turn(endpoint, b"");
        sides.turn(endpoint, b"");
        assert!(
            sides.take(endpoint).ends_with(b"body"),
            "the second attempt, round {round}"
        );
        sides.turn(endpoint, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert!(sides.take(client).ends_with(b"ok"));
    }
    assert_eq!(sides.allocations, 0, "allocations in 200 warm requests");
    let metrics = sides.engine.metrics();
    assert_eq!((metrics.retries_total, metrics.upstream_connections_total), (400, 1));
}
