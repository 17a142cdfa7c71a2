//! Streams against the table of RFC 9113 5.1: for any sequence of well-formed frames of a client, what the engine says
//! (nothing, RST_STREAM, GOAWAY) is what a table of states allows.
//!
//! The table knows no engine: it has a state for each stream and, for a frame in a state, the verdicts the RFC leaves open
//! and the state that follows.

#[allow(dead_code, reason = "shared by several tests")]
#[path = "support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared with the fuzz targets")]
#[path = "support/turns.rs"]
mod turns;

use gateway_http::engine::{ConnId, DownstreamProtocol};
use gateway_http::h2::frame::{self, ErrorCode, HEADER_LEN, Header, Kind, flags};
use gateway_http::h2::hpack::Encoder;
use gateway_http::head::FieldList;
use gateway_http::limits::Limits;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use turns::Turns;

/// Where a stream is, as the client may know (RFC 9113 5.1, figure 2); the server's half is open until it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    /// Passed over by a higher number (5.1.1).
    Skipped,
    Open,
    HalfClosed,
    /// Request and response are whole.
    Done,
    /// The client reset it.
    ResetByClient,
    /// The engine reset it.
    ResetByUs,
}

/// What a client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Say {
    Request { end: bool },
    Trailers,
    Data { end: bool },
    Reset,
    WindowUpdate,
    Priority,
    Continuation,
    Unknown,
}

/// What it hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Fine,
    Stream(ErrorCode),
    Connection(ErrorCode),
}

use ErrorCode::{ProtocolError, StreamClosed};
use Verdict::{Connection, Fine, Stream};

/// The verdicts that are right, and the state after `Fine`.
fn table(state: State, say: Say) -> (&'static [Verdict], State) {
    const WRONG: &[Verdict] = &[Connection(ProtocolError)];
    const CLOSED: &[Verdict] = &[Stream(StreamClosed), Connection(StreamClosed)];
    match (state, say) {
        // 4.1: unknown types are ignored; 5.3.2: PRIORITY is, in every state. 6.10: a CONTINUATION of nothing.
        (_, Say::Unknown | Say::Priority) => (&[Fine], state),
        (_, Say::Continuation) => (WRONG, state),

        (State::Idle, Say::Request { end: false }) => (&[Fine], State::Open),
        (State::Idle, Say::Request { end: true }) => (&[Fine], State::HalfClosed),
        // Trailers alone are a request without its fields (8.3.1).
        (State::Idle, Say::Trailers) => (&[Stream(ProtocolError)], state),
        (State::Idle, Say::Data { .. } | Say::Reset | Say::WindowUpdate) => (WRONG, state),

        (State::Open, Say::Request { end: false }) => (&[Stream(ProtocolError)], state),
        // Pseudo-fields in trailers (8.1).
        (State::Open, Say::Request { end: true }) => (&[Stream(ProtocolError)], state),
        (State::Open, Say::Trailers | Say::Data { end: true }) => (&[Fine], State::HalfClosed),
        (State::Open, Say::Data { end: false } | Say::WindowUpdate) => (&[Fine], state),
        (State::Open | State::HalfClosed, Say::Reset) => (&[Fine], State::ResetByClient),

        (State::HalfClosed, Say::Request { .. } | Say::Trailers | Say::Data { .. }) => (CLOSED, state),
        (State::HalfClosed, Say::WindowUpdate) => (&[Fine], state),

        // 5.1.1: a number below the highest one opens nothing; what it once was need not be remembered.
        (State::Done | State::ResetByClient, Say::Request { .. } | Say::Trailers) => (
            &[
                Stream(StreamClosed),
                Connection(StreamClosed),
                Connection(ProtocolError),
            ],
            state,
        ),
        (State::Done | State::ResetByClient, Say::Data { .. }) => (CLOSED, state),
        (State::Done | State::ResetByClient, Say::Reset | Say::WindowUpdate) => (&[Fine], state),

        (State::Skipped, Say::Request { .. } | Say::Trailers | Say::Data { .. }) => (
            &[
                Connection(ProtocolError),
                Connection(StreamClosed),
                Stream(StreamClosed),
            ],
            state,
        ),
        (State::Skipped, Say::Reset | Say::WindowUpdate) => (&[Fine, Connection(ProtocolError)], state),

        // 5.1: what was under way is ignored.
        (State::ResetByUs, Say::Request { .. } | Say::Trailers | Say::Data { .. } | Say::Reset | Say::WindowUpdate) => {
            (&[Fine, Stream(StreamClosed), Connection(StreamClosed)], state)
        }
    }
}

struct Client {
    turns: Turns,
    conn: ConnId,
    encoder: Encoder,
    unread: Vec<u8>,
    states: BTreeMap<u32, State>,
}

impl Client {
    fn new() -> Self {
        let limits = Limits {
            made_resets_burst_max: 1_000_000,
            resets_burst_max: 1_000_000,
            ..Limits::default()
        };
        let mut turns = Turns::new(config::Config::new(1).snapshot(), limits);
        let conn = turns.accept(DownstreamProtocol::Http2);
        let mut hello = frame::PREFACE.to_vec();
        frame::put_settings(&mut hello, &[]);
        turns.send(conn, &hello);
        turns.take(conn);
        Self {
            turns,
            conn,
            encoder: Encoder::new(),
            unread: Vec::new(),
            states: BTreeMap::new(),
        }
    }

    fn bytes(&mut self, id: u32, say: Say) -> Vec<u8> {
        let mut out = Vec::new();
        let request = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
        ];
        match say {
            Say::Request { end } => self.headers(&mut out, id, &request, end),
            Say::Trailers => self.headers(&mut out, id, &[("x-trailer", "1")], true),
            Say::Data { end } => {
                frame::put_data_header(&mut out, id, 3, end);
                out.extend(b"abc");
            }
            Say::Reset => frame::put_rst_stream(&mut out, id, ErrorCode::Cancel),
            Say::WindowUpdate => frame::put_window_update(&mut out, id, 10),
            Say::Priority => raw(&mut out, Kind::Priority, id, &[0, 0, 0, 0, 7]),
            Say::Continuation => raw(&mut out, Kind::Continuation, id, &[]),
            Say::Unknown => raw(&mut out, Kind::from_code(0xaa), id, b"x"),
        }
        out
    }

    fn headers(&mut self, out: &mut Vec<u8>, id: u32, fields: &[(&str, &str)], end: bool) {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        let open = frame::begin_headers(out);
        self.encoder.encode(&list, out);
        frame::end_headers(out, open, id, end, frame::PAYLOAD_MAX);
    }

    /// Says it and returns the verdict on that stream or the connection.
    fn say(&mut self, id: u32, say: Say) -> Verdict {
        let bytes = self.bytes(id, say);
        self.turns.send(self.conn, &bytes);
        self.turns.pass(Duration::from_millis(50));
        self.hear(id)
    }

    fn hear(&mut self, id: u32) -> Verdict {
        self.unread.extend(self.turns.take(self.conn));
        let (mut at, mut verdict) = (0, Fine);
        while let Some(header) = Header::parse(&self.unread[at..]) {
            let payload = &self.unread[at + HEADER_LEN..at + HEADER_LEN + header.len];
            match header.kind {
                Kind::RstStream => {
                    assert_eq!(header.stream, id, "no other stream is to blame");
                    verdict = Stream(ErrorCode::from_code(frame::u31(payload).expect("four bytes")));
                }
                Kind::GoAway => verdict = Connection(frame::goaway(payload).expect("eight bytes").1),
                Kind::Data
                | Kind::Headers
                | Kind::Priority
                | Kind::Settings
                | Kind::PushPromise
                | Kind::Ping
                | Kind::WindowUpdate
                | Kind::Continuation
                | Kind::Unknown(_) => {}
            }
            at += HEADER_LEN + header.len;
        }
        self.unread.drain(..at);
        verdict
    }

    /// The endpoint answers all whole requests.
    fn answer(&mut self) {
        let Some(endpoint) = self.turns.opened.last().copied() else {
            return;
        };
        let bytes = self.turns.take(endpoint);
        let mut rest = bytes.strip_prefix(&frame::PREFACE[..]).unwrap_or(&bytes);
        let mut answer = Vec::new();
        if bytes.starts_with(frame::PREFACE) {
            frame::put_settings(&mut answer, &[]);
        }
        while let Some(header) = Header::parse(rest) {
            if matches!(header.kind, Kind::Headers | Kind::Data) && header.has(flags::END_STREAM) {
                // `:status 200` of the static table.
                answer.extend(frame_bytes(
                    Kind::Headers,
                    flags::END_HEADERS | flags::END_STREAM,
                    header.stream,
                    &[0x88],
                ));
            }
            rest = &rest[HEADER_LEN + header.len..];
        }
        self.turns.send(endpoint, &answer);
        self.hear(0);
        let whole = self.states.values_mut().filter(|state| **state == State::HalfClosed);
        whole.for_each(|state| *state = State::Done);
    }
}

fn frame_bytes(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        len: payload.len(),
        kind,
        flags,
        stream,
    };
    [&header.to_bytes()[..], payload].concat()
}

fn raw(out: &mut Vec<u8>, kind: Kind, stream: u32, payload: &[u8]) {
    out.extend(frame_bytes(kind, 0, stream, payload));
}

fn says() -> impl Strategy<Value = Say> {
    prop_oneof![
        4 => any::<bool>().prop_map(|end| Say::Request { end }),
        2 => Just(Say::Trailers),
        6 => any::<bool>().prop_map(|end| Say::Data { end }),
        3 => Just(Say::Reset),
        3 => Just(Say::WindowUpdate),
        2 => Just(Say::Priority),
        1 => Just(Say::Unknown),
        1 => prop_oneof![9 => Just(Say::Unknown), 1 => Just(Say::Continuation)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_verdict_is_one_the_rfc_allows(steps in proptest::collection::vec((0u32..5, says(), 0u8..8), 1..30)) {
        let mut client = Client::new();
        let mut updates = 0;
        for (number, say, answer) in steps {
            if answer == 0 {
                client.answer();
            }
            let id = number * 2 + 1;
            let state = *client.states.get(&id).unwrap_or(&State::Idle);
            let (right, next) = table(state, say);
            let got = client.say(id, say);
            updates += usize::from(say == Say::WindowUpdate);
            // That is no verdict on the state: on a connection without streams a few of them are a flood.
            let flood = got == Connection(ErrorCode::EnhanceYourCalm) && say == Say::WindowUpdate && updates > 5;
            prop_assert!(flood || right.contains(&got), "{say:?} on {state:?} stream {id}: {got:?}, not one of {right:?}");
            let opens = state == State::Idle && matches!(say, Say::Request { .. } | Say::Trailers);
            if opens {
                for lower in (1..id).step_by(2) {
                    client.states.entry(lower).or_insert(State::Skipped);
                }
            }
            let after = match got {
                Fine => next,
                Stream(_) => State::ResetByUs,
                Connection(_) => {
                    prop_assert!(client.turns.is_closed(client.conn), "GOAWAY with an error ends the connection");
                    break;
                }
            };
            if after != State::Idle {
                client.states.insert(id, after);
            }
        }
        client.turns.finish();
    }
}
