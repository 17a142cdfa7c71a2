//! Peers that send mutilated HTTP on every side: nothing panics, nothing is left behind, nothing grows without bound.
//! The moves are drawn from a seed, so that a failure repeats.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;

use config::Config;
use gateway_core::ids::ListenerId;
use gateway_core::ir::UpstreamProtocol;
use gateway_core::time::Moment;
use gateway_http::engine::{Accepted, Action, ConnId, DownstreamProtocol, Engine, EngineConfig};
use gateway_http::h2::frame::{self, ErrorCode};
use gateway_http::h2::hpack::Encoder;
use gateway_http::head::FieldList;
use gateway_http::limits::Limits;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.roll(of.len())]
    }
}

const REQUESTS: [&str; 12] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "hello",
    "\r\n",
];

const RESPONSES: [&str; 11] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "2\r\nok\r\n",
    "0\r\n\r\n",
];

/// A peer's HTTP/2: its compression and the streams it spoke on.
struct Frames {
    encoder: Encoder,
    next: u32,
}

impl Frames {
    fn headers(&mut self, out: &mut Vec<u8>, stream: u32, fields: &[(&str, &str)], end: bool) {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        let open = frame::begin_headers(out);
        self.encoder.encode(&list, out);
        frame::end_headers(out, open, stream, end, frame::PAYLOAD_MAX);
    }

    fn data(&self, out: &mut Vec<u8>, stream: u32, len: usize, end: bool) {
        frame::put_data_header(out, stream, len, end);
        out.extend(std::iter::repeat_n(b'd', len));
    }

    /// Frames a client may send, or nearly.
    fn client_move(&mut self, dice: &mut Dice) -> Vec<u8> {
        let mut out = Vec::new();
        let known = 1 + 2 * dice.roll((self.next as usize).div_ceil(2) + 1) as u32;
        match dice.roll(10) {
            0..=3 => {
                let method = dice.one(&["GET", "POST", "HEAD", "PUT"]);
                let fields = [
                    (":method", method),
                    (":scheme", "http"),
                    (":path", "/"),
                    (":authority", "a"),
                    ("te", "trailers"),
                ];
                self.headers(&mut out, self.next, &fields, dice.roll(2) == 0);
                self.next += 2;
            }
            4 | 5 => self.data(&mut out, known, dice.roll(6000), dice.roll(3) == 0),
            6 => self.headers(&mut out, known, &[("x-trailer", "1")], true),
            7 => frame::put_rst_stream(&mut out, known, ErrorCode::Cancel),
            8 => frame::put_window_update(
                &mut out,
                if dice.roll(2) == 0 { 0 } else { known },
                1 + dice.roll(70_000) as u32,
            ),
            _ => frame::put_ping(&mut out, *b"12345678"),
        }
        out
    }

    /// Frames an endpoint may send, or nearly.
    fn endpoint_move(&mut self, dice: &mut Dice) -> Vec<u8> {
        let mut out = Vec::new();
        let stream = 1 + 2 * dice.roll(12) as u32;
        match dice.roll(10) {
            0..=2 => self.headers(
                &mut out,
                stream,
                &[(":status", dice.one(&["200", "103", "204"]))],
                dice.roll(3) == 0,
            ),
            3..=5 => self.data(&mut out, stream, dice.roll(6000), dice.roll(3) == 0),
            6 => self.headers(&mut out, stream, &[("grpc-status", "0")], true),
            7 => frame::put_rst_stream(&mut out, stream, dice_error(dice)),
            8 => frame::put_window_update(
                &mut out,
                if dice.roll(2) == 0 { 0 } else { stream },
                1 + dice.roll(70_000) as u32,
            ),
            _ if dice.roll(5) == 0 => frame::put_goaway(&mut out, stream, ErrorCode::NoError, ""),
            _ => frame::put_settings_ack(&mut out),
        }
        out
    }
}

fn dice_error(dice: &mut Dice) -> ErrorCode {
    ErrorCode::from_code(dice.roll(14) as u32)
}

struct Peer {
    conn: ConnId,
    upstream: bool,
    /// Speaks HTTP/2 when there is something here.
    frames: Option<Frames>,
    /// Takes so many bytes before it is full.
    room: usize,
}

struct World {
    engine: Engine,
    now: Moment,
    peers: Vec<Peer>,
    dice: Dice,
    outcomes: u64,
}

impl World {
    fn new(seed: u64, protocol: UpstreamProtocol) -> Self {
        let now = Moment::from_millis(1);
        let config = Config::new(2).rule(|rule| rule.destinations[0].to.protocol = protocol);
        let limits = Limits {
            attempts_max: 3,
            upstream_idle_max: 3,
            ..Limits::default()
        };
        let setup = EngineConfig {
            limits,
            worker: 0,
            request_id_seed: seed,
        };
        let engine = Engine::new(setup, config.snapshot(), now);
        Self {
            engine,
            now,
            peers: Vec::new(),
            dice: Dice(seed),
            outcomes: 0,
        }
    }

    fn accept(&mut self) {
        let http2 = self.dice.roll(3) == 0;
        let accepted = Accepted {
            listener: ListenerId(0),
            peer: SocketAddr::from(([198, 18, 1, 2], 40_000)),
            local: SocketAddr::from(([198, 18, 0, 10], 8080)),
            tls: None,
            protocol: DownstreamProtocol::Detect,
        };
        let conn = self.engine.accept(accepted, self.now).expect("accepted");
        let frames = http2.then(|| Frames {
            encoder: Encoder::new(),
            next: 1,
        });
        self.peers.push(Peer {
            conn,
            upstream: false,
            frames,
            room: usize::MAX,
        });
        if http2 {
            let mut hello = frame::PREFACE.to_vec();
            frame::put_settings(&mut hello, &[]);
            self.deliver(self.peers.len() - 1, &hello);
        }
    }

    fn deliver(&mut self, place: usize, bytes: &[u8]) {
        let conn = self.peers[place].conn;
        if self.engine.wants_read(conn) {
            let mut chunk = vec![0; gateway_http::engine::RESTORE_MAX + bytes.len()];
            let lead = self.engine.restore(conn, &mut chunk);
            chunk[lead..lead + bytes.len()].copy_from_slice(bytes);
            chunk.truncate(lead + bytes.len());
            self.engine.received(conn, &chunk, self.now);
            while let Some(conn) = self.engine.next_borrower() {
                self.transmit(conn, &chunk);
            }
        }
        self.settle();
    }

    fn transmit(&mut self, conn: ConnId, chunk: &[u8]) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.conn == conn) else {
            return;
        };
        let room = &mut peer.room;
        self.engine.transmit(conn, chunk, self.now, |slices| {
            let len = slices.iter().map(|slice| slice.len()).sum::<usize>().min(*room);
            *room -= len;
            if len == 0 {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                Ok(len)
            }
        });
    }

    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "the turn never ends");
            let mut busy = false;
            while let Some(conn) = self.engine.next_resumed() {
                busy = true;
                let _ = self.engine.wants_read(conn);
            }
            while let Some(action) = self.engine.next_action() {
                busy = true;
                match action {
                    Action::Connect { conn, protocol, .. } => self.connect(conn, protocol),
                    Action::Finish { .. } => {}
                    Action::Close { conn, .. } => self.peers.retain(|peer| peer.conn != conn),
                }
            }
            while let Some(conn) = self.engine.next_dirty() {
                busy = true;
                self.transmit(conn, &[]);
            }
            if !busy {
                break;
            }
        }
        let outcomes = &mut self.outcomes;
        self.engine.take_outcomes(|_| *outcomes += 1);
    }

    fn connect(&mut self, conn: ConnId, protocol: UpstreamProtocol) {
        if self.dice.roll(8) == 0 {
            return self.engine.connect_failed(conn, self.now);
        }
        let frames = (protocol == UpstreamProtocol::H2c).then(|| Frames {
            encoder: Encoder::new(),
            next: 1,
        });
        let room = if self.dice.roll(4) == 0 { 3000 } else { usize::MAX };
        let http2 = frames.is_some();
        self.peers.push(Peer {
            conn,
            upstream: true,
            frames,
            room,
        });
        self.engine.connected(conn, self.now);
        if http2 {
            let mut hello = Vec::new();
            frame::put_settings(&mut hello, &[]);
            self.engine.received(conn, &hello, self.now);
        }
    }

    /// One move of one peer.
    fn step(&mut self) {
        let dice = &mut self.dice;
        if self.peers.len() < 3 || dice.roll(40) == 0 {
            return self.accept();
        }
        let place = dice.roll(self.peers.len());
        let peer = &mut self.peers[place];
        let conn = peer.conn;
        match dice.roll(100) {
            0..=1 => self.engine.lost(conn, self.now),
            2..=5 => self.engine.ended(conn, self.now),
            6..=15 => {
                peer.room = dice.roll(200_000);
                self.engine.writable(conn, self.now);
            }
            16..=19 => {
                self.now = self.now + Duration::from_millis(dice.roll(20_000) as u64);
                self.engine.handle_timeout(self.now);
            }
            _ => {
                let mut bytes = match (&mut peer.frames, peer.upstream) {
                    (Some(frames), false) => frames.client_move(dice),
                    (Some(frames), true) => frames.endpoint_move(dice),
                    (None, false) => dice.one(&REQUESTS).as_bytes().to_vec(),
                    (None, true) => dice.one(&RESPONSES).as_bytes().to_vec(),
                };
                if dice.roll(12) == 0 && !bytes.is_empty() {
                    let at = dice.roll(bytes.len());
                    match dice.roll(3) {
                        0 => bytes[at] = dice.roll(256) as u8,
                        1 => bytes.truncate(at),
                        _ => bytes.insert(at, dice.roll(256) as u8),
                    }
                }
                return self.deliver(place, &bytes);
            }
        }
        self.settle();
    }

    /// Everybody leaves: nothing may stay.
    fn end(mut self) -> u64 {
        while let Some(peer) = self.peers.first() {
            self.engine.lost(peer.conn, self.now);
            self.settle();
        }
        for _ in 0..10 {
            self.now = self.now + Duration::from_secs(400);
            self.engine.handle_timeout(self.now);
            self.settle();
        }
        assert_eq!(self.engine.live(), (0, 0), "connections or streams are left");
        let metrics = self.engine.metrics();
        assert_eq!(metrics.upstream_connections_active, 0);
        assert_eq!(metrics.requests_active, 0);
        assert_eq!(metrics.requests_total, self.outcomes, "every request has one outcome");
        assert!(metrics.endpoints.iter().all(|endpoint| endpoint.requests_active == 0));
        metrics.responses[2]
    }
}

fn run(seeds: std::ops::Range<u64>, protocol: UpstreamProtocol) {
    let mut answered = 0;
    for seed in seeds {
        let mut world = World::new(seed, protocol);
        for _ in 0..400 {
            world.step();
        }
        answered += world.end();
    }
    assert!(answered > 100, "{answered}: the moves make some sense");
}

#[test]
fn http1_endpoints_and_any_clients_do_no_harm() {
    run(0..120, UpstreamProtocol::Http1);
}

#[test]
fn http2_endpoints_and_any_clients_do_no_harm() {
    run(1000..1120, UpstreamProtocol::H2c);
}
