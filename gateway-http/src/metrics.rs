//! One worker's counters: plain words, merged when scraped.

use gateway_core::fault::Fault;

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
    pub retries_total: u64,
    pub floods_total: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Indexed by `EndpointId`; grows as endpoints appear.
    pub endpoints: Vec<EndpointMetrics>,
    /// Indexed by `ListenerId`.
    pub listeners: Vec<ListenerMetrics>,
}

/// One endpoint's share.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointMetrics {
    pub requests_total: u64,
    pub requests_active: u64,
    pub connections_total: u64,
    pub connections_active: u64,
    pub failures_total: u64,
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
