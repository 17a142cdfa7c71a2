//! What a worker lends its planes.

use super::WorkerOptions;
use super::timers::Timers;
use super::tls::TlsPlans;
use crate::telemetry::report::Refusals;
use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use mio::Registry;
use std::sync::Arc;

/// Why a connection to a kernel listener is relayed.
pub const PAST_THE_KERNEL: &str = "its packets met no kernel program, as from a process on this host";

/// What every part of a worker may use in a turn.
pub struct Context {
    /// When this turn began.
    pub now: Moment,
    pub snapshot: Arc<Snapshot>,
    pub tls: Arc<TlsPlans>,
    pub registry: Registry,
    pub timers: Timers,
    pub refusals: Refusals,
    pub options: Arc<WorkerOptions>,
    pub request_id_seed: u64,
    pub draining: bool,
}
