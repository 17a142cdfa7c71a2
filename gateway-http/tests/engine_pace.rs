//! Slow peers and large heads: who stands still is ended in time, who has a reason is not, and a limit is the same in
//! every version of HTTP.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/raw.rs"]
mod raw;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/rig.rs"]
mod rig;

use config::{Config, endpoint_addr};
use gateway_core::fault::Fault;
use gateway_http::engine::DownstreamProtocol;
use gateway_http::h2::frame::{self, ErrorCode, Kind, flags};
use gateway_http::h2::settings::Setting;
use gateway_http::limits::Limits;
use raw::Raw;
use rig::Rig;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

async fn setup(fields: &[(&str, &str)]) -> (Rig, Raw, Raw, UnboundedReceiver<DuplexStream>) {
    setup_with(
        Limits {
            ping_after: None,
            ..Limits::default()
        },
        fields,
    )
    .await
}

async fn setup_with(limits: Limits, fields: &[(&str, &str)]) -> (Rig, Raw, Raw, UnboundedReceiver<DuplexStream>) {
    // Endpoints by hand answer no PING.
    let limits = Limits {
        upstream_ping_interval: None,
        ..limits
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let mut client = Raw::client(rig.socket(DownstreamProtocol::Http2).await).await;
    client.headers(1, &[&POST[..], fields].concat(), false).await;
    let mut endpoint = Raw::endpoint(sockets.recv().await.expect("connected"), &[]).await;
    let head = endpoint.wait_for(Kind::Headers).await.expect("the request");
    endpoint.fields(&head);
    (rig, client, endpoint, sockets)
}

const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a.b"),
];
const GRPC: (&str, &str) = ("content-type", "application/grpc");

async fn live(rig: &Rig) -> (usize, usize) {
    rig.with(|driver| driver.engine.live()).await
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_answered_408_and_the_connection_goes_on() {
    let (rig, mut client, mut endpoint, _sockets) = setup(&[]).await;
    for _ in 0..3 {
        client.frame(Kind::Data, 0, 1, b"x").await;
        sleep(10 * SECOND).await;
    }
    assert_eq!(live(&rig).await, (1, 1), "not before its time");
    sleep(5 * SECOND).await;
    let head = client.wait_for(Kind::Headers).await.expect("an answer");
    assert_eq!(client.fields(&head)[0].1, "408");
    assert_eq!(client.error().await, Some((Kind::RstStream, ErrorCode::NoError)));
    assert_eq!(endpoint.error().await, Some((Kind::RstStream, ErrorCode::Cancel)));
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::RequestTimeout));
    client.request(3, "GET", true).await;
    let head = endpoint.wait_for(Kind::Headers).await.expect("the next request");
    endpoint.headers(head.header.stream, &[(":status", "200")], true).await;
    assert_eq!(client.wait_for(Kind::Headers).await.unwrap().header.stream, 3);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_flows_may_take_its_time_and_a_begun_response_too() {
    let (rig, mut client, mut endpoint, _sockets) = setup(&[]).await;
    for _ in 0..40 {
        client.frame(Kind::Data, 0, 1, &[b'x'; 1500]).await;
        sleep(5 * SECOND).await;
    }
    endpoint.headers(1, &[(":status", "200")], false).await;
    sleep(200 * SECOND).await;
    assert_eq!(live(&rig).await, (1, 1), "both sides may think for a while");
    sleep(200 * SECOND).await;
    assert_eq!(live(&rig).await.1, 0, "not for ever");
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::Stalled));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_gets_no_credit_owes_nothing() {
    let limits = Limits {
        ping_after: None,
        upstream_ping_interval: None,
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let mut client = Raw::client(rig.socket(DownstreamProtocol::Http2).await).await;
    client.headers(1, &POST, false).await;
    let mut endpoint = Raw::endpoint(sockets.recv().await.unwrap(), &[Setting::InitialWindowSize(10)]).await;
    endpoint.wait_for(Kind::Headers).await.unwrap();
    sleep(SECOND).await;
    client.frame(Kind::Data, 0, 1, &[b'x'; 4000]).await;
    sleep(200 * SECOND).await;
    assert_eq!(live(&rig).await, (1, 1), "it is the endpoint that is slow");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_never_answers_is_504() {
    let (rig, mut client, mut endpoint, _sockets) = setup(&[]).await;
    client.frame(Kind::Data, flags::END_STREAM, 1, b"x").await;
    let began = tokio::time::Instant::now();
    sleep(298 * SECOND).await;
    assert_eq!(live(&rig).await, (1, 1));
    let head = loop {
        if let Some(head) = client.wait_for(Kind::Headers).await {
            break head;
        }
        assert!(began.elapsed() < 400 * SECOND);
    };
    assert_eq!(client.fields(&head)[0].1, "504");
    let took = began.elapsed();
    assert!(took >= 299 * SECOND && took < 310 * SECOND, "{took:?}");
    assert_eq!(endpoint.error().await, Some((Kind::RstStream, ErrorCode::Cancel)));
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_not_taken_is_reset_alone_and_gives_its_memory_back() {
    for drip in [0, 1, 50] {
        let (rig, mut client, mut endpoint, _sockets) = setup(&[]).await;
        let mut settings = Vec::new();
        frame::put_settings(&mut settings, &[Setting::InitialWindowSize(100)]);
        client.send(&settings).await;
        client.frame(Kind::Data, flags::END_STREAM, 1, b"x").await;
        sleep(SECOND).await;
        endpoint.headers(1, &[(":status", "200")], false).await;
        for _ in 0..15 {
            endpoint.frame(Kind::Data, 0, 1, &[7; 16_384]).await;
        }
        for _ in 0..29 {
            if drip > 0 {
                let mut update = Vec::new();
                frame::put_window_update(&mut update, 1, drip);
                client.send(&update).await;
            }
            sleep(SECOND).await;
        }
        assert_eq!(live(&rig).await, (1, 1), "not before its time");
        sleep(6 * SECOND).await;
        assert_eq!(
            client.error().await,
            Some((Kind::RstStream, ErrorCode::Cancel)),
            "{drip}"
        );
        assert_eq!(endpoint.error().await, Some((Kind::RstStream, ErrorCode::Cancel)));
        assert_eq!(live(&rig).await, (1, 0));
        assert_eq!(rig.done(1).await[0].fault, Some(Fault::Stalled));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_taken_slowly_is_not_cut() {
    let (rig, mut client, mut endpoint, _sockets) = setup(&[]).await;
    client.frame(Kind::Data, flags::END_STREAM, 1, b"x").await;
    endpoint.headers(1, &[(":status", "200")], false).await;
    for _ in 0..15 {
        endpoint.frame(Kind::Data, 0, 1, &[7; 16_384]).await;
    }
    for _ in 0..100 {
        let mut update = Vec::new();
        frame::put_window_update(&mut update, 1, 500);
        frame::put_window_update(&mut update, 0, 500);
        client.send(&update).await;
        while let Ok(Some(_)) = tokio::time::timeout(2 * SECOND, client.next()).await {}
    }
    assert_eq!(live(&rig).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn grpc_streams_may_be_silent_as_long_as_their_client_answers_pings() {
    let (rig, mut client, mut endpoint, _sockets) = setup_with(Limits::default(), &[GRPC]).await;
    endpoint.headers(1, &[(":status", "200"), GRPC], false).await;
    let until = tokio::time::Instant::now() + 2000 * SECOND;
    let mut pings = 0;
    while let Ok(frame) = tokio::time::timeout_at(until, client.next()).await {
        let frame = frame.expect("open");
        if frame.header.kind == Kind::Ping && !frame.header.has(flags::ACK) {
            client.frame(Kind::Ping, flags::ACK, 0, &frame.payload).await;
            pings += 1;
        }
    }
    assert!((25..=34).contains(&pings), "about one a minute: {pings}");
    assert_eq!(live(&rig).await, (1, 1));
    // From now on it does not answer.
    sleep(15 * SECOND).await;
    assert_eq!(live(&rig).await, (1, 1));
    sleep(75 * SECOND).await;
    assert_eq!(live(&rig).await, (0, 0));
    assert_eq!(endpoint.error().await, Some((Kind::RstStream, ErrorCode::Cancel)));
}

/// What a request with `more` fields comes to in HTTP/2's measure without them: pseudo-fields of `/` on `a.b`.
const PSEUDO_BYTES: usize = (7 + 3 + 32) + (7 + 4 + 32) + (5 + 1 + 32) + (10 + 3 + 32);

/// The status and text of the answer over either version, and whether the connection still serves.
async fn ask(version: u8, path: &str, fields: &[(String, String)]) -> (String, String, bool) {
    let rig = Rig::start(Config::new(1).snapshot(), Limits::default());
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let endpoint = async move {
        let mut endpoint = Raw::endpoint(sockets.recv().await.expect("connected"), &[]).await;
        while let Some(frame) = endpoint.next().await {
            if frame.header.kind == Kind::Headers {
                endpoint.headers(frame.header.stream, &[(":status", "200")], true).await;
            }
        }
    };
    let endpoint = tokio::spawn(endpoint);
    let answer = if version == 1 {
        let mut socket = rig.socket(DownstreamProtocol::Http1).await;
        let fields: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let head = format!("GET {path} HTTP/1.1\r\nhost: a.b\r\n{fields}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(Ok(len)) = tokio::time::timeout(SECOND, socket.read(&mut bytes)).await {
            text.extend_from_slice(&bytes[..len]);
            if len == 0 {
                break;
            }
        }
        let text = String::from_utf8(text).unwrap();
        (
            text[9..12].to_owned(),
            text.rsplit("\r\n").next().unwrap().to_owned(),
            true,
        )
    } else {
        let mut client = Raw::client(rig.socket(DownstreamProtocol::Http2).await).await;
        let mut head = vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a.b"),
        ];
        head.extend(fields.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let block = client.block(&head);
        let mut bytes = Vec::new();
        let open = frame::begin_headers(&mut bytes);
        bytes.extend_from_slice(&block);
        frame::end_headers(&mut bytes, open, 1, true, 16_384);
        client.send(&bytes).await;
        let head = client.wait_for(Kind::Headers).await.expect("an answer");
        let status = client.fields(&head)[0].1.clone();
        let text = if head.header.has(flags::END_STREAM) {
            String::new()
        } else {
            String::from_utf8(client.wait_for(Kind::Data).await.unwrap().payload).unwrap()
        };
        client.request(3, "GET", true).await;
        let next = client.wait_for(Kind::Headers).await.expect("the next answer");
        (status, text, client.fields(&next)[0].1 == "200")
    };
    endpoint.abort();
    answer
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_head_are_exact_and_the_same_in_both_versions() {
    let field = |name: &str, len: usize| (name.to_owned(), "v".repeat(len));
    let room = 64 * 1024 - PSEUDO_BYTES - 2 * (1 + 32);
    for version in [1, 2] {
        let crumbs = |len: usize| vec![field("a", 30_000), field("b", len - 30_000)];
        assert_eq!(ask(version, "/", &crumbs(room)).await.0, "200", "{version}");
        let (status, text, serves) = ask(version, "/", &crumbs(room + 1)).await;
        assert_eq!((status.as_str(), serves), ("431", true), "{version}");
        assert_eq!(
            text,
            "request header fields too large: more than 65536 bytes (limits.headBytes)\n"
        );

        let cookies = |count: usize| vec![field("cookie", 4); count];
        assert_eq!(ask(version, "/", &cookies(100)).await.0, "200", "{version}");
        let (status, text, serves) = ask(version, "/", &cookies(101)).await;
        assert_eq!((status.as_str(), serves), ("431", true), "{version}");
        assert_eq!(
            text,
            "request header fields too large: more than 100 fields (limits.fields)\n"
        );

        let path = |len: usize| format!("/{}", "p".repeat(len - 1));
        assert_eq!(ask(version, &path(16_384), &[]).await.0, "200", "{version}");
        let (status, text, serves) = ask(version, &path(16_385), &[]).await;
        assert_eq!((status.as_str(), serves), ("414", true), "{version}");
        assert_eq!(
            text,
            "request target too long: more than 16384 bytes (limits.targetBytes)\n"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_free_when_its_endpoint_was_told() {
    let limits = Limits {
        resets_burst_max: 1000,
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let mut client = Raw::client(rig.socket(DownstreamProtocol::Http2).await).await;
    client.request(1, "GET", true).await;
    let settings = [Setting::MaxConcurrentStreams(1000)];
    let mut endpoint = Raw::endpoint(sockets.recv().await.unwrap(), &settings).await;
    endpoint.wait_for(Kind::Headers).await.unwrap();
    endpoint.headers(1, &[(":status", "200")], true).await;
    client.wait_for(Kind::Headers).await.unwrap();
    // A hundred requests, their ends, and a hundred more, all at once.
    let block = client.block(&POST);
    let mut bytes = Vec::new();
    let request = |bytes: &mut Vec<u8>, id: u32| {
        let open = frame::begin_headers(bytes);
        bytes.extend_from_slice(&block);
        frame::end_headers(bytes, open, id, true, 16_384);
    };
    for n in 1..=100 {
        request(&mut bytes, 2 * n + 1);
    }
    for n in 1..=100 {
        frame::put_rst_stream(&mut bytes, 2 * n + 1, ErrorCode::Cancel);
    }
    for n in 101..=200 {
        request(&mut bytes, 2 * n + 1);
    }
    client.send(&bytes).await;
    let (mut heads, mut resets) = (0, 0);
    while let Ok(Some(frame)) = tokio::time::timeout(SECOND, endpoint.next()).await {
        match frame.header.kind {
            Kind::Headers => heads += 1,
            Kind::RstStream => resets += 1,
            _ => {}
        }
    }
    assert_eq!((heads, resets), (100, 100));
    let mut refused = 0;
    while let Ok(Some(frame)) = tokio::time::timeout(SECOND, client.next()).await {
        if frame.header.kind == Kind::RstStream {
            assert_eq!(frame::u31(&frame.payload), Some(ErrorCode::RefusedStream.code()));
            refused += 1;
        }
    }
    assert_eq!(refused, 100);
    // Now they are free.
    client.request(1001, "GET", true).await;
    assert!(endpoint.wait_for(Kind::Headers).await.is_some());
    assert_eq!(live(&rig).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn clients_that_take_nothing_do_not_stop_the_others_of_their_endpoint() {
    let limits = Limits {
        upstream_connection_window: 1024 * 1024,
        ..Limits::default()
    };
    let (rig, mut client, mut endpoint, _sockets) = setup_with(limits, &[]).await;
    let mut settings = Vec::new();
    frame::put_settings(&mut settings, &[Setting::InitialWindowSize(0)]);
    client.send(&settings).await;
    for id in [3, 5, 7] {
        client.request(id, "GET", true).await;
        endpoint.wait_for(Kind::Headers).await.unwrap();
    }
    client.frame(Kind::Data, flags::END_STREAM, 1, b"x").await;
    sleep(Duration::from_millis(10)).await;
    for id in [1, 3, 5, 7] {
        endpoint.headers(id, &[(":status", "200")], false).await;
        for _ in 0..15 {
            endpoint.frame(Kind::Data, 0, id, &[7; 16_384]).await;
        }
    }
    sleep(12 * SECOND).await;
    assert!(live(&rig).await.1 < 4, "they stood in the way");
    let mut credit = 0;
    while let Ok(Some(frame)) = tokio::time::timeout(SECOND, endpoint.next()).await {
        if frame.header.kind == Kind::WindowUpdate && frame.header.stream == 0 {
            credit += frame::u31(&frame.payload).unwrap();
        }
    }
    assert!(credit >= 512 * 1024, "the window is there again: {credit}");
}
