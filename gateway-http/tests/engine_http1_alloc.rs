//! No allocation per request once warm, HTTP/1.1 on both sides. A test binary of its own: it counts what the allocator
//! does.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;

use config::Config;
use gateway_core::ids::ListenerId;
use gateway_core::ir::UpstreamProtocol;
use gateway_core::time::Moment;
use gateway_http::engine::{Accepted, Action, ConnId, DownstreamProtocol, Engine, EngineConfig};
use gateway_http::limits::Limits;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::net::SocketAddr;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// An engine whose peers are byte buffers.
struct Sides {
    engine: Engine,
    now: Moment,
    /// What the engine wrote, by connection.
    written: Vec<Vec<u8>>,
    connect: Option<ConnId>,
    /// Allocations inside engine calls.
    allocations: usize,
}

impl Sides {
    fn new() -> Self {
        let config = Config::new(1).rule(|rule| rule.destinations[0].to.protocol = UpstreamProtocol::Http1);
        let now = Moment::from_millis(1);
        let setup = EngineConfig {
            limits: Limits::default(),
            worker: 0,
            request_id_seed: 1,
        };
        let engine = Engine::new(setup, config.snapshot(), now);
        let written = (0..64).map(|_| Vec::with_capacity(1 << 20)).collect();
        Self {
            engine,
            now,
            written,
            connect: None,
            allocations: 0,
        }
    }

    fn accept(&mut self) -> ConnId {
        let accepted = Accepted {
            listener: ListenerId(0),
            peer: SocketAddr::from(([198, 18, 1, 2], 40_000)),
            local: SocketAddr::from(([198, 18, 0, 10], 8080)),
            tls: None,
            protocol: DownstreamProtocol::Http1,
        };
        self.engine.accept(accepted, self.now).expect("accepted")
    }

    /// Bytes come on `conn`; then the turn is finished.
    fn turn(&mut self, conn: ConnId, bytes: &[u8]) {
        self.now = self.now + Duration::from_micros(50);
        let (now, engine, written) = (self.now, &mut self.engine, &mut self.written);
        let mut write = |conn: ConnId, slices: &[std::io::IoSlice<'_>]| {
            slices
                .iter()
                .for_each(|slice| written[conn.index()].extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        };
        let region = Region::new(ALLOCATOR);
        engine.received(conn, bytes, now);
        while let Some(conn) = engine.next_borrower() {
            engine.transmit(conn, bytes, now, |slices| write(conn, slices));
        }
        assert_eq!(engine.next_resumed(), None);
        while let Some(action) = engine.next_action() {
            if let Action::Connect { conn, .. } = action {
                engine.connected(conn, now);
                self.connect = Some(conn);
            }
        }
        while let Some(conn) = engine.next_dirty() {
            engine.transmit(conn, &[], now, |slices| write(conn, slices));
        }
        engine.take_outcomes(|outcome| assert_eq!((outcome.status, outcome.fault), (200, None)));
        engine.handle_timeout(now);
        let change = region.change();
        self.allocations += change.allocations + change.reallocations;
    }
}

#[test]
fn a_warm_engine_serves_http1_requests_without_allocating() {
    let mut sides = Sides::new();
    let client = sides.accept();
    for round in 0..400_u32 {
        if round == 200 {
            assert!(sides.allocations > 0, "the counter counts: warming up allocates");
            sides.allocations = 0;
        }
        let body = "x".repeat(if round % 4 == 0 { 20_000 } else { 64 });
        let request = format!(
            "POST /api/echo?round={round} HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\
             Cookie: a=1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        sides.turn(client, request.as_bytes());
        let endpoint = sides.connect.expect("connected at the first request");
        let sent = std::mem::take(&mut sides.written[endpoint.index()]);
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
        let got = std::mem::take(&mut sides.written[client.index()]);
        assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"), "the response went through");
        for conn in [client, endpoint] {
            sides.written[conn.index()].reserve(1 << 20);
        }
    }
    assert_eq!(sides.allocations, 0, "allocations in 200 warm requests");
    assert_eq!(sides.engine.metrics().upstream_connections_total, 1);
}
