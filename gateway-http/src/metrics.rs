//! One worker's counters: plain words, merged when scraped.

pub mod grpc;

use crate::authorization::Unanswered;
use crate::flood::Flood;
use crate::retry::{NotRetried, Retried};
use gateway_core::fault::Fault;
use gateway_core::ids::{EndpointId, ListenerId};
use std::time::Duration;

/// Upper bounds of the duration histogram, in microseconds; the last bucket is unbounded.
pub const DURATION_BUCKETS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Everything the engine counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub downstream_connections_total: u64,
    pub downstream_connections_active: u64,
    pub upstream_connections_total: u64,
    pub upstream_connections_active: u64,
    pub requests_total: u64,
    pub requests_active: u64,
    /// By status class: 0 is "no response", 1..=5 are 1xx..5xx.
    pub responses: [u64; 6],
    /// Cumulative only when rendered; here one count per bucket, plus the unbounded one.
    pub duration: [u64; DURATION_BUCKETS_US.len() + 1],
    pub duration_us_sum: u64,
    /// By `Fault as usize`.
    pub faults: [u64; Fault::ALL.len()],
    /// Streams that became tunnels, and those that still are.
    pub tunnels_total: u64,
    pub tunnels_active: u64,
    /// Attempts after the first, of any kind.
    pub retries_total: u64,
    pub retry: RetryMetrics,
    /// Copies of requests that were begun, given up because they lagged or there were too many, and not answered.
    pub mirrors_total: u64,
    pub mirrors_dropped_total: u64,
    pub mirrors_failed_total: u64,
    /// Questions to authorization services by how they ended: answered with 200, with another status, not.
    pub auth_allowed_total: u64,
    pub auth_denied_total: u64,
    pub auth_failed_total: u64,
    /// Those that were not, by `Unanswered as usize`.
    pub auth_unanswered: [u64; Unanswered::ALL.len()],
    /// Connections ended, by `Flood as usize`.
    pub floods: [u64; Flood::ALL.len()],
    /// Connections ended because a PING was not answered.
    pub keepalive_timeouts_total: u64,
    /// Requests turned away because too many were under way, or memory was short.
    pub shed_total: u64,
    /// Bytes that wait for slow readers though their connections got their credit (`Engine::measure`).
    pub held_bytes: u64,
    /// By how much flow-control windows are larger than they begin (`Engine::measure`).
    pub window_growth_bytes: u64,
    /// Streams that take turns on a full connection (`Engine::measure`).
    pub streams_waiting: u64,
    /// Outcomes that nobody took in time: missing in the access log, not in these counters.
    pub outcomes_dropped_total: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Indexed by `EndpointId`; grows as endpoints appear.
    pub endpoints: Vec<EndpointMetrics>,
    /// Indexed by `ListenerId`.
    pub listeners: Vec<ListenerMetrics>,
    pub grpc: grpc::Methods,
}

/// Attempts that rules with a `retry` asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryMetrics {
    /// By `Retried as usize`.
    pub by: [u64; Retried::ALL.len()],
    /// Failed attempts that were the last, by `NotRetried as usize`.
    pub not: [u64; NotRetried::ALL.len()],
    /// Requests that were retried and then answered otherwise.
    pub succeeded: u64,
}

/// One endpoint's share.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointMetrics {
    pub requests_total: u64,
    pub requests_active: u64,
    pub connections_total: u64,
    pub connections_active: u64,
    pub failures_total: u64,
    /// Requests turned away because its connections and their queue were full.
    pub overflows_total: u64,
    /// Retries because of it, for the better, and those that a budget or the rule's limit forbade.
    pub retries_total: u64,
    pub retries_succeeded_total: u64,
    pub retries_over_budget_total: u64,
    pub retries_exhausted_total: u64,
    /// Connections without a request (`Engine::measure`).
    pub connections_idle: u64,
    /// Requests that wait for a connection or a stream on one (`Engine::measure`).
    pub requests_pending: u64,
    /// By status class, as above.
    pub responses: [u64; 6],
}

/// One listener's share.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenerMetrics {
    pub connections_total: u64,
    pub connections_active: u64,
    pub requests_total: u64,
    pub responses: [u64; 6],
}

impl Metrics {
    pub(crate) fn request_started(&mut self, listener: ListenerId) {
        self.requests_total += 1;
        self.requests_active += 1;
        self.listener(listener).requests_total += 1;
    }

    pub(crate) fn request_finished(
        &mut self,
        listener: ListenerId,
        endpoint: Option<EndpointId>,
        status: u16,
        fault: Option<Fault>,
        took: Duration,
    ) {
        self.requests_active -= 1;
        let class = usize::from(status / 100).min(5);
        self.responses[class] += 1;
        self.listener(listener).responses[class] += 1;
        if let Some(endpoint) = endpoint {
            self.endpoint(endpoint).responses[class] += 1;
        }
        if let Some(fault) = fault {
            self.faults[fault as usize] += 1;
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.duration[DURATION_BUCKETS_US.partition_point(|bound| *bound < took_us)] += 1;
        self.duration_us_sum += took_us;
    }

    pub(crate) fn endpoint_started(&mut self, endpoint: EndpointId) {
        let endpoint = self.endpoint(endpoint);
        endpoint.requests_total += 1;
        endpoint.requests_active += 1;
    }

    pub(crate) fn endpoint_finished(&mut self, endpoint: EndpointId) {
        self.endpoint(endpoint).requests_active -= 1;
    }

    pub(crate) fn endpoint_failed(&mut self, endpoint: EndpointId) {
        self.endpoint(endpoint).failures_total += 1;
    }

    /// It gave an answer that no client sees.
    pub(crate) fn endpoint_answered(&mut self, endpoint: EndpointId, status: u16) {
        self.endpoint(endpoint).responses[usize::from(status / 100).min(5)] += 1;
    }

    /// An attempt at an endpoint failed and another follows.
    pub(crate) fn retried(&mut self, endpoint: Option<EndpointId>, why: Retried) {
        self.retry.by[why as usize] += 1;
        if let Some(endpoint) = endpoint {
            self.endpoint(endpoint).retries_total += 1;
        }
    }

    /// An attempt at an endpoint failed and was the last.
    pub(crate) fn not_retried(&mut self, endpoint: Option<EndpointId>, why: NotRetried) {
        self.retry.not[why as usize] += 1;
        let Some(endpoint) = endpoint else { return };
        let endpoint = self.endpoint(endpoint);
        match why {
            NotRetried::Limit => endpoint.retries_exhausted_total += 1,
            NotRetried::Budget => endpoint.retries_over_budget_total += 1,
            NotRetried::Body | NotRetried::Pushback => {}
        }
    }

    /// A retried request was answered as it should be.
    pub(crate) fn retry_succeeded(&mut self, endpoint: Option<EndpointId>) {
        self.retry.succeeded += 1;
        if let Some(endpoint) = endpoint {
            self.endpoint(endpoint).retries_succeeded_total += 1;
        }
    }

    pub(crate) fn endpoint_overflowed(&mut self, endpoint: EndpointId) {
        self.endpoint(endpoint).overflows_total += 1;
    }

    pub(crate) fn upstream_opened(&mut self, endpoint: EndpointId) {
        self.upstream_connections_total += 1;
        self.upstream_connections_active += 1;
        let endpoint = self.endpoint(endpoint);
        endpoint.connections_total += 1;
        endpoint.connections_active += 1;
    }

    pub(crate) fn upstream_closed(&mut self, endpoint: EndpointId) {
        self.upstream_connections_active -= 1;
        self.endpoint(endpoint).connections_active -= 1;
    }

    pub(crate) fn downstream_opened(&mut self, listener: ListenerId) {
        self.downstream_connections_total += 1;
        self.downstream_connections_active += 1;
        let listener = self.listener(listener);
        listener.connections_total += 1;
        listener.connections_active += 1;
    }

    pub(crate) fn downstream_closed(&mut self, listener: ListenerId) {
        self.downstream_connections_active -= 1;
        self.listener(listener).connections_active -= 1;
    }

    pub(crate) fn endpoint(&mut self, id: EndpointId) -> &mut EndpointMetrics {
        if self.endpoints.len() <= id.index() {
            self.endpoints.resize(id.index() + 1, EndpointMetrics::default());
        }
        &mut self.endpoints[id.index()]
    }

    fn listener(&mut self, id: ListenerId) -> &mut ListenerMetrics {
        if self.listeners.len() <= id.index() {
            self.listeners.resize(id.index() + 1, ListenerMetrics::default());
        }
        &mut self.listeners[id.index()]
    }
}
