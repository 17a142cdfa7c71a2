//! gRPC beyond forwarding: gRPC-Web, sizes of messages and bodies, CORS, mirrors.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/peer.rs"]
mod peer;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/rig.rs"]
mod rig;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/text.rs"]
mod text;

use bytes::Bytes;
use config::{Config, endpoint_addr};
use gateway_core::fault::Fault;
use gateway_core::ir::{Cors, Destination, Filter, Mirror, OriginPattern, RouteKind, UpstreamProtocol};
use gateway_http::grpc_web::base64::{Decoder, Encoder};
use gateway_http::limits::Limits;
use http::{HeaderMap, Request, Response};
use peer::{Incoming, body, call, client, endpoint, log, send_all};
use rig::Rig;
use std::time::Duration;
use text::Text;

fn grpc_config() -> Config {
    Config::new(1).rule(|rule| rule.kind = RouteKind::Grpc)
}

fn start(config: &Config, limits: Limits) -> Rig {
    Rig::start(config.snapshot(), limits)
}

fn message(payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    message.extend_from_slice(payload);
    message
}

fn to_text(bytes: &[u8]) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    encoder.encode(bytes, &mut out);
    encoder.flush(&mut out);
    out
}

fn from_text(text: &[u8]) -> Vec<u8> {
    let (mut decoder, mut out) = (Decoder::default(), Vec::new());
    decoder.decode(text, &mut out).expect("base64");
    assert!(decoder.is_whole());
    out
}

/// Messages, and what the frame of trailers says.
fn frames(mut body: &[u8]) -> (Vec<Vec<u8>>, Option<String>) {
    let mut messages = Vec::new();
    while let Some(([flags, len @ ..], rest)) = body.split_first_chunk::<5>() {
        let (payload, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        body = rest;
        if *flags == 0x80 {
            assert!(body.is_empty(), "the trailers are last");
            return (messages, Some(String::from_utf8(payload.to_vec()).unwrap()));
        }
        messages.push(payload.to_vec());
    }
    (messages, None)
}

/// A gRPC server: wants gRPC, echoes its body, ends with a status and a message.
async fn serve((request, mut respond): Incoming) {
    let (parts, mut incoming) = request.into_parts();
    assert_eq!(parts.headers["content-type"], "application/grpc+proto");
    assert_eq!(parts.headers["te"], "trailers");
    let head = Response::builder().header("content-type", "application/grpc+proto");
    let mut out = respond.send_response(head.body(()).unwrap(), false).unwrap();
    let (bytes, _) = body(&mut incoming).await.unwrap();
    send_all(&mut out, bytes.into(), false).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("x-sum", "7".parse().unwrap());
    let _ = out.send_trailers(trailers);
}

async fn web_over_h1(client: &mut Text, content_type: &str, body: &[u8], more: &str) -> text::Message {
    let head = format!(
        "POST /a.B/C HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{more}\r\n",
        body.len()
    );
    client.send([head.as_bytes(), body].concat()).await;
    client.message().await.expect("a response")
}

#[tokio::test(start_paused = true)]
async fn grpc_web_over_http1_becomes_grpc_and_its_trailers_the_last_frame() {
    let rig = start(&grpc_config(), Limits::default());
    let _endpoint = endpoint(&rig, 1, serve).await;
    let mut client = Text::client(&rig).await;
    let sent = [message(b"hello"), message(&[7; 1000]), message(b"")].concat();
    let binary = web_over_h1(&mut client, "application/grpc-web+proto", &sent, "").await;
    assert_eq!(binary.start(), "HTTP/1.1 200 OK");
    assert_eq!(binary.field("content-type"), Some("application/grpc-web+proto"));
    let (messages, trailers) = frames(&binary.body);
    assert_eq!(messages, [b"hello".to_vec(), vec![7; 1000], vec![]]);
    assert_eq!(trailers.as_deref(), Some("grpc-status:0\r\nx-sum:7\r\n"));
    assert_eq!(binary.trailers, "");

    let text = web_over_h1(&mut client, "application/grpc-web-text+proto", &to_text(&sent), "").await;
    assert_eq!(text.field("content-type"), Some("application/grpc-web-text+proto"));
    assert_eq!(frames(&from_text(&text.body)), (messages, trailers));
    let done = rig.done(2).await;
    assert_eq!(
        done.iter().map(|done| done.grpc_messages).collect::<Vec<_>>(),
        [Some([3, 3]); 2]
    );
    assert_eq!((done[0].grpc_status, done[0].status), (Some(0), 200));
}

#[tokio::test(start_paused = true)]
async fn large_text_bodies_over_http2_keep_their_windows() {
    let rig = start(&grpc_config(), Limits::default());
    let _endpoint = endpoint(&rig, 1, serve).await;
    let mut client = client(&rig).await;
    for round in 0..6 {
        let sent = message(&vec![round; 700_000 + usize::from(round)]);
        let request = Request::post("http://example.com/a.B/C")
            .header("content-type", "application/grpc-web-text+proto")
            .body(())
            .unwrap();
        let (response, mut out) = client.send_request(request, false).unwrap();
        let text = to_text(&sent);
        let sending = tokio::spawn(async move { send_all(&mut out, text.into(), true).await });
        let mut response = response.await.unwrap();
        let (got, trailers) = body(response.body_mut()).await.unwrap();
        assert!(trailers.is_none());
        let (messages, trailers) = frames(&from_text(&got));
        assert_eq!(messages.concat(), sent[5..]);
        assert!(trailers.unwrap().starts_with("grpc-status:0"));
        sending.await.unwrap().unwrap();
    }
    assert_eq!(rig.with(|driver| driver.engine.live()).await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn local_errors_and_deadlines_of_grpc_web_are_frames() {
    let rig = start(&grpc_config(), Limits::default());
    let mut client = Text::client(&rig).await;
    // Nobody listens.
    let refused = web_over_h1(&mut client, "application/grpc-web+proto", &message(b"x"), "").await;
    assert_eq!(refused.start(), "HTTP/1.1 200 OK");
    let (_, trailers) = frames(&refused.body);
    assert!(trailers.unwrap().starts_with("grpc-status:14\r\ngrpc-message:"));
    // An endpoint that begins to answer and then hangs.
    let _endpoint = endpoint(&rig, 1, |(request, mut respond): Incoming| async move {
        let head = Response::builder().header("content-type", "application/grpc");
        let mut out = respond.send_response(head.body(()).unwrap(), false).unwrap();
        out.send_data(Bytes::from(message(b"first")), false).unwrap();
        let _ = std::future::poll_fn(|cx| out.poll_reset(cx)).await;
        drop(request);
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for content_type in ["application/grpc-web+proto", "application/grpc-web-text+proto"] {
        let sent = message(b"x");
        let sent = if content_type.contains("text") {
            to_text(&sent)
        } else {
            sent
        };
        let late = web_over_h1(&mut client, content_type, &sent, "grpc-timeout: 300m\r\n").await;
        let got = if content_type.contains("text") {
            from_text(&late.body)
        } else {
            late.body
        };
        let (messages, trailers) = frames(&got);
        assert_eq!(messages, [b"first"]);
        assert!(trailers.unwrap().starts_with("grpc-status:4\r\n"));
    }
    // What is no base64 is told so, and the connection ends in good order.
    let bad = web_over_h1(&mut client, "application/grpc-web-text", b"!!!!", "").await;
    let (_, trailers) = frames(&from_text(&bad.body));
    assert!(trailers.unwrap().starts_with("grpc-status:13\r\n"));
}

#[tokio::test(start_paused = true)]
async fn a_bidirectional_call_through_grpc_web_answers_each_message_as_it_comes() {
    let rig = start(&grpc_config(), Limits::default());
    let _endpoint = endpoint(&rig, 1, |(request, mut respond): Incoming| async move {
        let head = Response::builder().header("content-type", "application/grpc");
        let mut out = respond.send_response(head.body(()).unwrap(), false).unwrap();
        let mut incoming = request.into_body();
        while let Some(Ok(chunk)) = incoming.data().await {
            let _ = incoming.flow_control().release_capacity(chunk.len());
            send_all(&mut out, chunk, false).await.unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        out.send_trailers(trailers).unwrap();
    })
    .await;
    let mut client = client(&rig).await;
    let request = Request::post("http://example.com/a.B/C")
        .header("content-type", "application/grpc-web-text")
        .body(())
        .unwrap();
    let (response, mut out) = client.send_request(request, false).unwrap();
    let mut response = response.await.unwrap();
    for number in 0..5_u8 {
        out.send_data(to_text(&message(&[number])).into(), false).unwrap();
        let chunk = response.body_mut().data().await.unwrap().unwrap();
        assert_eq!(
            from_text(&chunk),
            message(&[number]),
            "a message does not wait for the next"
        );
    }
    out.send_data(Bytes::new(), true).unwrap();
    let (rest, _) = body(response.body_mut()).await.unwrap();
    assert!(frames(&from_text(&rest)).1.unwrap().starts_with("grpc-status:0"));
}

#[tokio::test(start_paused = true)]
async fn an_http_route_passes_grpc_web_on_as_it_is() {
    let rig = start(&Config::new(1), Limits::default());
    let _endpoint = endpoint(&rig, 1, |incoming| peer::echo("one", incoming)).await;
    let mut client = Text::client(&rig).await;
    let got = web_over_h1(&mut client, "application/grpc-web-text", b"AAAA", "").await;
    assert_eq!(got.field("echo-content-type"), Some("application/grpc-web-text"));
    assert_eq!(got.body, b"AAAA");
}

// === Sizes ===

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_ends_its_call_and_a_long_stream_of_small_ones_passes() {
    let limits = Limits {
        body_bytes_max: Some(1000),
        ..Limits::default()
    };
    let rig = start(&grpc_config(), limits);
    let (tell, mut told) = log();
    let _endpoint = endpoint(&rig, 1, move |(request, mut respond): Incoming| {
        let tell = tell.clone();
        async move {
            let mut incoming = request.into_body();
            let end = body(&mut incoming).await;
            let _ = tell.send(end.as_ref().map(|(bytes, _)| bytes.len()).map_err(h2::Error::reason));
            let head = Response::builder().header("content-type", "application/grpc");
            if let (Ok(_), Ok(mut out)) = (end, respond.send_response(head.body(()).unwrap(), false)) {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                out.send_trailers(trailers).unwrap();
            }
        }
    })
    .await;
    let mut client = client(&rig).await;
    let (response, mut out) = client.send_request(call("/a.B/C"), false).unwrap();
    let many: Vec<u8> = (0..50).flat_map(|_| message(&[1; 1000])).collect();
    send_all(&mut out, many.into(), true).await.unwrap();
    let (_, trailers) = body(response.await.unwrap().body_mut()).await.unwrap();
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    assert_eq!(told.recv().await, Some(Ok(50 * 1005)));

    let (response, mut out) = client.send_request(call("/a.B/C"), false).unwrap();
    send_all(&mut out, message(&[1; 10]).into(), false).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    send_all(&mut out, message(&[1; 1001]).into(), false).await.unwrap();
    let response = response.await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["grpc-status"]),
        (http::StatusCode::OK, &"8".parse().unwrap())
    );
    assert_eq!(
        told.recv().await,
        Some(Err(Some(h2::Reason::CANCEL))),
        "the endpoint hears it at once"
    );
    let done = rig.done(2).await;
    assert_eq!(
        (done[1].fault, done[0].grpc_messages),
        (Some(Fault::BodyTooLarge), Some([50, 0]))
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoints_message_over_the_limit_is_resource_exhausted() {
    let limits = Limits {
        grpc_message_bytes_max: Some(100),
        ..Limits::default()
    };
    let rig = start(&grpc_config(), limits);
    let (tell, mut told) = log();
    let _endpoint = endpoint(&rig, 1, move |(request, mut respond): Incoming| {
        let tell = tell.clone();
        async move {
            let head = Response::builder().header("content-type", "application/grpc");
            let mut out = respond.send_response(head.body(()).unwrap(), false).unwrap();
            out.send_data(message(&[1; 100]).into(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            out.send_data(message(&[1; 101]).into(), false).unwrap();
            let _ = tell.send(std::future::poll_fn(|cx| out.poll_reset(cx)).await.ok());
            drop(request);
        }
    })
    .await;
    let mut client = client(&rig).await;
    let (response, _) = client.send_request(call("/a.B/C"), true).unwrap();
    let (got, trailers) = body(response.await.unwrap().body_mut()).await.unwrap();
    assert_eq!(got, message(&[1; 100]));
    assert_eq!(trailers.unwrap()["grpc-status"], "8");
    assert_eq!(told.recv().await, Some(Some(h2::Reason::CANCEL)));
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::MessageTooLarge));
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_413_whether_its_length_is_told_or_not() {
    let limits = Limits {
        body_bytes_max: Some(10),
        ..Limits::default()
    };
    let rig = start(&Config::new(1), limits);
    let _endpoint = endpoint(&rig, 1, |(request, mut respond): Incoming| async move {
        let mut incoming = request.into_body();
        if body(&mut incoming).await.is_ok() {
            let _ = respond.send_response(Response::new(()), true);
        }
    })
    .await;
    for (framing, status) in [
        ("Content-Length: 10\r\n\r\n0123456789", "HTTP/1.1 200 OK"),
        (
            "Content-Length: 11\r\n\r\n01234567890",
            "HTTP/1.1 413 Content Too Large",
        ),
        (
            "Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n",
            "HTTP/1.1 413 Content Too Large",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n6\r\nfghijk\r\n0\r\n\r\n",
            "HTTP/1.1 413 Content Too Large",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n5\r\nfghij\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK",
        ),
    ] {
        let mut client = Text::client(&rig).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        assert_eq!(client.message().await.expect("a response").start(), status, "{framing}");
    }
    let faults = rig
        .done(5)
        .await
        .iter()
        .filter(|done| done.fault == Some(Fault::BodyTooLarge))
        .count();
    assert_eq!(faults, 3);
}

// === CORS ===

#[tokio::test(start_paused = true)]
async fn pages_of_other_origins_may_ask_and_read_and_strangers_may_not() {
    let cors = Cors {
        origins: vec![OriginPattern::parse("https://app.example").unwrap()],
        methods: vec!["POST".to_owned()],
        headers: vec!["*".to_owned()],
        exposed: vec!["grpc-status".to_owned()],
        credentials: false,
        max_age_s: 600,
    };
    let config = grpc_config().rule(|rule| rule.filters.push(Filter::Cors(cors)));
    let rig = start(&config, Limits::default());
    let mut client = Text::client(&rig).await;
    let asks = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-grpc-web\r\n";
    let mut preflight = async |origin: &str| {
        client
            .send(format!(
                "OPTIONS /a.B/C HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n{asks}\r\n"
            ))
            .await;
        client.message().await.expect("a response")
    };
    let answer = preflight("https://app.example").await;
    assert_eq!(answer.start(), "HTTP/1.1 200 OK");
    for (field, value) in [
        ("access-control-allow-origin", Some("https://app.example")),
        ("access-control-allow-methods", Some("POST")),
        ("access-control-allow-headers", Some("x-grpc-web")),
        ("access-control-max-age", Some("600")),
        ("access-control-allow-credentials", None),
    ] {
        assert_eq!(answer.field(field), value, "{field}");
    }
    assert_eq!(
        preflight("https://evil.example")
            .await
            .field("access-control-allow-origin"),
        None
    );
    // An error of the gateway's own can be read as well: nobody listens.
    let mut call = async |origin: &str| {
        let more = format!("Origin: {origin}\r\n");
        web_over_h1(&mut client, "application/grpc-web+proto", &message(b""), &more).await
    };
    assert_eq!(
        call("https://app.example").await.field("access-control-allow-origin"),
        Some("https://app.example")
    );
    let _endpoint = endpoint(&rig, 1, serve).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let answer = call("https://app.example").await;
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.field("access-control-expose-headers"), Some("grpc-status"));
    assert_eq!(
        call("https://evil.example").await.field("access-control-allow-origin"),
        None
    );
}

// === Mirrors ===

fn mirrored() -> Config {
    let mirror = Mirror {
        to: Destination::Service("default/shadow:50051".into()),
        protocol: UpstreamProtocol::H2c,
        numerator: 1,
        denominator: 1,
    };
    let mut config = Config::new(1).rule(|rule| rule.filters.push(Filter::Mirror(mirror)));
    config.shadows = vec![endpoint_addr(2)];
    config
}

#[tokio::test(start_paused = true)]
async fn a_mirror_gets_the_whole_request_and_its_answer_goes_nowhere() {
    let rig = start(&mirrored(), Limits::default());
    let (tell, mut told) = log();
    let serve = move |(request, mut respond): Incoming| {
        let tell = tell.clone();
        async move {
            let (parts, mut incoming) = request.into_parts();
            let (bytes, _) = body(&mut incoming).await.unwrap();
            let _ = tell.send((
                parts.headers["x-request-id"].clone(),
                parts.uri.path().to_owned(),
                bytes,
            ));
            let mut out = respond.send_response(Response::new(()), false).unwrap();
            send_all(&mut out, vec![1; 300_000].into(), true).await.unwrap();
        }
    };
    let _endpoint = endpoint(&rig, 1, serve.clone()).await;
    let _shadow = endpoint(&rig, 2, serve).await;
    let mut client = client(&rig).await;
    for _ in 0..5 {
        let request = Request::post("http://example.com/x").body(()).unwrap();
        let (response, mut out) = client.send_request(request, false).unwrap();
        send_all(&mut out, vec![7; 100_000].into(), true).await.unwrap();
        let (got, _) = body(response.await.unwrap().body_mut()).await.unwrap();
        assert_eq!(got.len(), 300_000);
        let (one, two) = (told.recv().await.unwrap(), told.recv().await.unwrap());
        assert_eq!(one, two);
        assert_eq!(one.2.len(), 100_000);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (live, counted) = rig
        .with(|driver| {
            let metrics = driver.engine.metrics();
            let counts = (
                metrics.mirrors_total,
                metrics.mirrors_dropped_total,
                metrics.mirrors_failed_total,
            );
            (driver.engine.streams(driver.now()).len(), counts)
        })
        .await;
    assert_eq!((live, counted), (0, (5, 0, 0)));
    assert_eq!(rig.done(5).await.len(), 5, "a mirror is no request of its own");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_hangs_or_lags_or_refuses_is_given_up_and_the_original_never_waits() {
    let rig = start(&mirrored(), Limits::default());
    // Takes nothing, answers nothing.
    let _shadow = endpoint(&rig, 2, |(request, mut respond): Incoming| async move {
        let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        drop(request);
    })
    .await;
    let _endpoint = endpoint(&rig, 1, |incoming| peer::echo("one", incoming)).await;
    let mut client = client(&rig).await;
    let began = tokio::time::Instant::now();
    let mut ask = async |len: usize| {
        let request = Request::post("http://example.com/x").body(()).unwrap();
        let (response, mut out) = client.send_request(request, false).unwrap();
        let sending = tokio::spawn(async move { send_all(&mut out, vec![7; len].into(), true).await });
        let (got, _) = body(response.await.unwrap().body_mut()).await.unwrap();
        sending.await.unwrap().unwrap();
        got.len()
    };
    assert_eq!(ask(2_000_000).await, 2_000_000, "the mirror lags");
    assert_eq!(ask(1000).await, 1000, "the mirror hangs");
    assert!(began.elapsed() < Duration::from_secs(1));
    let counts = |driver: &mut rig::Driver| {
        let metrics = driver.engine.metrics();
        (
            metrics.mirrors_total,
            metrics.mirrors_dropped_total,
            metrics.mirrors_failed_total,
        )
    };
    assert_eq!(rig.with(counts).await, (2, 1, 0));
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(rig.with(counts).await, (2, 1, 1), "it may linger, but not for ever");
    assert_eq!(rig.with(|driver| driver.engine.streams(driver.now()).len()).await, 0);
}
