//! Rules that say which failed attempts are followed by others: endpoints that fail in every way, clients that see one
//! answer.

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
use config::Config;
use gateway_core::fault::Fault;
use gateway_core::ir::{Retry, UpstreamProtocol};
use gateway_http::limits::Limits;
use gateway_http::metrics::Metrics;
use gateway_http::retry::{NotRetried, Retried};
use http::{Request, Response};
use peer::{Incoming, body, call, client, endpoint, get, send_all};
use rig::Rig;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use text::{Endpoint, Text};
use tokio::time::{Instant, sleep};

const ATTEMPTS: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(100);

fn retrying(endpoints: u8) -> Config {
    Config::new(endpoints).rule(|rule| {
        rule.retry = Some(Retry {
            attempts: ATTEMPTS,
            statuses: vec![500, 503],
            grpc_statuses: vec![14],
            backoff: BACKOFF,
        });
    })
}

fn start(config: &Config) -> Rig {
    Rig::start(config.snapshot(), Limits::default())
}

async fn metrics(rig: &Rig) -> Metrics {
    rig.with(|driver| driver.engine.metrics().clone()).await
}

/// An endpoint that fails so many times by `fail`, then echoes; counts what came.
async fn failing<F, R>(rig: &Rig, number: u8, times: u32, fail: F) -> Arc<AtomicU32>
where
    F: Fn(Incoming) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let seen = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&seen);
    let task = endpoint(rig, number, move |incoming| {
        let (count, fail) = (counter.fetch_add(1, Ordering::Relaxed), fail.clone());
        async move {
            if count < times {
                fail(incoming).await;
            } else {
                peer::echo("be", incoming).await;
            }
        }
    })
    .await;
    drop(task);
    seen
}

async fn answer(status: u16, (_, mut respond): Incoming) {
    let response = Response::builder().status(status).body(()).unwrap();
    let mut out = respond.send_response(response, false).unwrap();
    let _ = send_all(&mut out, Bytes::from_static(b"failed"), true).await;
}

async fn post_to(rig: &Rig, len: usize) -> (u16, Vec<u8>) {
    let mut client = client(rig).await;
    let request = Request::post("http://example.com/").body(()).unwrap();
    let (response, mut out) = client.send_request(request, false).unwrap();
    let sent = Bytes::from((0..len).map(|at| at as u8).collect::<Vec<_>>());
    let _ = send_all(&mut out, sent, true).await;
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    let got = body(&mut response.into_body()).await.map_or(Vec::new(), |got| got.0);
    (status, got)
}

#[tokio::test(start_paused = true)]
async fn a_named_status_is_dropped_and_the_request_goes_again_with_its_body() {
    let rig = start(&retrying(1));
    let seen = failing(&rig, 1, 2, |incoming| answer(503, incoming)).await;
    let began = Instant::now();
    let (status, got) = post_to(&rig, 1000).await;
    let took = began.elapsed();
    assert_eq!((status, got.len()), (200, 1000));
    assert!(got.iter().enumerate().all(|(at, byte)| *byte == at as u8));
    assert_eq!(seen.load(Ordering::Relaxed), 3);
    // 100 ms and 200 ms, each at most half as much again.
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_millis(470),
        "{took:?}"
    );
    let done = &rig.done(1).await[0];
    assert_eq!(
        (done.status, done.attempts, done.retried, done.fault),
        (200, 3, Some(Retried::Status), None)
    );
    assert_eq!(done.bytes_sent, 1000, "nothing of what was dropped");
    let metrics = metrics(&rig).await;
    assert_eq!(
        (metrics.retry.by[Retried::Status as usize], metrics.retry.succeeded),
        (2, 1)
    );
    assert_eq!(metrics.endpoints[0].responses[5], 2);
    assert_eq!(
        metrics.upstream_connections_total, 1,
        "streams were reset, not the connection"
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_is_passed_on_as_it_is() {
    let rig = start(&retrying(2));
    let one = failing(&rig, 1, 100, |incoming| answer(500, incoming)).await;
    let two = failing(&rig, 2, 100, |incoming| answer(503, incoming)).await;
    let (_, got) = post_to(&rig, 10).await;
    assert_eq!(got, b"failed");
    assert_eq!(
        (one.load(Ordering::Relaxed), two.load(Ordering::Relaxed)),
        (2, 2),
        "another endpoint first"
    );
    let done = &rig.done(1).await[0];
    assert_eq!((done.attempts, done.fault), (4, None));
    let metrics = metrics(&rig).await;
    assert_eq!(metrics.retry.not[NotRetried::Limit as usize], 1);
    assert_eq!(metrics.retry.succeeded, 0);
}

#[tokio::test(start_paused = true)]
async fn other_statuses_and_other_rules_are_not_retried() {
    let rig = start(&retrying(1));
    let seen = failing(&rig, 1, 100, |incoming| answer(502, incoming)).await;
    assert_eq!(post_to(&rig, 10).await.0, 502);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    let rig = start(&Config::new(1));
    let seen = failing(&rig, 1, 100, |incoming| answer(503, incoming)).await;
    assert_eq!(post_to(&rig, 10).await.0, 503);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn resets_and_attempts_that_take_too_long_go_again_whatever_the_codes() {
    for (why, backend) in [
        (Retried::Reset, None),
        (Retried::Timeout, Some(Duration::from_millis(200))),
    ] {
        let config = retrying(1).rule(|rule| rule.timeouts.backend_request = backend);
        let rig = start(&config);
        let seen = failing(&rig, 1, 2, move |(_, mut respond): Incoming| async move {
            if backend.is_some() {
                sleep(Duration::from_secs(5)).await;
            } else {
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
            }
        })
        .await;
        let began = Instant::now();
        assert_eq!(post_to(&rig, 100).await, (200, (0..100).collect()), "{why:?}");
        assert_eq!(seen.load(Ordering::Relaxed), 3);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(rig.done(1).await[0].retried, Some(why));
    }
}

#[tokio::test(start_paused = true)]
async fn without_retries_an_attempt_that_takes_too_long_is_a_504() {
    let config = Config::new(1).rule(|rule| {
        rule.timeouts.backend_request = Some(Duration::from_millis(200));
        rule.timeouts.request = Some(Duration::from_secs(10));
    });
    let rig = start(&config);
    let _seen = failing(&rig, 1, 100, |kept: Incoming| async move {
        sleep(Duration::from_secs(60)).await;
        drop(kept);
    })
    .await;
    let began = Instant::now();
    assert_eq!(post_to(&rig, 10).await.0, 504);
    assert!(began.elapsed() < Duration::from_millis(250));
    let done = &rig.done(1).await[0];
    assert_eq!((done.fault, done.attempts), (Some(Fault::AttemptTimeout), 1));
}

#[tokio::test(start_paused = true)]
async fn the_whole_ends_with_its_own_timeout_in_an_attempt_or_in_a_pause() {
    for answers_after in [Duration::from_millis(300), Duration::from_millis(0)] {
        let config = retrying(1).rule(|rule| rule.timeouts.request = Some(Duration::from_millis(500)));
        let rig = start(&config);
        let seen = failing(&rig, 1, 100, move |incoming| async move {
            sleep(answers_after).await;
            answer(503, incoming).await;
        })
        .await;
        let began = Instant::now();
        assert_eq!(post_to(&rig, 10).await.0, 504);
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(500) && took < Duration::from_millis(510),
            "{took:?}"
        );
        assert!(seen.load(Ordering::Relaxed) < 4);
        assert_eq!(rig.done(1).await[0].fault, Some(Fault::DeadlineExceeded));
        // Nothing of it is left.
        sleep(Duration::from_secs(3)).await;
        assert!(seen.load(Ordering::Relaxed) < 4);
        assert_eq!(rig.with(|driver| driver.engine.live().1).await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_the_pause() {
    let rig = start(&retrying(1));
    let seen = failing(&rig, 1, 100, |incoming| answer(503, incoming)).await;
    let mut client = client(&rig).await;
    let (response, mut out) = client.send_request(get("/"), false).unwrap();
    sleep(Duration::from_millis(50)).await;
    out.send_reset(h2::Reason::CANCEL);
    drop(response);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    let done = &rig.done(1).await[0];
    assert_eq!((done.fault, done.attempts), (Some(Fault::ClientGone), 1));
}

#[tokio::test(start_paused = true)]
async fn a_body_larger_than_what_iskept_is_not_sent_twice() {
    let rig = start(&retrying(1));
    let seen = failing(&rig, 1, 100, |(mut request, respond): Incoming| async move {
        let _ = body(request.body_mut()).await;
        answer(503, (request, respond)).await;
    })
    .await;
    let len = Limits::default().replay_bytes_max + 1;
    assert_eq!(post_to(&rig, len).await.0, 503);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    assert_eq!(metrics(&rig).await.retry.not[NotRetried::Body as usize], 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_still_comes_follows_the_attempt_that_is_made() {
    let rig = start(&retrying(1));
    let _seen = failing(&rig, 1, 2, |incoming| answer(503, incoming)).await;
    let mut client = client(&rig).await;
    let request = Request::post("http://example.com/").body(()).unwrap();
    let (response, mut out) = client.send_request(request, false).unwrap();
    let sender = tokio::spawn(async move {
        for part in 0..20_u8 {
            send_all(&mut out, Bytes::from(vec![part; 400]), part == 19)
                .await
                .unwrap();
            sleep(Duration::from_millis(20)).await;
        }
    });
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let got = body(&mut response.into_body()).await.unwrap().0;
    let expected: Vec<u8> = (0..20_u8).flat_map(|part| vec![part; 400]).collect();
    assert!(got == expected, "{} bytes", got.len());
    sender.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn when_everything_fails_the_budget_bounds_what_endpoints_get() {
    let limits = Limits {
        retries_per_second: 1,
        ..Limits::default()
    };
    let rig = Rig::start(retrying(1).snapshot(), limits);
    let seen = failing(&rig, 1, u32::MAX, |incoming| answer(503, incoming)).await;
    let client = client(&rig).await;
    let mut flight = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let client = client.clone();
        flight.spawn(async move {
            let (response, _) = client.ready().await.unwrap().send_request(get("/"), true).unwrap();
            response.await.unwrap().status().as_u16()
        });
    }
    assert!(flight.join_all().await.iter().all(|status| *status == 503));
    let seen = seen.load(Ordering::Relaxed);
    assert!((1000..=1220).contains(&seen), "a fifth more and ten: {seen}");
    let metrics = metrics(&rig).await;
    assert!(metrics.retry.not[NotRetried::Budget as usize] >= 780);
    assert!(metrics.endpoints[0].retries_over_budget_total >= 780);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_cannot_be_connected_to_are_tried_again_after_the_others() {
    let rig = start(&retrying(1));
    let late = rig.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(150)).await;
        failing(&late, 1, 0, |_| sleep(Duration::ZERO)).await;
    });
    assert_eq!(post_to(&rig, 10).await.0, 200);
    let done = &rig.done(1).await[0];
    assert_eq!(done.retried, Some(Retried::Connect));
    assert!(done.attempts >= 3, "{}", done.attempts);
}

// === gRPC ===

fn trailers_only(status: &str) -> Response<()> {
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", status)
        .body(())
        .unwrap()
}

async fn grpc_call(rig: &Rig) -> Response<h2::RecvStream> {
    let (response, mut out) = client(rig).await.send_request(call("/echo.Echo/Unary"), false).unwrap();
    send_all(&mut out, Bytes::from_static(b"\0\0\0\0\x01x"), true)
        .await
        .unwrap();
    response.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_grpc_status_and_nothing_else_goes_again_and_the_server_is_told() {
    let rig = start(&retrying(1));
    let _seen = failing(&rig, 1, 2, |(_, mut respond): Incoming| async move {
        respond.send_response(trailers_only("14"), true).unwrap();
    })
    .await;
    let response = grpc_call(&rig).await;
    assert_eq!(response.headers()["echo-grpc-previous-rpc-attempts"], "2");
    assert_eq!(rig.done(1).await[0].retried, Some(Retried::GrpcStatus));
}

#[tokio::test(start_paused = true)]
async fn a_grpc_status_that_is_not_named_is_the_answer() {
    let rig = start(&retrying(1));
    let seen = failing(&rig, 1, 2, |(_, mut respond): Incoming| async move {
        respond.send_response(trailers_only("13"), true).unwrap();
    })
    .await;
    assert_eq!(grpc_call(&rig).await.headers()["grpc-status"], "13");
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_server_says_when_to_come_again_or_not_at_all() {
    for (pushback, attempts) in [("700", 2), ("-1", 1), ("soon", 1)] {
        let rig = start(&retrying(1));
        let seen = failing(&rig, 1, 1, move |(_, mut respond): Incoming| async move {
            let mut response = trailers_only("14");
            let value = pushback.parse().unwrap();
            response.headers_mut().insert("grpc-retry-pushback-ms", value);
            respond.send_response(response, true).unwrap();
        })
        .await;
        let began = Instant::now();
        grpc_call(&rig).await;
        assert_eq!(seen.load(Ordering::Relaxed), attempts, "{pushback}");
        let took = began.elapsed();
        match attempts {
            1 => assert_eq!(metrics(&rig).await.retry.not[NotRetried::Pushback as usize], 1),
            _ => assert!(
                took >= Duration::from_millis(700) && took < Duration::from_millis(720),
                "{took:?}"
            ),
        }
    }
}

// === HTTP/1.1 ===

fn http1(endpoints: u8) -> Config {
    retrying(endpoints).rule(|rule| rule.destinations[0].to.protocol = UpstreamProtocol::Http1)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(start_paused = true)]
async fn what_an_http1_endpoint_said_in_vain_is_read_and_its_connection_goes_on() {
    let rig = start(&http1(1));
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = Text::client(&rig).await;
    client.send(GET).await;
    let mut upstream = endpoint.accept().await;
    for failed in [
        "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 No\r\nContent-Length: 6\r\n\r\nfailed",
        "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfai\r\n3\r\nled\r\n0\r\n\r\n",
    ] {
        upstream.message().await.expect("a request");
        let (head, rest) = failed.split_at(failed.len() - 2);
        upstream.send(head).await;
        sleep(Duration::from_millis(1)).await;
        upstream.send(rest).await;
    }
    upstream.message().await.expect("the fourth on the same connection");
    upstream.send(OK).await;
    assert_eq!(client.message().await.expect("an answer").text(), "ok");
    let metrics = metrics(&rig).await;
    assert_eq!(metrics.upstream_connections_total, 1);
    assert_eq!(metrics.retry.by[Retried::Status as usize], 3);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_goes_on_and_on_or_closes_gets_another_connection() {
    for failed in [
        "HTTP/1.1 503 No\r\nContent-Length: 300000\r\n\r\nfailed",
        "HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 6\r\n\r\nfailed",
        "HTTP/1.1 503 No\r\n\r\nfailed",
    ] {
        let rig = start(&http1(1));
        let mut endpoint = Endpoint::new(&rig, 1).await;
        let mut client = Text::client(&rig).await;
        client.send(GET).await;
        let mut upstream = endpoint.accept().await;
        upstream.message().await.expect("a request");
        upstream.send(failed).await;
        let mut upstream = endpoint.accept().await;
        upstream.message().await.expect("the request again");
        upstream.send(OK).await;
        assert_eq!(client.message().await.expect("an answer").text(), "ok", "{failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_break_before_the_answer_are_followed_by_others_also_for_post() {
    let rig = start(&http1(1));
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = Text::client(&rig).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        .await;
    for _ in 0..2 {
        let mut upstream = endpoint.accept().await;
        assert_eq!(upstream.message().await.expect("a request").text(), "body");
        upstream.send("HTTP/1.1 200 OK\r\nContent-").await;
    }
    let mut upstream = endpoint.accept().await;
    assert_eq!(upstream.message().await.expect("the request").text(), "body");
    upstream.send(OK).await;
    assert_eq!(client.message().await.expect("an answer").text(), "ok");
    assert_eq!(rig.done(1).await[0].retried, Some(Retried::Reset));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_began_is_never_followed_by_another() {
    let rig = start(&http1(1));
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = Text::client(&rig).await;
    client.send(GET).await;
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    client.head().await.expect("a head");
    drop(upstream);
    assert_eq!(client.rest().await, b"half");
    let done = &rig.done(1).await[0];
    assert_eq!((done.attempts, done.retried), (1, None));
}
