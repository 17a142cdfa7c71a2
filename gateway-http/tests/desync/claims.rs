//! What clients claim in fields and trailers, and what endpoints get to read of it.

use super::client::{self, block, frame};
use super::downgrade::field;
use super::endpoint::Recorder;
use super::judge::Seen;
use super::rig::Rig;
use super::table::{Row, rows};
use super::{UPSTREAMS, config};
use gateway_core::ir::UpstreamProtocol;
use gateway_http::limits::{ForwardedFields, Limits, Underscores};

const ROWS: &str = include_str!("fixtures/claims.txt");

/// Fields of the head, and of the trailers.
fn split(row: &Row) -> (Vec<&[u8]>, Vec<&[u8]>) {
    let cells: Vec<&[u8]> = row.cells.iter().map(Vec::as_slice).collect();
    let mut parts = cells.split(|cell| *cell == b"TRAILERS").map(<[_]>::to_vec);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

async fn over_http1(rig: &Rig, row: &Row) -> u16 {
    let (fields, trailers) = split(row);
    let lines =
        |fields: &[&[u8]]| -> Vec<u8> { fields.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect() };
    let mut request = b"POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n".to_vec();
    request.extend(lines(&fields));
    request.extend(b"\r\n3\r\nabc\r\n0\r\n");
    request.extend(lines(&trailers));
    request.extend(b"\r\n");
    client::http1(rig, &request)
        .await
        .statuses()
        .first()
        .copied()
        .unwrap_or(0)
}

/// `None` for what HTTP/2 cannot say.
async fn over_http2(rig: &Rig, row: &Row) -> Option<u16> {
    let (fields, trailers) = split(row);
    let lower = |line: &&[u8]| {
        let (mut name, value) = field(line);
        name.make_ascii_lowercase();
        (name, value)
    };
    let mut head = vec![
        (b":method".to_vec(), b"POST".to_vec()),
        (b":scheme".to_vec(), b"http".to_vec()),
        (b":path".to_vec(), b"/".to_vec()),
        (b":authority".to_vec(), b"example.com".to_vec()),
    ];
    head.extend(fields.iter().map(lower));
    let hop = ["connection", "keep-alive", "proxy-connection", "upgrade", "te"];
    if head
        .iter()
        .any(|(name, _)| hop.iter().any(|hop| name == hop.as_bytes()))
    {
        return None;
    }
    let trailers: Vec<_> = trailers.iter().map(lower).collect();
    let mut frames = frame(1, 4, 1, &block(&head));
    frames.extend(frame(0, u8::from(trailers.is_empty()), 1, b"abc"));
    if !trailers.is_empty() {
        frames.extend(frame(1, 5, 1, &block(&trailers)));
    }
    client::http2(rig, &frames).await.status
}

fn has_spoof(fields: &[(String, String)]) -> bool {
    fields.iter().any(|(_, value)| value.contains("SPOOF"))
}

fn is_right(row: &Row, status: u16, seen: &[Seen]) -> bool {
    let trails = row.cells.iter().any(|cell| cell == b"TRAILERS");
    match (row.verdict.as_str(), seen) {
        ("400", []) => status == 400,
        ("pass", [seen]) => {
            status == 200 && !has_spoof(&seen.fields) && !has_spoof(&seen.trailers) && seen.body == b"abc"
        }
        ("keep", [seen]) => {
            status == 200
                && has_spoof(&seen.fields) != trails
                && has_spoof(&seen.trailers) == trails
                && seen.trailers.len() == usize::from(trails)
                && seen.body == b"abc"
        }
        _ => false,
    }
}

async fn rig(protocol: UpstreamProtocol, limits: Limits) -> (Rig, Recorder) {
    let rig = Rig::start(config(protocol).snapshot(), limits);
    let recorder = Recorder::start(&rig, protocol).await;
    (rig, recorder)
}

#[tokio::test(start_paused = true)]
async fn what_a_client_claims_reaches_no_endpoint() {
    let mut failures = Vec::new();
    for (protocol, name) in UPSTREAMS {
        for row in rows(ROWS, 60) {
            for http2 in [false, true] {
                let (rig, recorder) = rig(protocol, Limits::default()).await;
                let status = if http2 {
                    match over_http2(&rig, &row).await {
                        Some(status) => status,
                        None => continue,
                    }
                } else {
                    over_http1(&rig, &row).await
                };
                let seen = recorder.seen();
                if !is_right(&row, status, &seen) {
                    let version = if http2 { 2 } else { 1 };
                    failures.push(format!(
                        "h{version}->{name} {} ({}): {status}, {seen:?}",
                        row.name, row.verdict
                    ));
                }
                let told = seen
                    .iter()
                    .all(|seen| seen.field("x-forwarded-for") == Some("198.18.1.2"));
                assert!(told, "the gateway says who asked: {seen:?}");
            }
        }
    }
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_one_trusts_is_believed_and_underscores_go_through_where_one_wants_it() {
    let limits = Limits {
        forwarded_fields: ForwardedFields::Append,
        underscores: Underscores::Allow,
        ..Limits::default()
    };
    for (protocol, _) in UPSTREAMS {
        let (rig, recorder) = rig(protocol, limits.clone()).await;
        let answer = client::http1(
            &rig,
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Host: b\r\nForwarded: for=c\r\n\
              device_id: 7\r\nx_forwarded_for: SPOOF\r\nContent_Length: SPOOF\r\n\r\n",
        )
        .await;
        assert_eq!(answer.statuses(), [200]);
        let seen = recorder.whole().remove(0);
        for (name, value) in [
            ("x-forwarded-for", "203.0.113.9, 198.18.1.2"),
            ("x-forwarded-host", "b"),
            ("forwarded", "for=c"),
            ("device_id", "7"),
        ] {
            assert_eq!(seen.field(name), Some(value), "{name}");
        }
        assert!(!has_spoof(&seen.fields), "{seen:?}");
    }
}
