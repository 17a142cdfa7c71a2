//! What an HTTP/2 connection remembers, and the frames it sends.
//!
//! The state of streams is in their legs; here are the connection's own windows, the compression tables, the ids, and
//! the ring of streams that wait for room on this connection.

use super::ending::Farewell;
use super::guard::{Guard, Queue};
use super::idmap::IdMap;
use super::stream::StreamKey;
use crate::h2::frame::{self, ErrorCode, PAYLOAD_MAX, WINDOW_DEFAULT, WINDOW_MAX};
use crate::h2::hpack::{Decoder, Encoder};
use crate::h2::settings::{PeerSettings, Setting};
use crate::head::FieldList;
use crate::limits::Limits;
use gateway_core::model::Side;
use gateway_core::time::Moment;
use std::collections::VecDeque;

/// Streams on an upstream connection until its SETTINGS say how many.
const STREAMS_ASSUMED: u32 = 100;
/// Above this id an upstream connection takes no new streams.
pub const STREAM_ID_LAST: u32 = 1 << 30;
/// Ids of ended streams that are remembered.
const CLOSED_LEN: usize = 32;
/// Marks an id in [`ClosedRing`] as reset by us.
const BY_US: u32 = 1 << 31;

/// Why a connection ends: an RFC 9113 error code and what the peer did, for GOAWAY's debug data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionError {
    pub code: ErrorCode,
    pub why: &'static str,
}

/// Shorthand for a failed connection.
pub const fn broken<T>(code: ErrorCode, why: &'static str) -> Result<T, ConnectionError> {
    Err(ConnectionError { code, why })
}

/// What is known of a peer's life.
#[derive(Clone, Copy, Default)]
pub struct Keepalive {
    /// The connection's bytes when they were last looked at, and when they last were more than before.
    pub(in crate::engine) bytes: u64,
    pub(in crate::engine) heard: Moment,
    /// A PING that nothing has come after.
    pub(in crate::engine) asked: Option<Moment>,
    /// The last PING, and the peer's messages until then.
    pub(in crate::engine) last: Option<(Moment, Progress)>,
}

/// Changes when the peer sends DATA or ends streams.
pub(in crate::engine) type Progress = (i64, u32, u64);

/// The sizes of a connection's receive windows.
#[derive(Clone, Copy)]
pub struct Windows {
    pub connection: u32,
    /// What a stream's window is grown to when it is next given credit.
    pub stream: u32,
    /// To be kept from the next credits, because the connection's window was made smaller.
    pub(in crate::engine) withheld: u32,
    /// Credit given back so far.
    pub(in crate::engine) returned: u64,
    /// A measurement under way, and what was consumed before.
    pub(in crate::engine) probe: Option<u64>,
}

impl Windows {
    pub fn new(side: Side, limits: &Limits) -> Self {
        Self {
            connection: Http2::window(side, limits),
            stream: limits.stream_window,
            withheld: 0,
            returned: 0,
            probe: None,
        }
    }
}

/// A field block of which more CONTINUATION frames must come.
pub struct Assembly {
    pub id: u32,
    pub end: bool,
    pub continuations: u32,
    pub block: Vec<u8>,
    pub since: Moment,
}

/// A DATA frame that is forwarded while it comes in.
#[derive(Clone, Copy)]
pub struct Partial {
    pub id: u32,
    pub left: usize,
    pub end: bool,
}

/// The last streams that ended, and who reset them: decides what a late frame means (RFC 9113 5.1).
#[derive(Default)]
pub struct ClosedRing {
    ids: Vec<u32>,
    next: usize,
}

impl ClosedRing {
    pub fn note(&mut self, id: u32, reset_by_us: bool) {
        let entry = if reset_by_us { id | BY_US } else { id };
        if self.ids.len() < CLOSED_LEN {
            self.ids.push(entry);
        } else {
            self.ids[self.next % CLOSED_LEN] = entry;
            self.next = self.next.wrapping_add(1);
        }
    }

    pub fn reset_by_us(&self, id: u32) -> bool {
        self.ids.contains(&(id | BY_US))
    }

    pub fn ended(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }
}

/// State of one HTTP/2 connection.
pub struct Http2 {
    pub ids: IdMap,
    /// Boxed on the first field block: an idle connection has no tables.
    decoder: Option<Box<Decoder>>,
    encoder: Option<Box<Encoder>>,
    pub send_window: i64,
    pub recv_window: i64,
    /// Bytes consumed and not yet given back to the peer.
    pub unacked: u32,
    pub peer: PeerSettings,
    /// Downstream: the highest id seen. Upstream: the next id to give.
    pub last_id: u32,
    /// Downstream: ids above this are not served any more (after the final GOAWAY).
    pub served_max: u32,
    pub assembly: Option<Box<Assembly>>,
    pub partial: Option<Partial>,
    /// Streams whose bytes wait for this connection's window or room in its out buffer.
    pub ring: VecDeque<StreamKey>,
    /// Upstream: streams that wait to be opened.
    pub waiting: VecDeque<StreamKey>,
    pub closed: ClosedRing,
    pub preface_seen: bool,
    pub settings_seen: bool,
    pub windows: Windows,
    pub guard: Guard,
    pub queue: Queue,
    /// Slots of streams that ended while their endpoint does not know it yet (`Connection::owes_slots`).
    pub held: u32,
    /// When a silent client was asked whether it is there.
    pub asked: Option<Moment>,
    pub keepalive: Keepalive,
}

impl Http2 {
    pub fn new(side: Side, limits: &Limits) -> Self {
        let upstream = side == Side::Upstream;
        Self {
            ids: IdMap::default(),
            decoder: None,
            encoder: None,
            send_window: i64::from(WINDOW_DEFAULT),
            recv_window: i64::from(Self::window(side, limits)),
            unacked: 0,
            peer: PeerSettings::default(),
            last_id: u32::from(upstream),
            served_max: u32::MAX,
            assembly: None,
            partial: None,
            ring: VecDeque::new(),
            waiting: VecDeque::new(),
            closed: ClosedRing::default(),
            preface_seen: upstream,
            settings_seen: false,
            windows: Windows::new(side, limits),
            guard: Guard::default(),
            queue: Queue::default(),
            held: 0,
            asked: None,
            keepalive: Keepalive::default(),
        }
    }

    /// The connection's window. Upstream it is shared by the clients of an endpoint, and one that takes nothing must not
    /// stop the others.
    pub fn window(side: Side, limits: &Limits) -> u32 {
        match side {
            Side::Upstream => limits.upstream_connection_window,
            Side::Downstream => limits.connection_window,
        }
    }

    /// Preface (upstream), SETTINGS and the connection's window.
    pub fn greet(side: Side, limits: &Limits, out: &mut Vec<u8>) {
        let window = Setting::InitialWindowSize(limits.stream_window);
        match side {
            Side::Upstream => {
                out.extend_from_slice(frame::PREFACE);
                frame::put_settings(out, &[window, Setting::EnablePush(false)]);
            }
            Side::Downstream => {
                let streams = Setting::MaxConcurrentStreams(limits.streams_max);
                let section = Setting::MaxHeaderListSize(limits.head_bytes_max as u32);
                let tunnels = Setting::EnableConnectProtocol(true);
                frame::put_settings(out, &[window, streams, section, tunnels]);
            }
        }
        let more = Self::window(side, limits).saturating_sub(WINDOW_DEFAULT);
        if more > 0 {
            frame::put_window_update(out, 0, more);
        }
    }

    /// Streams we may have open upstream. Before the peer's SETTINGS an assumption; afterwards none given is unlimited.
    #[inline]
    pub fn streams_max(&self) -> u32 {
        let unsaid = if self.settings_seen { u32::MAX } else { STREAMS_ASSUMED };
        self.peer.streams_max.unwrap_or(unsaid)
    }

    /// Whether the id names a stream that was never opened (RFC 9113 5.1.1).
    pub fn is_idle(&self, id: u32, side: Side) -> bool {
        id.is_multiple_of(2)
            || match side {
                Side::Downstream => id > self.last_id,
                Side::Upstream => id >= self.last_id,
            }
    }

    pub fn decoder(&mut self) -> &mut Decoder {
        self.decoder.get_or_insert_default()
    }

    /// The peer's SETTINGS changed.
    pub fn settings_changed(&mut self) {
        if let Some(encoder) = &mut self.encoder {
            encoder.set_table_size_max(self.peer.header_table_size as usize);
        }
    }

    /// A whole field section as HEADERS and, if it must be, CONTINUATION frames.
    pub fn put_headers(&mut self, id: u32, fields: &FieldList, end: bool, out: &mut Vec<u8>) {
        let table = self.peer.header_table_size as usize;
        let encoder = self.encoder.get_or_insert_with(|| {
            let mut encoder = Box::new(Encoder::new());
            encoder.set_table_size_max(table);
            encoder
        });
        self.queue.heads += 1;
        let open = frame::begin_headers(out);
        encoder.encode(fields, out);
        frame::end_headers(out, open, id, end, PAYLOAD_MAX);
    }

    /// GOAWAY for a farewell.
    pub fn put_farewell(&mut self, farewell: Farewell, side: Side, out: &mut Vec<u8>) {
        let last = match (farewell, side) {
            (Farewell::None | Farewell::Announced, _) => WINDOW_MAX as u32,
            (Farewell::Final, Side::Downstream) => {
                self.served_max = self.last_id;
                self.last_id
            }
            (Farewell::Final, Side::Upstream) => 0,
        };
        self.queue.control += 1;
        frame::put_goaway(out, last, ErrorCode::NoError, "");
    }

    /// What an idle connection does not need.
    pub fn shrink(&mut self) {
        self.ids.shrink();
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }
}
