//! Rules that ask an authorization service first: what it is asked, what passes, and that nothing passes it.

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
use gateway_core::ir::{AuthSpeaks, Destination, ExternalAuth, Filter, Mirror, Retry, ServiceName, UpstreamProtocol};
use gateway_http::limits::Limits;
use h2::Reason;
use http::{Request, Response};
use peer::{Incoming, body, call, client, endpoint, get, log, send_all};
use rig::{Done, Rig};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use text::{Endpoint, Text};
use tokio::time::{Instant, sleep};

/// The authorization service's one endpoint.
const AUTH: u8 = 9;

fn guarded() -> Config {
    let mut config = Config::new(1);
    config.shadows = vec![endpoint_addr(AUTH)];
    config.rule.filters.push(Filter::ExternalAuth(ExternalAuth {
        to: Destination::Service(ServiceName::from("default/shadow:50051")),
        protocol: UpstreamProtocol::H2c,
        speaks: AuthSpeaks::Http {
            prefix: "/check".to_owned(),
            shown: vec!["x-shown".to_owned()],
            taken: vec!["x-user".to_owned()],
        },
        body_bytes_max: 0,
    }));
    config
}

fn auth_of(config: &mut Config) -> &mut ExternalAuth {
    let found = config.rule.filters.iter_mut().find_map(|filter| match filter {
        Filter::ExternalAuth(auth) => Some(auth),
        _ => None,
    });
    found.unwrap()
}

fn taken_of(config: &mut Config) -> &mut Vec<String> {
    let AuthSpeaks::Http { taken, .. } = &mut auth_of(config).speaks else {
        panic!("these ask over HTTP");
    };
    taken
}

fn http1(mut config: Config) -> Config {
    auth_of(&mut config).protocol = UpstreamProtocol::Http1;
    config.rule.destinations[0].to.protocol = UpstreamProtocol::Http1;
    config
}

fn start(config: &Config) -> Rig {
    Rig::start(config.snapshot(), Limits::default())
}

/// An endpoint that echoes, and how many requests it saw.
async fn counted(rig: &Rig, number: u8) -> Arc<AtomicU32> {
    let seen = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&seen);
    let task = endpoint(rig, number, move |incoming| {
        counter.fetch_add(1, Ordering::Relaxed);
        peer::echo("be", incoming)
    })
    .await;
    drop(task);
    seen
}

fn ok() -> Response<()> {
    Response::builder()
        .status(200)
        .header("x-user", "ann")
        .body(())
        .unwrap()
}

/// A request on a connection of its own: status, fields as text, body.
async fn ask(rig: &Rig, request: Request<()>, payload: &[u8]) -> (u16, http::HeaderMap, Vec<u8>) {
    let mut client = client(rig).await;
    let (response, mut out) = client.send_request(request, payload.is_empty()).unwrap();
    if !payload.is_empty() {
        let _ = send_all(&mut out, Bytes::copy_from_slice(payload), true).await;
    }
    let (head, mut incoming) = response.await.unwrap().into_parts();
    let got = body(&mut incoming).await.map_or(Vec::new(), |got| got.0);
    (head.status.as_u16(), head.headers, got)
}

/// The one request is refused for `fault` and its endpoint never hears of it.
async fn is_refused(rig: &Rig, seen: &AtomicU32, request: Request<()>, status: u16, fault: Fault) -> Done {
    let (got, _, _) = ask(rig, request, b"some body").await;
    let done = rig.done(1).await.remove(0);
    sleep(Duration::from_secs(20)).await;
    assert_eq!((got, done.status, done.fault), (status, status, Some(fault)));
    assert_eq!(seen.load(Ordering::Relaxed), 0, "it reached the endpoint");
    assert_eq!(rig.with(|driver| driver.engine.live().1).await, 0);
    done
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://example.com{path}"))
        .header("x-shown", "1")
        .header("x-hidden", "2")
        .header("x-user", "forged")
        .header("authorization", "Bearer token")
        .body(())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn any_status_but_200_is_the_clients_answer_and_the_request_goes_nowhere() {
    for status in [201, 202, 204, 206, 302, 304, 400, 401, 403, 404, 429, 500, 503] {
        let mut config = guarded();
        // What the service answers is no failed attempt of the request.
        config.rule.retry = Some(Retry {
            attempts: 3,
            statuses: vec![400, 403, 429, 500, 503],
            grpc_statuses: vec![7],
            backoff: Duration::from_millis(10),
        });
        let rig = start(&config);
        let seen = counted(&rig, 1).await;
        let _auth = endpoint(&rig, AUTH, move |(_, mut respond): Incoming| async move {
            let head = Response::builder().status(status).header("location", "/login");
            respond.send_response(head.body(()).unwrap(), true).unwrap();
        })
        .await;
        let fault = if status == 401 {
            Fault::AuthRequired
        } else {
            Fault::AuthDenied
        };
        is_refused(&rig, &seen, post("/"), status, fault).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_breaks_off_has_refused() {
    for reason in [
        Reason::CANCEL,
        Reason::INTERNAL_ERROR,
        Reason::NO_ERROR,
        Reason::REFUSED_STREAM,
    ] {
        let rig = start(&guarded());
        let seen = counted(&rig, 1).await;
        let asked = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&asked);
        let _auth = endpoint(&rig, AUTH, move |(_, mut respond): Incoming| {
            counter.fetch_add(1, Ordering::Relaxed);
            async move { respond.send_reset(reason) }
        })
        .await;
        is_refused(&rig, &seen, post("/"), 403, Fault::AuthFailed).await;
        // What it did not look at it is asked once more.
        let times = if reason == Reason::REFUSED_STREAM { 2 } else { 1 };
        assert_eq!(asked.load(Ordering::Relaxed), times, "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_breaks_off_is_still_one() {
    let rig = start(&guarded());
    let seen = counted(&rig, 1).await;
    let _auth = endpoint(&rig, AUTH, |(_, mut respond): Incoming| async move {
        let head = Response::builder().status(302).body(()).unwrap();
        let mut out = respond.send_response(head, false).unwrap();
        let _ = send_all(&mut out, Bytes::from_static(b"half"), false).await;
        out.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    is_refused(&rig, &seen, post("/"), 403, Fault::AuthFailed).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_to_ask_is_a_refusal_and_broken_configuration_is_500() {
    // Nobody listens.
    let rig = start(&guarded());
    let seen = counted(&rig, 1).await;
    is_refused(&rig, &seen, post("/"), 403, Fault::AuthFailed).await;
    // No endpoint serves.
    let mut config = guarded();
    config.shadows.clear();
    let rig = start(&config);
    let seen = counted(&rig, 1).await;
    is_refused(&rig, &seen, post("/"), 403, Fault::AuthFailed).await;
    // The reference is broken, or names what is not there.
    for to in [
        Destination::Fail {
            status: 500,
            why: "no such Service".to_owned(),
        },
        Destination::Service(ServiceName::from("default/none:1")),
    ] {
        let mut config = guarded();
        auth_of(&mut config).to = to;
        let rig = start(&config);
        let seen = counted(&rig, 1).await;
        is_refused(&rig, &seen, post("/"), 500, Fault::Broken).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_is_a_refusal_and_interim_ones_are_none() {
    let rig = start(&guarded());
    let seen = counted(&rig, 1).await;
    let (told, mut resets) = log();
    let _auth = endpoint(&rig, AUTH, move |(_, mut respond): Incoming| {
        let told = told.clone();
        async move {
            let _ = respond.send_informational(Response::builder().status(103).body(()).unwrap());
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            told.send(reset.unwrap()).unwrap();
        }
    })
    .await;
    let began = Instant::now();
    let (status, _, _) = ask(&rig, post("/"), b"").await;
    let took = began.elapsed();
    assert_eq!(status, 403);
    assert!(
        (Duration::from_secs(5)..Duration::from_secs(6)).contains(&took),
        "{took:?}"
    );
    assert_eq!(resets.recv().await, Some(Reason::CANCEL), "it is told to stop");
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::AuthFailed));
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_the_requests_deadline_does_nothing() {
    let mut config = guarded();
    config.rule.timeouts.request = Some(Duration::from_secs(1));
    let rig = start(&config);
    let seen = counted(&rig, 1).await;
    let _auth = endpoint(&rig, AUTH, |(_, mut respond): Incoming| async move {
        sleep(Duration::from_secs(2)).await;
        let _ = respond.send_response(ok(), true);
    })
    .await;
    is_refused(&rig, &seen, post("/"), 504, Fault::DeadlineExceeded).await;
}

#[tokio::test(start_paused = true)]
async fn http1_answers_that_are_none_are_refusals() {
    for said in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 1",
        "nonsense\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 10\r\n\r\nhalf",
    ] {
        let rig = start(&http1(guarded()));
        let mut backend = Endpoint::new(&rig, 1).await;
        let mut auth = Endpoint::new(&rig, AUTH).await;
        let mut client = Text::client(&rig).await;
        client.send("GET /a HTTP/1.1\r\nhost: example.com\r\n\r\n").await;
        for _ in 0..2 {
            let mut asked = auth.accept().await;
            assert!(asked.head().await.is_some());
            asked.send(said).await;
            drop(asked);
            sleep(Duration::from_millis(10)).await;
            if auth.sockets.is_empty() {
                break;
            }
        }
        let answer = client.message().await.unwrap();
        assert!(answer.start().starts_with("HTTP/1.1 403"), "{said:?}: {answer:?}");
        assert!(backend.is_quiet(), "{said:?}");
        assert_eq!(rig.done(1).await[0].fault, Some(Fault::AuthFailed), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_question_shows_what_it_may_and_the_request_carries_the_answer() {
    let rig = start(&guarded());
    let (told, mut asked) = log();
    let _auth = endpoint(&rig, AUTH, move |(request, mut respond): Incoming| {
        told.send(request.into_parts().0).unwrap();
        async move {
            sleep(Duration::from_millis(50)).await;
            let mut out = respond.send_response(ok(), false).unwrap();
            let _ = send_all(&mut out, Bytes::from_static(b"fine"), true).await;
        }
    })
    .await;
    let seen = counted(&rig, 1).await;
    let (status, head, got) = ask(&rig, post("/a?q=1"), b"payload").await;
    assert_eq!((status, &got[..]), (200, &b"payload"[..]));
    let users: Vec<_> = head.get_all("echo-x-user").iter().collect();
    assert_eq!(users, ["ann"], "what the client forged is gone");
    assert_eq!(head["echo-path"], "/a?q=1");
    assert_eq!(head["echo-x-hidden"], "2");
    let question = asked.recv().await.unwrap();
    assert_eq!(question.method, "POST");
    assert_eq!(question.uri.path_and_query().unwrap(), "/check/a?q=1");
    assert_eq!(question.uri.authority().unwrap(), "example.com");
    let mut names: Vec<_> = question.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["authorization", "content-length", "x-shown"]);
    assert_eq!(question.headers["content-length"], "0");
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    let done = &rig.done(1).await[0];
    assert_eq!((done.status, done.attempts, done.fault), (200, 1, None));
}

#[tokio::test(start_paused = true)]
async fn a_named_field_is_the_services_alone_and_unnamed_ones_are_all_taken() {
    // It says nothing of x-user; it was shown x-shown, so that stays.
    let mut config = guarded();
    taken_of(&mut config).push("x-shown".to_owned());
    let rig = start(&config);
    let _seen = counted(&rig, 1).await;
    let _auth = endpoint(&rig, AUTH, |(_, mut respond): Incoming| async move {
        let head = Response::builder().status(200).header("x-other", "1").body(()).unwrap();
        respond.send_response(head, true).unwrap();
    })
    .await;
    let (status, head, _) = ask(&rig, post("/"), b"").await;
    assert_eq!(status, 200);
    assert!(!head.contains_key("echo-x-user") && !head.contains_key("echo-x-other"));
    assert_eq!(head["echo-x-shown"], "1");

    let mut config = guarded();
    taken_of(&mut config).clear();
    let rig = start(&config);
    let _seen = counted(&rig, 1).await;
    let _auth = endpoint(&rig, AUTH, |(_, mut respond): Incoming| async move {
        let head = Response::builder()
            .status(200)
            .header("x-other", "1")
            .header("x-other", "2");
        let head = head
            .header("x-user", "ann")
            .header("host", "evil")
            .header("content-type", "a/b");
        respond.send_response(head.body(()).unwrap(), true).unwrap();
    })
    .await;
    let (_, head, _) = ask(&rig, post("/"), b"").await;
    assert_eq!(head["echo-x-user"], "ann");
    assert_eq!(head.get_all("echo-x-other").iter().count(), 2);
    assert_eq!(head["echo-authority"], "example.com");
    assert!(!head.contains_key("echo-host") && !head.contains_key("echo-content-type"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_comes_with_its_fields_and_body_up_to_a_bound() {
    for (len, want) in [(11, 11), (200_000, 64 * 1024)] {
        let rig = start(&guarded());
        let seen = counted(&rig, 1).await;
        let _auth = endpoint(&rig, AUTH, move |(_, mut respond): Incoming| async move {
            let head = Response::builder().status(401).header("www-authenticate", "Basic");
            let head = head.header("content-length", len).header("set-cookie", "a=b");
            let mut out = respond.send_response(head.body(()).unwrap(), false).unwrap();
            let _ = send_all(&mut out, Bytes::from(vec![b'x'; len]), true).await;
        })
        .await;
        let (status, head, got) = ask(&rig, post("/"), b"").await;
        assert_eq!((status, got.len()), (401, want));
        assert_eq!(head["www-authenticate"], "Basic");
        assert_eq!(head["set-cookie"], "a=b");
        assert_eq!(head["content-length"], want.to_string());
        assert_eq!(rig.done(1).await[0].fault, Some(Fault::AuthRequired));
        assert_eq!(seen.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn grpc_calls_are_refused_in_their_own_words() {
    for (status, code) in [(401, "16"), (403, "7"), (302, "7"), (500, "7")] {
        let rig = start(&guarded());
        let seen = counted(&rig, 1).await;
        let _auth = endpoint(&rig, AUTH, move |(_, mut respond): Incoming| async move {
            let head = Response::builder().status(status).body(()).unwrap();
            let mut out = respond.send_response(head, false).unwrap();
            let _ = send_all(&mut out, Bytes::from_static(b"no"), true).await;
        })
        .await;
        let (got, head, body) = ask(&rig, call("/pkg.Echo/Say"), b"\0\0\0\0\0").await;
        assert_eq!((got, &body[..]), (200, &b""[..]));
        assert_eq!(head["grpc-status"], code);
        assert_eq!(seen.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_its_question_back() {
    let rig = start(&guarded());
    let seen = counted(&rig, 1).await;
    let (told, mut asked) = log();
    let _auth = endpoint(&rig, AUTH, move |(_, mut respond): Incoming| {
        let told = told.clone();
        async move {
            told.send(None).unwrap();
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            told.send(reset.ok()).unwrap();
        }
    })
    .await;
    let mut client = client(&rig).await;
    let (response, mut out) = client.send_request(post("/"), false).unwrap();
    assert_eq!(asked.recv().await, Some(None));
    out.send_reset(Reason::CANCEL);
    drop(response);
    assert_eq!(asked.recv().await, Some(Some(Reason::CANCEL)));
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::ClientGone));
    assert_eq!(rig.with(|driver| driver.engine.live().1).await, 0);
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_waits_and_then_arrives_whole() {
    let rig = start(&guarded());
    let _seen = counted(&rig, 1).await;
    let _auth = endpoint(&rig, AUTH, |(_, mut respond): Incoming| async move {
        sleep(Duration::from_secs(2)).await;
        respond.send_response(ok(), true).unwrap();
    })
    .await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut client = client(&rig).await;
    let (response, mut out) = client.send_request(post("/"), false).unwrap();
    let payload = Bytes::from(sent.clone());
    let sending = tokio::spawn(async move { send_all(&mut out, payload, true).await });
    sleep(Duration::from_secs(1)).await;
    assert!(!sending.is_finished(), "its windows hold it back");
    let response = response.await.unwrap();
    assert_eq!(response.headers()["echo-x-user"], "ann");
    let (got, _) = body(&mut response.into_body()).await.unwrap();
    assert!(got == sent);
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_at_once_each_gets_its_own_answer() {
    let rig = start(&guarded());
    let seen = counted(&rig, 1).await;
    let _auth = endpoint(&rig, AUTH, |(request, mut respond): Incoming| async move {
        let number: u64 = request.uri().path().rsplit('/').next().unwrap().parse().unwrap();
        sleep(Duration::from_millis(1000 - number * 7)).await;
        let status = if number.is_multiple_of(3) { 403 } else { 200 };
        let head = Response::builder().status(status).header("x-user", number.to_string());
        respond.send_response(head.body(()).unwrap(), true).unwrap();
    })
    .await;
    let client = client(&rig).await;
    let tasks: Vec<_> = (0..100_u64)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let (response, _) = client.send_request(get(&format!("/{number}")), true).unwrap();
                let response = response.await.unwrap();
                if number.is_multiple_of(3) {
                    assert_eq!(response.status(), 403);
                } else {
                    assert_eq!(response.status(), 200);
                    assert_eq!(response.headers()["echo-x-user"], number.to_string().as_str());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(seen.load(Ordering::Relaxed), 66);
    let metrics = rig.with(|driver| driver.engine.metrics().clone()).await;
    assert_eq!(
        (
            metrics.auth_allowed_total,
            metrics.auth_denied_total,
            metrics.auth_failed_total
        ),
        (66, 34, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_are_refused() {
    const WAITING: usize = 4096;
    let limits = Limits {
        streams_max: 10_000,
        upstream_pending_max: 10_000,
        ..Limits::default()
    };
    let rig = Rig::start(guarded().snapshot(), limits);
    let seen = counted(&rig, 1).await;
    let _auth = endpoint(&rig, AUTH, |(_, mut respond): Incoming| async move {
        let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
    })
    .await;
    let mut client = client(&rig).await;
    let mut refused = 0;
    let mut waiting = Vec::new();
    for number in 0..WAITING + 10 {
        client = client.ready().await.unwrap();
        let (response, _) = client.send_request(get("/"), true).unwrap();
        waiting.push(response);
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for response in waiting.drain(WAITING..) {
        refused += u32::from(response.await.unwrap().status() == 403);
    }
    assert_eq!(refused, 10);
    assert_eq!(rig.with(|driver| driver.engine.live().1).await, WAITING);
    drop(waiting);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(rig.with(|driver| driver.engine.live().1).await, 0);
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn http1_on_all_sides_asks_over_one_connection() {
    let rig = start(&http1(guarded()));
    let mut backend = Endpoint::new(&rig, 1).await;
    let mut auth = Endpoint::new(&rig, AUTH).await;
    let mut client = Text::client(&rig).await;
    let request = "POST /a HTTP/1.1\r\nhost: example.com\r\nx-user: forged\r\ncontent-length: 5\r\n\r\nhello";
    client.send(request).await;
    let mut asked = auth.accept().await;
    let question = asked.message().await.unwrap();
    assert_eq!(question.start(), "POST /check/a HTTP/1.1");
    assert_eq!(
        (
            question.field("host"),
            question.field("content-length"),
            question.field("x-user")
        ),
        (Some("example.com"), Some("0"), None)
    );
    assert!(backend.is_quiet());
    asked
        .send("HTTP/1.1 200 OK\r\nx-user: ann\r\ncontent-length: 2\r\n\r\nok")
        .await;
    let mut served = backend.accept().await;
    let request_there = served.message().await.unwrap();
    assert_eq!(
        (
            request_there.start(),
            request_there.field("x-user"),
            request_there.text()
        ),
        ("POST /a HTTP/1.1", Some("ann"), "hello")
    );
    served.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
    assert_eq!(client.message().await.unwrap().text(), "done");
    // The next one, on the same connections; HEAD, refused.
    client.send("HEAD /b HTTP/1.1\r\nhost: example.com\r\n\r\n").await;
    assert_eq!(
        asked.head().await.unwrap().lines().next(),
        Some("HEAD /check/b HTTP/1.1")
    );
    asked
        .send("HTTP/1.1 403 Forbidden\r\ncontent-length: 100\r\n\r\n")
        .await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 403"));
    client.send(request).await;
    assert_eq!(asked.message().await.unwrap().start(), "POST /check/a HTTP/1.1");
    asked
        .send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        .await;
    assert_eq!(client.message().await.unwrap().text(), "no");
    assert!(auth.is_quiet() && backend.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn tunnels_are_asked_for_as_requests_are() {
    let mut config = http1(guarded());
    let mut connect = config.rule.matches[0].clone();
    connect.method = Some("CONNECT".to_owned());
    config.rule.matches.push(connect);
    let rig = start(&config);
    let mut backend = Endpoint::new(&rig, 1).await;
    let mut auth = Endpoint::new(&rig, AUTH).await;
    let upgrade = "GET /ws HTTP/1.1\r\nhost: example.com\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut client = Text::client(&rig).await;
    client.send(upgrade).await;
    let mut asked = auth.accept().await;
    let question = asked.message().await.unwrap();
    assert_eq!(question.start(), "GET /check/ws HTTP/1.1");
    assert_eq!(question.field("upgrade"), None);
    asked
        .send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        .await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 403"));
    assert!(backend.is_quiet());
    let mut client = Text::client(&rig).await;
    client.send(upgrade).await;
    assert!(asked.message().await.is_some());
    asked.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut served = backend.accept().await;
    assert!(served.head().await.unwrap().contains("upgrade: websocket"));
    // A CONNECT has no path to ask about.
    let mut client = Text::client(&rig).await;
    client
        .send("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n")
        .await;
    let answer = client.head().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(backend.is_quiet() && auth.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn mirrors_get_no_copy_of_what_is_refused_and_a_whole_one_of_what_passes() {
    for allowed in [false, true] {
        let mut config = guarded();
        config.rule.filters.push(Filter::Mirror(Mirror {
            to: Destination::Service(ServiceName::from("default/shadow:50051")),
            protocol: UpstreamProtocol::H2c,
            numerator: 1,
            denominator: 1,
        }));
        let rig = start(&config);
        let _seen = counted(&rig, 1).await;
        let (told, mut copies) = log();
        // The copies go to the same endpoint as the questions.
        let _auth = endpoint(&rig, AUTH, move |(request, mut respond): Incoming| {
            let told = told.clone();
            async move {
                let question = request.uri().path().starts_with("/check");
                let mut incoming = request.into_body();
                if !question {
                    told.send(body(&mut incoming).await.unwrap().0).unwrap();
                }
                sleep(Duration::from_millis(100)).await;
                let status = if allowed { 200 } else { 403 };
                let head = Response::builder().status(status).body(()).unwrap();
                let _ = respond.send_response(head, true);
            }
        })
        .await;
        let (status, _, _) = ask(&rig, post("/a"), b"payload").await;
        assert_eq!(status, if allowed { 200 } else { 403 });
        sleep(Duration::from_secs(1)).await;
        let copy = copies.try_recv().ok();
        assert_eq!(copy.as_deref(), allowed.then_some(&b"payload"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_revision_changes_nothing_for_who_already_asked() {
    for status in [200, 403] {
        let mut config = guarded();
        config.rule.filters.push(Filter::Mirror(Mirror {
            to: Destination::Service(ServiceName::from("default/shadow:50051")),
            protocol: UpstreamProtocol::H2c,
            numerator: 1,
            denominator: 1,
        }));
        let mut ids = gateway_core::lower::Ids::default();
        let rig = Rig::start(config.lower(&mut ids, 1), Limits::default());
        let seen = counted(&rig, 1).await;
        let other = counted(&rig, 2).await;
        let (told, mut asked) = log();
        let _auth = endpoint(&rig, AUTH, move |(request, mut respond): Incoming| {
            told.send(request.uri().path().to_owned()).unwrap();
            async move {
                sleep(Duration::from_secs(1)).await;
                let head = Response::builder().status(status).body(()).unwrap();
                let _ = respond.send_response(head, true);
            }
        })
        .await;
        let mut client = client(&rig).await;
        let (response, _) = client.send_request(get("/a"), true).unwrap();
        assert_eq!(asked.recv().await.as_deref(), Some("/check/a"));
        // No guard, no mirror, and another endpoint.
        let mut next = Config::new(0);
        next.endpoints = vec![endpoint_addr(2)];
        let next = next.lower(&mut ids, 2);
        rig.with(move |driver| {
            let now = driver.now();
            driver.engine.publish(next, now);
        })
        .await;
        assert_eq!(response.await.unwrap().status().as_u16(), status);
        sleep(Duration::from_secs(20)).await;
        let passed = u32::from(status == 200);
        assert_eq!(seen.load(Ordering::Relaxed), passed);
        assert_eq!(other.load(Ordering::Relaxed), 0);
        assert_eq!(asked.try_recv().ok().as_deref(), (passed > 0).then_some("/a"));
        let (response, _) = client.send_request(get("/b"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        assert_eq!(other.load(Ordering::Relaxed), 1, "nobody is asked any more");
    }
}
