//! An endpoint that leaves the configuration keeps the requests it was given, those too that its connection had not
//! opened yet.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;

use config::{Config, endpoint_addr};
use gateway_core::ids::ListenerId;
use gateway_core::lower::Ids;
use gateway_core::time::Moment;
use gateway_http::engine::{Accepted, Action, ConnId, DownstreamProtocol, Engine, EngineConfig};
use gateway_http::h2::frame::{self, HEADER_LEN, Header, Kind};
use gateway_http::h2::hpack::Encoder;
use gateway_http::head::FieldList;
use gateway_http::limits::Limits;
use std::net::SocketAddr;

/// What the engine wrote on `conn`.
fn written(engine: &mut Engine, conn: ConnId, now: Moment) -> Vec<Kind> {
    let mut out = Vec::new();
    while let Some(id) = engine.next_dirty() {
        engine.transmit(id, &[], now, |slices| {
            if id == conn {
                slices.iter().for_each(|slice| out.extend_from_slice(slice));
            }
            Ok(slices.iter().map(|slice| slice.len()).sum())
        });
    }
    let mut rest = out.strip_prefix(&frame::PREFACE[..]).unwrap_or(&out);
    let mut kinds = Vec::new();
    while let Some(header) = Header::parse(rest) {
        kinds.push(header.kind);
        rest = &rest[HEADER_LEN + header.len..];
    }
    kinds
}

#[test]
fn a_request_that_waits_for_the_connect_to_an_endpoint_that_left_is_sent_there() {
    let (mut ids, now) = (Ids::default(), Moment::from_millis(1));
    let mut config = Config::new(1);
    let setup = EngineConfig {
        limits: Limits::default(),
        worker: 0,
        request_id_seed: 1,
    };
    let mut engine = Engine::new(setup, config.lower(&mut ids, 1), now);
    let accepted = Accepted {
        listener: ListenerId(0),
        peer: SocketAddr::from(([198, 18, 1, 2], 40_000)),
        local: SocketAddr::from(([198, 18, 0, 10], 8080)),
        tls: None,
        protocol: DownstreamProtocol::Http2,
    };
    let client = engine.accept(accepted, now).expect("there is room");
    let mut request = FieldList::new();
    for (name, value) in [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "example.com"),
    ] {
        request.push(name.as_bytes(), value.as_bytes());
    }
    let mut bytes = frame::PREFACE.to_vec();
    frame::put_settings(&mut bytes, &[]);
    let open = frame::begin_headers(&mut bytes);
    Encoder::new().encode(&request, &mut bytes);
    frame::end_headers(&mut bytes, open, 1, true, frame::PAYLOAD_MAX);
    engine.received(client, &bytes, now);
    let Some(Action::Connect { conn, addr, .. }) = engine.next_action() else {
        panic!("nothing is connected to");
    };
    assert_eq!(addr, endpoint_addr(1));

    config.endpoints = vec![endpoint_addr(2)];
    engine.publish(config.lower(&mut ids, 2), now);
    assert_eq!(engine.next_action(), None, "the request stays where it is");
    engine.connected(conn, now);
    let mut settings = Vec::new();
    frame::put_settings(&mut settings, &[]);
    engine.received(conn, &settings, now);
    let kinds = written(&mut engine, conn, now);
    assert!(kinds.contains(&Kind::Headers), "{kinds:?}");
}
