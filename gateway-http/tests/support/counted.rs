//! An engine whose peers are byte buffers, and which counts what the allocator does inside of it. The including binary
//! has one test alone: the allocator is everybody's.

use super::ALLOCATOR;
use super::config::Config;
use gateway_core::ids::ListenerId;
use gateway_core::time::Moment;
use gateway_http::engine::{Accepted, Action, ConnId, DownstreamProtocol, Engine, EngineConfig};
use gateway_http::h2::frame::{self, HEADER_LEN, Header, Kind};
use gateway_http::h2::hpack::{Decoder, Encoder, SectionLimits};
use gateway_http::head::FieldList;
use gateway_http::limits::Limits;
use stats_alloc::Region;
use std::net::SocketAddr;
use std::time::Duration;

const LIMITS: SectionLimits = SectionLimits {
    size_max: 61_440,
    fields_max: 256,
};

pub struct Counted {
    pub engine: Engine,
    pub now: Moment,
    /// What the engine wrote, by connection.
    written: Vec<Vec<u8>>,
    /// Connections to endpoints, in the order they were opened.
    pub opened: Vec<ConnId>,
    /// Requests that finished with status 200 and without a fault.
    pub outcomes: u64,
    /// Allocations inside engine calls.
    pub allocations: usize,
}

impl Counted {
    pub fn new(config: &Config) -> Self {
        let setup = EngineConfig {
            limits: Limits::default(),
            worker: 0,
            request_id_seed: 1,
        };
        let now = Moment::from_millis(1);
        Self {
            engine: Engine::new(setup, config.snapshot(), now),
            now,
            written: (0..64).map(|_| Vec::with_capacity(1 << 20)).collect(),
            opened: Vec::with_capacity(64),
            outcomes: 0,
            allocations: 0,
        }
    }

    pub fn accept(&mut self, protocol: DownstreamProtocol) -> ConnId {
        let accepted = Accepted {
            listener: ListenerId(0),
            peer: SocketAddr::from(([198, 18, 1, 2], 40_000)),
            local: SocketAddr::from(([198, 18, 0, 10], 8080)),
            tls: None,
            protocol,
        };
        self.engine.accept(accepted, self.now).expect("accepted")
    }

    /// Bytes come on `conn`; then the turn is finished.
    pub fn turn(&mut self, conn: ConnId, bytes: &[u8]) {
        self.now = self.now + Duration::from_micros(50);
        let (now, engine, written) = (self.now, &mut self.engine, &mut self.written);
        let mut write = |conn: ConnId, slices: &[std::io::IoSlice<'_>]| {
            slices
                .iter()
                .for_each(|slice| written[conn.index()].extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        };
        let region = Region::new(ALLOCATOR);
        engine.received(conn, bytes, now);
        while let Some(conn) = engine.next_borrower() {
            engine.transmit(conn, bytes, now, |slices| write(conn, slices));
        }
        assert_eq!(engine.next_resumed(), None);
        while let Some(action) = engine.next_action() {
            if let Action::Connect { conn, .. } = action {
                engine.connected(conn, now);
                self.opened.push(conn);
            }
        }
        while let Some(conn) = engine.next_dirty() {
            engine.transmit(conn, &[], now, |slices| write(conn, slices));
        }
        engine.take_outcomes(|outcome| {
            assert_eq!((outcome.status, outcome.fault), (200, None));
            self.outcomes += 1;
        });
        engine.handle_timeout(now);
        let change = region.change();
        self.allocations += change.allocations + change.reallocations;
    }

    /// What the engine wrote on `conn` since the last call.
    pub fn take(&mut self, conn: ConnId) -> Vec<u8> {
        let written = &mut self.written[conn.index()];
        assert!(
            written.len() < 1 << 20,
            "the buffer never grew inside the engine's calls"
        );
        let taken = written.clone();
        written.clear();
        taken
    }

    /// Warm from here on.
    pub fn begin_counting(&mut self) {
        assert!(self.allocations > 0, "the counter counts: warming up allocates");
        self.allocations = 0;
    }
}

/// The HTTP/2 peer of an engine: what it writes, and what it has read.
pub struct Peer {
    encoder: Encoder,
    decoder: Decoder,
}

/// A field section that came, with the stream it came on.
pub type Section = (u32, FieldList);

impl Peer {
    pub fn new() -> Self {
        Self {
            encoder: Encoder::new(),
            decoder: Decoder::new(),
        }
    }

    pub fn put_section(&mut self, out: &mut Vec<u8>, stream: u32, fields: &[(&str, &str)], end: bool) {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        let open = frame::begin_headers(out);
        self.encoder.encode(&list, out);
        frame::end_headers(out, open, stream, end, 16_384);
    }

    pub fn put_data(out: &mut Vec<u8>, stream: u32, bytes: &[u8], end: bool) {
        frame::put_data_header(out, stream, bytes.len(), end);
        out.extend_from_slice(bytes);
    }

    /// Field sections and DATA in what the engine wrote.
    pub fn read(&mut self, bytes: &[u8]) -> (Vec<Section>, Vec<u8>) {
        let mut rest = bytes.strip_prefix(&frame::PREFACE[..]).unwrap_or(bytes);
        let (mut sections, mut data) = (Vec::new(), Vec::new());
        while let Some(header) = Header::parse(rest) {
            let payload = &rest[HEADER_LEN..HEADER_LEN + header.len];
            let body = frame::strip(&header, payload);
            if header.kind == Kind::Headers {
                let mut list = FieldList::new();
                let block = body.expect("padding is right").bytes;
                self.decoder.decode(block, &mut list, LIMITS).expect("a block");
                sections.push((header.stream, list));
            } else if header.kind == Kind::Data {
                data.extend_from_slice(body.expect("padding is right").bytes);
            }
            rest = &rest[HEADER_LEN + header.len..];
        }
        (sections, data)
    }
}

/// The first value of `name`.
pub fn value(fields: &FieldList, name: &str) -> Option<String> {
    let mut same = fields.iter().filter(|(other, _)| *other == name.as_bytes());
    same.next()
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
}
