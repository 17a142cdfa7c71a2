//! Endpoints that answer whatever the engine asks: 200 and two bytes. HTTP/1.1 requests are read by [`crate::http1`].

use crate::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS};
use crate::http1::{self, Read};
use crate::turns::Turns;
use gateway_core::ir::UpstreamProtocol;
use gateway_http::engine::ConnId;
use std::collections::{BTreeMap, BTreeSet};

/// Rounds of question and answer; a request is answered once, so there are no more than requests.
const ROUNDS_MAX: usize = 10_000;

/// The far ends of all upstream connections.
#[derive(Default)]
pub struct Endpoints {
    http1: BTreeMap<u32, Vec<u8>>,
    http2: BTreeMap<u32, frames::Reader>,
    /// Upstream connections that were answered by a new occupant of the slot.
    seen: BTreeSet<u32>,
    opened: usize,
    /// HTTP/1.1 requests that came whole, in order.
    pub requests: Vec<http1::Request>,
    /// HTTP/2 requests that came whole.
    pub streams: usize,
}

impl Endpoints {
    /// Reads what the engine wrote to endpoints and answers it, until there is nothing more.
    pub fn serve(&mut self, turns: &mut Turns) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "questions without end");
            // A slot that was given again is another connection.
            for conn in &turns.opened[self.opened..] {
                self.http1.remove(&conn.0);
                self.http2.remove(&conn.0);
                self.seen.insert(conn.0);
            }
            self.opened = turns.opened.len();
            let upstream: Vec<(ConnId, UpstreamProtocol)> = turns
                .wires
                .values()
                .filter_map(|wire| wire.upstream.map(|protocol| (wire.conn, protocol)))
                .collect();
            let mut busy = false;
            for (conn, protocol) in upstream {
                let bytes = turns.take(conn);
                let answer = match protocol {
                    UpstreamProtocol::Http1 => self.answer_http1(conn, &bytes),
                    UpstreamProtocol::H2c => self.answer_http2(conn, &bytes),
                };
                if !answer.is_empty() {
                    turns.send(conn, &answer);
                    busy = true;
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn answer_http1(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        let buffer = self.http1.entry(conn.0).or_default();
        buffer.extend_from_slice(bytes);
        loop {
            match http1::read(buffer) {
                Read::Whole(request, len) => {
                    buffer.drain(..len);
                    // No tunnel: what follows a CONNECT is not ours to read.
                    let status = if request.method == b"CONNECT" {
                        "501 No"
                    } else {
                        "200 OK"
                    };
                    answer.extend_from_slice(format!("HTTP/1.1 {status}\r\nContent-Length: ").as_bytes());
                    let body: &[u8] = if request.method == b"HEAD" {
                        b"2\r\n\r\n"
                    } else {
                        b"2\r\n\r\nok"
                    };
                    answer.extend_from_slice(body);
                    self.requests.push(*request);
                }
                Read::Body(_) | Read::More => return answer,
                Read::Broken(why) => panic!("an endpoint was sent {why}: {}", buffer.escape_ascii()),
            }
        }
    }

    fn answer_http2(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        if self.seen.remove(&conn.0) {
            frames::put(&mut answer, frames::SETTINGS, 0, 0, &[]);
        }
        let reader = self.http2.entry(conn.0).or_insert_with(|| frames::Reader::new(true));
        for frame in reader.read(bytes) {
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                self.streams += 1;
                // `:status 200` of the static table.
                frames::put(&mut answer, HEADERS, END_HEADERS, frame.stream, &[0x88]);
                frames::put(&mut answer, DATA, END_STREAM, frame.stream, b"ok");
            }
        }
        answer
    }
}
