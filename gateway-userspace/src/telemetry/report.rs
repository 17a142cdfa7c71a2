//! What a worker tells when asked: its counters, and on demand what is live.

use gateway_core::fault::Refusal;
use gateway_core::ids::{EndpointId, ListenerId};
use gateway_core::model::{ConnectionView, StreamView};
use gateway_http::engine::Pressure;
use gateway_http::metrics::Metrics;

/// One worker's answer.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub worker: u16,
    pub http: Metrics,
    pub relays: RelayMetrics,
    pub tls: TlsMetrics,
    pub turns: TurnMetrics,
    pub refusals: Refusals,
    /// Downstream connections live now: HTTP, handshakes and relays.
    pub connections_active: u64,
    pub streams_active: u64,
    pub draining: bool,
    /// How short of memory the worker was told the process is.
    pub pressure: Pressure,
    /// Of the whole process: bytes used and allowed; zero when nothing limits them.
    pub memory_used_bytes: u64,
    pub memory_limit_bytes: u64,
    /// Only if asked for: HTTP connections of both sides, and relays.
    pub connections: Vec<ConnectionView>,
    /// Only if asked for.
    pub streams: Vec<StreamView>,
}

/// How often each refusal was given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusals([u64; Refusal::ALL.len()]);

impl Refusals {
    pub fn count(&mut self, refusal: Refusal) {
        self.0[refusal as usize] += 1;
    }

    pub fn of(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize]
    }

    pub fn add(&mut self, other: &Refusals) {
        for (sum, n) in self.0.iter_mut().zip(other.0) {
            *sum += n;
        }
    }
}

/// The splice plane's counters, and those of relays behind kernel listeners.
#[derive(Clone, Debug, Default)]
pub struct RelayMetrics {
    /// Indexed by `ListenerId`.
    pub listeners: Vec<RelayShare>,
    /// Indexed by `EndpointId`.
    pub endpoints: Vec<RelayShare>,
    /// Connects that failed or took too long; the relay tried another endpoint after it if there was one.
    pub connect_failures_total: u64,
    /// Relays closed because nothing passed for too long.
    pub idle_total: u64,
    /// Relays that ended by an error on one side.
    pub resets_total: u64,
    /// Relays one of whose sides ended its TLS without saying so (close_notify): what it said may be cut short.
    pub cut_total: u64,
    /// Datagrams that were not passed on: refused, or not taken by a socket at once.
    pub datagrams_lost_total: u64,
    /// Bytes moved by splice(2), of all bytes relayed.
    pub spliced_bytes_total: u64,
}

/// One listener's or endpoint's relays.
#[derive(Clone, Copy, Debug, Default)]
pub struct RelayShare {
    pub connections_total: u64,
    pub connections_active: u64,
    /// From clients to endpoints.
    pub bytes_up: u64,
    /// From endpoints to clients.
    pub bytes_down: u64,
}

impl RelayShare {
    pub fn add(&mut self, other: &RelayShare) {
        self.connections_total += other.connections_total;
        self.connections_active += other.connections_active;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
    }
}

impl RelayMetrics {
    pub fn listener(&mut self, id: ListenerId) -> &mut RelayShare {
        at(&mut self.listeners, id.index())
    }

    pub fn endpoint(&mut self, id: EndpointId) -> &mut RelayShare {
        at(&mut self.endpoints, id.index())
    }

    pub fn add(&mut self, other: &RelayMetrics) {
        for (index, share) in other.listeners.iter().enumerate() {
            at(&mut self.listeners, index).add(share);
        }
        for (index, share) in other.endpoints.iter().enumerate() {
            at(&mut self.endpoints, index).add(share);
        }
        self.connect_failures_total += other.connect_failures_total;
        self.idle_total += other.idle_total;
        self.resets_total += other.resets_total;
        self.cut_total += other.cut_total;
        self.datagrams_lost_total += other.datagrams_lost_total;
        self.spliced_bytes_total += other.spliced_bytes_total;
    }
}

/// The share at `index`; tables grow as ids appear (ids are dense and bounded by the configuration).
fn at(shares: &mut Vec<RelayShare>, index: usize) -> &mut RelayShare {
    if shares.len() <= index {
        shares.resize(index + 1, RelayShare::default());
    }
    &mut shares[index]
}

/// TLS handshakes.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsMetrics {
    pub handshakes_total: u64,
    /// Of those, resumed from a ticket.
    pub resumed_total: u64,
    pub handshakes_active: u64,
    /// With endpoints: agreed, and failed.
    pub upstream_handshakes_total: u64,
    pub upstream_failures_total: u64,
}

/// How the loop itself fares.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnMetrics {
    pub polls_total: u64,
    pub reads_total: u64,
    pub writes_total: u64,
    /// Accepts that failed for want of descriptors or memory.
    pub accept_failures_total: u64,
    /// Times this worker's state was thrown away after a panic.
    pub panics_total: u64,
    /// Times a worker did not turn for longer than it should. Counted for all of them: the first worker's report has it.
    pub late_total: u64,
    /// Access log lines that found no room.
    pub log_lines_dropped_total: u64,
    /// Spans of traced requests: made, lost for want of room or of a collector, taken by the collector.
    pub spans_total: u64,
    pub spans_lost_total: u64,
    pub spans_exported_total: u64,
}

impl TlsMetrics {
    pub fn add(&mut self, other: &TlsMetrics) {
        self.handshakes_total += other.handshakes_total;
        self.resumed_total += other.resumed_total;
        self.handshakes_active += other.handshakes_active;
        self.upstream_handshakes_total += other.upstream_handshakes_total;
        self.upstream_failures_total += other.upstream_failures_total;
    }
}

impl TurnMetrics {
    pub fn add(&mut self, other: &TurnMetrics) {
        self.polls_total += other.polls_total;
        self.reads_total += other.reads_total;
        self.writes_total += other.writes_total;
        self.accept_failures_total += other.accept_failures_total;
        self.panics_total += other.panics_total;
        self.late_total += other.late_total;
        self.log_lines_dropped_total += other.log_lines_dropped_total;
        self.spans_total += other.spans_total;
        self.spans_lost_total += other.spans_lost_total;
        self.spans_exported_total += other.spans_exported_total;
    }
}
