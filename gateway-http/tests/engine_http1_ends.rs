//! HTTP/1.1 where connections end, break, wait or are used again, and random exchanges in any framing.

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
async fn a_half_closed_client_still_gets_its_answers() {
    let (_rig, mut client, mut endpoint) = setup().await;
    client.send([GET, GET].concat()).await;
    client.finish().await;
    let mut upstream = endpoint.accept().await;
    for _ in 0..2 {
        upstream.message().await.expect("a request");
        upstream.send(OK).await;
    }
    for _ in 0..2 {
        assert_eq!(client.message().await.expect("a response").text(), "ok");
    }
    assert!(client.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_inside_its_body_cuts_the_endpoint_off() {
    let (rig, mut client, mut endpoint) = setup().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        .await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a head");
    drop(client);
    assert_eq!(upstream.rest().await, b"abc");
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::ClientGone));
}

#[tokio::test(start_paused = true)]
async fn a_cut_response_is_never_taken_for_a_whole_one() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nXX",
    ] {
        let (rig, mut client, mut endpoint) = setup().await;
        client.send(GET).await;
        let mut upstream = endpoint.accept().await;
        upstream.message().await.expect("a request");
        upstream.send(response).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(upstream);
        assert_eq!(client.message().await, None, "{response:?}");
        let fault = rig.done(1).await[0].fault;
        assert!(
            matches!(fault, Some(Fault::ConnectionLost | Fault::BadResponse)),
            "{fault:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_none_is_an_error_of_the_endpoint() {
    for (response, status) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "502 Bad Gateway",
        ),
        ("hello\r\n\r\n", "502 Bad Gateway"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "502 Bad Gateway",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Le", "503 Service Unavailable"),
    ] {
        let (_rig, mut client, mut endpoint) = setup().await;
        client.send(GET).await;
        let mut upstream = endpoint.accept().await;
        upstream.message().await.expect("a request");
        upstream.send(response).await;
        upstream.finish().await;
        let got = client.message().await.expect("an answer");
        assert_eq!(got.start(), format!("HTTP/1.1 {status}"), "{response:?}");
        client.send(GET).await;
        endpoint
            .accept()
            .await
            .message()
            .await
            .expect("the client's connection goes on");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_endpoint_says_unasked_never_reaches_a_client() {
    let (_rig, mut client, mut endpoint) = setup().await;
    client.send(GET).await;
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    upstream
        .send([OK, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"].concat())
        .await;
    assert_eq!(client.message().await.expect("a response").text(), "ok");
    assert!(upstream.is_closed().await);
    client.send(GET).await;
    let mut second = endpoint.accept().await;
    second.message().await.expect("a new connection");
    second.send(OK).await;
    assert_eq!(client.message().await.expect("a response").text(), "ok");
    second.send("HTTP/1.1 408 Request Timeout\r\n\r\n").await;
    assert!(second.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_breaks_as_the_request_comes_is_tried_again() {
    let (rig, mut client, mut endpoint) = setup().await;
    client.send(GET).await;
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    upstream.send(OK).await;
    client.message().await.expect("a response");
    client.send(GET).await;
    upstream.message().await.expect("the next request");
    drop(upstream);
    let mut fresh = endpoint.accept().await;
    assert_eq!(
        fresh.message().await.expect("the same request").start(),
        "GET /a?b HTTP/1.1"
    );
    fresh.send(OK).await;
    assert_eq!(client.message().await.expect("a response").text(), "ok");
    assert_eq!(rig.done(2).await[1].attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_idempotent_is_not_sent_twice() {
    let (rig, mut client, mut endpoint) = setup().await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    client.send(post).await;
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    upstream.send(OK).await;
    client.message().await.expect("a response");
    client.send(post).await;
    upstream.message().await.expect("the next request");
    drop(upstream);
    assert_eq!(
        client.message().await.expect("an answer").start(),
        "HTTP/1.1 503 Service Unavailable"
    );
    assert!(endpoint.is_quiet());
    assert_eq!(rig.done(2).await[1].fault, Some(Fault::ConnectionLost));
}

#[tokio::test(start_paused = true)]
async fn a_fresh_connection_that_breaks_is_not_tried_again() {
    let (rig, mut client, mut endpoint) = setup().await;
    client.send(GET).await;
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    drop(upstream);
    assert_eq!(
        client.message().await.expect("an answer").start(),
        "HTTP/1.1 503 Service Unavailable"
    );
    assert_eq!(rig.done(1).await[0].attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_closed_is_not_used() {
    let (_rig, mut client, mut endpoint) = setup().await;
    let mut upstream = None;
    for _ in 0..3 {
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
            .await;
        let mut fresh = endpoint.accept().await;
        fresh.message().await.expect("a request");
        fresh.send(OK).await;
        client.message().await.expect("a response");
        drop(upstream.replace(fresh));
        drop(upstream.take());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_kept_as_many_as_allowed_and_the_last_used_goes_first() {
    let limits = Limits {
        upstream_idle_max: 2,
        ..Limits::default()
    };
    let rig = Rig::start(http1_config(1).snapshot(), limits);
    let mut endpoint = Endpoint::new(&rig, 1).await;
    let (mut clients, mut upstreams) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut client = Text::client(&rig).await;
        client.send(GET).await;
        let mut upstream = endpoint.accept().await;
        upstream.message().await.expect("a request");
        clients.push(client);
        upstreams.push(upstream);
    }
    for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
        upstream.send(OK).await;
        client.message().await.expect("a response");
    }
    assert!(upstreams[2].is_closed().await, "no room for a third");
    for _ in 0..3 {
        clients[0].send(GET).await;
        upstreams[1].message().await.expect("the last used one");
        upstreams[1].send(OK).await;
        clients[0].message().await.expect("a response");
    }
    assert!(upstreams[0].is_silent().await);
    assert!(endpoint.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_drops_a_short_rest_and_keeps_the_connection() {
    let rig = Rig::start(http1_config(0).snapshot(), Limits::default());
    let mut client = Text::client(&rig).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        .await;
    let response = client.message().await.expect("an answer");
    assert_eq!(response.start(), "HTTP/1.1 503 Service Unavailable");
    assert_eq!(response.field("connection"), None);
    client.send("def").await;
    client.send(GET).await;
    assert_eq!(
        client.message().await.expect("the next answer").start(),
        "HTTP/1.1 503 Service Unavailable"
    );
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_closes_when_the_rest_is_long_or_unsure() {
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n",
    ] {
        let rig = Rig::start(http1_config(0).snapshot(), Limits::default());
        let mut client = Text::client(&rig).await;
        client.send(request).await;
        let response = client.message().await.expect("an answer");
        assert_eq!(response.field("connection"), Some("close"), "{request}");
        assert!(client.is_closed().await);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_may_answer_before_it_read_the_request() {
    let (_rig, mut client, mut endpoint) = setup().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        .await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a head");
    upstream
        .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        .await;
    drop(upstream);
    let response = client.message().await.expect("the answer");
    assert_eq!(
        (response.start(), response.text()),
        ("HTTP/1.1 413 Content Too Large", "big")
    );
    client.send("def").await;
    client.send(GET).await;
    endpoint
        .accept()
        .await
        .message()
        .await
        .expect("the client's connection goes on");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_the_sender_back_in_both_directions() {
    let (rig, mut client, mut endpoint) = setup().await;
    const LEN: usize = 8 << 20;
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LEN}\r\n\r\n"))
        .await;
    let mut upstream = endpoint.accept().await;
    upstream.head().await.expect("a head");
    // Nobody reads: the sender cannot get rid of more than what is bounded.
    let stuck = async |text: &mut Text| {
        let mut sent = 0;
        let chunk = [b'x'; 16 * 1024];
        while tokio::time::timeout(
            Duration::from_millis(20),
            tokio::io::AsyncWriteExt::write_all(&mut text.socket, &chunk),
        )
        .await
        .is_ok()
        {
            sent += chunk.len();
        }
        sent
    };
    let sent = stuck(&mut client).await;
    assert!((64 * 1024..2 << 20).contains(&sent), "{sent}");
    drop((client, upstream));
    let mut client = Text::client(&rig).await;
    client.send(GET).await;
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    upstream
        .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"))
        .await;
    let sent = stuck(&mut upstream).await;
    assert!((64 * 1024..2 << 20).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn large_bodies_come_whole_both_ways() {
    let (rig, mut client, mut endpoint) = setup().await;
    const LEN: usize = 3 << 20;
    let body: Vec<u8> = (0..LEN).map(|place| ((place * 31) >> 3) as u8).collect();
    for framing in ["length", "chunked"] {
        let wanted = body.clone();
        let message = |start: &str| {
            let mut bytes = start.as_bytes().to_vec();
            if framing == "length" {
                bytes.extend(format!("Content-Length: {LEN}\r\n\r\n").bytes());
                bytes.extend(&wanted);
            } else {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in wanted.chunks(70_001) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            }
            bytes
        };
        let (request, response) = (
            message("POST / HTTP/1.1\r\nHost: a\r\n"),
            message("HTTP/1.1 200 OK\r\n"),
        );
        let serve = async {
            let mut upstream = endpoint.accept().await;
            let got = upstream.message().await.expect("a request");
            assert!(got.body == wanted, "the request's body");
            upstream.send(response).await;
            upstream
        };
        let ask = async {
            client.send(request).await;
            let got = client.message().await.expect("a response");
            assert!(got.body == wanted, "the response's body");
        };
        let (upstream, ()) = tokio::join!(serve, ask);
        drop(upstream);
        let done = rig.done(1).await.remove(0);
        assert_eq!((done.bytes_received, done.bytes_sent), (LEN as u64, LEN as u64));
    }
}

#[tokio::test(start_paused = true)]
async fn draining_answers_what_is_on_its_way_and_closes() {
    let (rig, mut client, mut endpoint) = setup().await;
    let mut idle = Text::client(&rig).await;
    idle.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = endpoint.accept().await;
    upstream.message().await.expect("a request");
    upstream.send(OK).await;
    idle.message().await.expect("a response");
    client.send(GET).await;
    upstream.message().await.expect("a request");
    rig.with(|driver| {
        let now = driver.now();
        driver.engine.drain(now);
    })
    .await;
    assert!(idle.is_closed().await);
    upstream.send(OK).await;
    let response = client.message().await.expect("a response");
    assert_eq!((response.field("connection"), response.text()), (Some("close"), "ok"));
    assert!(client.is_closed().await);
}

/// Numbers that differ and repeat from run to run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// A message in one of the framings; `open` allows the one that ends with the connection.
fn framed(dice: &mut Dice, start: &str, body: &str, open: bool) -> String {
    match dice.roll(if open { 3 } else { 2 }) {
        0 => format!("{start}Content-Length: {}\r\n\r\n{body}", body.len()),
        1 => {
            let mut text = format!("{start}Transfer-Encoding: chunked\r\n\r\n");
            let size = 1 + dice.roll(300);
            for chunk in body.as_bytes().chunks(size) {
                text += &format!("{:X}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).expect("text"));
            }
            text + "0\r\n\r\n"
        }
        _ => format!("{start}\r\n{body}"),
    }
}

/// Echoes bodies in any framing; says `close` at times, or just closes.
async fn whimsical_endpoint(mut upstream: Text, mut dice: Dice) {
    while let Some(request) = upstream.message().await {
        if dice.roll(4) == 0 {
            upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(3) as u64)).await;
        let whim = dice.roll(6);
        let start = if whim == 0 {
            "HTTP/1.1 200 OK\r\nConnection: close\r\n"
        } else {
            "HTTP/1.1 200 OK\r\n"
        };
        let response = framed(&mut dice, start, request.text(), true);
        let open = !response.contains("Content-Length") && !response.contains("Transfer-Encoding");
        upstream.send(response).await;
        if whim < 2 || open {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_in_any_framing_and_any_pieces_arrive_whole_and_in_order() {
    for seed in 0..20 {
        let rig = Rig::start(http1_config(1).snapshot(), Limits::default());
        let socket_bytes = [17, 100, 5000, 64 * 1024][seed as usize % 4];
        rig.with(move |driver| driver.socket_bytes = socket_bytes).await;
        let mut endpoint = Endpoint::new(&rig, 1).await;
        tokio::spawn(async move {
            let mut seed = 1000 * seed;
            while let Some(socket) = endpoint.sockets.recv().await {
                seed += 1;
                tokio::spawn(whimsical_endpoint(Text::new(socket), Dice(seed)));
            }
        });
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..8 {
            let rig = rig.clone();
            clients.spawn(async move {
                let mut dice = Dice(seed * 100 + number);
                let client = Text::client(&rig).await;
                let (mut reader, mut writer) = client.split();
                let mut wanted = std::collections::VecDeque::new();
                let mut text = String::new();
                for round in 0..15 {
                    let body = format!("{number}/{round} ").repeat(dice.roll(400));
                    text += &framed(&mut dice, "PUT /x HTTP/1.1\r\nHost: a\r\n", &body, false);
                    wanted.push_back(body);
                }
                let write = async {
                    let mut rest = text.as_bytes();
                    while !rest.is_empty() {
                        let (piece, after) = rest.split_at(rest.len().min(1 + dice.roll(2000)));
                        tokio::io::AsyncWriteExt::write_all(&mut writer, piece)
                            .await
                            .expect("sent");
                        rest = after;
                        if dice.roll(4) == 0 {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                };
                let read = async {
                    for (round, body) in wanted.iter().enumerate() {
                        let mut got = reader.message().await;
                        while got.as_ref().is_some_and(|got| got.start().contains("103")) {
                            got = reader.message().await;
                        }
                        let got = got.unwrap_or_else(|| panic!("seed {seed}, {number}/{round}: no response"));
                        assert_eq!(got.start(), "HTTP/1.1 200 OK", "seed {seed}, {number}/{round}");
                        assert!(got.text() == body, "seed {seed}, {number}/{round}: another body");
                    }
                };
                tokio::join!(write, read);
            });
        }
        while let Some(done) = clients.join_next().await {
            done.expect("every client got its answers");
        }
        assert_eq!(rig.done(120).await.len(), 120);
        assert_eq!(rig.with(|driver| driver.engine.live().1).await, 0);
    }
}
