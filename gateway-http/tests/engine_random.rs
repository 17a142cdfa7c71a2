//! Random histories: clients and endpoints that say anything and open tunnels, sockets that break and block, changing
//! configurations, time that jumps. Nothing may panic, and when everybody is gone nothing may be left.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;

use config::{Config, endpoint_addr};
use gateway_core::ids::ListenerId;
use gateway_core::ir::{AuthSpeaks, Destination, ExternalAuth, Filter, Retry, ServiceName, UpstreamProtocol};
use gateway_core::lower::Ids;
use gateway_core::time::Moment;
use gateway_http::engine::{Accepted, Action, ConnId, DownstreamProtocol, Engine, EngineConfig, RESTORE_MAX};
use gateway_http::h2::frame::{self, HEADER_LEN, Header, Kind, flags};
use gateway_http::h2::hpack::Encoder;
use gateway_http::h2::settings::Setting;
use gateway_http::head::FieldList;
use gateway_http::limits::Limits;
use gateway_http::websocket;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// What is said in a tunnel: frames of WebSocket whole and cut, and what is none.
const TUNNEL: [&[u8]; 5] = [
    &[0x81, 2, b'h', b'i'],
    &[0x82, 0x7e, 1],
    &[0; 3000],
    &websocket::GOING_AWAY,
    b"\r\n\r\n",
];

/// A configuration whose rule takes CONNECT, too.
fn takes_connect(mut config: Config) -> Config {
    let mut rule = config.rule.clone();
    rule.name = gateway_core::ir::RuleName::from("HTTPRoute/default/connect/0");
    rule.matches[0].method = Some("CONNECT".into());
    config.more.push(rule);
    config
}

/// Half of all rules say what is to be sent again.
fn retry(config: &mut Config, random: &mut Random) {
    let ms = |ms: u64| Duration::from_millis(ms);
    config.rule.retry = random.one_in(2).then(|| Retry {
        attempts: 1 + random.below(4) as u32,
        statuses: vec![500],
        grpc_statuses: vec![14],
        backoff: ms([0, 1, 60, 900][random.below(4) as usize]),
    });
    config.rule.timeouts.backend_request = random.one_in(3).then(|| ms(1 + random.below(600)));
}

/// A quarter of all rules ask first, some of them endpoints of their own requests.
fn guard(config: &mut Config, random: &mut Random) {
    if random.one_in(4) {
        config.shadows = vec![endpoint_addr(1 + random.below(8) as u8)];
        let speaks = match random.one_in(4) {
            true => AuthSpeaks::Grpc { shown: Vec::new() },
            false => AuthSpeaks::Http {
                prefix: "/check".to_owned(),
                shown: Vec::new(),
                taken: Vec::new(),
            },
        };
        config.rule.filters.push(Filter::ExternalAuth(ExternalAuth {
            to: Destination::Service(ServiceName::from("default/shadow:50051")),
            protocol: [UpstreamProtocol::Http1, UpstreamProtocol::H2c][random.below(2) as usize],
            speaks,
            body_bytes_max: [0, 1000, 400_000][random.below(3) as usize],
        }));
    }
}

/// The far end of a socket.
struct Peer {
    client: bool,
    http1: bool,
    encoder: Encoder,
    /// Next stream id of a client; streams an endpoint was asked.
    next: u32,
    streams: Vec<u32>,
    /// What the engine wrote and nobody looked at.
    got: Vec<u8>,
    /// Bytes the engine may write before the socket is full.
    room: usize,
    preface_read: bool,
    /// What an endpoint of HTTP/1.1 would agree to the last tunnel with.
    agreement: Option<String>,
    /// It did.
    tunnel: bool,
}

impl Peer {
    fn new(client: bool, http1: bool) -> Self {
        Self {
            client,
            http1,
            encoder: Encoder::new(),
            next: 1,
            streams: Vec::new(),
            got: Vec::new(),
            room: usize::MAX,
            preface_read: client,
            agreement: None,
            tunnel: false,
        }
    }

    /// Streams opened at this endpoint, from the frames that came.
    fn look(&mut self) {
        if self.http1 {
            let requests = self.got.windows(4).filter(|end| end == b"\r\n\r\n").count();
            self.streams.extend((0..requests).map(|_| 1));
            self.look_for_tunnel();
            self.got.clear();
            return;
        }
        if !self.preface_read && self.got.len() >= 24 {
            self.got.drain(..24);
            self.preface_read = true;
        }
        while let Some(header) = Header::parse(&self.got).filter(|_| self.preface_read) {
            if self.got.len() < HEADER_LEN + header.len {
                return;
            }
            if header.kind == Kind::Headers && !self.client {
                self.streams.push(header.stream);
            }
            self.got.drain(..HEADER_LEN + header.len);
        }
    }

    fn look_for_tunnel(&mut self) {
        let text = String::from_utf8_lossy(&self.got);
        let after = |name: &str| text.rsplit_once(name).and_then(|(_, rest)| rest.split("\r\n").next());
        if text.contains("CONNECT ") {
            self.agreement = Some("HTTP/1.1 200 OK\r\n\r\n".to_owned());
        } else if let Some(protocol) = after("upgrade: ") {
            let accept = after("sec-websocket-key: ").and_then(|key| websocket::accept(key.as_bytes()));
            let accept = accept.map(|accept| format!("sec-websocket-accept: {}\r\n", String::from_utf8_lossy(&accept)));
            let accept = accept.unwrap_or_default();
            self.agreement = Some(format!(
                "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n{accept}\r\n"
            ));
        }
    }

    fn headers(&mut self, out: &mut Vec<u8>, stream: u32, fields: &[(&str, &str)], end: bool) {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        let open = frame::begin_headers(out);
        self.encoder.encode(&list, out);
        frame::end_headers(out, open, stream, end, 16_384);
    }

    /// Something this peer says.
    fn say(&mut self, random: &mut Random) -> Vec<u8> {
        let mut out = Vec::new();
        match (self.client, self.http1) {
            (true, true) => self.say_http1_request(&mut out, random),
            (false, true) => self.say_http1_response(&mut out, random),
            (_, false) => self.say_http2(&mut out, random),
        }
        out
    }

    fn say_http1_request(&mut self, out: &mut Vec<u8>, random: &mut Random) {
        let ask = "Connection: upgrade\r\nUpgrade: ";
        let text = match random.below(16) {
            12 => format!(
                "GET /a HTTP/1.1\r\nHost: a\r\n{ask}websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            ),
            13 => format!("POST /a HTTP/1.1\r\nHost: a\r\n{ask}foo/1, bar\r\nContent-Length: 3\r\n\r\nabc"),
            14 => "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nearly".to_owned(),
            15 => return out.extend_from_slice(TUNNEL[random.below(5) as usize]),
            0..=3 => "GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            4 => "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(),
            5 => format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n{}",
                "x".repeat(5000)
            ),
            6 => "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_owned(),
            7 => "3\r\nabc\r\n".to_owned(),
            8 => "0\r\n\r\n".to_owned(),
            9 => "HEAD / HTTP/1.1\r\nHo".to_owned(),
            10 => "st: b\r\n\r\n".to_owned(),
            _ => "x".repeat(random.below(40_000) as usize),
        };
        out.extend_from_slice(text.as_bytes());
    }

    fn say_http1_response(&mut self, out: &mut Vec<u8>, random: &mut Random) {
        if self.tunnel {
            return out.extend_from_slice(TUNNEL[random.below(5) as usize]);
        }
        if self.streams.pop().is_none() && !random.one_in(20) {
            return;
        }
        if let Some(agreement) = self.agreement.take().filter(|_| !random.one_in(4)) {
            self.tunnel = true;
            return out.extend_from_slice(agreement.as_bytes());
        }
        let text = match random.below(9) {
            0..=2 => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            3 => "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            4 => format!("HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n{}", "y".repeat(90_000)),
            5 => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n".to_owned(),
            6 => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end".to_owned(),
            7 => {
                let body = ["", "cut", "whole"][random.below(3) as usize];
                format!("HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\n{body}")
            }
            _ => "nonsense\r\n\r\n".to_owned(),
        };
        out.extend_from_slice(text.as_bytes());
    }

    fn say_http2(&mut self, out: &mut Vec<u8>, random: &mut Random) {
        let stream = match self.streams.len() as u64 {
            0 => 1,
            len => self.streams[random.below(len) as usize],
        };
        let end = random.one_in(3);
        match random.below(40) {
            0..=11 if self.client => {
                let stream = self.next;
                self.next += 2;
                self.streams.push(stream);
                let mut fields = vec![
                    (":method", "POST"),
                    (":scheme", "http"),
                    (":path", "/x"),
                    (":authority", "a.b"),
                ];
                match random.below(11) {
                    8 => fields = vec![(":method", "CONNECT"), (":authority", "a.b:1")],
                    9 | 10 => {
                        fields[0].1 = "CONNECT";
                        fields.insert(1, (":protocol", ["websocket", "foo/1"][random.below(2) as usize]));
                    }
                    0 => fields.push(("grpc-timeout", "300m")),
                    1 => fields.push(("content-length", "10")),
                    2 => fields.push(("content-type", "application/grpc")),
                    3 => fields.push(("te", "gzip")),
                    4 => fields[0].1 = "HEAD",
                    _ => {}
                }
                self.headers(out, stream, &fields, end);
            }
            0..=5 => self.headers(
                out,
                stream,
                &[(":status", "200"), ("content-type", "application/grpc")],
                end,
            ),
            6 => self.headers(out, stream, &[(":status", "500")], end),
            7 => self.headers(
                out,
                stream,
                &[
                    (":status", "200"),
                    ("grpc-status", "14"),
                    ("grpc-retry-pushback-ms", ["5", "-1"][random.below(2) as usize]),
                ],
                true,
            ),
            8 => self.headers(out, stream, &[(":status", "100")], false),
            9 => self.headers(out, stream, &[(":status", "200"), ("content-length", "7")], false),
            10..=11 => self.headers(out, stream, &[(":status", "abc")], end),
            12..=14 => self.headers(out, stream, &[("grpc-status", "0")], true),
            15..=25 => {
                let len = [0, 10, 5000, 16_384][random.below(4) as usize];
                frame::put_data_header(out, stream, len, end);
                out.resize(out.len() + len, 7);
            }
            26..=28 => frame::put_window_update(out, stream, 1 + random.below(100_000) as u32),
            29..=31 => frame::put_window_update(out, 0, 1 + random.below(200_000) as u32),
            32..=33 => {
                let code = [0, 1, 7, 8][random.below(4) as usize];
                frame::put_rst_stream(out, stream, frame::ErrorCode::from_code(code));
            }
            34 => {
                let window = [0, 100, 65_535, 1_000_000][random.below(4) as usize];
                let settings = [
                    Setting::InitialWindowSize(window),
                    Setting::MaxConcurrentStreams(random.below(6) as u32),
                ];
                frame::put_settings(out, &settings);
            }
            35 => frame::put_ping(out, *b"12345678"),
            36 if random.one_in(3) => frame::put_goaway(out, random.below(20) as u32, frame::ErrorCode::NoError, ""),
            37 if random.one_in(5) => {
                let header = Header {
                    len: random.below(20) as usize,
                    kind: Kind::from_code(random.below(12) as u8),
                    flags: random.below(64) as u8 & !flags::PADDED,
                    stream: random.below(9) as u32,
                };
                out.extend_from_slice(&header.to_bytes());
                out.resize(out.len() + header.len, random.below(256) as u8);
            }
            _ => {}
        }
    }
}

struct World {
    engine: Engine,
    random: Random,
    now: Moment,
    peers: BTreeMap<u32, Peer>,
    /// Upstream sockets that are not connected yet.
    connecting: Vec<(ConnId, bool)>,
    chunk: Vec<u8>,
    ids: Ids,
    revision: u64,
    outcomes: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut ids = Ids::default();
        let limits = Limits {
            stream_window: 20_000,
            connection_window: 70_000,
            out_bytes_max: 40_000,
            replay_bytes_max: 6000,
            streams_max: 30,
            tunnel_idle_timeout: Some(Duration::from_secs(3)).filter(|_| seed.is_multiple_of(2)),
            ..Limits::default()
        };
        let now = Moment::from_millis(1);
        let config = EngineConfig {
            limits,
            worker: 1,
            request_id_seed: seed,
        };
        let mut random = Random(seed);
        let mut first = Config::new(3);
        retry(&mut first, &mut random);
        let engine = Engine::new(config, takes_connect(first).lower(&mut ids, 1), now);
        let chunk = vec![0; 200_000 + RESTORE_MAX];
        let (peers, connecting) = (BTreeMap::new(), Vec::new());
        Self {
            engine,
            random,
            now,
            peers,
            connecting,
            chunk,
            ids,
            revision: 1,
            outcomes: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=5 if self.peers.values().filter(|peer| peer.client).count() < 6 => self.accept(),
            0..=69 => self.talk(),
            70..=76 => self.connect(),
            77..=80 => self.lose(),
            81..=88 => self.unblock(),
            89..=94 => self.pass_time(),
            95..=96 => self.publish(),
            _ => {}
        }
        self.finish_turn();
    }

    fn pick(&mut self) -> Option<u32> {
        let place = self.random.below(self.peers.len().max(1) as u64) as usize;
        self.peers.keys().nth(place).copied()
    }

    fn accept(&mut self) {
        let (protocol, http1) = match self.random.below(4) {
            0 => (DownstreamProtocol::Http1, true),
            1 => (DownstreamProtocol::Detect, false),
            _ => (DownstreamProtocol::Http2, false),
        };
        let accepted = Accepted {
            listener: ListenerId(0),
            peer: SocketAddr::from(([198, 18, 1, 2], 40_000)),
            local: SocketAddr::from(([198, 18, 0, 10], 8080)),
            tls: None,
            protocol,
        };
        let Ok(conn) = self.engine.accept(accepted, self.now) else {
            return;
        };
        self.peers.insert(conn.0, Peer::new(true, http1));
        if !http1 {
            let mut hello = frame::PREFACE.to_vec();
            frame::put_settings(&mut hello, &[]);
            self.deliver(conn, &hello);
        }
    }

    fn talk(&mut self) {
        let Some(id) = self.pick() else { return };
        let mut bytes = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            let peer = self.peers.get_mut(&id).expect("picked");
            peer.look();
            bytes.extend_from_slice(&peer.say(&mut self.random));
        }
        if !bytes.is_empty() {
            // Cut anywhere.
            let at = self.random.below(bytes.len() as u64 + 1) as usize;
            for part in [&bytes[..at], &bytes[at..]] {
                self.deliver(ConnId(id), part);
                if self.random.one_in(3) {
                    self.finish_turn();
                }
            }
        }
    }

    fn deliver(&mut self, conn: ConnId, bytes: &[u8]) {
        if bytes.is_empty() || !self.peers.contains_key(&conn.0) || !self.engine.wants_read(conn) {
            return;
        }
        let lead = self.engine.restore(conn, &mut self.chunk);
        self.chunk[lead..lead + bytes.len()].copy_from_slice(bytes);
        let chunk = std::mem::take(&mut self.chunk);
        self.engine.received(conn, &chunk[..lead + bytes.len()], self.now);
        while let Some(borrower) = self.engine.next_borrower() {
            self.transmit(borrower, &chunk);
        }
        self.chunk = chunk;
    }

    fn transmit(&mut self, conn: ConnId, chunk: &[u8]) {
        let Some(peer) = self.peers.get_mut(&conn.0) else {
            return;
        };
        self.engine.transmit(conn, chunk, self.now, |slices| {
            let mut written = 0;
            for slice in slices {
                let count = slice.len().min(peer.room);
                peer.got.extend_from_slice(&slice[..count]);
                peer.room -= count;
                written += count;
            }
            if written == 0 {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                Ok(written)
            }
        });
    }

    fn connect(&mut self) {
        if self.connecting.is_empty() {
            return;
        }
        let (conn, http1) = self.connecting.remove(0);
        if self.random.one_in(4) {
            self.engine.connect_failed(conn, self.now);
            return;
        }
        self.peers.insert(conn.0, Peer::new(false, http1));
        self.engine.connected(conn, self.now);
        if !http1 {
            let mut hello = Vec::new();
            let tunnels = self.random.one_in(2);
            frame::put_settings(&mut hello, &[Setting::EnableConnectProtocol(tunnels)]);
            self.deliver(conn, &hello);
        }
    }

    fn lose(&mut self) {
        let Some(id) = self.pick() else { return };
        if self.random.one_in(2) {
            self.engine.lost(ConnId(id), self.now);
        } else {
            self.engine.ended(ConnId(id), self.now);
        }
    }

    fn unblock(&mut self) {
        let Some(id) = self.pick() else { return };
        let room = [0, 100, 5000, usize::MAX][self.random.below(4) as usize];
        self.peers.get_mut(&id).expect("picked").room = room;
        self.engine.writable(ConnId(id), self.now);
    }

    fn pass_time(&mut self) {
        let span = [1, 20, 400, 2500][self.random.below(4) as usize];
        self.now = self.now + Duration::from_millis(span);
        self.engine.handle_timeout(self.now);
    }

    fn publish(&mut self) {
        let mut config = Config::new(1);
        let first = 1 + self.random.below(3) as u8;
        config.endpoints = (first..=first + self.random.below(3) as u8)
            .map(endpoint_addr)
            .collect();
        if self.random.one_in(2) {
            config.rule.destinations[0].to.protocol = UpstreamProtocol::Http1;
        }
        if self.random.one_in(4) {
            config.rule.timeouts.request = Some(Duration::from_millis(500));
        }
        retry(&mut config, &mut self.random);
        guard(&mut config, &mut self.random);
        self.revision += 1;
        let snapshot = takes_connect(config).lower(&mut self.ids, self.revision);
        self.engine.publish(snapshot, self.now);
    }

    fn finish_turn(&mut self) {
        for _ in 0..20 {
            let mut quiet = true;
            while let Some(conn) = self.engine.next_resumed() {
                let lead = self.engine.restore(conn, &mut self.chunk);
                let chunk = std::mem::take(&mut self.chunk);
                self.engine.received(conn, &chunk[..lead], self.now);
                while let Some(borrower) = self.engine.next_borrower() {
                    self.transmit(borrower, &chunk);
                }
                self.chunk = chunk;
                quiet = false;
            }
            while let Some(conn) = self.engine.next_dirty() {
                self.transmit(conn, &[]);
                quiet = false;
            }
            while let Some(action) = self.engine.next_action() {
                match action {
                    Action::Connect { conn, protocol, .. } => {
                        self.connecting.push((conn, protocol == UpstreamProtocol::Http1));
                    }
                    Action::Finish { .. } => {}
                    Action::Close { conn, .. } => {
                        self.peers.remove(&conn.0);
                        self.connecting.retain(|(id, _)| *id != conn);
                    }
                }
                quiet = false;
            }
            if quiet && self.engine.is_settled() {
                break;
            }
        }
        let outcomes = &mut self.outcomes;
        self.engine.take_outcomes(|outcome| {
            assert!(outcome.status == 0 || (100..600).contains(&outcome.status));
            *outcomes += 1;
        });
        let mut views = self.engine.streams(self.now);
        views.retain(|view| view.kind != "question");
        assert_eq!(views.len(), self.engine.live().1);
    }

    /// Everybody leaves.
    fn end(&mut self) {
        self.engine.drain(self.now);
        for _ in 0..400 {
            self.now = self.now + Duration::from_secs(1);
            self.engine.handle_timeout(self.now);
            self.finish_turn();
        }
        let clients: Vec<u32> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.client)
            .map(|(id, _)| *id)
            .collect();
        for id in clients {
            self.engine.lost(ConnId(id), self.now);
        }
        self.finish_turn();
        for _ in 0..400 {
            self.now = self.now + Duration::from_secs(1);
            self.engine.handle_timeout(self.now);
            self.finish_turn();
        }
    }
}

#[test]
fn whatever_happens_nothing_panics_and_nothing_is_left() {
    let (mut served, mut tunnels, mut retries, mut asked) = (0, 0, 0, [0; 3]);
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.end();
        let metrics = world.engine.metrics();
        assert_eq!(world.engine.live(), (0, 0), "seed {seed}");
        assert_eq!(metrics.requests_active, 0, "seed {seed}");
        assert_eq!(metrics.requests_total, world.outcomes, "seed {seed}");
        assert!(
            metrics.endpoints.iter().all(|endpoint| endpoint.requests_active == 0),
            "seed {seed}"
        );
        assert_eq!(metrics.upstream_connections_active, 0, "seed {seed}");
        assert_eq!(metrics.tunnels_active, 0, "seed {seed}");
        served += metrics.responses[2];
        tunnels += metrics.tunnels_total;
        let auth = [
            metrics.auth_allowed_total,
            metrics.auth_denied_total,
            metrics.auth_failed_total,
        ];
        for (sum, one) in asked.iter_mut().zip(auth) {
            *sum += one;
        }
        retries += metrics.retry.by.iter().sum::<u64>();
    }
    assert!(served > 2000, "histories are not all noise: {served}");
    assert!(tunnels > 500, "nor without tunnels: {tunnels}");
    assert!(retries > 1000, "nor without retries: {retries}");
    assert!(
        asked.iter().all(|count| *count > 50),
        "nor without questions: {asked:?}"
    );
}
