//! Drives the engine with requests between clients and endpoints that are byte buffers: what `cargo xtask budget`
//! counts instructions of. Everything the engine does happens inside [`engine_turn`]; what the peers do does not count.
//!
//! ```text
//! requests CELL ROUNDS        a round is one request on each stream of each client
//! ```

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/support/config.rs"]
mod config;

use config::Config;
use gateway_core::ids::ListenerId;
use gateway_core::ir::{FieldMatch, HttpMatch, PathMatch, RouteKind, UpstreamProtocol, ValueMatch};
use gateway_core::time::Moment;
use gateway_http::engine::{Accepted, Action, ConnId, DownstreamProtocol, Engine, EngineConfig};
use gateway_http::h2::frame::{self, HEADER_LEN, Header, Kind};
use gateway_http::h2::hpack::Encoder;
use gateway_http::head::FieldList;
use gateway_http::limits::Limits;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// One kind of load.
struct Cell {
    name: &'static str,
    clients: usize,
    /// Requests at once on each client connection.
    streams: usize,
    protocol: UpstreamProtocol,
    /// Whether every request has another path, as no repeated block can have.
    varied: bool,
}

const CELLS: &[Cell] = &[
    Cell {
        name: "grpc_10x10",
        clients: 10,
        streams: 10,
        protocol: UpstreamProtocol::H2c,
        varied: false,
    },
    Cell {
        name: "grpc_10x10_varied",
        clients: 10,
        streams: 10,
        protocol: UpstreamProtocol::H2c,
        varied: true,
    },
    Cell {
        name: "http1_50",
        clients: 50,
        streams: 1,
        protocol: UpstreamProtocol::Http1,
        varied: false,
    },
];

const ENDPOINTS: u8 = 4;
/// Downstream and upstream connections of a cell at most.
const CONNECTIONS_MAX: usize = 256;
/// A gRPC message of 64 bytes behind its prefix.
const MESSAGE: [u8; 69] = {
    let mut message = [0; 69];
    message[4] = 64;
    message
};
const HTTP1_REQUEST: &[u8] =
    b"GET /echo.Echo/x HTTP/1.1\r\nHost: localhost\r\nx-route: a\r\nUser-Agent: load/1\r\n\r\n";
const HTTP1_RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: endpoint\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

/// The far side of one connection.
struct Peer {
    conn: ConnId,
    encoder: Encoder,
    next_stream: u32,
    /// What the engine wrote and the peer has not read.
    inbox: Vec<u8>,
}

impl Peer {
    fn new(conn: ConnId) -> Self {
        Self {
            conn,
            encoder: Encoder::new(),
            next_stream: 1,
            inbox: Vec::with_capacity(1 << 16),
        }
    }
}

struct Rig {
    engine: Engine,
    now: Moment,
    clients: BTreeMap<ConnId, Peer>,
    endpoints: BTreeMap<ConnId, Peer>,
    http2: bool,
}

/// All the engine does in one turn of a worker: bytes come from each of `sources`, then each connection is written once.
#[inline(never)]
fn engine_turn(
    engine: &mut Engine,
    sources: &[(ConnId, Vec<u8>)],
    inboxes: &mut [Vec<u8>],
    actions: &mut Vec<Action>,
    now: Moment,
) {
    let mut write = |conn: ConnId, slices: &[IoSlice<'_>]| {
        let inbox = &mut inboxes[conn.index()];
        slices.iter().for_each(|slice| inbox.extend_from_slice(slice));
        let total = slices.iter().map(|slice| slice.len()).sum();
        Ok(total)
    };
    for (conn, bytes) in sources {
        engine.received(*conn, bytes, now);
        while let Some(conn) = engine.next_borrower() {
            engine.transmit(conn, bytes, now, |slices| write(conn, slices));
        }
    }
    while let Some(action) = engine.next_action() {
        actions.push(action);
    }
    while let Some(conn) = engine.next_dirty() {
        engine.transmit(conn, &[], now, |slices| write(conn, slices));
    }
    engine.take_outcomes(|_| {});
    engine.handle_timeout(now);
}

impl Rig {
    fn new(cell: &Cell) -> Self {
        let config = Config::new(ENDPOINTS).rule(|rule| {
            rule.kind = RouteKind::Grpc;
            rule.matches = vec![HttpMatch {
                path: PathMatch::Prefix("/echo.Echo".to_owned()),
                method: None,
                headers: vec![FieldMatch {
                    name: "x-route".to_owned(),
                    value: ValueMatch::Exact("a".to_owned()),
                }],
                query: Vec::new(),
            }];
            rule.destinations[0].to.protocol = cell.protocol;
        });
        let setup = EngineConfig {
            limits: Limits::default(),
            worker: 0,
            request_id_seed: 1,
        };
        let now = Moment::from_millis(1);
        let mut engine = Engine::new(setup, config.snapshot(), now);
        engine.keep_outcomes(false);
        let http2 = cell.protocol == UpstreamProtocol::H2c;
        let mut clients = BTreeMap::new();
        for number in 0..cell.clients {
            let accepted = Accepted {
                listener: ListenerId(0),
                peer: SocketAddr::from(([198, 18, 1, 2], 40_000 + number as u16)),
                local: SocketAddr::from(([198, 18, 0, 10], 8080)),
                tls: None,
                protocol: DownstreamProtocol::Detect,
            };
            let conn = engine.accept(accepted, now).expect("there is room");
            clients.insert(conn, Peer::new(conn));
        }
        let mut rig = Self {
            engine,
            now,
            clients,
            endpoints: BTreeMap::new(),
            http2,
        };
        if http2 {
            let mut hello = frame::PREFACE.to_vec();
            frame::put_settings(&mut hello, &[]);
            let sources = rig.clients.keys().map(|conn| (*conn, hello.clone())).collect();
            rig.turn(sources);
        }
        rig
    }

    fn turn(&mut self, sources: Vec<(ConnId, Vec<u8>)>) {
        self.now = self.now + Duration::from_micros(100);
        // A connection made in this turn has no peer yet, and nothing is written to it before it is connected.
        let mut inboxes = vec![Vec::new(); CONNECTIONS_MAX];
        for peer in self.clients.values_mut().chain(self.endpoints.values_mut()) {
            inboxes[peer.conn.index()] = std::mem::take(&mut peer.inbox);
        }
        let mut actions = Vec::with_capacity(64);
        engine_turn(
            black_box(&mut self.engine),
            &sources,
            &mut inboxes,
            &mut actions,
            self.now,
        );
        for peer in self.clients.values_mut().chain(self.endpoints.values_mut()) {
            peer.inbox = std::mem::take(&mut inboxes[peer.conn.index()]);
        }
        for action in actions {
            if let Action::Connect { conn, .. } = action {
                self.endpoints.insert(conn, Peer::new(conn));
                self.engine.connected(conn, self.now);
                let mut settings = Vec::new();
                if self.http2 {
                    frame::put_settings(&mut settings, &[]);
                }
                self.turn(vec![(conn, settings)]);
            }
        }
    }

    /// One request on every stream, and its answer.
    fn round(&mut self, cell: &Cell, number: usize) {
        let mut requests = Vec::new();
        for peer in self.clients.values_mut() {
            peer.inbox.clear();
            let mut bytes = Vec::new();
            for stream in 0..cell.streams {
                if self.http2 {
                    put_request(&mut bytes, peer, cell.varied.then_some((number, stream)));
                } else {
                    bytes.extend_from_slice(HTTP1_REQUEST);
                }
            }
            requests.push((peer.conn, bytes));
        }
        self.turn(requests);
        let mut answers = Vec::new();
        for peer in self.endpoints.values_mut() {
            let inbox = std::mem::take(&mut peer.inbox);
            let mut bytes = Vec::new();
            if self.http2 {
                for stream in opened(&inbox) {
                    put_response(&mut bytes, peer, stream);
                }
                frame::put_window_update(&mut bytes, 0, 70_000);
            } else {
                for _ in 0..inbox.windows(4).filter(|octets| octets == b"\r\n\r\n").count() {
                    bytes.extend_from_slice(HTTP1_RESPONSE);
                }
            }
            if !bytes.is_empty() {
                answers.push((peer.conn, bytes));
            }
        }
        self.turn(answers);
        if self.http2 {
            let mut update = Vec::new();
            frame::put_window_update(&mut update, 0, 70_000);
            let updates = self.clients.keys().map(|conn| (*conn, update.clone())).collect();
            self.turn(updates);
        }
    }
}

fn list(fields: &[(&str, &str)]) -> FieldList {
    let mut list = FieldList::new();
    for (name, value) in fields {
        list.push(name.as_bytes(), value.as_bytes());
    }
    list
}

fn put_headers(out: &mut Vec<u8>, encoder: &mut Encoder, stream: u32, fields: &FieldList, end: bool) {
    let open = frame::begin_headers(out);
    encoder.encode(fields, out);
    frame::end_headers(out, open, stream, end, frame::PAYLOAD_MAX);
}

fn put_request(out: &mut Vec<u8>, peer: &mut Peer, varied: Option<(usize, usize)>) {
    let path = match varied {
        Some((round, stream)) => format!("/echo.Echo/{round}.{stream}"),
        None => "/echo.Echo/Unary".to_owned(),
    };
    let request = list(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &path),
        (":authority", "localhost:8080"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "grpc-load/1.0"),
        ("x-route", "a"),
    ]);
    let id = peer.next_stream;
    peer.next_stream += 2;
    put_headers(out, &mut peer.encoder, id, &request, false);
    frame::put_data_header(out, id, MESSAGE.len(), true);
    out.extend_from_slice(&MESSAGE);
}

fn put_response(out: &mut Vec<u8>, peer: &mut Peer, stream: u32) {
    let head = list(&[(":status", "200"), ("content-type", "application/grpc")]);
    let trailers = list(&[("grpc-status", "0")]);
    put_headers(out, &mut peer.encoder, stream, &head, false);
    frame::put_data_header(out, stream, MESSAGE.len(), false);
    out.extend_from_slice(&MESSAGE);
    put_headers(out, &mut peer.encoder, stream, &trailers, true);
}

/// Streams that the engine opened, from what it wrote.
fn opened(bytes: &[u8]) -> Vec<u32> {
    let mut rest = bytes.strip_prefix(&frame::PREFACE[..]).unwrap_or(bytes);
    let mut ids = Vec::new();
    while let Some(header) = Header::parse(rest) {
        if header.kind == Kind::Headers {
            ids.push(header.stream);
        }
        rest = &rest[HEADER_LEN + header.len..];
    }
    ids
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let cell = args
        .get(1)
        .and_then(|name| CELLS.iter().find(|cell| cell.name == *name));
    let rounds = args.get(2).and_then(|rounds| rounds.parse().ok());
    let (Some(cell), Some(rounds)) = (cell, rounds) else {
        let names: Vec<_> = CELLS.iter().map(|cell| cell.name).collect();
        eprintln!("requests CELL ROUNDS; cells: {}", names.join(" "));
        return ExitCode::from(2);
    };
    let mut rig = Rig::new(cell);
    for number in 0..rounds {
        rig.round(cell, number);
    }
    let asked = (rounds * cell.clients * cell.streams) as u64;
    let metrics = rig.engine.metrics();
    let failed: u64 = metrics.faults.iter().sum();
    println!(
        "{} requests, {} open, {failed} failed",
        metrics.requests_total,
        rig.engine.live().1
    );
    match metrics.requests_total == asked && rig.engine.live().1 == 0 && failed == 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
