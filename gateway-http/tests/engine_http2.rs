//! The engine between the `h2` crate as client and as endpoint.

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
use config::Config;
use gateway_http::limits::Limits;
use http::HeaderMap;
use peer::{body, call, client, echo, endpoint, get, send_all};
use rig::Rig;

async fn rig(config: Config) -> Rig {
    Rig::start(config.snapshot(), Limits::default())
}

#[tokio::test(start_paused = true)]
async fn a_get_is_forwarded_and_answered() {
    let rig = rig(Config::new(1)).await;
    let _endpoint = endpoint(&rig, 1, |incoming| echo("be1", incoming)).await;
    let mut client = client(&rig).await;
    let (response, _) = client.send_request(get("/a/./b?x=1"), true).expect("sent");
    let response = response.await.expect("answered");
    assert_eq!(response.status(), 200);
    let fields = response.headers();
    assert_eq!(fields["x-endpoint"], "be1");
    assert_eq!(fields["echo-path"], "/a/b?x=1");
    assert_eq!(fields["echo-scheme"], "http");
    assert_eq!(fields["echo-authority"], "example.com");
    assert_eq!(fields["echo-x-forwarded-for"], "198.18.1.2");
    assert_eq!(fields["echo-x-forwarded-proto"], "http");
    assert_eq!(fields["echo-x-request-id"].len(), 36);
    let (bytes, trailers) = body(&mut response.into_body()).await.expect("whole");
    assert!(bytes.is_empty());
    assert_eq!(trailers.expect("trailers")["x-trailer"], "be1");
    let done = rig.done(1).await;
    assert_eq!((done[0].status, done[0].attempts, done[0].fault), (200, 1, None));
    assert!(done[0].rule && done[0].first_byte && done[0].endpoint.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_keeps_its_metadata_and_trailers() {
    let rig = rig(Config::new(1)).await;
    let _endpoint = endpoint(&rig, 1, |incoming| echo("be1", incoming)).await;
    let mut client = client(&rig).await;
    let mut request = call("/echo.Echo/Unary");
    request.headers_mut().insert("x-binary-bin", "AAEC".parse().unwrap());
    let (response, mut out) = client.send_request(request, false).unwrap();
    send_all(&mut out, Bytes::from_static(b"hello"), false).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-request-trailer", "yes".parse().unwrap());
    out.send_trailers(trailers).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.headers()["echo-te"], "trailers");
    assert_eq!(response.headers()["echo-x-binary-bin"], "AAEC");
    let (bytes, trailers) = body(&mut response.into_body()).await.unwrap();
    assert_eq!(bytes, b"hello");
    let trailers = trailers.unwrap();
    assert_eq!(trailers["x-trailer"], "be1");
    assert_eq!(trailers["x-request-trailer"], "yes");
    let done = rig.done(1).await;
    assert_eq!((done[0].bytes_received, done[0].bytes_sent), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn streams_carry_messages_both_ways_as_they_come() {
    let rig = rig(Config::new(1)).await;
    let _endpoint = endpoint(&rig, 1, |incoming| echo("be1", incoming)).await;
    let mut client = client(&rig).await;
    let (response, mut out) = client.send_request(call("/echo.Echo/Chat"), false).unwrap();
    let mut incoming = response.await.unwrap().into_body();
    for round in 0..50_u8 {
        out.send_data(Bytes::from(vec![round; 100]), false).unwrap();
        let chunk = incoming.data().await.unwrap().unwrap();
        assert_eq!(
            chunk,
            vec![round; 100],
            "the answer to a message comes before the next message"
        );
        incoming.flow_control().release_capacity(chunk.len()).unwrap();
    }
    out.send_data(Bytes::new(), true).unwrap();
    assert!(body(&mut incoming).await.unwrap().1.is_some());
    assert_eq!(rig.done(1).await[0].fault, None);
}

#[tokio::test(start_paused = true)]
async fn large_bodies_pass_both_ways_at_once_on_many_streams() {
    for (stream_window, socket_bytes) in [(256 * 1024, 64 * 1024), (65_535, 3000), (1000, 100_000)] {
        let limits = Limits {
            stream_window,
            ..Limits::default()
        };
        let rig = Rig::start(Config::new(2).snapshot(), limits);
        rig.with(move |driver| driver.socket_bytes = socket_bytes).await;
        let _one = endpoint(&rig, 1, |incoming| echo("be1", incoming)).await;
        let _two = endpoint(&rig, 2, |incoming| echo("be2", incoming)).await;
        let client = client(&rig).await;
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..8_u32 {
            let mut client = client.clone();
            calls.spawn(async move {
                let bytes: Vec<u8> = (0..500_000_u32)
                    .map(|i| (i.wrapping_mul(number + 7) >> 3) as u8)
                    .collect();
                let (response, mut out) = client.send_request(call("/echo.Echo/Large"), false).unwrap();
                let sent = Bytes::from(bytes.clone());
                let sending = tokio::spawn(async move { send_all(&mut out, sent, true).await.unwrap() });
                let (got, trailers) = body(response.await.unwrap().body_mut()).await.unwrap();
                sending.await.unwrap();
                assert!(got == bytes, "stream {number}");
                assert!(trailers.is_some());
            });
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
        let done = rig.done(8).await;
        assert!(
            done.iter()
                .all(|done| (done.bytes_received, done.bytes_sent, done.fault) == (500_000, 500_000, None))
        );
        assert_eq!(rig.with(|driver| driver.engine.live()).await, (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn one_connection_is_spread_evenly_over_four_endpoints() {
    let rig = rig(Config::new(4)).await;
    for (number, name) in [(1, "be1"), (2, "be2"), (3, "be3"), (4, "be4")] {
        endpoint(&rig, number, move |incoming| echo(name, incoming)).await;
    }
    let mut client = client(&rig).await;
    for _ in 0..400 {
        let (response, _) = client.send_request(call("/echo.Echo/Unary"), true).unwrap();
        body(response.await.unwrap().body_mut()).await.unwrap();
    }
    let mut counts = std::collections::BTreeMap::new();
    for done in rig.done(400).await {
        *counts.entry(done.endpoint).or_insert(0) += 1;
    }
    assert_eq!(
        counts.values().copied().collect::<Vec<_>>(),
        [100; 4],
        "Jain's index is 1"
    );
}
