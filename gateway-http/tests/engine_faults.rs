//! What goes wrong: resets, deadlines, endpoints that fail, GOAWAY, config changes, drain. With the `h2` crate as peers.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/peer.rs"]
mod peer;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/rig.rs"]
mod rig;

use bytes::Bytes;
use config::{Config, endpoint_addr};
use gateway_core::fault::Fault;
use gateway_core::ir::{Destination, FieldEdits, Filter, PathRewrite, Rewrite};
use gateway_core::lower::Ids;
use gateway_http::limits::Limits;
use h2::Reason;
use http::Response;
use peer::{Incoming, body, call, client, echo, endpoint, endpoint_with, get, log, send_all};
use rig::Rig;
use std::time::Duration;
use tokio::time::Instant;

async fn rig(config: Config) -> Rig {
    Rig::start(config.snapshot(), Limits::default())
}

/// Never answers; tells how its stream was reset.
async fn hang((request, mut respond): Incoming, tell: tokio::sync::mpsc::UnboundedSender<Reason>) {
    let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
    drop(request);
    if let Ok(reason) = reason {
        let _ = tell.send(reason);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_the_endpoint_with_its_code() {
    let rig = rig(Config::new(1)).await;
    let (tell, mut told) = log();
    let _endpoint = endpoint(&rig, 1, move |incoming| hang(incoming, tell.clone())).await;
    let mut client = client(&rig).await;
    let (response, mut out) = client.send_request(call("/echo.Echo/Unary"), false).unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(rig.with(|driver| driver.engine.live()).await, (1, 1));
    out.send_reset(Reason::CANCEL);
    drop(response);
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
    let done = rig.done(1).await;
    assert_eq!((done[0].fault, done[0].status), (Some(Fault::ClientGone), 0));
}

#[tokio::test(start_paused = true)]
async fn an_endpoints_reset_reaches_the_client_with_its_code() {
    let rig = rig(Config::new(1)).await;
    let _endpoint = endpoint(&rig, 1, |(_, mut respond): Incoming| async move {
        let mut out = respond.send_response(Response::new(()), false).unwrap();
        out.send_data(Bytes::from_static(b"partial"), false).unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
        out.send_reset(Reason::ENHANCE_YOUR_CALM);
    })
    .await;
    let mut client = client(&rig).await;
    let (response, _) = client.send_request(get("/"), true).unwrap();
    let error = body(response.await.unwrap().body_mut()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::Reset));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels_what_it_asked_for() {
    let rig = rig(Config::new(1)).await;
    let (tell, mut told) = log();
    let _endpoint = endpoint(&rig, 1, move |incoming| hang(incoming, tell.clone())).await;
    let socket = rig.socket(gateway_http::engine::DownstreamProtocol::Http2).await;
    let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
    let task = tokio::spawn(connection);
    let _pending = send.send_request(call("/echo.Echo/Unary"), true).unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    task.abort();
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
    rig.done(1).await;
    assert_eq!(rig.with(|driver| driver.engine.live()).await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_grpc_deadline_is_forwarded_and_kept() {
    let rig = rig(Config::new(1)).await;
    let (tell, mut told) = log();
    let (seen, mut timeouts) = log();
    let _endpoint = endpoint(&rig, 1, move |incoming: Incoming| {
        let _ = seen.send(incoming.0.headers()["grpc-timeout"].to_str().unwrap().to_owned());
        hang(incoming, tell.clone())
    })
    .await;
    let mut client = client(&rig).await;
    let mut request = call("/echo.Echo/Unary");
    request.headers_mut().insert("grpc-timeout", "200m".parse().unwrap());
    let start = Instant::now();
    let (response, _) = client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "4");
    assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < Duration::from_millis(210));
    assert_eq!(timeouts.recv().await.as_deref(), Some("200m"));
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn a_route_timeout_answers_504() {
    let config = Config::new(1).rule(|rule| rule.timeouts.request = Some(Duration::from_millis(50)));
    let rig = rig(config).await;
    let (tell, mut told) = log();
    let _endpoint = endpoint(&rig, 1, move |incoming| hang(incoming, tell.clone())).await;
    let mut client = client(&rig).await;
    let (response, _) = client.send_request(get("/"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 504);
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connect_goes_to_another_endpoint_body_and_all() {
    let rig = rig(Config::new(2)).await;
    let _endpoint = endpoint(&rig, 2, |incoming| echo("be2", incoming)).await;
    let mut client = client(&rig).await;
    for _ in 0..4 {
        let (response, mut out) = client.send_request(call("/echo.Echo/Unary"), false).unwrap();
        send_all(&mut out, Bytes::from(vec![7; 100_000]), true).await.unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["x-endpoint"], "be2");
        assert_eq!(body(&mut response.into_body()).await.unwrap().0, vec![7; 100_000]);
    }
    let done = rig.done(4).await;
    assert!(done.iter().any(|done| done.attempts == 2) && done.iter().all(|done| done.fault.is_none()));
    assert!(
        done.iter().filter(|done| done.attempts == 2).count() < 3,
        "the failed endpoint is left out for a while"
    );
    assert!(rig.with(|driver| driver.engine.metrics().retries_total).await >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_hangs_is_given_up_in_time() {
    let rig = rig(Config::new(2)).await;
    rig.with(|driver| driver.silent.push(endpoint_addr(1))).await;
    let _endpoint = endpoint(&rig, 2, |incoming| echo("be2", incoming)).await;
    let mut client = client(&rig).await;
    let start = Instant::now();
    for _ in 0..2 {
        let (response, _) = client.send_request(get("/"), true).unwrap();
        assert_eq!(response.await.unwrap().headers()["x-endpoint"], "be2");
    }
    let waited = start.elapsed();
    assert!(
        waited >= Duration::from_secs(2) && waited < Duration::from_millis(2100),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_any_endpoint_the_answer_is_503_or_unavailable() {
    let rig = rig(Config::new(2)).await;
    let mut client = client(&rig).await;
    let (response, _) = client.send_request(get("/"), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 503);
    let (text, _) = body(&mut response.into_body()).await.unwrap();
    assert_eq!(text, b"no endpoint could be connected to\n");
    let (response, _) = client.send_request(call("/echo.Echo/Unary"), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["grpc-status"].as_bytes()),
        (200, &b"14"[..])
    );
    assert_eq!(rig.done(2).await[1].grpc_status, Some(14));
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_tried_elsewhere_with_its_body() {
    let rig = rig(Config::new(2)).await;
    let _one = endpoint(&rig, 1, |(request, mut respond): Incoming| async move {
        let mut incoming = request.into_body();
        let _ = incoming.data().await;
        respond.send_reset(Reason::REFUSED_STREAM);
    })
    .await;
    let _two = endpoint(&rig, 2, |incoming| echo("be2", incoming)).await;
    let mut client = client(&rig).await;
    for _ in 0..4 {
        let (response, mut out) = client.send_request(call("/echo.Echo/Unary"), false).unwrap();
        out.send_data(Bytes::from_static(b"once"), false).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        out.send_data(Bytes::from_static(b" more"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["x-endpoint"], "be2");
        assert_eq!(body(&mut response.into_body()).await.unwrap().0, b"once more");
    }
    let done = rig.done(4).await;
    assert!(done.iter().any(|done| done.attempts == 2) && done.iter().all(|done| done.fault.is_none()));
    assert_eq!(done[0].bytes_received, 9, "bytes of the client are counted once");
}

#[tokio::test(start_paused = true)]
async fn after_a_goaway_old_streams_finish_and_new_ones_go_to_a_new_connection() {
    let rig = rig(Config::new(1)).await;
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let mut client = client(&rig).await;
    let (first, _) = client.send_request(call("/echo.Echo/Unary"), true).unwrap();
    let mut old = h2::server::handshake(sockets.recv().await.unwrap()).await.unwrap();
    let (_, mut respond) = old.accept().await.unwrap().unwrap();
    // Goes away after its first stream; the second one may be on its way.
    old.graceful_shutdown();
    let (second, _) = client.send_request(call("/echo.Echo/Unary"), true).unwrap();
    tokio::spawn(async move {
        respond
            .send_response(Response::builder().header("x-from", "old").body(()).unwrap(), true)
            .unwrap();
        while let Some(Ok((_, mut respond))) = old.accept().await {
            respond
                .send_response(Response::builder().header("x-from", "old").body(()).unwrap(), true)
                .unwrap();
        }
    });
    tokio::spawn(async move {
        let socket = sockets.recv().await.unwrap();
        let mut new = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut respond))) = new.accept().await {
            respond
                .send_response(Response::builder().header("x-from", "new").body(()).unwrap(), true)
                .unwrap();
        }
    });
    assert_eq!(first.await.unwrap().headers()["x-from"], "old");
    let from = second.await.unwrap().headers()["x-from"].clone();
    assert!(from == "new" || from == "old");
    let (third, _) = client.send_request(call("/echo.Echo/Unary"), true).unwrap();
    assert_eq!(third.await.unwrap().headers()["x-from"], "new");
    assert!(rig.done(3).await.iter().all(|done| done.fault.is_none()));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_dies_fails_only_what_it_had() {
    let rig = rig(Config::new(2)).await;
    let (tell, _told) = log();
    let one = endpoint(&rig, 1, move |incoming| hang(incoming, tell.clone())).await;
    let _two = endpoint(&rig, 2, |incoming| echo("be2", incoming)).await;
    let mut client = client(&rig).await;
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.push(client.send_request(call("/echo.Echo/Unary"), true).unwrap().0);
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    one.abort();
    rig.with(|driver| driver.listening.remove(&endpoint_addr(1))).await;
    let mut failed = 0;
    for call in calls {
        failed += usize::from(
            call.await
                .unwrap()
                .headers()
                .get("grpc-status")
                .is_some_and(|code| code == "14"),
        );
    }
    assert_eq!(failed, 5);
    for _ in 0..10 {
        let (response, _) = client.send_request(call("/echo.Echo/Unary"), true).unwrap();
        assert_eq!(response.await.unwrap().headers()["x-endpoint"], "be2");
    }
}

#[tokio::test(start_paused = true)]
async fn more_streams_than_an_endpoint_takes_wait_their_turn() {
    let rig = rig(Config::new(1)).await;
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    let _endpoint = endpoint_with(&rig, 1, builder, |incoming| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        echo("be1", incoming).await;
    })
    .await;
    let mut client = client(&rig).await;
    let mut calls = Vec::new();
    for _ in 0..100 {
        let (response, mut out) = client.send_request(call("/echo.Echo/Unary"), false).unwrap();
        send_all(&mut out, Bytes::from_static(b"body"), true).await.unwrap();
        calls.push(response);
    }
    for call in calls {
        let response = call.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(body(&mut response.into_body()).await.unwrap().0, b"body");
    }
    let done = rig.done(100).await;
    assert!(
        done.iter()
            .all(|done| done.fault.is_none() && done.grpc_status.is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn broken_configuration_and_unknown_paths_are_answered_here() {
    let config = Config::new(1).rule(|rule| {
        rule.matches[0].path = gateway_core::ir::PathMatch::Prefix("/known".to_owned());
        rule.destinations[0].to.to = Destination::Fail {
            status: 500,
            why: "no such Service".to_owned(),
        };
    });
    let rig = rig(config).await;
    let mut client = client(&rig).await;
    for (request, status) in [(get("/known/x"), 500), (get("/other"), 404)] {
        let (response, _) = client.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), status);
    }
    let (response, mut out) = client.send_request(call("/other"), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "12");
    assert_eq!(response.headers()["content-type"], "application/grpc");
    // The rest of the request is not wanted.
    let reset = std::future::poll_fn(|cx| out.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, Reason::NO_ERROR);
    let faults: Vec<_> = rig.done(3).await.iter().map(|done| done.fault).collect();
    assert_eq!(
        faults,
        [Some(Fault::Broken), Some(Fault::NoRoute), Some(Fault::NoRoute)]
    );
}

#[tokio::test(start_paused = true)]
async fn filters_edit_heads_on_their_way() {
    let edits = |set: &str, add: &str, remove: &str| FieldEdits {
        set: vec![(set.to_owned(), "set".to_owned())],
        add: vec![(add.to_owned(), "added".to_owned())],
        remove: vec![remove.to_owned()],
    };
    let config = Config::new(1).rule(|rule| {
        rule.matches[0].path = gateway_core::ir::PathMatch::Prefix("/old".to_owned());
        rule.filters = vec![
            Filter::RequestHeaders(edits("x-set", "x-add", "x-gone")),
            Filter::ResponseHeaders(edits("x-endpoint", "x-more", "echo-x-set")),
            Filter::Rewrite(Rewrite {
                hostname: Some("internal.example".to_owned()),
                path: Some(PathRewrite::Prefix("/new".to_owned())),
            }),
        ];
    });
    let rig = rig(config).await;
    let _endpoint = endpoint(&rig, 1, |incoming| echo("be1", incoming)).await;
    let mut client = client(&rig).await;
    let mut request = get("/old/x?q=1");
    request.headers_mut().insert("x-gone", "1".parse().unwrap());
    request
        .headers_mut()
        .insert("x-forwarded-for", "203.0.113.9".parse().unwrap());
    request.headers_mut().insert("x-request-id", "mine".parse().unwrap());
    let (response, _) = client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    let fields = response.headers();
    assert_eq!(fields["echo-path"], "/new/x?q=1");
    assert_eq!(fields["echo-authority"], "internal.example");
    assert_eq!(fields["echo-x-add"], "added");
    assert_eq!(fields["echo-x-forwarded-for"], "198.18.1.2");
    assert_eq!(fields["echo-x-request-id"], "mine");
    assert_eq!(fields["x-endpoint"], "set");
    assert_eq!(fields["x-more"], "added");
    assert!(fields.get("echo-x-gone").is_none() && fields.get("echo-x-set").is_none());
    let done = rig.done(1).await;
    assert_eq!(
        (done[0].path.as_str(), done[0].request_id.as_str()),
        ("/old/x?q=1", "mine")
    );
}

#[tokio::test(start_paused = true)]
async fn streams_keep_their_revision_and_moved_endpoints_get_new_connections() {
    let mut ids = Ids::default();
    let config = Config::new(1);
    let rig = Rig::start(config.lower(&mut ids, 1), Limits::default());
    let _one = endpoint(&rig, 1, |incoming| echo("be1", incoming)).await;
    let _two = endpoint(&rig, 2, |incoming| echo("be2", incoming)).await;
    let mut client = client(&rig).await;
    let (response, mut out) = client.send_request(call("/echo.Echo/Chat"), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.headers()["x-endpoint"], "be1");
    let mut moved = config.clone();
    moved.endpoints = vec![endpoint_addr(2)];
    let snapshot = moved.lower(&mut ids, 2);
    rig.with(move |driver| {
        let now = driver.now();
        driver.engine.publish(snapshot, now);
    })
    .await;
    let (second, _) = client.send_request(call("/echo.Echo/Unary"), true).unwrap();
    assert_eq!(second.await.unwrap().headers()["x-endpoint"], "be2");
    // The old stream lives on.
    send_all(&mut out, Bytes::from_static(b"still here"), true)
        .await
        .unwrap();
    assert_eq!(body(&mut response.into_body()).await.unwrap().0, b"still here");
    rig.done(2).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let upstream = rig
        .with(|driver| driver.engine.metrics().upstream_connections_active)
        .await;
    assert_eq!(
        upstream, 1,
        "the connection to the old address closed with its last stream"
    );
}

#[tokio::test(start_paused = true)]
async fn drain_serves_what_is_under_way_and_then_closes() {
    let rig = rig(Config::new(1)).await;
    let _endpoint = endpoint(&rig, 1, |incoming| echo("be1", incoming)).await;
    let mut client = client(&rig).await;
    let (response, mut out) = client.send_request(call("/echo.Echo/Chat"), false).unwrap();
    let response = response.await.unwrap();
    rig.with(|driver| {
        let now = driver.now();
        driver.engine.drain(now);
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(rig.with(|driver| driver.engine.live()).await, (1, 1));
    send_all(&mut out, Bytes::from_static(b"last words"), true)
        .await
        .unwrap();
    assert_eq!(body(&mut response.into_body()).await.unwrap().0, b"last words");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(rig.with(|driver| driver.engine.live()).await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_gets_431() {
    let rig = rig(Config::new(1)).await;
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(1 << 20);
    let mut client = peer::client_with(&rig, builder).await;
    let mut request = get("/");
    for number in 0..300 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        request.headers_mut().insert(name, "value".parse().unwrap());
    }
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 431);
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::HeadTooLarge));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_close_on_both_sides() {
    let rig = rig(Config::new(1)).await;
    let _endpoint = endpoint(&rig, 1, |incoming| echo("be1", incoming)).await;
    let mut client = client(&rig).await;
    let (response, _) = client.send_request(get("/"), true).unwrap();
    body(response.await.unwrap().body_mut()).await.unwrap();
    let count = |rig: Rig| async move {
        rig.with(|driver| {
            let metrics = driver.engine.metrics();
            (
                metrics.downstream_connections_active,
                metrics.upstream_connections_active,
            )
        })
        .await
    };
    assert_eq!(count(rig.clone()).await, (1, 1));
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(count(rig.clone()).await, (1, 0));
    tokio::time::sleep(Duration::from_secs(240)).await;
    assert_eq!(count(rig).await, (0, 0));
}
