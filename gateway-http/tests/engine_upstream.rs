//! Connections to HTTP/2 endpoints: how many, what is replayed, who still lives. Mostly with raw frames as peers.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/peer.rs"]
mod peer;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/raw.rs"]
mod raw;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/rig.rs"]
mod rig;

use bytes::Bytes;
use config::{Config, endpoint_addr};
use gateway_core::fault::Fault;
use gateway_http::engine::DownstreamProtocol;
use gateway_http::h2::frame::{self, ErrorCode, Kind, flags};
use gateway_http::h2::settings::Setting;
use gateway_http::limits::Limits;
use http::Request;
use peer::{Incoming, body, client, endpoint_with, send_all};
use raw::Raw;
use rig::Rig;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout};

fn post() -> Request<()> {
    Request::post("http://example.com/").body(()).unwrap()
}

async fn raw_client(rig: &Rig) -> Raw {
    Raw::client(rig.socket(DownstreamProtocol::Http2).await).await
}

async fn next_but_settings(peer: &mut Raw) -> Kind {
    loop {
        let kind = peer.next().await.unwrap().header.kind;
        if !matches!(kind, Kind::Settings | Kind::WindowUpdate) {
            return kind;
        }
    }
}

/// One open request: client and endpoint.
async fn pair(rig: &Rig, end: bool) -> (Raw, Raw, UnboundedReceiver<DuplexStream>) {
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let mut client = raw_client(rig).await;
    client.request(1, if end { "GET" } else { "POST" }, end).await;
    let mut endpoint = Raw::endpoint(sockets.recv().await.unwrap(), &[]).await;
    endpoint.wait_for(Kind::Headers).await.unwrap();
    (client, endpoint, sockets)
}

#[tokio::test(start_paused = true)]
async fn full_connections_get_a_bounded_number_of_others_then_requests_wait_then_they_are_turned_away() {
    let limits = Limits {
        upstream_connections_max: 2,
        upstream_pending_max: 3,
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    let (tell, mut told) = peer::log();
    let _endpoint = endpoint_with(&rig, 1, builder, move |(_, respond): Incoming| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(respond);
            sleep(Duration::from_secs(3600)).await;
        }
    })
    .await;
    let mut client = client(&rig).await;
    let mut responses = Vec::new();
    for _ in 0..9 {
        responses.push(client.send_request(post(), true).unwrap().0);
        sleep(Duration::from_millis(5)).await;
    }
    let metrics = rig.with(|driver| driver.engine.measure()).await;
    assert_eq!(
        (
            metrics.upstream_connections_active,
            metrics.endpoints[0].requests_pending
        ),
        (2, 3)
    );
    for late in responses.split_off(7) {
        let late = late.await.unwrap();
        assert_eq!(late.status(), 503);
        assert_eq!(late.headers()["retry-after"], "1");
    }
    assert_eq!(metrics.endpoints[0].overflows_total, 2);
    assert!(
        rig.done(2)
            .await
            .iter()
            .all(|done| done.fault == Some(Fault::Overloaded))
    );
    // Those that waited are served as streams become free.
    let mut answered = 0;
    while answered < 7 {
        let mut respond: h2::server::SendResponse<Bytes> = told.recv().await.unwrap();
        respond.send_response(http::Response::new(()), true).unwrap();
        answered += 1;
    }
    for response in responses {
        assert_eq!(response.await.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn goaway_in_two_steps_moves_only_what_was_not_processed_with_its_body() {
    let rig = Rig::start(Config::new(1).snapshot(), Limits::default());
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let mut client = client(&rig).await;
    let mut responses = Vec::new();
    for number in 0..10_u8 {
        let (response, mut out) = client.send_request(post(), false).unwrap();
        send_all(&mut out, Bytes::from(vec![number; 1000]), true).await.unwrap();
        responses.push(response);
    }
    let mut first = Raw::endpoint(sockets.recv().await.unwrap(), &[]).await;
    for _ in 0..10 {
        first.wait_for(Kind::Data).await.unwrap();
    }
    let mut farewell = Vec::new();
    frame::put_goaway(&mut farewell, 0x7fff_ffff, ErrorCode::NoError, "");
    first.send(&farewell).await;
    sleep(Duration::from_millis(5)).await;
    assert!(sockets.try_recv().is_err(), "nothing moves at the first step");
    farewell.clear();
    frame::put_goaway(&mut farewell, 7, ErrorCode::NoError, "");
    first.send(&farewell).await;
    let mut second = Raw::endpoint(sockets.recv().await.unwrap(), &[]).await;
    for id in [1, 3, 5, 7] {
        first.headers(id, &[(":status", "200")], true).await;
    }
    let mut bodies = BTreeMap::new();
    for _ in 0..6 {
        let data = second.wait_for(Kind::Data).await.unwrap();
        assert!(data.header.has(flags::END_STREAM));
        bodies.insert(data.header.stream, data.payload);
    }
    assert_eq!(
        bodies.values().map(|body| (body.len(), body[0])).collect::<Vec<_>>(),
        (4..10).map(|number| (1000, number)).collect::<Vec<_>>()
    );
    for id in bodies.keys() {
        second.headers(*id, &[(":status", "201")], true).await;
    }
    for (number, response) in responses.into_iter().enumerate() {
        assert_eq!(response.await.unwrap().status(), if number < 4 { 200 } else { 201 });
    }
}

/// Serves like an endpoint in a rollout: a few streams on each connection, then GOAWAY that leaves out half of what is
/// open, and now and then a refusal. Counts how often each request was processed.
async fn restless(mut peer: Raw, processed: &mut BTreeMap<String, u32>, seed: &mut u32) {
    let mut open: Vec<(u32, String)> = Vec::new();
    let mut seen = 0;
    loop {
        let Ok(got) = timeout(Duration::from_secs(1), peer.next()).await else {
            // Nobody else comes.
            for (id, name) in open.drain(..) {
                *processed.entry(name).or_default() += 1;
                peer.headers(id, &[(":status", "200")], true).await;
            }
            continue;
        };
        let Some(got) = got else { return };
        if got.header.kind != Kind::Headers {
            continue;
        }
        let fields = peer.fields(&got);
        let name = fields.iter().find(|(name, _)| name == "x-number").unwrap().1.clone();
        let id = got.header.stream;
        seen += 1;
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if *seed >> 28 == 0 {
            let mut refusal = Vec::new();
            frame::put_rst_stream(&mut refusal, id, ErrorCode::RefusedStream);
            peer.send(&refusal).await;
            continue;
        }
        open.push((id, name));
        if open.len() < 8 && seen < 60 {
            continue;
        }
        let keep = if seen < 60 { open.len() } else { open.len() / 2 };
        if seen >= 60 {
            let last = keep.checked_sub(1).map_or(0, |last| open[last].0);
            let mut farewell = Vec::new();
            frame::put_goaway(&mut farewell, 0x7fff_ffff, ErrorCode::NoError, "");
            frame::put_goaway(&mut farewell, last, ErrorCode::NoError, "");
            peer.send(&farewell).await;
        }
        for (id, name) in open.drain(..keep) {
            *processed.entry(name).or_default() += 1;
            peer.headers(id, &[(":status", "200")], true).await;
        }
        if seen >= 60 {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_post_fails_or_runs_twice_while_endpoints_say_goaway_and_refuse() {
    const REQUESTS: u32 = 10_000;
    let rig = Rig::start(Config::new(1).snapshot(), Limits::default());
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let (tell, mut told) = peer::log();
    tokio::spawn(async move {
        let (mut processed, mut seed) = (BTreeMap::new(), 7);
        let mut connections = 0;
        while let Some(socket) = sockets.recv().await {
            connections += 1;
            restless(Raw::endpoint(socket, &[]).await, &mut processed, &mut seed).await;
            let _ = tell.send((connections, processed.clone().len(), processed.values().copied().max()));
        }
    });
    let client = client(&rig).await;
    let (mut at, mut flight) = (0, tokio::task::JoinSet::new());
    let mut statuses = BTreeMap::new();
    while at < REQUESTS || !flight.is_empty() {
        while at < REQUESTS && flight.len() < 50 {
            at += 1;
            let mut request = post();
            request.headers_mut().insert("x-number", at.into());
            let mut client = client.clone().ready().await.unwrap();
            flight.spawn(async move {
                let (response, mut out) = client.send_request(request, false).unwrap();
                send_all(&mut out, Bytes::from_static(b"body"), true).await.unwrap();
                response.await.map(|response| response.status().as_u16()).unwrap_or(0)
            });
        }
        let status = flight.join_next().await.unwrap().unwrap();
        *statuses.entry(status).or_insert(0) += 1;
    }
    let failed = rig
        .with(|driver| {
            driver
                .done
                .iter()
                .filter(|done| done.status != 200)
                .map(|done| (done.fault, done.attempts))
                .collect::<Vec<_>>()
        })
        .await;
    assert_eq!(failed, Vec::new());
    assert_eq!(statuses, BTreeMap::from([(200, REQUESTS)]));
    let mut last = None;
    while let Ok(report) = told.try_recv() {
        last = Some(report);
    }
    let (connections, _, twice) = last.unwrap();
    assert!(connections > 100, "{connections} connections");
    assert_eq!(twice, Some(1), "a request was processed twice");
}

#[tokio::test(start_paused = true)]
async fn a_silent_endpoint_is_asked_once_then_rarely_and_given_up_when_it_does_not_answer() {
    let limits = Limits {
        stream_idle_timeout: Duration::from_secs(3600),
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let (client, mut endpoint, _sockets) = pair(&rig, true).await;
    // The client lives: it answers what it is asked.
    let client = tokio::spawn(answer_pings(client));
    let began = Instant::now();
    let ping = next_ping(&mut endpoint).await;
    let asked = began.elapsed();
    assert!(
        asked >= Duration::from_secs(10) && asked <= Duration::from_secs(21),
        "{asked:?}"
    );
    endpoint.frame(Kind::Ping, flags::ACK, 0, &ping).await;
    let answered = Instant::now();
    next_ping(&mut endpoint).await;
    let pause = answered.elapsed();
    assert!(
        pause >= Duration::from_secs(300),
        "gRPC servers would say too_many_pings: {pause:?}"
    );
    // Not answered this time.
    let unanswered = Instant::now();
    let done = loop {
        sleep(Duration::from_secs(1)).await;
        let done = rig.with(|driver| std::mem::take(&mut driver.done)).await;
        if let Some(done) = done.into_iter().next() {
            break done;
        }
    };
    assert!(
        unanswered.elapsed() <= Duration::from_secs(12),
        "{:?}",
        unanswered.elapsed()
    );
    assert_eq!((done.fault, done.status), (Some(Fault::ConnectionLost), 503));
    let metrics = rig.with(|driver| driver.engine.metrics().clone()).await;
    assert_eq!(metrics.keepalive_timeouts_total, 1);
    client.abort();
}

async fn next_ping(peer: &mut Raw) -> Vec<u8> {
    loop {
        let got = peer.next().await.unwrap();
        if got.header.kind == Kind::Ping && !got.header.has(flags::ACK) {
            return got.payload;
        }
    }
}

async fn answer_pings(mut peer: Raw) {
    loop {
        let ping = next_ping(&mut peer).await;
        peer.frame(Kind::Ping, flags::ACK, 0, &ping).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_told_to_go_in_two_steps_and_serves_what_is_on_its_way() {
    let limits = Limits {
        connection_age_max: Some(Duration::from_secs(20)),
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let (mut client, mut endpoint, _sockets) = pair(&rig, false).await;
    let began = Instant::now();
    let first = timeout(Duration::from_secs(30), async {
        loop {
            let got = client.next().await.unwrap();
            if got.header.kind == Kind::GoAway {
                return got;
            }
        }
    })
    .await
    .unwrap();
    let age = began.elapsed();
    assert!(
        age >= Duration::from_secs(20) && age <= Duration::from_millis(22_100),
        "{age:?}"
    );
    assert_eq!(frame::goaway(&first.payload), Some((0x7fff_ffff, ErrorCode::NoError)));
    let second = client.wait_for(Kind::GoAway).await.unwrap();
    assert_eq!(frame::goaway(&second.payload), Some((1, ErrorCode::NoError)));
    endpoint.headers(1, &[(":status", "200")], true).await;
    client.frame(Kind::Data, flags::END_STREAM, 1, b"x").await;
    assert_eq!(client.wait_for(Kind::Headers).await.unwrap().header.stream, 1);
    assert!(
        client.wait_for(Kind::Headers).await.is_none(),
        "closed after its last stream"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_enough_requests_is_told_to_go() {
    let limits = Limits {
        connection_requests_max: Some(3),
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let (mut client, _endpoint, _sockets) = pair(&rig, false).await;
    client.request(3, "GET", true).await;
    sleep(Duration::from_millis(5)).await;
    client.frame(Kind::Ping, 0, 0, b"nothing?").await;
    assert_eq!(next_but_settings(&mut client).await, Kind::Ping);
    client.request(5, "GET", true).await;
    let farewell = client.wait_for(Kind::GoAway).await.unwrap();
    assert_eq!(
        frame::goaway(&farewell.payload),
        Some((0x7fff_ffff, ErrorCode::NoError))
    );
}

#[tokio::test(start_paused = true)]
async fn streams_that_nobody_reads_do_not_hold_up_their_neighbours_and_cost_nothing_while_they_wait() {
    const SLOW: u32 = 1000;
    let limits = Limits {
        streams_max: 2 * SLOW,
        stream_window: 64 * 1024,
        upstream_connection_window: 32 << 20,
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let mut client = raw_client(&rig).await;
    let mut settings = Vec::new();
    frame::put_settings(&mut settings, &[Setting::InitialWindowSize(0)]);
    frame::put_window_update(&mut settings, 0, 1 << 30);
    client.send(&settings).await;
    client.request(1, "GET", true).await;
    let mut endpoint = Raw::endpoint(sockets.recv().await.unwrap(), &[]).await;
    for number in 0..SLOW {
        let id = 1 + 2 * number;
        if number > 0 {
            client.request(id, "GET", true).await;
        }
        let opened = endpoint.wait_for(Kind::Headers).await.unwrap().header.stream;
        endpoint.headers(opened, &[(":status", "200")], false).await;
        endpoint.frame(Kind::Data, 0, opened, &[7; 16_000]).await;
        client.wait_for(Kind::Headers).await.unwrap();
    }
    let metrics = rig.with(|driver| driver.engine.measure()).await;
    assert_eq!(metrics.streams_waiting, 0, "a stream without a window is in no list");
    assert_eq!(metrics.upstream_connections_active, 1);
    // A stream with a reader passes all the same.
    let id = 1 + 2 * SLOW;
    client.request(id, "GET", true).await;
    let mut update = Vec::new();
    frame::put_window_update(&mut update, id, 1 << 20);
    client.send(&update).await;
    let opened = endpoint.wait_for(Kind::Headers).await.unwrap().header.stream;
    endpoint.headers(opened, &[(":status", "200")], false).await;
    endpoint
        .frame(Kind::Data, flags::END_STREAM, opened, &[8; 16_000])
        .await;
    let data = client.wait_for(Kind::Data).await.unwrap();
    assert_eq!((data.header.stream, data.payload[0]), (id, 8));
}

#[tokio::test(start_paused = true)]
async fn uploads_that_nobody_takes_hold_up_their_connection_only_beyond_the_budget() {
    for budget in [100_000, 64 << 20] {
        let limits = Limits {
            held_bytes_max: budget,
            streams_max: 256,
            ..Limits::default()
        };
        let rig = Rig::start(Config::new(1).snapshot(), limits);
        let mut sockets = rig.listen(endpoint_addr(1)).await;
        let mut client = raw_client(&rig).await;
        client.request(1, "POST", false).await;
        let _endpoint = Raw::endpoint(sockets.recv().await.unwrap(), &[Setting::InitialWindowSize(0)]).await;
        sleep(Duration::from_millis(5)).await;
        // 150 streams of 16 KB are more than the connection's window of 1 MiB.
        let (mut credit, mut sent) = (1024 * 1024_i64, 0);
        for number in 0..150_u32 {
            let id = 1 + 2 * number;
            if number > 0 {
                client.request(id, "POST", false).await;
            }
            if credit >= 16_000 {
                client.frame(Kind::Data, 0, id, &[7; 16_000]).await;
                credit -= 16_000;
                sent += 16_000;
            }
            while let Ok(got) = timeout(Duration::from_millis(5), client.next()).await {
                let got = got.unwrap();
                let began = frame::u31(&got.payload) != Some(1024 * 1024 - 65_535);
                if got.header.kind == Kind::WindowUpdate && got.header.stream == 0 && began {
                    credit += i64::from(frame::u31(&got.payload).unwrap());
                }
            }
        }
        let held = rig.with(|driver| driver.engine.measure().held_bytes).await;
        if budget == 100_000 {
            assert!(held <= budget && held >= 80_000, "{held}");
            assert!(sent < 1_200_000 && credit < 16_000, "{sent} {credit}");
        } else {
            assert_eq!((held, sent), (150 * 16_000, 150 * 16_000));
        }
        drop(client);
        rig.done(150).await;
        assert_eq!(rig.with(|driver| driver.engine.measure().held_bytes).await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn windows_grow_for_who_fills_them_within_the_budget_and_shrink_when_idle() {
    for (budget, grows) in [(64 << 20, true), (0, false)] {
        let limits = Limits {
            window_growth_max: budget,
            upstream_connection_window: 1 << 20,
            upstream_idle_timeout: Duration::from_secs(3600),
            ..Limits::default()
        };
        let rig = Rig::start(Config::new(1).snapshot(), limits);
        let mut sockets = rig.listen(endpoint_addr(1)).await;
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(1 << 30)
            .initial_connection_window_size(1 << 30);
        let mut client = peer::client_with(&rig, builder).await;
        let mut responses = Vec::new();
        for _ in 0..8 {
            responses.push(client.send_request(post(), true).unwrap().0);
        }
        let mut endpoint = Raw::endpoint(sockets.recv().await.unwrap(), &[]).await;
        let mut ids = Vec::new();
        while ids.len() < 8 {
            ids.push(endpoint.wait_for(Kind::Headers).await.unwrap().header.stream);
        }
        for id in &ids {
            endpoint.headers(*id, &[(":status", "200")], false).await;
        }
        tokio::spawn(async move {
            for response in responses {
                let mut incoming = response.await.unwrap().into_body();
                tokio::spawn(async move { body(&mut incoming).await });
            }
        });
        let (connection, streams) = fill(&mut endpoint, &ids, 40 << 20).await;
        let metrics = rig.with(|driver| driver.engine.measure()).await;
        let wanted = if grows { 3 << 20 } else { 0 };
        assert_eq!(metrics.window_growth_bytes, wanted);
        let top = if grows { 4 << 20 } else { 1 << 20 };
        assert!(connection <= top && connection > top / 2, "{connection}");
        assert!(streams.values().all(|window| *window <= 1 << 20), "{streams:?}");
        for id in &ids {
            endpoint.frame(Kind::Data, flags::END_STREAM, *id, b"").await;
        }
        rig.done(8).await;
        let endpoint = tokio::spawn(answer_pings(endpoint));
        sleep(Duration::from_secs(30)).await;
        let metrics = rig.with(|driver| driver.engine.measure()).await;
        assert_eq!(metrics.window_growth_bytes, 0, "an idle connection holds nothing");
        endpoint.abort();
    }
}

/// Sends as much as the windows allow, reads a round trip's worth of credit, and again. The largest windows seen.
async fn fill(peer: &mut Raw, ids: &[u32], bytes: usize) -> (i64, BTreeMap<u32, i64>) {
    let mut connection = 1024 * 1024_i64;
    let mut streams: BTreeMap<u32, i64> = ids.iter().map(|id| (*id, 256 * 1024)).collect();
    let (mut most, mut most_streams) = (0, BTreeMap::new());
    let mut sent = 0;
    let mut pings: Vec<Vec<u8>> = Vec::new();
    while sent < bytes {
        // What came in the meantime.
        while let Ok(got) = timeout(Duration::from_millis(20), peer.next()).await {
            let got = got.expect("the connection lives");
            match got.header.kind {
                Kind::WindowUpdate if got.header.stream == 0 => {
                    connection += i64::from(frame::u31(&got.payload).unwrap());
                }
                Kind::WindowUpdate => {
                    *streams.get_mut(&got.header.stream).unwrap() += i64::from(frame::u31(&got.payload).unwrap());
                }
                Kind::Ping => pings.push(got.payload),
                Kind::GoAway => panic!("{:?}", String::from_utf8_lossy(&got.payload)),
                _ => {}
            }
        }
        most = most.max(connection);
        for (id, window) in &streams {
            let before = most_streams.entry(*id).or_insert(0);
            *before = (*window).max(*before);
        }
        // A round trip later than the PING went.
        let due = std::mem::take(&mut pings);
        for id in ids {
            let window = streams.get_mut(id).unwrap();
            while *window >= 16_000 && connection >= 16_000 {
                peer.frame(Kind::Data, 0, *id, &[1; 16_000]).await;
                *window -= 16_000;
                connection -= 16_000;
                sent += 16_000;
            }
        }
        for ping in due {
            peer.frame(Kind::Ping, flags::ACK, 0, &ping).await;
        }
    }
    (most, most_streams)
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_may_be_under_way_are_answered_at_once_and_served_when_there_is_room() {
    let limits = Limits {
        requests_max: 1,
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let (mut client, mut endpoint, _sockets) = pair(&rig, true).await;
    let mut other = raw_client(&rig).await;
    other.request(1, "POST", false).await;
    let head = other.wait_for(Kind::Headers).await.unwrap();
    let fields = other.fields(&head);
    assert_eq!(fields[0].1, "503");
    assert!(
        fields.contains(&("retry-after".to_owned(), "1".to_owned())),
        "{fields:?}"
    );
    let grpc = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        (":authority", "example.com"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    other.headers(3, &grpc, false).await;
    let head = other.wait_for(Kind::Headers).await.unwrap();
    let fields = other.fields(&head);
    assert!(
        fields.contains(&("grpc-status".to_owned(), "8".to_owned())),
        "{fields:?}"
    );
    assert_eq!(rig.with(|driver| driver.engine.metrics().shed_total).await, 2);
    endpoint.headers(1, &[(":status", "200")], true).await;
    client.wait_for(Kind::Headers).await.unwrap();
    other.request(5, "GET", true).await;
    assert!(endpoint.wait_for(Kind::Headers).await.is_some());
}
