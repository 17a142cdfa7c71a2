//! Flow control against a model: a client and an endpoint send and grant at random; the engine between them is held to
//! what RFC 9113 5.2 and 6.9 allow.
//!
//! The model is the two peers' own books: what each may still send, and what it still takes. Laws: the engine never sends
//! more than either window of the receiver; what it grants never exceeds what it advertised; every byte arrives, once and
//! in order; when everybody takes everything no stream is stuck; and all credit comes home, also that of reset streams.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared with the fuzz targets")]
#[path = "support/turns.rs"]
mod turns;

use gateway_http::engine::{ConnId, DownstreamProtocol};
use gateway_http::h2::frame::{self, ErrorCode, HEADER_LEN, Header, Kind, flags};
use gateway_http::h2::hpack::{Decoder, Encoder, SectionLimits};
use gateway_http::h2::settings::Setting;
use gateway_http::head::{FieldList, Token};
use gateway_http::limits::Limits;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use turns::Turns;

const STREAM_WINDOW: u32 = 20_000;
const CONNECTION_WINDOW: u32 = 70_000;
const STREAMS: usize = 8;
const STEPS: usize = 250;
const SECTION: SectionLimits = SectionLimits {
    size_max: 65_536,
    fields_max: 100,
};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % bound as u64) as usize
    }
}

/// One stream as its peer keeps it.
#[derive(Default)]
struct Stream {
    /// The call, the same on both sides.
    call: u32,
    /// What the peer may still send.
    may_send: i64,
    /// What the peer still takes.
    takes: i64,
    sent: usize,
    got: usize,
    opened: bool,
    /// This peer has ended its half.
    ended: bool,
    /// The engine has ended its half.
    over: bool,
    reset: bool,
}

/// A peer of the engine, and its books.
struct Peer {
    conn: ConnId,
    client: bool,
    encoder: Encoder,
    decoder: Decoder,
    unread: Vec<u8>,
    streams: BTreeMap<u32, Stream>,
    may_send: i64,
    takes: i64,
    /// SETTINGS_INITIAL_WINDOW_SIZE of this peer, as far as the engine has acknowledged it; and what it has not.
    window: i64,
    unacknowledged: VecDeque<i64>,
    /// The same of the engine.
    engine_window: i64,
}

/// Byte `at` of a call's request or response.
fn byte(call: u32, client: bool, at: usize) -> u8 {
    (call as usize * 31 + at * 7 + usize::from(client)) as u8
}

impl Peer {
    fn new(conn: ConnId, client: bool) -> Self {
        Self {
            conn,
            client,
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            unread: Vec::new(),
            streams: BTreeMap::new(),
            may_send: 65_535,
            takes: 65_535,
            window: 65_535,
            unacknowledged: VecDeque::new(),
            engine_window: 65_535,
        }
    }

    fn headers(&mut self, out: &mut Vec<u8>, stream: u32, fields: &[(&str, &str)], end: bool) {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        let open = frame::begin_headers(out);
        self.encoder.encode(&list, out);
        frame::end_headers(out, open, stream, end, frame::PAYLOAD_MAX);
    }

    fn open_call(&mut self, out: &mut Vec<u8>, call: u32) {
        let (id, name) = (call * 2 + 1, call.to_string());
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
            ("x-call", &name),
        ];
        self.headers(out, id, &fields, false);
        let stream = Stream {
            call,
            may_send: self.engine_window,
            takes: self.window,
            opened: true,
            ..Stream::default()
        };
        self.streams.insert(id, stream);
    }

    /// Up to `wanted` bytes of DATA on a stream, as much as the engine allows.
    fn data(&mut self, out: &mut Vec<u8>, id: u32, wanted: usize, end: bool) {
        let client = self.client;
        let stream = self.streams.get_mut(&id).expect("one of ours");
        if !stream.opened || stream.ended || stream.reset {
            return;
        }
        let allowed = self.may_send.min(stream.may_send).clamp(0, frame::PAYLOAD_MAX as i64) as usize;
        let len = wanted.min(allowed);
        frame::put_data_header(out, id, len, end);
        out.extend((stream.sent..stream.sent + len).map(|at| byte(stream.call, client, at)));
        stream.sent += len;
        stream.may_send -= len as i64;
        self.may_send -= len as i64;
        stream.ended = end;
    }

    fn grant(&mut self, out: &mut Vec<u8>, id: u32, more: u32) {
        frame::put_window_update(out, id, more);
        match self.streams.get_mut(&id) {
            Some(stream) => stream.takes += i64::from(more),
            None => self.takes += i64::from(more),
        }
    }

    fn set_window(&mut self, out: &mut Vec<u8>, window: u32) {
        frame::put_settings(out, &[Setting::InitialWindowSize(window)]);
        self.unacknowledged.push_back(i64::from(window));
    }

    /// Books what the engine wrote; returns what is to be answered at once.
    fn read(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.unread.extend_from_slice(bytes);
        if self.unread.starts_with(frame::PREFACE) {
            self.unread.drain(..frame::PREFACE.len());
        }
        let mut answer = Vec::new();
        while let Some(header) = Header::parse(&self.unread) {
            if self.unread.len() < HEADER_LEN + header.len {
                break;
            }
            let rest = self.unread.split_off(HEADER_LEN + header.len);
            let payload = std::mem::replace(&mut self.unread, rest).split_off(HEADER_LEN);
            self.frame(&header, &payload, &mut answer);
        }
        answer
    }

    fn frame(&mut self, header: &Header, payload: &[u8], answer: &mut Vec<u8>) {
        let id = header.stream;
        match header.kind {
            Kind::Settings if header.has(flags::ACK) => {
                let window = self.unacknowledged.pop_front();
                let change = window.map_or(0, |window| window - self.window);
                self.window += change;
                self.streams.values_mut().for_each(|stream| stream.takes += change);
            }
            Kind::Settings => {
                for setting in payload.as_chunks::<6>().0 {
                    if setting[..2] == [0, 4] {
                        let window = i64::from(frame::u31(&setting[2..]).expect("four bytes"));
                        let change = window - self.engine_window;
                        self.engine_window = window;
                        self.streams.values_mut().for_each(|stream| stream.may_send += change);
                    }
                }
                frame::put_settings_ack(answer);
            }
            Kind::Headers => {
                assert!(header.has(flags::END_HEADERS), "these sections are short");
                let mut list = FieldList::new();
                self.decoder.decode(payload, &mut list, SECTION).expect("a good block");
                let window = self.window;
                let stream = self.streams.entry(id).or_insert_with(|| Stream {
                    may_send: self.engine_window,
                    takes: window,
                    ..Stream::default()
                });
                if !self.client {
                    let at = list.position(b"x-call").expect("the request's own field");
                    let text = list.value(&list.fields()[at]);
                    stream.call = std::str::from_utf8(text).expect("digits").parse().expect("digits");
                } else if list.get(Token::STATUS).is_some_and(|status| status != b"200") {
                    // The endpoint reset the call before it answered: the engine answered, and the client is done.
                    stream.reset = true;
                    frame::put_rst_stream(answer, id, ErrorCode::Cancel);
                }
                stream.over |= header.has(flags::END_STREAM);
            }
            Kind::Data => {
                let (client, len) = (self.client, payload.len() as i64);
                let stream = self.streams.get_mut(&id).expect("DATA behind HEADERS");
                self.takes -= len;
                stream.takes -= len;
                assert!(
                    self.takes >= 0 && (stream.takes >= 0 || len == 0),
                    "more than a window: {} {}",
                    self.takes,
                    stream.takes
                );
                if stream.reset {
                    return;
                }
                for (at, got) in payload.iter().enumerate() {
                    assert_eq!(
                        *got,
                        byte(stream.call, !client, stream.got + at),
                        "in order, and nothing else"
                    );
                }
                stream.got += payload.len();
                stream.over |= header.has(flags::END_STREAM);
            }
            Kind::WindowUpdate => {
                let more = i64::from(frame::u31(payload).expect("four bytes"));
                assert!(more > 0);
                let most = i64::from(CONNECTION_WINDOW.max(65_535));
                match self.streams.get_mut(&id) {
                    Some(stream) => {
                        stream.may_send += more;
                        assert!(stream.may_send <= self.engine_window, "more than was advertised");
                    }
                    None => {
                        assert_eq!(id, 0, "credit for a stream that never was");
                        self.may_send += more;
                        assert!(self.may_send <= most, "more than was advertised: {}", self.may_send);
                    }
                }
            }
            Kind::RstStream => {
                let stream = self.streams.get_mut(&id).expect("a stream that was");
                stream.reset = true;
            }
            Kind::GoAway => panic!("nobody did anything wrong: {payload:02x?}"),
            Kind::Ping | Kind::Priority | Kind::PushPromise | Kind::Continuation | Kind::Unknown(_) => {}
        }
    }
}

struct World {
    turns: Turns,
    random: Random,
    client: Peer,
    endpoint: Peer,
    calls: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        const FREE: u32 = 1_000_000;
        let limits = Limits {
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            upstream_connection_window: CONNECTION_WINDOW,
            // The model's windows do not grow.
            stream_window_max: STREAM_WINDOW,
            connection_window_max: CONNECTION_WINDOW,
            out_bytes_max: 30_000,
            borrow_bytes_min: 1000,
            // Books, not guards, are what is tested here.
            resets_burst_max: FREE,
            resets_per_second_max: FREE,
            made_resets_burst_max: FREE,
            settings_burst_max: FREE,
            updates_per_data_max: FREE,
            empty_data_max: FREE,
            small_data_burst_max: FREE,
            control_frames_max: FREE,
            ..Limits::default()
        };
        let mut turns = Turns::new(config::Config::new(1).snapshot(), limits);
        let conn = turns.accept(DownstreamProtocol::Http2);
        let mut client = Peer::new(conn, true);
        let mut out = frame::PREFACE.to_vec();
        frame::put_settings(&mut out, &[]);
        client.unacknowledged.push_back(65_535);
        client.open_call(&mut out, 0);
        turns.send(conn, &out);
        let conn = *turns.opened.first().expect("the first call opens a connection");
        let mut endpoint = Peer::new(conn, false);
        let mut out = Vec::new();
        frame::put_settings(&mut out, &[]);
        endpoint.unacknowledged.push_back(65_535);
        turns.send(conn, &out);
        let mut world = Self {
            turns,
            random: Random(seed),
            client,
            endpoint,
            calls: 1,
        };
        world.read();
        world
    }

    /// Both read what there is, and acknowledge.
    fn read(&mut self) {
        loop {
            let mut busy = false;
            for peer in [&mut self.client, &mut self.endpoint] {
                let bytes = self.turns.take(peer.conn);
                busy |= !bytes.is_empty();
                let answer = peer.read(&bytes);
                if !answer.is_empty() {
                    self.turns.send(peer.conn, &answer);
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn step(&mut self) {
        let random = &mut self.random;
        let mut out = Vec::new();
        let is_client = random.below(2) == 0;
        let peer = if is_client {
            &mut self.client
        } else {
            &mut self.endpoint
        };
        let ids: Vec<u32> = peer.streams.keys().copied().collect();
        let id = ids.get(random.below(ids.len().max(1))).copied().unwrap_or(0);
        match random.below(20) {
            0..=2 if is_client => {
                let live = peer
                    .streams
                    .values()
                    .filter(|s| !(s.reset || s.over && s.ended))
                    .count();
                if live < STREAMS {
                    peer.open_call(&mut out, self.calls);
                    self.calls += 1;
                }
            }
            0..=4 if !is_client && id != 0 => {
                let stream = peer.streams.get_mut(&id).expect("one of these");
                if !stream.opened && !stream.reset {
                    stream.opened = true;
                    peer.headers(&mut out, id, &[(":status", "200")], false);
                }
            }
            5..=11 if id != 0 => {
                let len = [0, 1, 900, 5000, 16_384][random.below(5)];
                peer.data(&mut out, id, len, random.below(6) == 0);
            }
            12..=13 if id != 0 => {
                let stream = &peer.streams[&id];
                if !stream.over && !stream.reset {
                    peer.grant(&mut out, id, 1 + random.below(30_000) as u32);
                }
            }
            14 => peer.grant(&mut out, 0, 1 + random.below(60_000) as u32),
            15 => peer.set_window(&mut out, [0, 10, 5000, 65_535, 200_000][random.below(5)]),
            16 if id != 0 && random.below(3) == 0 => {
                let stream = peer.streams.get_mut(&id).expect("one of these");
                if !(stream.reset || stream.over && stream.ended) {
                    stream.reset = true;
                    frame::put_rst_stream(&mut out, id, ErrorCode::Cancel);
                }
            }
            17 => {
                let room = [0, 500, 20_000, usize::MAX][random.below(4)];
                let conn = peer.conn;
                self.turns.make_room(conn, room);
            }
            _ => {}
        }
        let conn = peer.conn;
        self.turns.send(conn, &out);
        self.turns.pass(Duration::from_millis(20));
        self.read();
    }

    /// Everybody takes everything and ends what is open: nothing may be stuck, and all credit comes home.
    fn finish(mut self) -> usize {
        for round in 0.. {
            assert!(round < 200, "stuck: {}", self.stuck());
            let mut open = 0;
            for is_client in [true, false] {
                let peer = if is_client {
                    &mut self.client
                } else {
                    &mut self.endpoint
                };
                let mut out = Vec::new();
                if round == 0 {
                    peer.set_window(&mut out, 65_535);
                    peer.grant(&mut out, 0, 50_000_000);
                    let ids: Vec<u32> = peer.streams.keys().copied().collect();
                    for id in ids {
                        let stream = &peer.streams[&id];
                        if !stream.over && !stream.reset {
                            peer.grant(&mut out, id, 5_000_000);
                        }
                    }
                }
                let ids: Vec<u32> = peer.streams.keys().copied().collect();
                for id in ids {
                    let stream = peer.streams.get_mut(&id).expect("one of these");
                    if !is_client && !stream.opened && !stream.reset {
                        stream.opened = true;
                        peer.headers(&mut out, id, &[(":status", "200")], false);
                    }
                    peer.data(&mut out, id, 0, true);
                    let stream = &peer.streams[&id];
                    open += usize::from(!(stream.reset || stream.over && stream.ended));
                }
                let conn = peer.conn;
                self.turns.make_room(conn, usize::MAX);
                self.turns.send(conn, &out);
            }
            self.turns.pass(Duration::from_millis(20));
            self.read();
            if open == 0 && round > 1 {
                break;
            }
        }
        let delivered = self.check_delivered();
        for peer in [&self.client, &self.endpoint] {
            // Credit is returned from half a window on.
            let held = i64::from(CONNECTION_WINDOW) - peer.may_send;
            assert!(
                held <= i64::from(CONNECTION_WINDOW) / 2,
                "client {}: {held} never came home",
                peer.client
            );
        }
        assert_eq!(self.turns.engine.live(), (1, 0), "no stream is left");
        self.turns.finish();
        delivered
    }

    fn stuck(&self) -> String {
        let of = |peer: &Peer| -> Vec<String> {
            let open = peer.streams.iter().filter(|(_, s)| !(s.reset || s.over && s.ended));
            open.map(|(id, s)| {
                format!(
                    "{id}: call {} sent {} got {} over {} ended {}",
                    s.call, s.sent, s.got, s.over, s.ended
                )
            })
            .collect()
        };
        format!("client {:?}, endpoint {:?}", of(&self.client), of(&self.endpoint))
    }

    /// Calls that nobody reset arrived whole, both ways.
    fn check_delivered(&self) -> usize {
        let mut delivered = 0;
        for asked in self.client.streams.values().filter(|stream| !stream.reset) {
            let served = self.endpoint.streams.values().find(|served| served.call == asked.call);
            let served = served.expect("an ended call reached the endpoint");
            assert_eq!(asked.got, served.sent, "the response of call {}", asked.call);
            // An endpoint that has answered may want no more of the request (RFC 9113 8.1).
            let enough = served.got == asked.sent || served.reset && served.ended;
            assert!(enough, "the request of call {}", asked.call);
            delivered += served.got + asked.got;
        }
        delivered
    }
}

#[test]
fn windows_hold_bytes_arrive_and_credit_comes_home() {
    let mut delivered = 0;
    for seed in 0..150 {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        delivered += world.finish();
    }
    assert!(delivered > 10_000_000, "{delivered}: much went through");
}
