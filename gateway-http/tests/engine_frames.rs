//! Odd peers, frame by frame: protocol errors, floods, interim responses, windows.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/raw.rs"]
mod raw;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/rig.rs"]
mod rig;

use config::{Config, endpoint_addr};
use gateway_core::fault::Fault;
use gateway_http::engine::DownstreamProtocol;
use gateway_http::flood::Flood;
use gateway_http::h2::frame::{self, ErrorCode, Kind, flags};
use gateway_http::h2::settings::Setting;
use gateway_http::limits::Limits;
use raw::Raw;
use rig::Rig;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::UnboundedReceiver;

async fn rig() -> Rig {
    Rig::start(Config::new(1).snapshot(), Limits::default())
}

async fn client(rig: &Rig) -> Raw {
    Raw::client(rig.socket(DownstreamProtocol::Http2).await).await
}

/// A client, an endpoint, and the stream ids 1 of both: a POST whose body is still to come.
async fn pair(rig: &Rig) -> (Raw, Raw, UnboundedReceiver<DuplexStream>) {
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let mut client = client(rig).await;
    client.request(1, "POST", false).await;
    let mut endpoint = Raw::endpoint(sockets.recv().await.expect("connected"), &[]).await;
    let head = endpoint.wait_for(Kind::Headers).await.expect("the request");
    assert_eq!(head.header.stream, 1);
    endpoint.fields(&head);
    (client, endpoint, sockets)
}

#[tokio::test(start_paused = true)]
async fn the_preface_is_detected_and_anything_cut_is_waited_for() {
    let rig = rig().await;
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let socket = rig.socket(DownstreamProtocol::Detect).await;
    let mut client = Raw::bare(socket);
    let mut bytes = frame::PREFACE.to_vec();
    frame::put_settings(&mut bytes, &[]);
    let block = client.block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/x"),
        (":authority", "a.b"),
    ]);
    let open = frame::begin_headers(&mut bytes);
    bytes.extend_from_slice(&block);
    frame::end_headers(&mut bytes, open, 1, true, 16_384);
    for byte in bytes {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    let mut endpoint = Raw::endpoint(sockets.recv().await.unwrap(), &[]).await;
    let head = endpoint.wait_for(Kind::Headers).await.unwrap();
    assert!(head.header.has(flags::END_STREAM));
    assert!(endpoint.fields(&head).contains(&(":path".to_owned(), "/x".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn interim_responses_pass_before_the_final_one() {
    let rig = rig().await;
    let (mut client, mut endpoint, _sockets) = pair(&rig).await;
    endpoint.headers(1, &[(":status", "100")], false).await;
    endpoint
        .headers(1, &[(":status", "103"), ("link", "</a>")], false)
        .await;
    endpoint.headers(1, &[(":status", "204")], true).await;
    for (status, end) in [("100", false), ("103", false), ("204", true)] {
        let head = client.wait_for(Kind::Headers).await.unwrap();
        assert_eq!(client.fields(&head)[0].1, status);
        assert_eq!(head.header.has(flags::END_STREAM), end);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_contradicts_content_length_is_a_stream_error() {
    for (body, end) in [(&b"toolong"[..], false), (b"ab", true)] {
        let rig = rig().await;
        let mut sockets = rig.listen(endpoint_addr(1)).await;
        let mut client = client(&rig).await;
        let head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a.b"),
            ("content-length", "4"),
        ];
        client.headers(1, &head, false).await;
        let mut endpoint = Raw::endpoint(sockets.recv().await.unwrap(), &[]).await;
        endpoint.wait_for(Kind::Headers).await.unwrap();
        client
            .frame(Kind::Data, if end { flags::END_STREAM } else { 0 }, 1, body)
            .await;
        assert_eq!(client.error().await, Some((Kind::RstStream, ErrorCode::ProtocolError)));
        assert_eq!(endpoint.error().await, Some((Kind::RstStream, ErrorCode::Cancel)));
        assert_eq!(rig.done(1).await[0].fault, Some(Fault::BadRequest));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_contradicts_content_length_is_not_passed_for_whole() {
    let rig = rig().await;
    let (mut client, mut endpoint, _sockets) = pair(&rig).await;
    endpoint
        .headers(1, &[(":status", "200"), ("content-length", "10")], false)
        .await;
    endpoint.frame(Kind::Data, flags::END_STREAM, 1, b"short").await;
    assert_eq!(
        endpoint.error().await,
        Some((Kind::RstStream, ErrorCode::ProtocolError))
    );
    assert_eq!(client.error().await, Some((Kind::RstStream, ErrorCode::InternalError)));
    assert_eq!(rig.done(1).await[0].fault, Some(Fault::BadResponse));
}

#[tokio::test(start_paused = true)]
async fn streams_above_the_last_id_of_a_goaway_go_elsewhere() {
    let rig = rig().await;
    let (mut client, mut endpoint, mut sockets) = pair(&rig).await;
    client.frame(Kind::Data, flags::END_STREAM, 1, b"first").await;
    client.request(3, "POST", false).await;
    client.frame(Kind::Data, flags::END_STREAM, 3, b"second").await;
    endpoint.wait_for(Kind::Headers).await.unwrap();
    endpoint.wait_for(Kind::Data).await.unwrap();
    let mut goaway = Vec::new();
    frame::put_goaway(&mut goaway, 1, ErrorCode::NoError, "");
    endpoint.send(&goaway).await;
    let mut another = Raw::endpoint(sockets.recv().await.unwrap(), &[]).await;
    let head = another.wait_for(Kind::Headers).await.unwrap();
    assert_eq!(head.header.stream, 1);
    assert_eq!(
        another.wait_for(Kind::Data).await.unwrap().payload,
        b"second",
        "the body goes again"
    );
    another.headers(1, &[(":status", "200")], true).await;
    endpoint.headers(1, &[(":status", "200")], true).await;
    let done = rig.done(2).await;
    assert!(done.iter().all(|done| done.status == 200 && done.fault.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_whole_survives_the_reset_behind_it() {
    let rig = rig().await;
    let (mut client, mut endpoint, _sockets) = pair(&rig).await;
    endpoint.headers(1, &[(":status", "200")], false).await;
    endpoint.frame(Kind::Data, flags::END_STREAM, 1, &[b'x'; 16_000]).await;
    endpoint.frame(Kind::RstStream, 0, 1, &[0, 0, 0, 0]).await;
    let data = client.wait_for(Kind::Data).await.unwrap();
    assert_eq!((data.payload.len(), data.header.has(flags::END_STREAM)), (16_000, true));
    assert_eq!(client.error().await, Some((Kind::RstStream, ErrorCode::NoError)));
    assert_eq!(rig.done(1).await[0].fault, None);
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_holds_the_endpoint_back() {
    let limits = Limits::default();
    let rig = Rig::start(Config::new(1).snapshot(), limits.clone());
    let (mut client, mut endpoint, _sockets) = pair(&rig).await;
    endpoint.headers(1, &[(":status", "200")], false).await;
    let window = limits.stream_window as usize;
    for _ in 0..window / 16_384 {
        endpoint.frame(Kind::Data, 0, 1, &[7; 16_384]).await;
    }
    let mut got = 0;
    while got < 65_535 {
        got += client.wait_for(Kind::Data).await.unwrap().payload.len();
    }
    assert_eq!(got, 65_535, "the client's window is kept");
    // What the client took was given back, once it was half a window at the least: nothing yet.
    let updates = async {
        let mut sum = 0;
        while let Some(frame) = endpoint.wait_for(Kind::WindowUpdate).await {
            sum += if frame.header.stream == 1 {
                frame::u31(&frame.payload).unwrap()
            } else {
                0
            };
        }
        sum
    };
    assert_eq!(updates.await, 0);
    let mut more = Vec::new();
    frame::put_window_update(&mut more, 1, 1 << 20);
    frame::put_window_update(&mut more, 0, 1 << 20);
    client.send(&more).await;
    while got < window {
        got += client.wait_for(Kind::Data).await.unwrap().payload.len();
    }
    assert_eq!(got, window);
    let update = loop {
        let frame = endpoint.wait_for(Kind::WindowUpdate).await.unwrap();
        if frame.header.stream == 1 {
            break frame::u31(&frame.payload).unwrap();
        }
    };
    assert!(update as usize >= window / 2);
}

#[tokio::test(start_paused = true)]
async fn settings_resize_the_windows_of_open_streams() {
    let rig = rig().await;
    let (mut client, mut endpoint, _sockets) = pair(&rig).await;
    let mut settings = Vec::new();
    frame::put_settings(&mut settings, &[Setting::InitialWindowSize(10)]);
    client.send(&settings).await;
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    endpoint.headers(1, &[(":status", "200")], false).await;
    endpoint.frame(Kind::Data, flags::END_STREAM, 1, &[1; 30]).await;
    assert_eq!(client.wait_for(Kind::Data).await.unwrap().payload.len(), 10);
    let mut settings = Vec::new();
    frame::put_settings(&mut settings, &[Setting::InitialWindowSize(25)]);
    client.send(&settings).await;
    assert_eq!(client.wait_for(Kind::Data).await.unwrap().payload.len(), 15);
    let mut more = Vec::new();
    frame::put_window_update(&mut more, 1, 100);
    client.send(&more).await;
    let last = client.wait_for(Kind::Data).await.unwrap();
    assert_eq!((last.payload.len(), last.header.has(flags::END_STREAM)), (5, true));
}

/// What a client sends after its preface, and how the connection or the stream must end.
struct Row {
    name: &'static str,
    send: &'static [u8],
    error: (Kind, ErrorCode),
}

const CONNECTION: Kind = Kind::GoAway;
const STREAM: Kind = Kind::RstStream;

#[tokio::test(start_paused = true)]
async fn protocol_errors_are_answered_with_the_rfcs_codes() {
    let rows = [
        Row {
            name: "DATA on stream 0",
            send: b"\0\0\x01\0\0\0\0\0\0x",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "DATA on idle",
            send: b"\0\0\x01\0\0\0\0\0\x07x",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "HEADERS on 0",
            send: b"\0\0\x01\x01\x04\0\0\0\0\x82",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "even id",
            send: b"\0\0\x01\x01\x04\0\0\0\x02\x82",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "bad block",
            send: b"\0\0\x01\x01\x04\0\0\0\x01\x80",
            error: (CONNECTION, ErrorCode::CompressionError),
        },
        Row {
            name: "no path",
            send: b"\0\0\x01\x01\x05\0\0\0\x01\x82",
            error: (STREAM, ErrorCode::ProtocolError),
        },
        Row {
            name: "frame too large",
            send: b"\0\x40\x01\0\0\0\0\0\x01",
            error: (CONNECTION, ErrorCode::FrameSizeError),
        },
        Row {
            name: "PING of 7",
            send: b"\0\0\x07\x06\0\0\0\0\x001234567",
            error: (CONNECTION, ErrorCode::FrameSizeError),
        },
        Row {
            name: "PING on 1",
            send: b"\0\0\x08\x06\0\0\0\0\x0112345678",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "SETTINGS of 5",
            send: b"\0\0\x05\x04\0\0\0\0\x0012345",
            error: (CONNECTION, ErrorCode::FrameSizeError),
        },
        Row {
            name: "window 0",
            send: b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "window overflow",
            send: b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff",
            error: (CONNECTION, ErrorCode::FlowControlError),
        },
        Row {
            name: "RST on idle",
            send: b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "PUSH_PROMISE",
            send: b"\0\0\x04\x05\x04\0\0\0\x01\0\0\0\x02",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "CONTINUATION",
            send: b"\0\0\0\x09\x04\0\0\0\x01",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "interrupted block",
            send: b"\0\0\x01\x01\x01\0\0\0\x01\x82\0\0\x08\x06\0\0\0\0\x0012345678",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "GOAWAY on 1",
            send: b"\0\0\x08\x07\0\0\0\0\x01\0\0\0\0\0\0\0\0",
            error: (CONNECTION, ErrorCode::ProtocolError),
        },
        Row {
            name: "PRIORITY on itself",
            send: b"\0\0\x05\x02\0\0\0\0\x03\0\0\0\x03\x10",
            error: (STREAM, ErrorCode::ProtocolError),
        },
    ];
    for row in rows {
        let rig = rig().await;
        let mut client = client(&rig).await;
        client.send(row.send).await;
        assert_eq!(client.error().await, Some(row.error), "{}", row.name);
        if row.error.0 == CONNECTION {
            assert!(client.wait_for(Kind::Data).await.is_none(), "{}", row.name);
            assert_eq!(rig.with(|driver| driver.engine.live()).await, (0, 0), "{}", row.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn floods_are_cut_and_the_endpoint_stays() {
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\x0012345678";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const PRIORITY: &[u8] = b"\0\0\x05\x02\0\0\0\0\x05\0\0\0\x03\x10";
    const UNKNOWN: &[u8] = b"\0\0\0\x77\0\0\0\0\0";
    const EMPTY_DATA: &[u8] = b"\0\0\0\0\0\0\0\0\x01";
    const WINDOW_UPDATE: &[u8] = b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01";
    const SMALL_DATA: &[u8] = b"\0\0\x01\0\0\0\0\0\x01x";
    for (name, frame, flood, most) in [
        ("PING", PING, Flood::Pings, 100),
        ("SETTINGS", SETTINGS, Flood::Settings, 100),
        ("PRIORITY", PRIORITY, Flood::Priorities, 300),
        ("unknown", UNKNOWN, Flood::UnknownFrames, 300),
        ("empty DATA", EMPTY_DATA, Flood::EmptyData, 200),
        ("small DATA", SMALL_DATA, Flood::SmallData, 25_700),
        ("WINDOW_UPDATE", WINDOW_UPDATE, Flood::WindowUpdates, 100),
    ] {
        let rig = rig().await;
        let (mut client, mut endpoint, _sockets) = pair(&rig).await;
        let mut sent = 0;
        for _ in 0..300 {
            client.send(&frame.repeat(100)).await;
            sent += 100;
            tokio::task::yield_now().await;
            if rig.with(|driver| driver.engine.live().0).await == 0 {
                break;
            }
        }
        assert!(sent <= most, "{name}: cut after {sent}");
        let goaway = client.wait_for(Kind::GoAway).await.unwrap();
        assert_eq!(frame::goaway(&goaway.payload).unwrap().1, ErrorCode::EnhanceYourCalm);
        assert_eq!(&goaway.payload[8..], flood.why().as_bytes(), "{name}");
        assert_eq!(endpoint.error().await, Some((STREAM, ErrorCode::Cancel)), "{name}");
        let (floods, upstream) = rig
            .with(move |driver| {
                let metrics = driver.engine.metrics();
                (metrics.floods[flood as usize], metrics.upstream_connections_active)
            })
            .await;
        assert_eq!((floods, upstream), (1, 1), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn rapid_resets_are_cut() {
    let rig = rig().await;
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let mut client = client(&rig).await;
    let mut stream = 1;
    while rig.with(|driver| driver.engine.live().0).await == 1 {
        client.request(stream, "GET", true).await;
        client.frame(Kind::RstStream, 0, stream, &[0, 0, 0, 8]).await;
        stream += 2;
        tokio::task::yield_now().await;
        assert!(stream < 220, "cut behind the burst");
    }
    assert_eq!(client.error().await, Some((CONNECTION, ErrorCode::EnhanceYourCalm)));
    assert!(sockets.recv().await.is_some());
    assert_eq!(rig.with(|driver| driver.engine.live()).await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_unread_flood_of_answers_is_cut_by_its_memory() {
    let limits = Limits {
        pings_burst_max: u32::MAX,
        control_frames_max: u32::MAX,
        control_bytes_max: 64 * 1024,
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let mut client = client(&rig).await;
    let ping = b"\0\0\x08\x06\0\0\0\0\x0012345678";
    for _ in 0..2000 {
        client.send(&ping.repeat(60)).await;
        if rig.with(|driver| driver.engine.live().0).await == 0 {
            break;
        }
    }
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let (live, floods) = rig
        .with(|driver| {
            (
                driver.engine.live(),
                driver.engine.metrics().floods[Flood::OutboundBytes as usize],
            )
        })
        .await;
    assert_eq!((live, floods), ((0, 0), 1));
}

#[tokio::test(start_paused = true)]
async fn endless_field_blocks_are_cut() {
    let rig = rig().await;
    let mut client = client(&rig).await;
    client.frame(Kind::Headers, 0, 1, &[]).await;
    for _ in 0..9 {
        client.frame(Kind::Continuation, 0, 1, &[]).await;
    }
    assert_eq!(client.error().await, Some((CONNECTION, ErrorCode::EnhanceYourCalm)));
}

#[tokio::test(start_paused = true)]
async fn silent_clients_are_closed_in_time() {
    for protocol in [DownstreamProtocol::Detect, DownstreamProtocol::Http2] {
        let rig = rig().await;
        let _socket = rig.socket(protocol).await;
        tokio::time::sleep(std::time::Duration::from_secs(9)).await;
        assert_eq!(rig.with(|driver| driver.engine.live().0).await, 1);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(rig.with(|driver| driver.engine.live().0).await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn more_streams_than_allowed_are_refused() {
    let limits = Limits {
        streams_max: 2,
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let (mut client, _endpoint, _sockets) = pair(&rig).await;
    client.request(3, "POST", false).await;
    client.request(5, "POST", false).await;
    assert_eq!(client.error().await, Some((STREAM, ErrorCode::RefusedStream)));
    assert_eq!(rig.with(|driver| driver.engine.live()).await, (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_broken_off_stream_gives_its_connections_window_back() {
    // Nothing is given back when bytes begin to wait: all of it has to come back when the stream ends.
    let limits = Limits {
        held_bytes_max: 0,
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let mut client = client(&rig).await;
    let mut settings = Vec::new();
    frame::put_settings(&mut settings, &[Setting::InitialWindowSize(10)]);
    client.send(&settings).await;
    client.request(1, "POST", false).await;
    let mut endpoint = Raw::endpoint(sockets.recv().await.unwrap(), &[Setting::InitialWindowSize(10)]).await;
    let (mut to_endpoint, mut to_client) = (0_i64, 0_i64);
    for stream in (1..200).step_by(2) {
        if stream > 1 {
            client.request(stream, "POST", false).await;
        }
        let id = endpoint.wait_for(Kind::Headers).await.unwrap().header.stream;
        endpoint.headers(id, &[(":status", "200")], false).await;
        for _ in 0..2 {
            endpoint.frame(Kind::Data, 0, id, &[1; 16_384]).await;
            client.frame(Kind::Data, 0, stream, &[2; 16_384]).await;
            to_endpoint -= 16_384;
            to_client -= 16_384;
        }
        client.wait_for(Kind::Data).await.unwrap();
        client.frame(Kind::RstStream, 0, stream, &[0, 0, 0, 8]).await;
        for (peer, sum) in [(&mut endpoint, &mut to_endpoint), (&mut client, &mut to_client)] {
            peer.frame(Kind::Ping, 0, 0, b"flushed?").await;
            while let Some(frame) = peer.next().await {
                if frame.header.kind == Kind::WindowUpdate && frame.header.stream == 0 {
                    *sum += i64::from(frame::u31(&frame.payload).unwrap());
                }
                if frame.header.kind == Kind::Ping && frame.header.has(flags::ACK) {
                    break;
                }
            }
        }
        assert!(
            to_endpoint > -1_048_576 && to_client > -1_048_576,
            "stream {stream}: {to_endpoint} {to_client}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_closed_in_time() {
    let limits = Limits {
        upstream_ping_interval: None,
        ..Limits::default()
    };
    let rig = Rig::start(Config::new(1).snapshot(), limits);
    let (mut client, mut endpoint, _sockets) = pair(&rig).await;
    let mut more = Vec::new();
    frame::put_window_update(&mut more, 1, 1 << 20);
    frame::put_window_update(&mut more, 0, 1 << 20);
    client.send(&more).await;
    endpoint.headers(1, &[(":status", "200")], false).await;
    for _ in 0..10 {
        endpoint.frame(Kind::Data, 0, 1, &[7; 16_384]).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    assert!(
        client.wait_for(Kind::Data).await.is_some(),
        "a byte taken is a sign of life"
    );
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    assert_eq!(rig.with(|driver| driver.engine.live()).await, (1, 1));
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
    assert_eq!(rig.with(|driver| driver.engine.live()).await, (0, 0));
    assert_eq!(endpoint.error().await, Some((STREAM, ErrorCode::Cancel)));
}

#[tokio::test(start_paused = true)]
async fn the_farewell_has_two_steps() {
    let rig = rig().await;
    let (mut client, mut endpoint, _sockets) = pair(&rig).await;
    rig.with(|driver| {
        let now = driver.now();
        driver.engine.drain(now);
    })
    .await;
    let first = client.wait_for(Kind::GoAway).await.unwrap();
    assert_eq!(frame::goaway(&first.payload), Some((0x7fff_ffff, ErrorCode::NoError)));
    // What was on its way is still served.
    client.request(3, "GET", true).await;
    let head = endpoint.wait_for(Kind::Headers).await.unwrap();
    endpoint.headers(head.header.stream, &[(":status", "200")], true).await;
    assert_eq!(client.wait_for(Kind::Headers).await.unwrap().header.stream, 3);
    let second = client.wait_for(Kind::GoAway).await.unwrap();
    assert_eq!(frame::goaway(&second.payload), Some((3, ErrorCode::NoError)));
    // What comes later is not, and its client knows.
    client.request(5, "GET", true).await;
    assert!(endpoint.wait_for(Kind::Headers).await.is_none());
    endpoint.headers(1, &[(":status", "200")], true).await;
    assert_eq!(client.wait_for(Kind::Headers).await.unwrap().header.stream, 1);
    client.frame(Kind::Data, flags::END_STREAM, 1, b"").await;
    assert!(
        client.wait_for(Kind::Data).await.is_none(),
        "closed when the last stream ended"
    );
    // A handshake that began before the drain may end during it, but not much later.
    let refused = rig.with(|driver| {
        let accepted = gateway_http::engine::Accepted {
            listener: gateway_core::ids::ListenerId(0),
            peer: ([198, 18, 1, 2], 1).into(),
            local: ([198, 18, 0, 10], 8080).into(),
            tls: None,
            protocol: DownstreamProtocol::Http2,
        };
        let now = driver.now() + std::time::Duration::from_secs(10);
        driver.engine.accept(accepted, now).err()
    });
    assert_eq!(refused.await, Some(gateway_core::fault::Refusal::Draining));
}

#[tokio::test(start_paused = true)]
async fn what_is_live_can_be_seen() {
    let rig = rig().await;
    let (mut client, _endpoint, _sockets) = pair(&rig).await;
    client.frame(Kind::Data, 0, 1, b"twelve bytes").await;
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let (connections, streams) = rig
        .with(|driver| {
            let now = driver.now();
            (driver.engine.connections(now), driver.engine.streams(now))
        })
        .await;
    let [down, up] = &connections[..] else {
        panic!("{connections:?}")
    };
    assert_eq!((down.protocol, down.streams, down.streams_total), ("h2", 1, 1));
    assert_eq!(down.peer.to_string(), "198.18.1.2:40000");
    assert!(down.listener.is_some() && up.endpoint.is_some() && down.age_ms >= 30);
    assert_eq!((up.protocol, up.peer), ("h2", endpoint_addr(1)));
    let [stream] = &streams[..] else { panic!("{streams:?}") };
    assert_eq!((stream.connection, stream.stream), (down.id, 1));
    assert_eq!(
        (stream.method.as_str(), stream.path.as_str(), stream.bytes_up),
        ("POST", "/", 12)
    );
    assert_eq!(stream.endpoint, up.endpoint);
}
