//! Bodies that an authorization service is shown: gathered whole within bounds, and passed on as they came.

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
#[path = "support/call.rs"]
mod service;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/text.rs"]
mod text;

use bytes::Bytes;
use config::Config;
use gateway_core::fault::Fault;
use gateway_core::ir::{Destination, Filter, Mirror, ServiceName, UpstreamProtocol};
use gateway_http::limits::Limits;
use h2::Reason;
use http::{HeaderMap, Request, Response};
use peer::{Incoming, body, call, client, endpoint, log, send_all};
use rig::Rig;
use service::{AUTH, allows, answers, asked, called, counted, framed};
use std::sync::atomic::Ordering;
use std::time::Duration;
use text::{Endpoint, Text};
use tokio::time::{Instant, sleep};

fn start(config: &Config) -> Rig {
    Rig::start(config.snapshot(), Limits::default())
}

fn http1(mut config: Config) -> Config {
    for filter in &mut config.rule.filters {
        if let Filter::ExternalAuth(auth) = filter {
            auth.protocol = UpstreamProtocol::Http1;
        }
    }
    config.rule.destinations[0].to.protocol = UpstreamProtocol::Http1;
    config
}

fn payload(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn post() -> Request<()> {
    Request::post("http://example.com/a").body(()).unwrap()
}

/// Nothing is held, and nothing lives.
async fn is_empty(rig: &Rig) {
    sleep(Duration::from_secs(20)).await;
    rig.with(|driver| {
        assert_eq!((driver.engine.measure().held_bytes, driver.engine.live().1), (0, 0));
    })
    .await;
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|at| at == part)
}

#[tokio::test(start_paused = true)]
async fn a_body_is_shown_whole_and_passes_whole_whatever_its_size() {
    // From one octet over what windows hold to what a rule shows at most.
    for len in [1, 5, 20_000, 70_000, 300_000, 3_000_000] {
        let rig = start(&called(len as u32));
        let seen = counted(&rig).await;
        let mut shown = answers(&rig, framed(&allows(&[])), "0").await;
        let sent = payload(len);
        let mut client = client(&rig).await;
        let (response, mut out) = client.send_request(post(), false).unwrap();
        let half = sent.len() / 2;
        send_all(&mut out, sent.slice(..half), false).await.unwrap();
        sleep(Duration::from_millis(100)).await;
        assert!(shown.try_recv().is_err(), "nobody is asked before the end");
        send_all(&mut out, sent.slice(half..), true).await.unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200, "{len}");
        let (got, _) = body(&mut response.into_body()).await.unwrap();
        assert!(got == sent, "{len} octets are not the same");
        let (_, message) = shown.recv().await.unwrap();
        let message = gateway_http::ext_authz::message(&message).unwrap();
        assert!(
            message.ends_with(&sent) || contains(&message[message.len() - len - 20..], &sent),
            "{len}"
        );
        assert_eq!(seen.load(Ordering::Relaxed), 1);
        is_empty(&rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn over_http_the_body_goes_with_its_true_length_and_trailers_stay_behind_it() {
    let rig = start(&asked(1000));
    let (told, mut shown) = log();
    let _auth = endpoint(&rig, AUTH, move |(request, mut respond): Incoming| {
        let told = told.clone();
        async move {
            let (head, mut incoming) = request.into_parts();
            told.send((head.headers, body(&mut incoming).await.unwrap())).unwrap();
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let (told, mut passed) = log();
    let _endpoint = endpoint(&rig, 1, move |(request, mut respond): Incoming| {
        let told = told.clone();
        async move {
            told.send(body(&mut request.into_body()).await.unwrap()).unwrap();
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let mut client = client(&rig).await;
    let (response, mut out) = client.send_request(post(), false).unwrap();
    send_all(&mut out, payload(700), false).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    out.send_trailers(trailers.clone()).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    let (fields, (got, none)) = shown.recv().await.unwrap();
    assert_eq!(
        (&fields["content-length"], got),
        (&"700".parse().unwrap(), payload(700).to_vec())
    );
    assert_eq!(none, None);
    assert_eq!(passed.recv().await.unwrap(), (payload(700).to_vec(), Some(trailers)));
    // An end without body: there is none to show, and nothing to wait for.
    let (response, mut out) = client.send_request(post(), false).unwrap();
    out.send_data(Bytes::new(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    let (fields, (got, _)) = shown.recv().await.unwrap();
    assert_eq!((&fields["content-length"], got.len()), (&"0".parse().unwrap(), 0));
    assert_eq!(passed.recv().await.unwrap(), (Vec::new(), None));
    is_empty(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_longer_body_is_refused_and_nobody_is_asked() {
    for config in [called(1000), asked(1000)] {
        let rig = start(&config);
        let seen = counted(&rig).await;
        let mut shown = answers(&rig, framed(&allows(&[])), "0").await;
        let mut client = client(&rig).await;
        // Said before it comes.
        let said = Request::post("http://example.com/").header("content-length", "1001");
        let (response, mut out) = client.send_request(said.body(()).unwrap(), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 413);
        let _ = send_all(&mut out, payload(1001), true).await;
        // Found out with the octet that is too many.
        let (response, mut out) = client.send_request(post(), false).unwrap();
        send_all(&mut out, payload(1000), false).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let _ = send_all(&mut out, payload(1), false).await;
        assert_eq!(response.await.unwrap().status(), 413);
        // A call is told in its own words.
        let (response, mut out) = client.send_request(call("/pkg.Echo/Say"), false).unwrap();
        let _ = send_all(&mut out, payload(2000), true).await;
        let response = response.await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["grpc-status"]),
            (200, &"8".parse().unwrap())
        );
        let faults: Vec<_> = rig.done(3).await.iter().map(|done| done.fault).collect();
        assert_eq!(faults, [Some(Fault::BodyTooLarge); 3]);
        assert!(shown.try_recv().is_err());
        assert_eq!(seen.load(Ordering::Relaxed), 0);
        is_empty(&rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_in_time_is_not_waited_for() {
    for (request, status) in [(post(), 408), (call("/pkg.Echo/Stream"), 200)] {
        let rig = start(&called(1000));
        let seen = counted(&rig).await;
        let mut shown = answers(&rig, framed(&allows(&[])), "0").await;
        let mut client = client(&rig).await;
        let began = Instant::now();
        let (response, mut out) = client.send_request(request, false).unwrap();
        send_all(&mut out, payload(100), false).await.unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), status);
        assert!((30..40).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        if status == 200 {
            assert_eq!(response.headers()["grpc-status"], "4");
        }
        assert_eq!(rig.done(1).await[0].fault, Some(Fault::RequestTimeout));
        assert!(shown.try_recv().is_err());
        assert_eq!(seen.load(Ordering::Relaxed), 0);
        is_empty(&rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_its_body_is_gathered_leaves_nothing() {
    let rig = start(&called(1_000_000));
    let seen = counted(&rig).await;
    let mut shown = answers(&rig, framed(&allows(&[])), "0").await;
    let mut client = client(&rig).await;
    let (response, mut out) = client.send_request(post(), false).unwrap();
    send_all(&mut out, payload(400_000), false).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let held = rig.with(|driver| driver.engine.measure().held_bytes);
    assert_eq!(held.await, 400_000);
    out.send_reset(Reason::CANCEL);
    drop(response);
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::ClientGone));
    // And one whose connection breaks; of HTTP/1.1 too.
    let mut text = Text::client(&rig).await;
    text.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    sleep(Duration::from_secs(1)).await;
    drop(text);
    is_empty(&rig).await;
    assert!(shown.try_recv().is_err());
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn all_bodies_together_have_a_bound() {
    let limits = Limits {
        held_bytes_max: 100_000,
        ..Limits::default()
    };
    let rig = Rig::start(called(60_000).snapshot(), limits);
    let seen = counted(&rig).await;
    let mut shown = answers(&rig, framed(&allows(&[])), "0").await;
    let mut client = client(&rig).await;
    let (first, mut out) = client.send_request(post(), false).unwrap();
    send_all(&mut out, payload(60_000), false).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let (second, mut other) = client.send_request(post(), false).unwrap();
    send_all(&mut other, payload(50_000), false).await.unwrap();
    assert_eq!(second.await.unwrap().status(), 503, "there is no room for it");
    // And none for a copy of the first in its question.
    out.send_data(Bytes::new(), true).unwrap();
    assert_eq!(first.await.unwrap().status(), 403);
    assert!(shown.try_recv().is_err());
    assert_eq!(seen.load(Ordering::Relaxed), 0);
    is_empty(&rig).await;
    let (third, mut out) = client.send_request(post(), false).unwrap();
    send_all(&mut out, payload(40_000), true).await.unwrap();
    assert_eq!(third.await.unwrap().status(), 200);
    assert!(shown.recv().await.is_some());
    is_empty(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn http1_bodies_of_any_framing_are_shown_and_passed_on() {
    for (head, sent, expects) in [
        ("content-length: 5\r\n", "hello", false),
        (
            "transfer-encoding: chunked\r\n",
            "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            false,
        ),
        (
            "transfer-encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
            false,
        ),
        ("content-length: 5\r\nexpect: 100-continue\r\n", "hello", true),
    ] {
        let rig = start(&http1(asked(5)));
        let mut backend = Endpoint::new(&rig, 1).await;
        let mut auth = Endpoint::new(&rig, AUTH).await;
        let mut client = Text::client(&rig).await;
        for _ in 0..2 {
            client
                .send(&format!("POST /a HTTP/1.1\r\nhost: example.com\r\n{head}\r\n"))
                .await;
            if expects {
                assert!(
                    client.head().await.unwrap().starts_with("HTTP/1.1 100"),
                    "the gateway waits for it"
                );
            }
            assert!(auth.is_quiet());
            client.send(sent).await;
            let mut question = auth.accept().await;
            let shown = question.message().await.unwrap();
            assert_eq!((shown.start(), shown.text()), ("POST /a HTTP/1.1", "hello"));
            assert_eq!(
                (shown.field("content-length"), shown.field("expect")),
                (Some("5"), None)
            );
            question
                .send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await;
            let mut served = backend.accept().await;
            let passed = served.message().await.unwrap();
            assert_eq!((passed.text(), passed.field("expect")), ("hello", None));
            served
                .send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone")
                .await;
            assert_eq!(client.message().await.unwrap().text(), "done");
        }
        // One octet more; what waits for 100 is told before it sends any.
        client
            .send("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\nexpect: 100-continue\r\n\r\n")
            .await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 413"));
        assert!(auth.is_quiet() && backend.is_quiet());
        is_empty(&rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_asked_for_at_once() {
    let rig = start(&http1(asked(5)));
    let mut auth = Endpoint::new(&rig, AUTH).await;
    let mut client = Text::client(&rig).await;
    client
        .send(
            "GET /ws HTTP/1.1\r\nhost: example.com\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let mut question = auth.accept().await;
    assert_eq!(question.message().await.unwrap().field("content-length"), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_did_not_take_the_question_is_asked_again_with_the_same_body_or_not_at_all() {
    for (len, asked_times, status) in [(10_000, 2, 200), (200_000, 1, 403)] {
        let rig = start(&asked(1_000_000));
        let seen = counted(&rig).await;
        let (told, mut shown) = log();
        let times = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let _auth = endpoint(&rig, AUTH, move |(request, mut respond): Incoming| {
            let (told, first) = (told.clone(), times.fetch_add(1, Ordering::Relaxed) == 0);
            async move {
                let (got, _) = body(&mut request.into_body()).await.unwrap();
                told.send(got).unwrap();
                if first {
                    respond.send_reset(Reason::REFUSED_STREAM);
                } else {
                    respond.send_response(Response::new(()), true).unwrap();
                }
            }
        })
        .await;
        let mut client = client(&rig).await;
        let (response, mut out) = client.send_request(post(), false).unwrap();
        send_all(&mut out, payload(len), true).await.unwrap();
        assert_eq!(response.await.unwrap().status(), status);
        for _ in 0..asked_times {
            assert!(shown.recv().await.unwrap() == payload(len));
        }
        assert!(shown.try_recv().is_err());
        assert_eq!(seen.load(Ordering::Relaxed), asked_times - 1);
        is_empty(&rig).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_mirrored_unless_it_is_more_than_a_mirror_may_lag() {
    for (len, copied) in [(10_000, true), (300_000, false)] {
        let mut config = called(1_000_000);
        config.rule.filters.push(Filter::Mirror(Mirror {
            to: Destination::Service(ServiceName::from("default/echo:50051")),
            protocol: UpstreamProtocol::H2c,
            numerator: 1,
            denominator: 1,
        }));
        let rig = start(&config);
        let seen = counted(&rig).await;
        let _shown = answers(&rig, framed(&allows(&[])), "0").await;
        let mut client = client(&rig).await;
        let (response, mut out) = client.send_request(post(), false).unwrap();
        send_all(&mut out, payload(len), true).await.unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(body(&mut response.into_body()).await.unwrap().0 == payload(len));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.load(Ordering::Relaxed), 1 + u32::from(copied));
        let dropped = rig.with(|driver| driver.engine.metrics().mirrors_dropped_total).await;
        assert_eq!(dropped, u64::from(!copied));
        is_empty(&rig).await;
    }
}
