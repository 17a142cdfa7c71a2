//! A stream: one request and its response between two connections, as two legs.
//!
//! # The seam between the codecs and the stream
//! * A codec (HTTP/2, HTTP/1.1) knows its connection and its peer's framing; it never sees the other leg.
//! * What arrives is told to the engine in the codecs' common words: `on_request`, `on_response`, `on_body`,
//!   `on_trailers`, `on_reset` (`request.rs`, `response.rs`, `forward.rs`, `fail.rs`). The codec has checked its
//!   framing and the field rules of its RFC before.
//! * What has to be sent is asked of the other leg's connection: `room`, `send_head`, `send_body`, `send_trailers`,
//!   `reset`, `credit`, `detach` (`leg.rs`), each one `match` over the connection's codec.
//! * Heads are [`FieldList`]s in HTTP/2's vocabulary on both sides of the seam, bodies are plain bytes.
//!
//! What each part of the engine keeps in a stream lies in `stream/`; what it does with it, in the part's own file.
//!
//! # Laws
//! * A stream's slot is reused; whoever keeps a [`StreamKey`] across turns compares generations.
//! * A stream ends exactly once, in `finish.rs`; there its outcome is made and both legs have left their connections.

mod key;
mod pace;
mod question;
mod retrying;
mod tunnel;
mod words;

pub use self::key::StreamKey;
use self::pace::Pace;
pub use self::question::{Question, Vetting};
pub use self::retrying::Retrying;
pub use self::tunnel::{Asked, Stage, Tunnel};
pub use self::words::Words;
use super::ConnId;
use super::timer::TimerId;
use crate::grpc::message::Messages;
use crate::grpc_web::{Speaks, Translation};
use crate::head::FieldList;
use crate::head::facts::Method;
use crate::trace::Trace;
use gateway_core::decide::Forward;
use gateway_core::fault::Fault;
use gateway_core::ids::{EndpointId, ListenerId, RuleId};
use gateway_core::time::Moment;
use std::net::SocketAddr;
use std::time::Duration;

/// Index of the downstream leg.
pub const DOWN: usize = 0;
/// Index of the upstream leg.
pub const UP: usize = 1;

/// Endpoints one request may be tried on without a pause, whatever the limits say; so many are remembered.
pub const TRIED_MAX: usize = 4;

/// Why body bytes for a leg wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wait {
    /// Nothing waits.
    #[default]
    No,
    /// For room on the connection: the leg is in its connection's ring.
    Connection,
    /// For the endpoint's answer: they belong to a tunnel that it has not agreed to.
    Answer,
    /// For the leg's own window: it is in no list and costs nothing until its peer gives credit.
    Stream,
}

/// What a stream's bodies go through. Closed.
#[derive(Clone, Copy, Debug)]
pub enum Transform {
    /// Base64 grows by a third.
    GrpcWeb(Translation),
}

/// One side of a stream. "Received" is what came from this leg's peer, "sent" what went to it.
#[derive(Default)]
pub struct Leg {
    pub conn: Option<ConnId>,
    /// Stream id on the connection; 0 while there is none.
    pub id: u32,
    /// HTTP/2 windows and what was consumed but not yet given back.
    pub send_window: i64,
    pub recv_window: i64,
    pub unacked: u32,
    /// Size of the window the peer has.
    pub window: u32,
    /// Body bytes that the peer's content-length still promises; negative when it gave none.
    pub length_left: i64,
    /// The peer's message is complete.
    pub received_end: bool,
    /// Our message to it is complete.
    pub sent_end: bool,
    /// The peer's head is there (of a response: the final one).
    pub received_head: bool,
    /// Our head went to it (of a response: the final one).
    pub sent_head: bool,
    pub wait: Wait,
    /// Body for this leg that found no room, and where it begins.
    pub pending: Vec<u8>,
    pub pending_start: usize,
    /// Of these bytes, those whose sender's connection got its credit when they began to wait.
    pub early: usize,
    /// After the pending bytes the message ends ...
    pub pending_end: bool,
    /// Bytes that the sender is owed credit for beyond those pending; not 0 only where a transform changed their
    /// number.
    pub surplus: isize,
    /// ... with these trailers.
    pub trailers: Option<FieldList>,
}

impl Leg {
    /// Body bytes that wait for this leg.
    #[inline]
    pub fn pending_len(&self) -> usize {
        self.pending.len() - self.pending_start
    }

    /// Bytes of credit that wait with them, `again` of the pending bytes having been credited before.
    pub fn owed(&self, again: usize) -> usize {
        (self.pending_len().saturating_sub(again))
            .checked_add_signed(self.surplus)
            .unwrap_or(0)
    }

    /// Whether nothing stands between new body bytes and the wire.
    #[inline]
    pub fn is_clear(&self) -> bool {
        self.sent_head && self.wait == Wait::No && self.pending_len() == 0 && !self.pending_end
    }

    /// Whether both messages on this leg are over.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.received_end && self.sent_end
    }
}

/// A request under way.
pub struct Stream {
    pub generation: u32,
    pub live: bool,
    pub legs: [Leg; 2],
    /// The request's head as received and completed (`x-request-id`, `x-forwarded-*`), kept for another attempt and
    /// for the access log.
    pub head: FieldList,
    pub revision: Option<u32>,
    pub forward: Option<Forward>,
    pub started: Moment,
    pub first_byte: Option<Moment>,
    /// When the whole request must be over.
    pub deadline: Option<Moment>,
    pub timer: TimerId,
    /// By attempt, round and round.
    pub tried: [Option<EndpointId>; TRIED_MAX],
    pub attempts: u8,
    pub retrying: Retrying,
    /// It speaks gRPC: local answers are gRPC statuses.
    pub grpc: bool,
    /// It speaks gRPC-Web: local answers are too.
    pub web: Option<Speaks>,
    /// Its bodies are gRPC messages by their content type: they are counted.
    pub counts: bool,
    /// Of requests and of responses.
    pub messages: [Messages; 2],
    /// Its bodies do not just pass: it has a transform, mirrors or a limit, or is aside.
    pub detour: bool,
    pub transform: Option<Transform>,
    /// It is a mirror or a question: it has no downstream connection.
    pub aside: bool,
    /// What an authorization service is asked with it.
    pub question: Option<Box<Question>>,
    /// It must not go upstream: its rule or listener asks an authorization service, which has not let it pass.
    pub guarded: bool,
    /// The filter of the listener that is asked; until the last one let it pass it has no rule.
    pub guard: Option<RuleId>,
    /// So many filters of the listener let it pass.
    pub passed: u8,
    /// What it keeps for the sake of its question, or of the answer.
    pub vetting: Option<Box<Vetting>>,
    /// The question whose answer it waits for.
    pub asks: Option<StreamKey>,
    /// Its rule has mirrors.
    pub mirrored: bool,
    /// Its mirrors.
    pub mirrors: Vec<StreamKey>,
    pub method: Method,
    /// The balancer counts this attempt as live.
    pub balanced: bool,
    /// Nobody wants the rest of the request's body: it is dropped as it comes.
    pub unwanted: bool,
    /// What the client asked for in `grpc-timeout`.
    pub grpc_timeout: Option<Duration>,
    pub status: u16,
    pub grpc_status: Option<u32>,
    pub fault: Option<Fault>,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// Body bytes of the request that went upstream in this attempt, kept while they may have to go again.
    pub replay: Vec<u8>,
    /// Whether `replay` holds all of them.
    pub replayable: bool,
    /// Waiting bytes that go upstream once more: their sender already got its credit for them.
    pub replayed: usize,
    pub pace: Pace,
    /// The client asks for a tunnel, or has one.
    pub tunnel: Option<Box<Tunnel>>,
    pub trace: Option<Trace>,
    pub facts: Facts,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            generation: 0,
            live: false,
            legs: Default::default(),
            head: FieldList::default(),
            revision: None,
            forward: None,
            started: Moment::ZERO,
            first_byte: None,
            deadline: None,
            timer: TimerId::NONE,
            tried: [None; TRIED_MAX],
            attempts: 0,
            retrying: Retrying::default(),
            grpc: false,
            web: None,
            counts: false,
            messages: [Messages::default(); 2],
            detour: false,
            transform: None,
            aside: false,
            question: None,
            guarded: false,
            guard: None,
            passed: 0,
            vetting: None,
            asks: None,
            mirrored: false,
            mirrors: Vec::new(),
            method: Method::Other,
            balanced: false,
            unwanted: false,
            grpc_timeout: None,
            status: 0,
            grpc_status: None,
            fault: None,
            bytes_up: 0,
            bytes_down: 0,
            replay: Vec::new(),
            replayable: false,
            replayed: 0,
            pace: Pace::default(),
            tunnel: None,
            trace: None,
            facts: Facts::default(),
        }
    }
}

/// What does not change over a stream's life.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub listener: ListenerId,
    pub rule: Option<RuleId>,
    pub endpoint: Option<EndpointId>,
    pub peer: SocketAddr,
    pub protocol: &'static str,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            listener: ListenerId(0),
            rule: None,
            endpoint: None,
            peer: SocketAddr::from(([0, 0, 0, 0], 0)),
            protocol: "",
        }
    }
}

impl Stream {
    /// Whose authorization service it waits for: a filter of the listener's, else its rule's.
    pub fn asking(&self) -> Option<RuleId> {
        self.guard.or(self.forward.map(|forward| forward.rule))
    }

    /// The leg the bytes come from and the leg they go to.
    #[inline]
    pub fn legs_from(&mut self, from: usize) -> (&mut Leg, &mut Leg) {
        let [down, up] = &mut self.legs;
        if from == DOWN { (down, up) } else { (up, down) }
    }

    /// Body bytes of the response that the client's connection took.
    pub fn taken(&self) -> u64 {
        self.bytes_down.saturating_sub(self.legs[DOWN].pending_len() as u64)
    }

    /// Which leg lies on this connection.
    #[inline]
    pub fn side_on(&self, conn: ConnId) -> usize {
        if self.legs[DOWN].conn == Some(conn) { DOWN } else { UP }
    }
}

/// All streams of a worker.
#[derive(Default)]
pub struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    generation: u32,
    live: usize,
}

impl Streams {
    /// A blank stream; its buffers are those the slot's last stream gave up.
    pub fn open(&mut self) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Stream::default());
            self.slots.len() as u32 - 1
        });
        self.generation = self.generation.wrapping_add(1);
        self.live += 1;
        let stream = &mut self.slots[index as usize];
        stream.generation = self.generation;
        stream.live = true;
        index
    }

    /// Puts every field back to its first value; buffers were taken before.
    pub fn close(&mut self, index: u32) {
        self.live -= 1;
        debug_assert!(
            self.slots[index as usize].legs.iter().all(|leg| leg.early == 0),
            "early credit is counted as long as the bytes are there"
        );
        debug_assert!(
            self.slots[index as usize]
                .vetting
                .as_ref()
                .is_none_or(|vetting| vetting.held == 0),
            "gathered bytes are counted as long as they are there"
        );
        self.slots[index as usize] = Stream::default();
        self.free.push(index);
    }

    #[inline]
    pub fn key(&self, index: u32) -> StreamKey {
        StreamKey {
            index,
            generation: self.slots[index as usize].generation,
        }
    }

    /// Whether the stream still is the one that was meant.
    #[inline]
    pub fn is_live(&self, key: StreamKey) -> bool {
        let stream = &self.slots[key.index as usize];
        stream.live && stream.generation == key.generation
    }

    pub fn live(&self) -> usize {
        self.live
    }

    pub fn iter_live(&self) -> impl Iterator<Item = &Stream> {
        self.slots.iter().filter(|stream| stream.live)
    }
}

impl std::ops::Index<u32> for Streams {
    type Output = Stream;

    #[inline]
    fn index(&self, index: u32) -> &Stream {
        &self.slots[index as usize]
    }
}

impl std::ops::IndexMut<u32> for Streams {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut Stream {
        &mut self.slots[index as usize]
    }
}
