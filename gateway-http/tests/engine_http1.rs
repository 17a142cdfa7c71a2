//! HTTP/1.1 on both sides of the engine: framing, order, connections that stay and connections that end.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/rig.rs"]
mod rig;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/text.rs"]
mod text;

use gateway_core::fault::Fault;
use gateway_http::limits::Limits;
use rig::Rig;
use std::time::Duration;
use text::{Endpoint, Text, http1_config};

/// A client, its rig and one endpoint.
async fn setup() -> (Rig, Text, Endpoint) {
    let rig = Rig::start(http1_config(1).snapshot(), Limits::default());
    let endpoint = Endpoint::new(&rig, 1).await;
    let client = Text::client(&rig).await;
    (rig, client, endpoint)
}

const GET: &str = "GET /a?b HTTP/1.1\r\nHost: Example.com:8080\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(start_paused = true)]
async fn a_request_goes_through_and_says_who_asked() {
    let (rig, mut client, mut endpoint) = setup().await;
    client.send("GET /a?b HTTP/1.1\r\nHost: Example.com:8080\r\nX-One: 1\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\n\r\n").await;
    let mut upstream = endpoint.accept().await;
    let request = upstream.message().await.expect("a request");
    assert_eq!(request.start(), "GET /a?b HTTP/1.1");
    assert_eq!(request.field("host"), Some("example.com:8080"));
    assert_eq!(request.field("x-one"), Some("1"));
    assert_eq!(request.field("x-forwarded-for"), Some("198.18.1.2"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert!(request.field("x-request-id").is_some());
    for gone in [
        "connection",
        "x-hop",
        "keep-alive",
        "transfer-encoding",
        "content-length",
    ] {
        assert_eq!(request.field(gone), None, "{gone}");
    }
    upstream
        .send("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-Two: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\nok")
        .await;
    let response = client.message().await.expect("a response");
    assert_eq!(
        response.head,
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-two: 2\r\n\r\n"
    );
    assert_eq!(response.text(), "ok");
    let done = rig.done(1).await.remove(0);
    assert_eq!(
        (done.status, done.method.as_str(), done.path.as_str()),
        (200, "GET", "/a?b")
    );
    assert_eq!((done.bytes_sent, done.attempts, done.fault), (2, 1, None));
}

#[tokio::test(start_paused = true)]
async fn both_connections_stay_and_serve_the_next_request() {
    let (_rig, mut client, mut endpoint) = setup().await;
    let mut upstream = None;
    for _ in 0..5 {
        client.send(GET).await;
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            none => none.insert(endpoint.accept().await),
        };
        upstream.message().await.expect("a request");
        upstream.send(OK).await;
        assert_eq!(client.message().await.expect("a response").text(), "ok");
    }
    assert!(endpoint.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let (_rig, mut client, mut endpoint) = setup().await;
    let mut all = String::new();
    for number in 0..20 {
        all += &format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{number:03}");
    }
    client.send(all).await;
    let mut upstream = endpoint.accept().await;
    for number in 0..20 {
        let request = upstream.message().await.expect("a request");
        assert_eq!(request.start(), format!("POST /{number} HTTP/1.1"));
        assert_eq!(request.text(), format!("{number:03}"));
        assert!(upstream.is_silent().await, "one exchange at a time");
        upstream
            .send(format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{number:03}"))
            .await;
        assert_eq!(
            client.message().await.expect("a response").text(),
            format!("{number:03}")
        );
    }
    assert!(endpoint.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn everything_may_come_byte_by_byte() {
    let (_rig, mut client, mut endpoint) = setup().await;
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n4\r\ndefg\r\n0\r\nX-End: 1\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n";
    for _ in 0..2 {
        for byte in request.bytes() {
            client.send([byte]).await;
            tokio::task::yield_now().await;
        }
    }
    let mut upstream = endpoint.accept().await;
    for _ in 0..2 {
        let got = upstream.message().await.expect("a request");
        assert_eq!(got.text(), "abcdefg");
        assert_eq!(got.trailers, "x-end: 1\r\n");
        for byte in response.bytes() {
            upstream.send([byte]).await;
            tokio::task::yield_now().await;
        }
        let got = client.message().await.expect("a response");
        assert_eq!((got.text(), got.trailers.as_str()), ("hi", "x-sum: 2\r\n"));
    }
    assert!(endpoint.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn responses_without_body_end_with_their_head() {
    let (_rig, mut client, mut endpoint) = setup().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a request");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n").await;
    assert_eq!(
        client.head().await.as_deref(),
        Some("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n")
    );
    for (response, head) in [
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ),
    ] {
        client.send(GET).await;
        upstream.head().await.expect("a request");
        upstream.send(response).await;
        assert_eq!(client.head().await.as_deref(), Some(head));
    }
    assert!(endpoint.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_with_the_connection_becomes_chunks() {
    let (_rig, mut client, mut endpoint) = setup().await;
    client.send(GET).await;
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    // The end comes with the data: it must not be lost.
    upstream.send("HTTP/1.1 200 OK\r\n\r\nall there is").await;
    upstream.finish().await;
    let response = client.message().await.expect("a whole response");
    assert_eq!(response.text(), "all there is");
    assert!(upstream.is_closed().await);
    client.send(GET).await;
    let mut upstream = endpoint.accept().await;
    upstream
        .message()
        .await
        .expect("the client's connection goes on, the endpoint's is new");
    upstream.send(OK).await;
    assert_eq!(client.message().await.expect("a response").text(), "ok");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let (_rig, mut client, mut endpoint) = setup().await;
    client.send("GET /old HTTP/1.0\r\n\r\n").await;
    let mut upstream = endpoint.accept().await;
    let request = upstream.message().await.expect("a request");
    assert_eq!(
        (request.start(), request.field("host")),
        ("GET /old HTTP/1.1", Some("198.18.0.10:8080"))
    );
    upstream.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n").await;
    let all = String::from_utf8(client.rest().await).expect("text");
    assert_eq!(all, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_0_may_ask_to_stay() {
    let (_rig, mut client, mut endpoint) = setup().await;
    let mut upstream = None;
    for _ in 0..2 {
        client
            .send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            .await;
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            none => none.insert(endpoint.accept().await),
        };
        upstream.message().await.expect("a request");
        upstream.send(OK).await;
        let response = client.message().await.expect("a response");
        assert_eq!(
            (response.field("connection"), response.text()),
            (Some("keep-alive"), "ok")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn close_is_obeyed_on_either_side_alone() {
    let (_rig, mut client, mut endpoint) = setup().await;
    client.send(GET).await;
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        .await;
    let response = client.message().await.expect("a response");
    assert_eq!(response.field("connection"), None);
    assert!(upstream.is_closed().await);
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let mut upstream = endpoint.accept().await;
    assert_eq!(upstream.message().await.expect("a request").field("connection"), None);
    upstream.send(OK).await;
    let response = client.message().await.expect("a response");
    assert_eq!(response.field("connection"), Some("close"));
    assert!(client.is_closed().await);
    assert!(upstream.is_silent().await, "the endpoint's connection stays");
}

#[tokio::test(start_paused = true)]
async fn interim_responses_pass_and_100_lets_the_body_go() {
    let (_rig, mut client, mut endpoint) = setup().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let mut upstream = endpoint.accept().await;
    let head = upstream.head().await.expect("a head");
    assert!(head.contains("expect: 100-continue\r\n"), "{head}");
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await.as_deref(), Some("HTTP/1.1 100 Continue\r\n\r\n"));
    client.send("body").await;
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
    upstream.send(OK).await;
    assert_eq!(
        client.head().await.as_deref(),
        Some("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
    );
    assert_eq!(client.message().await.expect("a response").text(), "ok");
    client.send(GET).await;
    let mut seen = upstream.head().await.expect("the next request");
    assert!(seen.starts_with("body"), "the body came before it: {seen}");
    seen.drain(..4);
    assert!(seen.starts_with("GET /a?b"));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http_at_all_is_closed_without_a_word() {
    for bytes in [
        "\x16\x03\x01\x00\x05hello\r\n\r\n",
        "INVALID CONNECTION PREFACE\r\n\r\n",
    ] {
        let (rig, mut client, _endpoint) = setup().await;
        client.send(bytes).await;
        assert!(client.is_closed().await);
        assert!(client.head().await.is_none(), "{bytes:?}");
        let faults = rig.with(|driver| driver.engine.metrics().faults).await;
        assert_eq!(faults[Fault::BadRequest as usize], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_answered_and_the_connection_closes() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\nHost: a\n\n", "400 Bad Request"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400 Bad Request",
        ),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", "400 Bad Request"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "400 Bad Request"),
    ] {
        let (rig, mut client, _endpoint) = setup().await;
        client.send(request).await;
        client.send(GET).await;
        let response = client.message().await.expect("an answer");
        assert_eq!(response.start(), format!("HTTP/1.1 {status}"), "{request:?}");
        assert_eq!(response.field("connection"), Some("close"));
        assert!(client.is_closed().await);
        let done = rig.done(1).await;
        assert_eq!((done.len(), done[0].fault), (1, Some(Fault::BadRequest)));
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_speak_http_gets_no_answer() {
    let (_rig, mut client, _endpoint) = setup().await;
    client.send("\x16\x03\x01\x00\x05hello\r\n\r\n").await;
    assert!(client.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_none_is_never_taken_for_a_whole_one() {
    for wait in [false, true] {
        let (rig, mut client, mut endpoint) = setup().await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        let mut upstream = None;
        if wait {
            let mut accepted = endpoint.accept().await;
            accepted.head().await.expect("a head");
            upstream = Some(accepted);
        }
        client.send("Z\r\n").await;
        client.send(GET).await;
        let response = client.message().await.expect("an answer");
        assert_eq!(response.start(), "HTTP/1.1 400 Bad Request");
        assert!(client.is_closed().await);
        assert_eq!(rig.done(1).await[0].fault, Some(Fault::BadRequest));
        if let Some(mut upstream) = upstream {
            assert_eq!(upstream.rest().await, b"3\r\nabc\r\n", "no last chunk");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_431() {
    let (rig, mut client, _endpoint) = setup().await;
    client
        .send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(64 * 1024)))
        .await;
    let response = client.message().await.expect("an answer");
    assert_eq!(response.start(), "HTTP/1.1 431 Request Header Fields Too Large");
    assert!(client.is_closed().await);
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::HeadTooLarge));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_in_time_is_408() {
    let (rig, mut client, mut endpoint) = setup().await;
    client.send(GET).await;
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    upstream.send(OK).await;
    client.message().await.expect("a response");
    client.send("GET / HTTP/1.1\r\nHo").await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    client.send("st: a\r\n").await;
    assert!(client.is_silent().await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        client.message().await.expect("an answer").start(),
        "HTTP/1.1 408 Request Timeout"
    );
    assert!(client.is_closed().await);
    assert_eq!(rig.done(2).await[1].fault, Some(Fault::RequestTimeout));
}

#[tokio::test(start_paused = true)]
async fn a_first_head_that_begins_late_is_408_in_time_too_and_silence_is_closed_in_silence() {
    let (rig, mut client, _endpoint) = setup().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    client.send("GET / HTTP/1.1\r\nHo").await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(
        client.message().await.expect("an answer").start(),
        "HTTP/1.1 408 Request Timeout"
    );
    assert!(client.is_closed().await);
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::RequestTimeout));
    let mut mute = Text::client(&rig).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(mute.rest().await, b"");
    assert!(mute.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_408_and_one_that_is_answered_may_take_its_time() {
    let (rig, mut client, mut endpoint) = setup().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        .await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a head");
    tokio::time::sleep(Duration::from_secs(20)).await;
    client.send("d").await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(client.is_silent().await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        client.message().await.expect("an answer").start(),
        "HTTP/1.1 408 Request Timeout"
    );
    assert!(client.is_closed().await);
    assert_eq!(upstream.rest().await, b"abcd");
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::RequestTimeout));

    let mut client = Text::client(&rig).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab")
        .await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a head");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
    assert!(
        client
            .head()
            .await
            .is_some_and(|head| head.starts_with("HTTP/1.1 200 OK"))
    );
    tokio::time::sleep(Duration::from_secs(250)).await;
    client.send("c").await;
    upstream.send("k").await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let rest = upstream.head().await.expect("the next request");
    assert!(rest.starts_with("abcGET / "), "{rest}");
}
