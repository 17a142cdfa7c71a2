//! Tunnels: upgrades, CONNECT and extended CONNECT, between HTTP/1.1 and HTTP/2 in every direction.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/raw.rs"]
mod raw;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/rig.rs"]
mod rig;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/text.rs"]
mod text;

use config::{Config, endpoint_addr};
use gateway_core::fault::Fault;
use gateway_core::ir::{HttpRule, UpstreamProtocol};
use gateway_http::engine::DownstreamProtocol;
use gateway_http::h2::frame::{ErrorCode, Kind, flags};
use gateway_http::h2::settings::Setting;
use gateway_http::limits::Limits;
use gateway_http::websocket;
use raw::Raw;
use rig::Rig;
use std::time::Duration;
use text::{Endpoint, Text, http1_config};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const GET: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const EXTENDED: [(&str, &str); 6] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/chat"),
    (":authority", "example.com"),
    ("sec-websocket-version", "13"),
];

async fn http1(limits: Limits) -> (Rig, Endpoint) {
    let rig = Rig::start(http1_config(1).snapshot(), limits);
    let endpoint = Endpoint::new(&rig, 1).await;
    (rig, endpoint)
}

/// An open WebSocket between HTTP/1.1 peers.
async fn websocket(limits: Limits) -> (Rig, Text, Text) {
    let (rig, mut endpoint) = http1(limits).await;
    let mut client = Text::client(&rig).await;
    client.send(ASK).await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a request");
    upstream.send(SWITCH).await;
    client.head().await.expect("the switch");
    (rig, client, upstream)
}

fn connect_rule(rule: &mut HttpRule) {
    rule.matches[0].method = Some("CONNECT".into());
}

async fn raw_client(rig: &Rig) -> Raw {
    Raw::client(rig.socket(DownstreamProtocol::Http2).await).await
}

async fn tunnels(rig: &Rig) -> (u64, u64) {
    rig.with(|driver| {
        let metrics = driver.engine.metrics();
        (metrics.tunnels_total, metrics.tunnels_active)
    })
    .await
}

/// The body of the next DATA frame, and whether it was the last.
async fn data(peer: &mut Raw) -> (Vec<u8>, bool) {
    let frame = peer.wait_for(Kind::Data).await.expect("DATA");
    (frame.payload, frame.header.has(flags::END_STREAM))
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = fields.iter().find(|(field, _)| field == name);
    found.map(|(_, value)| value.as_str())
}

// === HTTP/1.1 both sides ===

#[tokio::test(start_paused = true)]
async fn a_websocket_goes_through_both_ways_and_each_way_ends_by_itself() {
    let (rig, mut endpoint) = http1(Limits::default()).await;
    let mut client = Text::client(&rig).await;
    client.send(ASK).await;
    let mut upstream = endpoint.accept().await;
    let request = upstream.message().await.expect("a request");
    assert_eq!(request.start(), "GET /chat HTTP/1.1");
    assert_eq!(request.field("connection"), Some("upgrade"));
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(request.field("x-forwarded-for"), Some("198.18.1.2"));
    upstream.send(format!("{SWITCH}first")).await;
    let head = client.head().await.expect("the switch");
    assert_eq!(
        head,
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {ACCEPT}\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\n\r\n"
        )
    );
    assert_eq!(client.exactly(5).await.as_deref(), Some(&b"first"[..]));
    assert_eq!(tunnels(&rig).await, (1, 1));
    let kinds = rig
        .with(|driver| {
            let now = driver.now();
            driver
                .engine
                .streams(now)
                .iter()
                .map(|view| view.kind)
                .collect::<Vec<_>>()
        })
        .await;
    assert_eq!(kinds, ["websocket"]);
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(
        upstream.exactly(18).await.as_deref(),
        Some(&b"GET / HTTP/1.1\r\n\r\n"[..])
    );
    client.finish().await;
    assert!(upstream.is_closed().await, "the client's end is told");
    upstream.send("still here").await;
    assert_eq!(client.exactly(10).await.as_deref(), Some(&b"still here"[..]));
    upstream.finish().await;
    assert!(client.is_closed().await);
    let done = rig.done(1).await.remove(0);
    assert_eq!((done.status, done.fault), (101, None));
    assert_eq!((done.bytes_received, done.bytes_sent), (18, 15));
    assert_eq!(tunnels(&rig).await, (1, 0));
    assert!(endpoint.is_quiet(), "no connection is used again");
}

#[tokio::test(start_paused = true)]
async fn what_the_client_sends_early_reaches_nobody_before_the_answer() {
    let (_rig, mut endpoint) = http1(Limits::default()).await;
    for switches in [true, false] {
        let mut client = Text::client(&_rig).await;
        client.send(format!("{ASK}{GET}")).await;
        let mut upstream = endpoint.accept().await;
        upstream.head().await.expect("a request");
        assert!(upstream.is_silent().await, "nothing raw before the answer");
        assert!(endpoint.is_quiet(), "and no request either");
        if switches {
            upstream.send(SWITCH).await;
            client.head().await.expect("the switch");
            assert_eq!(upstream.exactly(GET.len()).await.as_deref(), Some(GET.as_bytes()));
        } else {
            upstream.send(OK).await;
            assert_eq!(client.message().await.expect("an answer").text(), "ok");
            let next = upstream.message().await.expect("the next request, as one");
            assert_eq!(
                (next.start(), next.field("x-forwarded-for")),
                ("GET /next HTTP/1.1", Some("198.18.1.2"))
            );
            upstream.send(OK).await;
            assert_eq!(client.message().await.expect("an answer").text(), "ok");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn early_bytes_and_the_clients_end_are_kept_for_the_tunnel() {
    let (_rig, mut endpoint) = http1(Limits::default()).await;
    for early in ["", "early"] {
        let mut client = Text::client(&_rig).await;
        client.send(format!("{ASK}{early}")).await;
        client.finish().await;
        let mut upstream = endpoint.accept().await;
        upstream.head().await.expect("a request");
        assert!(upstream.is_silent().await);
        upstream.send(format!("{SWITCH}bye")).await;
        client.head().await.expect("the switch");
        assert_eq!(upstream.rest().await, early.as_bytes());
        upstream.finish().await;
        assert_eq!(client.rest().await, b"bye");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_in_another_disguise_are_never_asked_for() {
    let (_rig, mut client, mut endpoint) = {
        let (rig, endpoint) = http1(Limits::default()).await;
        let client = Text::client(&rig).await;
        (rig, client, endpoint)
    };
    let mut upstream = None;
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n",
        "Upgrade: websocket\r\n",
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            none => none.insert(endpoint.accept().await),
        };
        let request = upstream.message().await.expect("a request");
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(request.field(gone), None, "{lines}");
        }
        upstream.send(OK).await;
        assert_eq!(client.message().await.expect("an answer").start(), "HTTP/1.1 200 OK");
    }
    let lines = "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n";
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
    let upstream = upstream.as_mut().expect("connected");
    let request = upstream.message().await.expect("a request");
    assert_eq!(request.field("upgrade"), Some("websocket"));
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_was_not_asked_for_is_no_response() {
    let foreign = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let both = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket, foo\r\n\r\n";
    let bare = "HTTP/1.1 101 X\r\n\r\n";
    let hidden = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    for (request, answer) in [
        (GET, SWITCH),
        (ASK, foreign),
        (ASK, both),
        (ASK, bare),
        (ASK, hidden),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            hidden,
        ),
    ] {
        let (rig, mut endpoint) = http1(Limits::default()).await;
        let mut client = Text::client(&rig).await;
        client.send(request).await;
        let mut upstream = endpoint.accept().await;
        upstream.head().await.expect("a request");
        upstream.send(answer).await;
        let got = client.message().await.expect("an answer");
        assert_eq!(got.start(), "HTTP/1.1 502 Bad Gateway", "{request} {answer}");
        assert!(upstream.is_closed().await, "{answer}");
        let done = rig.done(1).await.remove(0);
        assert_eq!(done.fault, Some(Fault::BadResponse));
        assert_eq!(tunnels(&rig).await, (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_with_a_body_waits_for_its_end() {
    let post = "POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 5\r\n\r\n";
    let switch = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    let (rig, mut endpoint) = http1(Limits::default()).await;
    let mut client = Text::client(&rig).await;
    client.send(format!("{post}hellotunnel")).await;
    let mut upstream = endpoint.accept().await;
    let request = upstream.message().await.expect("a request");
    assert_eq!((request.field("upgrade"), request.text()), (Some("tcp"), "hello"));
    assert!(upstream.is_silent().await, "what follows the body waits");
    upstream.send(switch).await;
    client.head().await.expect("the switch");
    assert_eq!(upstream.exactly(6).await.as_deref(), Some(&b"tunnel"[..]));
    // Who switches before the request is whole would take its rest for the other protocol.
    let mut client = Text::client(&rig).await;
    client.send(format!("{post}he")).await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a request");
    upstream.send(switch).await;
    let got = client.message().await.expect("an answer");
    assert_eq!(got.start(), "HTTP/1.1 502 Bad Gateway");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_is_not_read_holds_its_sender_up() {
    let (rig, mut client, upstream) = websocket(Limits::default()).await;
    let (_, mut writer) = upstream.split();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = sent.clone();
    let sender = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        for _ in 0..200 {
            writer.write_all(&[0x55; 16 * 1024]).await.expect("written");
            count.fetch_add(16 * 1024, std::sync::atomic::Ordering::Relaxed);
        }
        writer.shutdown().await.expect("closed");
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let there = sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!(
        there < 1024 * 1024,
        "{there} bytes went into a reader that does not read"
    );
    assert_eq!(client.rest().await.len(), 200 * 16 * 1024);
    sender.await.expect("sent");
    assert_eq!(tunnels(&rig).await, (1, 1), "the client's own half is open");
}

#[tokio::test(start_paused = true)]
async fn a_broken_side_breaks_the_other() {
    let (rig, client, mut upstream) = websocket(Limits::default()).await;
    drop(client);
    assert!(upstream.is_closed().await);
    upstream.send("x").await;
    drop(upstream);
    rig.done(1).await;
    let (rig, mut client, upstream) = websocket(Limits::default()).await;
    drop(upstream);
    assert!(client.is_closed().await);
    client.finish().await;
    rig.done(1).await;
    assert_eq!(tunnels(&rig).await, (1, 0));
}

// === Time ===

#[tokio::test(start_paused = true)]
async fn the_routes_timeout_ends_with_the_answer_and_silence_ends_a_tunnel() {
    let limits = Limits {
        tunnel_idle_timeout: Some(Duration::from_secs(600)),
        ..Limits::default()
    };
    let config = http1_config(1).rule(|rule| rule.timeouts.request = Some(Duration::from_secs(1)));
    let rig = Rig::start(config.snapshot(), limits);
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = Text::client(&rig).await;
    client.send(ASK).await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a request");
    upstream.send(SWITCH).await;
    client.head().await.expect("the switch");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(599)).await;
        client.send("ping").await;
        assert_eq!(upstream.exactly(4).await.as_deref(), Some(&b"ping"[..]));
    }
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert!(client.is_closed().await && upstream.is_closed().await);
    let done = rig.done(1).await.remove(0);
    assert_eq!(done.fault, Some(Fault::TunnelIdle));

    let mut client = Text::client(&rig).await;
    client.send(ASK).await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a request");
    let answer = client.message().await.expect("an answer");
    assert_eq!(answer.start(), "HTTP/1.1 504 Gateway Timeout", "no answer came in time");
}

#[tokio::test(start_paused = true)]
async fn half_a_tunnel_is_kept_as_long_as_an_idle_connection() {
    let limits = Limits {
        tunnel_idle_timeout: None,
        ..Limits::default()
    };
    let half = limits.idle_timeout;
    let (rig, mut client, mut upstream) = websocket(limits).await;
    tokio::time::sleep(Duration::from_secs(7 * 24 * 3600)).await;
    client.send("x").await;
    client.finish().await;
    assert_eq!(upstream.rest().await, b"x");
    tokio::time::sleep(half / 2).await;
    upstream.send("y").await;
    assert_eq!(client.exactly(1).await.as_deref(), Some(&b"y"[..]));
    tokio::time::sleep(half + Duration::from_secs(1)).await;
    assert!(client.is_closed().await);
    let done = rig.done(1).await.remove(0);
    assert_eq!(done.fault, Some(Fault::TunnelIdle));
}

#[tokio::test(start_paused = true)]
async fn a_drain_says_going_away_between_two_frames() {
    let (rig, mut client, mut upstream) = websocket(Limits::default()).await;
    upstream.send([0x81, 5, b'h', b'e']).await;
    assert_eq!(client.exactly(4).await.as_deref(), Some(&[0x81, 5, b'h', b'e'][..]));
    rig.with(|driver| {
        let now = driver.now();
        driver.engine.drain(now);
    })
    .await;
    assert!(client.is_silent().await, "not in the middle of a frame");
    upstream.send([b'l', b'l', b'o', 0x81, 1, b'x']).await;
    assert_eq!(
        client.exactly(7).await.as_deref(),
        Some(&[b'l', b'l', b'o', 0x88, 2, 3, 0xe9][..])
    );
    upstream.send([0x81, 1, b'y']).await;
    assert!(client.is_silent().await, "after the close frame nothing is said");
    // The client answers, the endpoint closes, and so does the gateway.
    client.send([0x88, 0x82, 0, 0, 0, 0, 3, 0xe9]).await;
    assert_eq!(
        upstream.exactly(8).await.as_deref(),
        Some(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe9][..])
    );
    upstream.finish().await;
    assert!(client.is_closed().await);
    client.finish().await;
    let done = rig.done(1).await.remove(0);
    assert_eq!((done.status, done.fault), (101, None));
    assert_eq!(rig.with(|driver| driver.engine.live()).await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_other_tunnels_alone() {
    let (rig, mut endpoint) = http1(Limits::default()).await;
    let mut client = Text::client(&rig).await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo/1\r\n\r\n")
        .await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a request");
    upstream
        .send("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: foo/1\r\n\r\n")
        .await;
    client.head().await.expect("the switch");
    rig.with(|driver| {
        let now = driver.now();
        driver.engine.drain(now);
    })
    .await;
    assert!(client.is_silent().await);
    upstream.send("on").await;
    assert_eq!(client.exactly(2).await.as_deref(), Some(&b"on"[..]));
}

// === CONNECT ===

#[tokio::test(start_paused = true)]
async fn connect_is_taken_only_where_a_rule_asks_for_it() {
    let (rig, _endpoint) = http1(Limits::default()).await;
    let mut client = Text::client(&rig).await;
    client
        .send(format!("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n{GET}"))
        .await;
    let answer = client.message().await.expect("an answer");
    assert_eq!(answer.start(), "HTTP/1.1 404 Not Found");
    assert!(
        client.is_closed().await,
        "what follows a refused CONNECT is not looked at"
    );
    let mut client = raw_client(&rig).await;
    client
        .headers(1, &[(":method", "CONNECT"), (":authority", "a:443")], false)
        .await;
    let head = client.wait_for(Kind::Headers).await.expect("an answer");
    assert_eq!(field(&client.fields(&head), ":status"), Some("404"));
    let done = rig.done(2).await;
    assert!(done.iter().all(|done| done.fault == Some(Fault::NoRoute)));
}

#[tokio::test(start_paused = true)]
async fn connect_goes_to_the_routes_endpoint_and_becomes_a_tunnel() {
    let rig = Rig::start(http1_config(1).rule(connect_rule).snapshot(), Limits::default());
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = Text::client(&rig).await;
    client
        .send("CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\nearly")
        .await;
    let mut upstream = endpoint.accept().await;
    let request = upstream.head().await.expect("a request");
    assert!(
        request.starts_with("CONNECT db.example:5432 HTTP/1.1\r\nhost: db.example:5432\r\n"),
        "{request}"
    );
    assert!(upstream.is_silent().await);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello").await;
    assert_eq!(client.head().await.as_deref(), Some("HTTP/1.1 200 OK\r\n\r\n"));
    assert_eq!(client.exactly(5).await.as_deref(), Some(&b"hello"[..]));
    assert_eq!(upstream.exactly(5).await.as_deref(), Some(&b"early"[..]));
    client.finish().await;
    assert!(upstream.is_closed().await);
    upstream.finish().await;
    assert!(client.is_closed().await);

    // From an HTTP/2 client the same, in DATA.
    let mut client = raw_client(&rig).await;
    client
        .headers(1, &[(":method", "CONNECT"), (":authority", "db.example:5432")], false)
        .await;
    client.frame(Kind::Data, 0, 1, b"early").await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a request");
    assert!(upstream.is_silent().await, "nothing raw before the answer");
    upstream.send("HTTP/1.1 200 OK\r\n\r\n").await;
    let head = client.wait_for(Kind::Headers).await.expect("an answer");
    assert!(!head.header.has(flags::END_STREAM));
    assert_eq!(client.fields(&head), [(":status".to_owned(), "200".to_owned())]);
    assert_eq!(upstream.exactly(5).await.as_deref(), Some(&b"early"[..]));
    upstream.send("down").await;
    assert_eq!(data(&mut client).await, (b"down".to_vec(), false));
    client.frame(Kind::Data, flags::END_STREAM, 1, b"up").await;
    assert_eq!(upstream.rest().await, b"up");
    upstream.finish().await;
    assert!(data(&mut client).await.1);
    let done = rig.done(2).await;
    assert!(done.iter().all(|done| (done.status, done.fault) == (200, None)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connect_is_an_ordinary_answer() {
    let rig = Rig::start(http1_config(1).rule(connect_rule).snapshot(), Limits::default());
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = raw_client(&rig).await;
    client
        .headers(1, &[(":method", "CONNECT"), (":authority", "a:1")], false)
        .await;
    client.frame(Kind::Data, 0, 1, b"early").await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a request");
    upstream
        .send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        .await;
    let head = client.wait_for(Kind::Headers).await.expect("an answer");
    assert_eq!(field(&client.fields(&head), ":status"), Some("403"));
    assert_eq!(data(&mut client).await, (b"no".to_vec(), true));
    let reset = client.error().await;
    assert_eq!(reset, Some((Kind::RstStream, ErrorCode::NoError)), "send no more");
    assert!(upstream.is_silent().await);
    assert_eq!(tunnels(&rig).await, (0, 0));
}

// === Extended CONNECT ===

#[tokio::test(start_paused = true)]
async fn a_websocket_over_http_2_reaches_an_http_1_endpoint() {
    let (rig, mut endpoint) = http1(Limits::default()).await;
    let mut client = raw_client(&rig).await;
    let settings = client.wait_for(Kind::Settings).await.expect("SETTINGS");
    assert!(
        settings.payload.chunks(6).any(|one| one == [0, 8, 0, 0, 0, 1]),
        "RFC 8441 3"
    );
    client.headers(1, &EXTENDED, false).await;
    client.frame(Kind::Data, 0, 1, b"early").await;
    let mut upstream = endpoint.accept().await;
    let request = upstream.message().await.expect("a request");
    assert_eq!(request.start(), "GET /chat HTTP/1.1");
    assert_eq!(
        (request.field("upgrade"), request.field("connection")),
        (Some("websocket"), Some("upgrade"))
    );
    assert_eq!(request.field("sec-websocket-version"), Some("13"));
    assert!(upstream.is_silent().await, "nothing raw before the answer");
    let key = request.field("sec-websocket-key").expect("a key of ours");
    let accept = websocket::accept(key.as_bytes()).expect("a key");
    let accept = std::str::from_utf8(&accept).expect("text");
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    upstream
        .send(format!(
            "{head}Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        ))
        .await;
    let answer = client.wait_for(Kind::Headers).await.expect("an answer");
    let mut fields = client.fields(&answer);
    fields.sort();
    let want = [(":status", "200"), ("sec-websocket-protocol", "chat")];
    assert_eq!(fields, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(upstream.exactly(5).await.as_deref(), Some(&b"early"[..]));
    upstream.send([0x81, 1, b'a']).await;
    assert_eq!(data(&mut client).await, (vec![0x81, 1, b'a'], false));
    rig.with(|driver| {
        let now = driver.now();
        driver.engine.drain(now);
    })
    .await;
    assert_eq!(data(&mut client).await, (websocket::GOING_AWAY.to_vec(), false));
    client.frame(Kind::Data, flags::END_STREAM, 1, b"bye").await;
    assert_eq!(upstream.rest().await, b"bye");
    upstream.finish().await;
    assert!(data(&mut client).await.1, "FIN is END_STREAM");
    let done = rig.done(1).await.remove(0);
    assert_eq!((done.status, done.fault, done.method.as_str()), (200, None, "GET"));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_does_not_know_websocket_is_found_out() {
    let (rig, mut endpoint) = http1(Limits::default()).await;
    let mut client = raw_client(&rig).await;
    client.headers(1, &EXTENDED, false).await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a request");
    // The answer to another key.
    upstream.send(SWITCH).await;
    let answer = client.wait_for(Kind::Headers).await.expect("an answer");
    assert_eq!(field(&client.fields(&answer), ":status"), Some("502"));
    assert!(upstream.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn resets_go_through_as_resets() {
    let rig = Rig::start(http1_config(1).rule(connect_rule).snapshot(), Limits::default());
    let mut endpoint = Endpoint::new(&rig, 1).await;
    for client_breaks in [true, false] {
        let mut client = raw_client(&rig).await;
        client
            .headers(1, &[(":method", "CONNECT"), (":authority", "a:1")], false)
            .await;
        let mut upstream = endpoint.accept().await;
        upstream.head().await.expect("a request");
        upstream.send("HTTP/1.1 200 OK\r\n\r\n").await;
        client.wait_for(Kind::Headers).await.expect("an answer");
        if client_breaks {
            client.frame(Kind::RstStream, 0, 1, &[0, 0, 0, 8]).await;
            assert!(upstream.is_closed().await);
            assert_eq!(rig.done(1).await[0].fault, Some(Fault::ClientGone));
        } else {
            rig.with(|driver| driver.lose_upstream()).await;
            let error = client.error().await;
            assert_eq!(error, Some((Kind::RstStream, ErrorCode::ConnectError)), "RFC 9113 8.5");
            assert_eq!(rig.done(1).await[0].fault, Some(Fault::ConnectionLost));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_have_no_place_in_a_tunnel() {
    let (rig, mut endpoint) = http1(Limits::default()).await;
    let mut client = raw_client(&rig).await;
    client.headers(1, &EXTENDED, false).await;
    endpoint.accept().await.head().await.expect("a request");
    client.headers(1, &[("x", "y")], true).await;
    assert_eq!(client.error().await, Some((Kind::RstStream, ErrorCode::ProtocolError)));
    rig.done(1).await;
}

// === HTTP/2 endpoints ===

async fn http2(
    rule: impl FnOnce(&mut HttpRule),
) -> (Rig, tokio::sync::mpsc::UnboundedReceiver<tokio::io::DuplexStream>) {
    let rig = Rig::start(Config::new(1).rule(rule).snapshot(), Limits::default());
    let sockets = rig.listen(endpoint_addr(1)).await;
    (rig, sockets)
}

#[tokio::test(start_paused = true)]
async fn a_websocket_of_http_1_reaches_an_http_2_endpoint_that_takes_it() {
    let (rig, mut sockets) = http2(|_| {}).await;
    let mut client = Text::client(&rig).await;
    client.send(format!("{ASK}early")).await;
    let socket = sockets.recv().await.expect("a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut upstream = Raw::endpoint(socket, &[Setting::EnableConnectProtocol(true)]).await;
    let head = upstream.wait_for(Kind::Headers).await.expect("a request");
    assert!(!head.header.has(flags::END_STREAM));
    let fields = upstream.fields(&head);
    assert!(fields[..5].iter().all(|(name, _)| name.starts_with(':')), "{fields:?}");
    for (name, value) in [
        (":method", Some("CONNECT")),
        (":protocol", Some("websocket")),
        (":path", Some("/chat")),
        (":scheme", Some("http")),
        (":authority", Some("a")),
        ("sec-websocket-version", Some("13")),
        ("sec-websocket-key", None),
        ("upgrade", None),
        ("connection", None),
    ] {
        assert_eq!(field(&fields, name), value, "{name}");
    }
    upstream.headers(head.header.stream, &[(":status", "200")], false).await;
    let answer = client.head().await.expect("the switch");
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    assert!(
        answer.contains("connection: upgrade\r\nupgrade: websocket\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("sec-websocket-accept: {ACCEPT}\r\n")),
        "{answer}"
    );
    assert_eq!(data(&mut upstream).await, (b"early".to_vec(), false));
    upstream.frame(Kind::Data, 0, head.header.stream, b"down").await;
    assert_eq!(client.exactly(4).await.as_deref(), Some(&b"down"[..]));
    client.finish().await;
    assert_eq!(data(&mut upstream).await, (Vec::new(), true));
    upstream
        .frame(Kind::Data, flags::END_STREAM, head.header.stream, b"")
        .await;
    assert!(client.is_closed().await);
    assert_eq!(rig.done(1).await[0].status, 101);
}

#[tokio::test(start_paused = true)]
async fn an_http_2_endpoint_that_offers_no_extended_connect_gets_none() {
    let (rig, mut sockets) = http2(|_| {}).await;
    let mut client = Text::client(&rig).await;
    client.send(ASK).await;
    let mut upstream = Raw::endpoint(sockets.recv().await.expect("a connection"), &[]).await;
    let answer = client.message().await.expect("an answer");
    assert_eq!(answer.start(), "HTTP/1.1 502 Bad Gateway");
    let mut other = raw_client(&rig).await;
    other.headers(1, &EXTENDED, false).await;
    let answer = other.wait_for(Kind::Headers).await.expect("an answer");
    assert_eq!(field(&other.fields(&answer), ":status"), Some("502"));
    // The connection serves others as before.
    client.send(GET).await;
    let head = upstream.wait_for(Kind::Headers).await.expect("a request");
    assert_eq!(field(&upstream.fields(&head), ":path"), Some("/next"));
}

#[tokio::test(start_paused = true)]
async fn tunnels_between_http_2_peers_are_streams() {
    for (ask, settings) in [
        (&EXTENDED[..], &[Setting::EnableConnectProtocol(true)][..]),
        (&[(":method", "CONNECT"), (":authority", "example.com:1")], &[]),
    ] {
        let rule = |rule: &mut HttpRule| {
            if ask.len() == 2 {
                connect_rule(rule);
            }
        };
        let (rig, mut sockets) = http2(rule).await;
        let mut client = raw_client(&rig).await;
        client.headers(1, ask, false).await;
        client.frame(Kind::Data, 0, 1, b"early").await;
        let mut upstream = Raw::endpoint(sockets.recv().await.expect("a connection"), settings).await;
        let head = upstream.wait_for(Kind::Headers).await.expect("a request");
        let fields = upstream.fields(&head);
        assert_eq!(field(&fields, ":method"), Some("CONNECT"));
        assert_eq!(field(&fields, ":protocol").is_some(), ask.len() > 2, "{fields:?}");
        assert_eq!(field(&fields, ":path").is_some(), ask.len() > 2, "{fields:?}");
        upstream.headers(1, &[(":status", "200")], false).await;
        let answer = client.wait_for(Kind::Headers).await.expect("an answer");
        assert_eq!(field(&client.fields(&answer), ":status"), Some("200"));
        assert_eq!(data(&mut upstream).await, (b"early".to_vec(), false));
        upstream.frame(Kind::Data, flags::END_STREAM, 1, b"down").await;
        assert_eq!(data(&mut client).await, (b"down".to_vec(), true));
        client.frame(Kind::Data, flags::END_STREAM, 1, b"up").await;
        assert_eq!(data(&mut upstream).await, (b"up".to_vec(), true));
        assert_eq!(rig.done(1).await[0].fault, None);
        assert_eq!(tunnels(&rig).await, (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_for_another_protocol_goes_to_another_endpoint_as_any_other() {
    let rig = Rig::start(http1_config(2).snapshot(), Limits::default());
    // The other one refuses to be connected to.
    let mut alive = Endpoint::new(&rig, 2).await;
    for _ in 0..2 {
        let mut client = raw_client(&rig).await;
        client.headers(1, &EXTENDED, false).await;
        client.frame(Kind::Data, 0, 1, b"early").await;
        let mut upstream = alive.accept().await;
        let request = upstream.message().await.expect("a request");
        let accept = websocket::accept(request.field("sec-websocket-key").expect("a key").as_bytes()).expect("a key");
        let accept = std::str::from_utf8(&accept).expect("text");
        let head = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        upstream
            .send(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n"))
            .await;
        assert_eq!(upstream.exactly(5).await.as_deref(), Some(&b"early"[..]));
    }
    assert_eq!(rig.with(|driver| driver.engine.metrics().retries_total).await, 1);
}

#[tokio::test(start_paused = true)]
async fn routes_see_a_get_with_upgrade_whoever_asks() {
    let config = http1_config(1).rule(|rule| {
        rule.matches[0].method = Some("GET".into());
        rule.matches[0].headers.push(gateway_core::ir::FieldMatch {
            name: "upgrade".into(),
            value: gateway_core::ir::ValueMatch::Exact("websocket".into()),
        });
        rule.destinations[0].to.protocol = UpstreamProtocol::Http1;
    });
    let rig = Rig::start(config.snapshot(), Limits::default());
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = raw_client(&rig).await;
    client.headers(1, &EXTENDED, false).await;
    endpoint.accept().await.head().await.expect("a request");
    let mut client = Text::client(&rig).await;
    client.send(ASK).await;
    endpoint.accept().await.head().await.expect("a request");
    let mut client = Text::client(&rig).await;
    client.send(GET).await;
    let answer = client.message().await.expect("an answer");
    assert_eq!(answer.start(), "HTTP/1.1 404 Not Found");
}
