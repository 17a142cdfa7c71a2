//! HTTP/1.1 on one side, HTTP/2 (the `h2` crate) on the other.

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
use gateway_http::limits::Limits;
use http::{HeaderMap, Request, Response};
use rig::Rig;
use std::time::Duration;
use text::{Endpoint, Text, http1_config};

fn rig(config: &Config) -> Rig {
    Rig::start(config.snapshot(), Limits::default())
}

fn post(path: &str) -> http::request::Builder {
    Request::post(format!("http://example.com{path}"))
}

// === HTTP/1.1 client, HTTP/2 endpoint ===

#[tokio::test(start_paused = true)]
async fn an_old_client_reaches_a_new_endpoint() {
    let rig = rig(&Config::new(1));
    let _endpoint = peer::endpoint(&rig, 1, |incoming| peer::echo("one", incoming)).await;
    let mut client = Text::client(&rig).await;
    for _ in 0..3 {
        client
            .send("POST /a?b HTTP/1.1\r\nHost: example.com\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")
            .await;
        let response = client.message().await.expect("a response");
        assert_eq!(response.start(), "HTTP/1.1 200 OK");
        assert_eq!(response.text(), "abcde");
        for (field, value) in [
            ("echo-path", "/a?b"),
            ("echo-authority", "example.com"),
            ("echo-scheme", "http"),
            ("echo-x-a", "1"),
            ("echo-te", "trailers"),
            ("echo-x-forwarded-for", "198.18.1.2"),
        ] {
            assert_eq!(response.field(field), Some(value), "{field}");
        }
        assert_eq!(response.field("echo-transfer-encoding"), None);
        let mut trailers: Vec<&str> = response.trailers.lines().collect();
        trailers.sort_unstable();
        assert_eq!(trailers, ["x-sum: 5", "x-trailer: one"]);
    }
}

#[tokio::test(start_paused = true)]
async fn lengths_and_bodiless_responses_survive_the_way_down() {
    let rig = rig(&Config::new(1));
    let _endpoint = peer::endpoint(&rig, 1, |(request, mut respond): peer::Incoming| async move {
        let head = Response::builder().status(200).header("content-length", "5");
        match request.method().as_str() {
            "HEAD" => drop(respond.send_response(head.body(()).expect("valid"), true)),
            "DELETE" => drop(respond.send_response(Response::builder().status(204).body(()).expect("valid"), true)),
            "PUT" => drop(respond.send_response(Response::new(()), true)),
            _ => {
                let mut out = respond
                    .send_response(head.body(()).expect("valid"), false)
                    .expect("sent");
                let _ = out.send_data(Bytes::from_static(b"hello"), true);
            }
        }
    })
    .await;
    let mut client = Text::client(&rig).await;
    let mut ask = async |method: &str| {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        if method == "HEAD" {
            client.head().await
        } else {
            client.message().await.map(|got| format!("{}{}", got.head, got.text()))
        }
    };
    let with_length = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    assert_eq!(ask("GET").await, Some(format!("{with_length}hello")));
    assert_eq!(ask("HEAD").await.as_deref(), Some(with_length));
    assert_eq!(ask("DELETE").await.as_deref(), Some("HTTP/1.1 204 No Content\r\n\r\n"));
    assert_eq!(
        ask("PUT").await.as_deref(),
        Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    );
    assert_eq!(ask("GET").await, Some(format!("{with_length}hello")));
}

#[tokio::test(start_paused = true)]
async fn a_reset_below_cuts_the_old_clients_response() {
    let rig = rig(&Config::new(1));
    let _endpoint = peer::endpoint(&rig, 1, |(_, mut respond): peer::Incoming| async move {
        let mut out = respond.send_response(Response::new(()), false).expect("sent");
        let _ = out.send_data(Bytes::from_static(b"half"), false);
        tokio::time::sleep(Duration::from_millis(5)).await;
        out.send_reset(h2::Reason::INTERNAL_ERROR);
    })
    .await;
    let mut client = Text::client(&rig).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        client
            .head()
            .await
            .is_some_and(|head| head.contains("transfer-encoding: chunked"))
    );
    assert_eq!(client.rest().await, b"4\r\nhalf\r\n", "no last chunk");
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::Reset));
}

#[tokio::test(start_paused = true)]
async fn many_old_clients_share_one_new_connection() {
    let rig = rig(&Config::new(1));
    let _endpoint = peer::endpoint(&rig, 1, |incoming| peer::echo("one", incoming)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let rig = rig.clone();
        tasks.spawn(async move {
            let mut client = Text::client(&rig).await;
            for round in 0..10 {
                let body = format!("{number}-{round}").repeat(1 + (number * round) % 700);
                client
                    .send(format!(
                        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ))
                    .await;
                assert_eq!(client.message().await.expect("a response").text(), body);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("each got its own");
    }
    let upstream = rig
        .with(|driver| driver.engine.metrics().upstream_connections_total)
        .await;
    assert_eq!(upstream, 1);
    assert_eq!(rig.done(500).await.len(), 500);
}

// === HTTP/2 client, HTTP/1.1 endpoint ===

#[tokio::test(start_paused = true)]
async fn a_new_client_reaches_an_old_endpoint() {
    let rig = rig(&http1_config(1));
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = peer::client(&rig).await;
    let request = post("/a?b")
        .header("te", "trailers")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .expect("valid");
    let (response, mut body) = client.send_request(request, false).expect("sent");
    body.send_data(Bytes::from_static(b"abc"), false).expect("sent");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "3".parse().expect("valid"));
    body.send_trailers(trailers).expect("sent");
    let mut upstream = endpoint.accept().await;
    let got = upstream.message().await.expect("a request");
    assert_eq!(got.start(), "POST /a?b HTTP/1.1");
    assert_eq!((got.field("host"), got.text()), (Some("example.com"), "abc"));
    assert_eq!(
        (got.field("te"), got.field("connection")),
        (Some("trailers"), Some("te"))
    );
    assert_eq!(got.field("cookie"), Some("a=1; b=2"));
    assert_eq!(got.trailers, "x-sum: 3\r\n");
    upstream
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n2\r\nhi\r\n0\r\nX-Len: 2\r\n\r\n")
        .await;
    let mut response = response.await.expect("a response");
    assert_eq!(response.status(), 200);
    assert!(response.headers().is_empty(), "{:?}", response.headers());
    let (body, trailers) = peer::body(response.body_mut()).await.expect("a body");
    assert_eq!(body, b"hi");
    assert_eq!(trailers.expect("trailers")["x-len"], "2");
}

#[tokio::test(start_paused = true)]
async fn requests_without_body_are_framed_as_such() {
    let rig = rig(&http1_config(1));
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = peer::client(&rig).await;
    let mut upstream = None;
    for (method, length) in [("GET", None), ("POST", Some("0")), ("DELETE", None), ("HEAD", None)] {
        let request = Request::builder()
            .method(method)
            .uri("http://example.com/")
            .body(())
            .expect("valid");
        let (response, _) = client.send_request(request, true).expect("sent");
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            none => none.insert(endpoint.accept().await),
        };
        let got = upstream.message().await.expect("a request");
        assert_eq!(
            (got.field("content-length"), got.field("transfer-encoding")),
            (length, None),
            "{method}"
        );
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await;
        if method != "HEAD" {
            upstream.send("body").await;
        }
        let mut response = response.await.expect("a response");
        assert_eq!(response.headers()["content-length"], "4");
        let (body, _) = peer::body(response.body_mut()).await.expect("a body");
        assert_eq!(body, if method == "HEAD" { &b""[..] } else { b"body" });
    }
}

#[tokio::test(start_paused = true)]
async fn streams_of_one_client_use_one_connection_each_and_leave_them_for_others() {
    let rig = rig(&http1_config(1));
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = peer::client(&rig).await;
    for _ in 0..2 {
        let responses: Vec<_> = (0..10)
            .map(|_| client.send_request(peer::get("/"), true).expect("sent").0)
            .collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        while let Ok(socket) = endpoint.sockets.try_recv() {
            tokio::spawn(async move {
                let mut upstream = Text::new(socket);
                while upstream.message().await.is_some() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                }
            });
        }
        for response in responses {
            assert_eq!(response.await.expect("a response").status(), 200);
        }
    }
    let opened = rig
        .with(|driver| driver.engine.metrics().upstream_connections_total)
        .await;
    assert_eq!(opened, 10);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_stream_closes_the_endpoints_connection() {
    let rig = rig(&http1_config(1));
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = peer::client(&rig).await;
    let (response, mut body) = client.send_request(peer::call("/x"), false).expect("sent");
    body.send_data(Bytes::from_static(b"abc"), false).expect("sent");
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a head");
    body.send_reset(h2::Reason::CANCEL);
    drop(response);
    assert_eq!(upstream.rest().await, b"3\r\nabc\r\n");
    let done = rig.done(1).await.remove(0);
    assert_eq!(done.fault, Some(Fault::ClientGone));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_off_resets_the_stream_and_spares_the_others() {
    let rig = rig(&http1_config(1));
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = peer::client(&rig).await;
    let (broken, _) = client.send_request(peer::get("/broken"), true).expect("sent");
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
    let mut broken = broken.await.expect("a head");
    drop(upstream);
    let error = peer::body(broken.body_mut()).await.expect_err("cut");
    assert!(error.is_reset(), "{error:?}");
    let (whole, _) = client.send_request(peer::get("/whole"), true).expect("sent");
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    upstream.send("HTTP/1.1 200 OK\r\n\r\nto the end").await;
    upstream.finish().await;
    let mut whole = whole.await.expect("a head");
    assert_eq!(peer::body(whole.body_mut()).await.expect("whole").0, b"to the end");
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_to_a_dead_endpoint_gets_a_status() {
    let rig = rig(&http1_config(1));
    let mut client = peer::client(&rig).await;
    let (response, _) = client.send_request(peer::call("/x.Y/Z"), true).expect("sent");
    let response = response.await.expect("a response");
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::ConnectFailed));
}

#[tokio::test(start_paused = true)]
async fn a_slow_new_client_holds_an_old_endpoint_back() {
    let rig = rig(&http1_config(1));
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = peer::client(&rig).await;
    let (response, _) = client.send_request(peer::get("/"), true).expect("sent");
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    const LEN: usize = 4 << 20;
    let body: Vec<u8> = (0..LEN).map(|place| ((place * 7) >> 4) as u8).collect();
    upstream
        .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"))
        .await;
    let mut response = response.await.expect("a head");
    let wanted = body.clone();
    let feed = tokio::spawn(async move {
        upstream.send(body).await;
        upstream
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!feed.is_finished(), "the windows are closed");
    let buffered = rig.with(|driver| driver.engine.metrics().bytes_received).await;
    assert!(buffered < 2 << 20, "{buffered}");
    let (got, _) = peer::body(response.body_mut()).await.expect("whole");
    assert!(got == wanted);
    let mut upstream = feed.await.expect("sent");
    let (again, _) = client.send_request(peer::get("/again"), true).expect("sent");
    upstream.message().await.expect("the same connection");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(again.await.expect("a response").status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_to_connect_is_passed_over() {
    let rig = rig(&http1_config(2));
    let mut endpoint = Endpoint::new(&rig, 2).await;
    let mut client = peer::client(&rig).await;
    let (response, mut body) = client
        .send_request(post("/").body(()).expect("valid"), false)
        .expect("sent");
    body.send_data(Bytes::from_static(b"abc"), true).expect("sent");
    let mut upstream = endpoint.accept().await;
    assert_eq!(upstream.message().await.expect("the whole request").text(), "abc");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(response.await.expect("a response").status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_does_not_stop_the_upload() {
    let rig = rig(&http1_config(1));
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let mut client = peer::client(&rig).await;
    const LEN: usize = 2 << 20;
    let request = post("/").header("content-length", LEN).body(()).expect("valid");
    let (response, mut body) = client.send_request(request, false).expect("sent");
    body.send_data(Bytes::from_static(b"x"), false).expect("sent");
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a head");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let mut response = response.await.expect("a response");
    assert_eq!(peer::body(response.body_mut()).await.expect("whole").0, b"ok");
    let read = tokio::spawn(async move {
        let got = upstream.exactly(LEN).await.expect("all of it");
        (upstream, got.len())
    });
    peer::send_all(&mut body, vec![b'x'; LEN - 1].into(), true)
        .await
        .expect("sent");
    let (mut upstream, len) = read.await.expect("read");
    assert_eq!(len, LEN);
    let (again, _) = client.send_request(peer::get("/again"), true).expect("sent");
    upstream.message().await.expect("the same connection");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(again.await.expect("a response").status(), 200);
}
