//! No allocation per request once warm. A test binary of its own: it counts what the allocator does.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;

use config::Config;
use gateway_core::ids::ListenerId;
use gateway_core::time::Moment;
use gateway_http::engine::{Accepted, Action, ConnId, DownstreamProtocol, Engine, EngineConfig};
use gateway_http::h2::frame::{self, HEADER_LEN, Header, Kind};
use gateway_http::h2::hpack::Encoder;
use gateway_http::head::FieldList;
use gateway_http::limits::Limits;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::net::SocketAddr;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// An engine between a client and an endpoint that are two byte buffers.
struct Pair {
    engine: Engine,
    client: ConnId,
    endpoint: ConnId,
    now: Moment,
    /// What the engine wrote, per side.
    to_client: Vec<u8>,
    to_endpoint: Vec<u8>,
    /// Allocations inside engine calls.
    allocations: usize,
}

impl Pair {
    /// Bytes come on `conn`; then the turn is finished.
    fn turn(&mut self, conn: ConnId, bytes: &[u8]) {
        self.now = self.now + std::time::Duration::from_micros(50);
        let (now, client) = (self.now, self.client);
        let (to_client, to_endpoint) = (&mut self.to_client, &mut self.to_endpoint);
        to_client.reserve(1 << 20);
        to_endpoint.reserve(1 << 20);
        let engine = &mut self.engine;
        let mut write = |conn: ConnId, slices: &[std::io::IoSlice<'_>]| {
            let out = if conn == client {
                &mut *to_client
            } else {
                &mut *to_endpoint
            };
            slices.iter().for_each(|slice| out.extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        };
        let region = Region::new(ALLOCATOR);
        engine.received(conn, bytes, now);
        while let Some(conn) = engine.next_borrower() {
            engine.transmit(conn, bytes, now, |slices| write(conn, slices));
        }
        while let Some(conn) = engine.next_dirty() {
            engine.transmit(conn, &[], now, |slices| write(conn, slices));
        }
        engine.take_outcomes(|outcome| assert_eq!(outcome.status, 200));
        engine.handle_timeout(now);
        let change = region.change();
        self.allocations += change.allocations + change.reallocations;
    }
}

fn pair() -> Pair {
    let config = EngineConfig {
        limits: Limits::default(),
        worker: 0,
        request_id_seed: 1,
    };
    let now = Moment::from_millis(1);
    let mut engine = Engine::new(config, Config::new(1).snapshot(), now);
    let accepted = Accepted {
        listener: ListenerId(0),
        peer: SocketAddr::from(([198, 18, 1, 2], 40_000)),
        local: SocketAddr::from(([198, 18, 0, 10], 8080)),
        tls: None,
        protocol: DownstreamProtocol::Http2,
    };
    let client = engine.accept(accepted, now).expect("accepted");
    let endpoint = ConnId(client.0 + 1);
    let (to_client, to_endpoint) = (Vec::new(), Vec::new());
    Pair {
        engine,
        client,
        endpoint,
        now,
        to_client,
        to_endpoint,
        allocations: 0,
    }
}

fn list(fields: &[(&str, &str)]) -> FieldList {
    let mut list = FieldList::new();
    for (name, value) in fields {
        list.push(name.as_bytes(), value.as_bytes());
    }
    list
}

fn put_headers(out: &mut Vec<u8>, encoder: &mut Encoder, stream: u32, fields: &FieldList, end: bool) {
    let open = frame::begin_headers(out);
    encoder.encode(fields, out);
    frame::end_headers(out, open, stream, end, 16_384);
}

/// Streams that the engine opened at the endpoint, from what it wrote.
fn opened(bytes: &[u8]) -> Vec<u32> {
    let mut rest = bytes.strip_prefix(&frame::PREFACE[..]).unwrap_or(bytes);
    let mut ids = Vec::new();
    while let Some(header) = Header::parse(rest) {
        if header.kind == Kind::Headers {
            ids.push(header.stream);
        }
        rest = &rest[HEADER_LEN + header.len..];
    }
    ids
}

#[test]
fn a_warm_engine_serves_requests_without_allocating() {
    let mut pair = pair();
    let (mut from_client, mut from_endpoint) = (Encoder::new(), Encoder::new());
    let response = list(&[
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("x-endpoint", "be1"),
    ]);
    let trailers = list(&[("grpc-status", "0")]);
    let mut hello = frame::PREFACE.to_vec();
    frame::put_settings(&mut hello, &[]);
    pair.turn(pair.client, &hello);
    let (mut next, mut connected) = (1, false);
    for round in 0..400_u32 {
        if round == 200 {
            assert!(pair.allocations > 0, "the counter counts: warming up allocates");
            pair.allocations = 0;
        }
        // Ten calls in one read; one in four with a payload that is referenced, not copied.
        let mut bytes = Vec::new();
        for call in 0..10 {
            let trace = format!("00-{round:032x}-{call:016x}-01");
            let request = list(&[
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/echo.Echo/Unary"),
                (":authority", "example.com"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("grpc-timeout", "5S"),
                ("user-agent", "grpc-test/1.0"),
                ("traceparent", &trace),
            ]);
            put_headers(&mut bytes, &mut from_client, next, &request, false);
            let payload = vec![7; if call % 4 == 0 { 5000 } else { 64 }];
            frame::put_data_header(&mut bytes, next, payload.len(), true);
            bytes.extend_from_slice(&payload);
            next += 2;
        }
        pair.to_endpoint.clear();
        pair.turn(pair.client, &bytes);
        let mut bytes = Vec::new();
        if !connected {
            let Some(Action::Connect { conn, .. }) = pair.engine.next_action() else {
                panic!("no connect")
            };
            assert_eq!(conn, pair.endpoint);
            pair.engine.connected(conn, pair.now);
            let mut settings = Vec::new();
            frame::put_settings(&mut settings, &[]);
            pair.turn(conn, &settings);
            connected = true;
        }
        let ids = opened(&pair.to_endpoint);
        assert_eq!(ids.len(), 10);
        for id in ids {
            put_headers(&mut bytes, &mut from_endpoint, id, &response, false);
            frame::put_data_header(&mut bytes, id, 64, false);
            bytes.extend_from_slice(&[9; 64]);
            put_headers(&mut bytes, &mut from_endpoint, id, &trailers, true);
        }
        frame::put_window_update(&mut bytes, 0, 100_000);
        pair.to_client.clear();
        pair.turn(pair.endpoint, &bytes);
        assert!(pair.to_client.windows(64).any(|window| window == [9; 64]));
        assert_eq!(pair.engine.live(), (1, 0), "every call is answered");
        let mut more = Vec::new();
        frame::put_window_update(&mut more, 0, 100_000);
        pair.turn(pair.client, &more);
    }
    assert_eq!(pair.engine.metrics().requests_total, 4000);
    assert_eq!(pair.allocations, 0, "over 2,000 requests");
}
