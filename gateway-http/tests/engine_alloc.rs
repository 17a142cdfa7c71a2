//! No allocation per request once warm, HTTP/2 on both sides. A test binary of its own: it counts what the allocator
//! does, and has one test, so that no other is counted.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[path = "support/counted.rs"]
mod counted;

use config::Config;
use counted::{Counted, Peer, value};
use gateway_core::ir::{FieldEdits, Filter, HttpRule, RouteKind};
use gateway_http::engine::DownstreamProtocol;
use gateway_http::h2::frame;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: u32 = 400;
const CALLS: u32 = 10;

/// A way through the engine.
struct Case {
    name: &'static str,
    rule: fn(&mut HttpRule),
    outcomes: bool,
    /// Sent by the client as `grpc-timeout`.
    timeout: Option<&'static str>,
    content_type: &'static str,
    /// A field as the endpoint gets it, which shows that the way was taken.
    arrives: (&'static str, Option<&'static str>),
}

const PLAIN: Case = Case {
    name: "plain",
    rule: |_| {},
    outcomes: true,
    timeout: None,
    content_type: "application/octet-stream",
    arrives: ("x-set", None),
};

const CASES: [Case; 6] = [
    PLAIN,
    Case {
        name: "outcomes off",
        outcomes: false,
        ..PLAIN
    },
    Case {
        name: "request and response fields edited",
        rule: |rule| {
            let edits = FieldEdits {
                set: vec![("x-set".to_owned(), "set".to_owned())],
                add: vec![("x-add".to_owned(), "added".to_owned())],
                remove: vec!["user-agent".to_owned()],
            };
            rule.filters = vec![Filter::RequestHeaders(edits.clone()), Filter::ResponseHeaders(edits)];
        },
        arrives: ("x-set", Some("set")),
        ..PLAIN
    },
    Case {
        name: "gRPC, messages counted, with a deadline",
        rule: |rule| rule.kind = RouteKind::Grpc,
        timeout: Some("5S"),
        content_type: "application/grpc",
        arrives: ("grpc-timeout", Some("5S")),
        ..PLAIN
    },
    Case {
        name: "gRPC, a deadline that the route shortens",
        rule: |rule| {
            rule.kind = RouteKind::Grpc;
            rule.timeouts.request = Some(Duration::from_secs(2));
        },
        timeout: Some("5S"),
        content_type: "application/grpc",
        arrives: ("grpc-timeout", Some("2000000u")),
        ..PLAIN
    },
    Case {
        name: "gRPC, outcomes off",
        rule: |rule| rule.kind = RouteKind::Grpc,
        outcomes: false,
        content_type: "application/grpc",
        ..PLAIN
    },
];

/// A gRPC message of `len` bytes.
fn message(len: usize) -> Vec<u8> {
    let mut message = vec![7; 5 + len];
    message[0] = 0;
    message[1..5].copy_from_slice(&(len as u32).to_be_bytes());
    message
}

fn allocations(case: &Case) -> usize {
    let name = case.name;
    let mut sides = Counted::new(&Config::new(1).rule(case.rule));
    sides.engine.keep_outcomes(case.outcomes);
    let client = sides.accept(DownstreamProtocol::Http2);
    let (mut asks, mut answers) = (Peer::new(), Peer::new());
    let mut hello = frame::PREFACE.to_vec();
    frame::put_settings(&mut hello, &[]);
    sides.turn(client, &hello);
    let mut next = 1;
    for round in 0..ROUNDS {
        if round == ROUNDS / 2 {
            sides.begin_counting();
        }
        // Ten calls in one read; one in four with a payload that is referenced, not copied.
        let mut bytes = Vec::new();
        for call in 0..CALLS {
            let trace = format!("00-{round:032x}-{call:016x}-01");
            let mut fields = vec![
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/echo.Echo/Unary"),
                (":authority", "example.com"),
                ("content-type", case.content_type),
                ("te", "trailers"),
                ("user-agent", "grpc-test/1.0"),
                ("traceparent", &trace),
            ];
            fields.extend(case.timeout.map(|timeout| ("grpc-timeout", timeout)));
            asks.put_section(&mut bytes, next, &fields, false);
            Peer::put_data(&mut bytes, next, &message(if call % 4 == 0 { 5000 } else { 64 }), true);
            next += 2;
        }
        sides.turn(client, &bytes);
        if round == 0 {
            let mut settings = Vec::new();
            frame::put_settings(&mut settings, &[]);
            sides.turn(sides.opened[0], &settings);
        }
        let endpoint = sides.opened[0];
        let (requests, _) = answers.read(&sides.take(endpoint));
        assert_eq!(requests.len(), CALLS as usize, "{name}");
        let mut bytes = Vec::new();
        for (stream, request) in requests {
            let (field, expected) = case.arrives;
            if round > 0 {
                assert_eq!(value(&request, field).as_deref(), expected, "{name}: {field}");
            }
            let response = [
                (":status", "200"),
                ("content-type", case.content_type),
                ("x-endpoint", "be1"),
            ];
            answers.put_section(&mut bytes, stream, &response, false);
            Peer::put_data(&mut bytes, stream, &message(64), false);
            answers.put_section(&mut bytes, stream, &[("grpc-status", "0")], true);
        }
        frame::put_window_update(&mut bytes, 0, 100_000);
        sides.turn(endpoint, &bytes);
        let (sections, data) = asks.read(&sides.take(client));
        assert_eq!(sections.len(), 2 * CALLS as usize, "{name}");
        assert_eq!(data, message(64).repeat(CALLS as usize), "{name}");
        assert_eq!(sides.engine.live(), (1, 0), "{name}: every call is answered");
        let mut more = Vec::new();
        frame::put_window_update(&mut more, 0, 100_000);
        sides.turn(client, &more);
    }
    let calls = u64::from(ROUNDS * CALLS);
    assert_eq!(sides.engine.metrics().requests_total, calls, "{name}");
    assert_eq!(sides.outcomes, if case.outcomes { calls } else { 0 }, "{name}");
    let counted: Vec<[u64; 2]> = sides
        .engine
        .metrics()
        .grpc
        .iter()
        .map(|method| method.messages)
        .collect();
    let grpc = case.content_type == "application/grpc";
    assert_eq!(counted, vec![[calls; 2]; usize::from(grpc)], "{name}: messages");
    sides.allocations
}

#[test]
fn a_warm_engine_serves_requests_without_allocating() {
    for case in &CASES {
        assert_eq!(allocations(case), 0, "{}: over 2,000 requests", case.name);
    }
}
