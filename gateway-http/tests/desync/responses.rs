//! Endpoints that answer what is no response, or more than one.

use super::client::{self, block, frame};
use super::config;
use super::config::endpoint_addr;
use super::judge;
use super::rig::Rig;
use super::table::{Row, rows};
use gateway_core::ir::UpstreamProtocol;
use gateway_http::limits::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const ROWS: &str = include_str!("fixtures/http1_responses.txt");
const SECOND: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond";

/// Answers the first request with `bytes`, later ones with `second`; `true` once a connection carried two.
async fn endpoint(rig: &Rig, bytes: Vec<u8>, closes: bool) -> Arc<AtomicBool> {
    let reused = Arc::new(AtomicBool::new(false));
    let requests = Arc::new(AtomicU32::new(0));
    let mut sockets = rig.listen(endpoint_addr(1)).await;
    let told = reused.clone();
    tokio::spawn(async move {
        while let Some(socket) = sockets.recv().await {
            tokio::spawn(serve(socket, bytes.clone(), closes, requests.clone(), told.clone()));
        }
    });
    reused
}

async fn serve(
    mut socket: DuplexStream,
    bytes: Vec<u8>,
    closes: bool,
    requests: Arc<AtomicU32>,
    reused: Arc<AtomicBool>,
) {
    let (mut read, mut chunk, mut here) = (Vec::new(), [0; 4096], 0);
    loop {
        let len = socket.read(&mut chunk).await.unwrap_or(0);
        if len == 0 {
            return;
        }
        read.extend_from_slice(&chunk[..len]);
        while let Ok((_, Some(used))) = judge::request(&read) {
            read.drain(..used);
            here += 1;
            reused.fetch_or(here > 1, Ordering::SeqCst);
            if requests.fetch_add(1, Ordering::SeqCst) > 0 {
                let _ = socket.write_all(SECOND).await;
                continue;
            }
            let _ = socket.write_all(&bytes).await;
            if closes {
                return;
            }
        }
    }
}

/// What a client got: a status and a body's length, or that it was cut.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Whole(u16, usize),
    Cut,
    Nothing,
}

async fn ask(rig: &Rig, http2: bool) -> Got {
    if http2 {
        let head = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
        ];
        let head = head.map(|(name, value)| (name.into(), value.into()));
        let reply = client::http2(rig, &frame(1, 5, 1, &block(&head))).await;
        match reply.status {
            Some(status) if reply.ended => Got::Whole(status, reply.body),
            Some(_) if reply.reset => Got::Cut,
            _ => Got::Nothing,
        }
    } else {
        let answer = client::http1(rig, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let responses = judge::responses(&answer.bytes, answer.closed).expect("well formed");
        match responses[..] {
            [Some((status, len))] => Got::Whole(status, len),
            // Nothing at all, or not all of it, and then the end.
            [] | [None] if answer.closed => Got::Cut,
            _ => Got::Nothing,
        }
    }
}

fn is_right(row: &Row, got: &Got) -> bool {
    match (row.verdict.as_str(), got) {
        ("502", Got::Whole(502, _)) | ("503", Got::Whole(503, _)) | ("cut", Got::Cut) => true,
        (verdict, Got::Whole(status, len)) => verdict.trim_end_matches(" alone") == format!("ok {status} {len}"),
        (_, _) => false,
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_response_is_502_or_cut_and_its_connection_carries_nothing_more() {
    let mut failures = Vec::new();
    for row in rows(ROWS, 55) {
        for http2 in [false, true] {
            let rig = Rig::start(config(UpstreamProtocol::Http1).snapshot(), Limits::default());
            let closes = row.cells.get(1).is_some_and(|cell| cell == b"CLOSE");
            let reused = endpoint(&rig, row.cells[0].clone(), closes).await;
            let got = ask(&rig, http2).await;
            let next = ask(&rig, http2).await;
            let reused = reused.load(Ordering::SeqCst);
            let may_be_reused = row.verdict.starts_with("ok") && !row.verdict.ends_with("alone");
            if !is_right(&row, &got) || next != Got::Whole(200, 6) || reused != may_be_reused {
                let version = if http2 { 2 } else { 1 };
                failures.push(format!(
                    "h{version} {} ({}): {got:?}, then {next:?}, reused {reused}",
                    row.name, row.verdict
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

/// Sections of an HTTP/2 endpoint that are no response.
const SECTIONS: [(&str, &[(&str, &str)]); 12] = [
    ("no status", &[("x", "y")]),
    ("two statuses", &[(":status", "200"), (":status", "200")]),
    ("a status of two digits", &[(":status", "20")]),
    ("a status of letters", &[(":status", "abc")]),
    ("101", &[(":status", "101")]),
    ("a pseudo-field of requests", &[(":status", "200"), (":path", "/")]),
    ("a status behind a field", &[("x", "y"), (":status", "200")]),
    ("a connection field", &[(":status", "200"), ("connection", "close")]),
    ("chunked", &[(":status", "200"), ("transfer-encoding", "chunked")]),
    (
        "a line end in a value",
        &[(":status", "200"), ("x", "a\r\nset-cookie: b")],
    ),
    ("a capital in a name", &[(":status", "200"), ("X", "y")]),
    (
        "two lengths",
        &[(":status", "200"), ("content-length", "3"), ("content-length", "4")],
    ),
];

#[tokio::test(start_paused = true)]
async fn what_is_no_response_over_http_2_is_502_for_every_client() {
    for (name, section) in SECTIONS {
        for http2 in [false, true] {
            let rig = Rig::start(config(UpstreamProtocol::H2c).snapshot(), Limits::default());
            let mut sockets = rig.listen(endpoint_addr(1)).await;
            tokio::spawn(async move {
                while let Some(mut socket) = sockets.recv().await {
                    let fields: Vec<_> = section
                        .iter()
                        .map(|(name, value)| ((*name).into(), (*value).into()))
                        .collect();
                    tokio::spawn(async move {
                        let _ = socket.write_all(&frame(4, 0, 0, &[])).await;
                        let mut chunk = [0; 4096];
                        // The preface, then the request.
                        let _ = socket.read(&mut chunk).await;
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                        let _ = socket.write_all(&frame(1, 5, 1, &block(&fields))).await;
                        while socket.read(&mut chunk).await.is_ok_and(|len| len > 0) {}
                    });
                }
            });
            let got = ask(&rig, http2).await;
            assert!(
                matches!(got, Got::Whole(502, _)),
                "{name} to h{}: {got:?}",
                if http2 { 2 } else { 1 }
            );
        }
    }
}
