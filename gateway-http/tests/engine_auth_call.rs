//! Rules that call an authorization service over gRPC: what lets a request pass, and that nothing else does.

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

use bytes::Bytes;
use gateway_core::fault::Fault;
use gateway_core::ir::{Cors, Filter, OriginPattern};
use gateway_http::authorization::Unanswered;
use gateway_http::limits::Limits;
use h2::Reason;
use http::{HeaderMap, Request, Response};
use peer::{Incoming, body, call, client, endpoint, get, send_all};
use rig::Rig;
use service::{AUTH, allows, answers, called, counted, denies, field, framed, header};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

fn start() -> Rig {
    Rig::start(called(0).snapshot(), Limits::default())
}

async fn ask(rig: &Rig, request: Request<()>) -> (u16, HeaderMap, Vec<u8>) {
    let (response, _) = client(rig).await.send_request(request, true).unwrap();
    let (head, mut incoming) = response.await.unwrap().into_parts();
    let got = body(&mut incoming).await.map_or(Vec::new(), |got| got.0);
    (head.status.as_u16(), head.headers, got)
}

/// The request is refused because of this, once, and its endpoint never hears of it.
async fn is_unanswered(rig: &Rig, why: Unanswered) {
    let seen = counted(rig).await;
    assert_eq!(ask(rig, get("/")).await.0, 403, "{why:?}");
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::AuthFailed), "{why:?}");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(seen.load(Ordering::Relaxed), 0, "it reached the endpoint");
    let metrics = rig.with(|driver| driver.engine.metrics().clone()).await;
    let counted: Vec<_> = Unanswered::ALL
        .into_iter()
        .filter(|why| metrics.auth_unanswered[*why as usize] > 0)
        .collect();
    assert_eq!(
        (counted, metrics.auth_failed_total, metrics.auth_allowed_total),
        (vec![why], 1, 0)
    );
    assert_eq!(rig.with(|driver| driver.engine.live().1).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_allows_changes_the_request_and_its_response() {
    let rig = start();
    let _seen = counted(&rig).await;
    let ok = [
        field(2, &header("X-User", "ann")),
        field(2, &[header("x-shown", "more"), field(2, b"\x08\x01")].concat()),
        field(2, &header("content-length", "7")),
        field(5, b"X-Secret"),
        field(5, b"host"),
        field(5, b":path"),
        field(6, &header("set-cookie", "a=b")),
        field(7, &[field(1, b"user"), field(2, b"ann")].concat()),
        field(8, b"token"),
    ];
    let mut asked = answers(&rig, framed(&allows(&ok)), "0").await;
    let request = Request::get("http://example.com/a?token=1&q=2&t%6Fken=3")
        .header("x-user", "forged")
        .header("x-shown", "1")
        .header("x-secret", "s");
    let (status, head, _) = ask(&rig, request.body(()).unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(head.get_all("echo-x-user").iter().collect::<Vec<_>>(), ["ann"]);
    assert_eq!(head.get_all("echo-x-shown").iter().collect::<Vec<_>>(), ["1", "more"]);
    assert!(!head.contains_key("echo-x-secret") && !head.contains_key("echo-content-length"));
    assert_eq!(head["echo-path"], "/a?q=2&user=ann");
    assert_eq!(head["echo-authority"], "example.com");
    assert_eq!(head["set-cookie"], "a=b");
    let (fields, message) = asked.recv().await.unwrap();
    assert_eq!(fields["content-type"], "application/grpc");
    assert_eq!(
        (&fields["te"], &fields["grpc-timeout"]),
        (&"trailers".parse().unwrap(), &"5000000u".parse().unwrap())
    );
    assert!(gateway_http::ext_authz::message(&message).is_ok());
    for part in [
        &b"198.18.1.2"[..],
        b"198.18.0.10",
        b"x-secret",
        b"/a?token=1&q=2&t%6Fken=3",
        b"HTTP/2",
        b":authority",
    ] {
        assert!(
            message.windows(part.len()).any(|at| at == part),
            "{:?}",
            String::from_utf8_lossy(part)
        );
    }
    assert_eq!(rig.done(1).await[0].fault, None);
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_the_clients_answer() {
    for (denied, status, fault) in [
        (vec![], 403, Fault::AuthDenied),
        (vec![field(1, b"\x08\x91\x03")], 401, Fault::AuthRequired),
        (
            vec![field(1, b"\x08\xae\x02"), field(2, &header("location", "/login"))],
            302,
            Fault::AuthDenied,
        ),
    ] {
        let rig = start();
        let seen = counted(&rig).await;
        let denied = [
            denied,
            vec![
                field(2, &header("set-cookie", "a=b")),
                field(2, &header("set-cookie", "c=d")),
            ],
        ];
        let more = [field(2, &header("bad name", "x")), field(3, b"go away")];
        let _asked = answers(&rig, framed(&denies(&[denied.concat(), more.to_vec()].concat())), "0").await;
        let (got, head, text) = ask(&rig, get("/")).await;
        assert_eq!((got, &text[..]), (status, &b"go away"[..]));
        assert_eq!(head.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=b", "c=d"]);
        assert_eq!(
            (&head["content-length"], head.contains_key("content-type")),
            (&"7".parse().unwrap(), true)
        );
        assert_eq!(head.contains_key("location"), status == 302);
        assert_eq!(rig.done(1).await[0].fault, Some(fault));
        assert_eq!(seen.load(Ordering::Relaxed), 0);
    }
    // A gRPC client is told in its own words.
    let rig = start();
    let _asked = answers(&rig, framed(&denies(&[field(1, b"\x08\x91\x03")])), "0").await;
    let (status, head, _) = ask(&rig, call("/pkg.Echo/Say")).await;
    assert_eq!((status, &head["grpc-status"]), (200, &"16".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_refuses_and_is_counted_by_its_name() {
    let fine = framed(&allows(&[]));
    let big = field(2, &header("x", &"y".repeat(15_000)));
    for (answer, status, why) in [
        (fine.clone(), "7", Unanswered::Status),
        (fine.clone(), "14", Unanswered::Status),
        (fine.clone(), "4", Unanswered::TimedOut),
        (vec![], "0", Unanswered::Malformed),
        (framed(b""), "0", Unanswered::Malformed),
        (fine[..fine.len() - 1].to_vec(), "0", Unanswered::Malformed),
        ([&fine[..], &fine[..]].concat(), "0", Unanswered::Malformed),
        (framed(b"\x0a\x05"), "0", Unanswered::Malformed),
        ([&[1], &fine[1..]].concat(), "0", Unanswered::Compressed),
        (vec![0; 200_000], "0", Unanswered::TooLarge),
        (framed(&[&big[..]; 9].concat()), "0", Unanswered::TooLarge),
        (
            framed(&[field(1, b"\x08\x0d"), field(5, b"")].concat()),
            "0",
            Unanswered::Failed,
        ),
        // What cannot be done to a request is not left out.
        (
            framed(&allows(&[field(2, &header("a b", "c"))])),
            "0",
            Unanswered::Malformed,
        ),
        (
            framed(&allows(&[field(2, &header("a", "b\r\nc: d"))])),
            "0",
            Unanswered::Malformed,
        ),
        (
            framed(&allows(&[field(2, &header(":path", "/admin"))])),
            "0",
            Unanswered::Malformed,
        ),
        (
            framed(&allows(&[field(2, &header("host", "evil"))])),
            "0",
            Unanswered::Malformed,
        ),
        (
            framed(&allows(&[field(6, &header("a\n", "b"))])),
            "0",
            Unanswered::Malformed,
        ),
        (
            framed(&allows(&[field(6, &header(":status", "500"))])),
            "0",
            Unanswered::Malformed,
        ),
        (
            framed(&allows(&[
                field(7, &[field(1, b"k"), field(2, &[b'v'; 16_000])].concat()),
                field(7, &[field(1, b"l"), field(2, &[b'v'; 1000])].concat()),
            ])),
            "0",
            Unanswered::Malformed,
        ),
    ] {
        let rig = start();
        let _asked = answers(&rig, answer, status).await;
        is_unanswered(&rig, why).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_in_any_other_way_refuses() {
    type End = fn(h2::server::SendResponse<Bytes>);
    fn respond(
        mut to: h2::server::SendResponse<Bytes>,
        status: u16,
        more: &[(&str, &str)],
        end: bool,
    ) -> Option<h2::SendStream<Bytes>> {
        let head = more
            .iter()
            .fold(Response::builder().status(status), |head, (name, value)| {
                head.header(*name, *value)
            });
        to.send_response(head.body(()).unwrap(), end).ok()
    }
    const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");
    let ends: [(End, Unanswered); 9] = [
        (|mut to| to.send_reset(Reason::INTERNAL_ERROR), Unanswered::BrokenOff),
        (|mut to| to.send_reset(Reason::REFUSED_STREAM), Unanswered::BrokenOff),
        (
            |to| drop(respond(to, 200, &[GRPC, ("grpc-status", "13")], true)),
            Unanswered::Status,
        ),
        (
            |to| drop(respond(to, 200, &[GRPC, ("grpc-status", "0")], true)),
            Unanswered::Malformed,
        ),
        (|to| drop(respond(to, 200, &[GRPC], true)), Unanswered::Status),
        (|to| drop(respond(to, 503, &[GRPC], true)), Unanswered::Status),
        (
            |to| drop(respond(to, 200, &[("content-type", "text/html")], true)),
            Unanswered::Malformed,
        ),
        (
            |to| {
                let out = respond(to, 200, &[GRPC, ("grpc-encoding", "gzip")], false);
                tokio::spawn(async move {
                    sleep(Duration::from_secs(60)).await;
                    drop(out);
                });
            },
            Unanswered::Compressed,
        ),
        // The message is whole and allows, but nobody says that the call went well.
        (
            |to| {
                let mut out = respond(to, 200, &[GRPC], false).unwrap();
                out.send_data(framed(&allows(&[])).into(), true).unwrap();
            },
            Unanswered::Status,
        ),
    ];
    for (end, why) in ends {
        let rig = start();
        endpoint(&rig, AUTH, move |(_, to): Incoming| async move { end(to) }).await;
        is_unanswered(&rig, why).await;
    }
    // A whole answer without an end comes too late.
    let rig = start();
    endpoint(&rig, AUTH, |(_, to): Incoming| async move {
        let mut out = respond(to, 200, &[GRPC], false).unwrap();
        send_all(&mut out, framed(&allows(&[])).into(), false).await.unwrap();
        sleep(Duration::from_secs(60)).await;
    })
    .await;
    is_unanswered(&rig, Unanswered::TimedOut).await;
    // Nobody listens.
    is_unanswered(&start(), Unanswered::Unreachable).await;
}

#[tokio::test(start_paused = true)]
async fn a_preflight_of_a_rule_with_cors_is_answered_unasked_and_an_answer_may_be_read() {
    let mut config = called(0);
    config.rule.filters.push(Filter::Cors(Cors {
        origins: vec![OriginPattern::Any],
        methods: vec!["PUT".to_owned()],
        headers: Vec::new(),
        exposed: Vec::new(),
        credentials: false,
        max_age_s: 5,
    }));
    for (config, unasked) in [(config, true), (called(0), false)] {
        let rig = Rig::start(config.snapshot(), Limits::default());
        let seen = counted(&rig).await;
        let mut asked = answers(&rig, framed(&denies(&[])), "0").await;
        let preflight = Request::options("http://example.com/")
            .header("origin", "https://a.example")
            .header("access-control-request-method", "PUT");
        let (status, head, _) = ask(&rig, preflight.body(()).unwrap()).await;
        assert_eq!(status, if unasked { 200 } else { 403 });
        assert_eq!(head.contains_key("access-control-allow-methods"), unasked);
        assert_eq!(asked.try_recv().is_err(), unasked);
        let refused = Request::put("http://example.com/").header("origin", "https://a.example");
        let (status, head, _) = ask(&rig, refused.body(()).unwrap()).await;
        assert_eq!(status, 403);
        assert_eq!(
            head.contains_key("access-control-allow-origin"),
            unasked,
            "the page may read it"
        );
        assert!(asked.try_recv().is_ok());
        assert_eq!(seen.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_holds_up_nobody_else() {
    let rig = start();
    let seen = counted(&rig).await;
    let fine = Bytes::from(framed(&allows(&[])));
    endpoint(&rig, AUTH, move |(request, mut respond): Incoming| {
        let fine = fine.clone();
        async move {
            let (_, mut incoming) = request.into_parts();
            let (message, _) = body(&mut incoming).await.unwrap();
            if message.windows(5).any(|part| part == b"/slow") {
                sleep(Duration::from_secs(3)).await;
            }
            let head = Response::builder().header("content-type", "application/grpc");
            let mut out = respond.send_response(head.body(()).unwrap(), false).unwrap();
            send_all(&mut out, fine, false).await.unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            out.send_trailers(trailers).unwrap();
        }
    })
    .await;
    let mut client = client(&rig).await;
    let (slow, _) = client.send_request(get("/slow"), true).unwrap();
    let began = tokio::time::Instant::now();
    let mut fast = Vec::new();
    for _ in 0..50 {
        fast.push(client.send_request(get("/fast"), true).unwrap().0);
    }
    for response in fast {
        assert_eq!(response.await.unwrap().status(), 200);
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(slow.await.unwrap().status(), 200);
    assert_eq!(seen.load(Ordering::Relaxed), 51);
}
