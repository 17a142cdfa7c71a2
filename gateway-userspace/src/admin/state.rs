//! What the admin reads: the revision in force, the workers (asked by message), the kernel plane.

use super::health::Health;
use crate::kernel::Kernel;
use crate::telemetry::cluster::ClusterFacts;
use crate::telemetry::report::Report;
use crate::worker::Workers;
use arc_swap::ArcSwap;
use gateway_compiler::status::ObjectStatus;
use gateway_core::ir::{Bind, Ir, Revision};
use gateway_core::snapshot::Snapshot;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

/// Revisions remembered for `/api/v1/revisions`.
pub const REVISIONS_KEPT: usize = 64;
/// How long the admin waits for a worker's answer; a worker answers within one turn.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(2);

/// One configuration in force.
#[derive(Debug, Default)]
pub struct Published {
    pub snapshot: Arc<Snapshot>,
    pub ir: Arc<Ir>,
    /// What the objects it was compiled from are told.
    pub statuses: Arc<Vec<Arc<ObjectStatus>>>,
    /// What is wrong with the objects, one line each, worst first.
    pub diagnostics: Vec<String>,
    /// Binds that could not be served, and why.
    pub unprogrammed: BTreeMap<Bind, String>,
}

/// A revision that was in force.
#[derive(Clone, Debug)]
pub struct RevisionEntry {
    pub revision: Revision,
    pub at: SystemTime,
    pub diagnostics: usize,
}

/// Shared by every admin listener.
pub struct AdminState {
    published: ArcSwap<Published>,
    history: Mutex<VecDeque<RevisionEntry>>,
    ready: AtomicBool,
    started: Instant,
    /// Set where a cluster is watched.
    cluster: OnceLock<Arc<ClusterFacts>>,
    pub health: Health,
    pub workers: Arc<Workers>,
    pub kernel: Arc<Kernel>,
}

impl AdminState {
    pub fn new(workers: Arc<Workers>, kernel: Arc<Kernel>) -> Self {
        Self {
            published: ArcSwap::from_pointee(Published::default()),
            history: Mutex::new(VecDeque::new()),
            ready: AtomicBool::new(false),
            started: Instant::now(),
            cluster: OnceLock::new(),
            health: Health::default(),
            workers,
            kernel,
        }
    }

    /// A cluster is watched; once.
    pub fn join_cluster(&self, facts: Arc<ClusterFacts>) {
        let _ = self.cluster.set(facts);
    }

    pub fn cluster(&self) -> Option<&ClusterFacts> {
        self.cluster.get().map(Arc::as_ref)
    }

    /// A new revision is in force.
    pub fn publish(&self, published: Published) {
        let entry = RevisionEntry {
            revision: published.snapshot.revision,
            at: SystemTime::now(),
            diagnostics: published.diagnostics.len(),
        };
        self.published.store(Arc::new(published));
        let mut history = self.history.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if history.back().is_none_or(|last| last.revision != entry.revision) {
            history.push_back(entry);
        }
        while history.len() > REVISIONS_KEPT {
            history.pop_front();
        }
    }

    pub fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    pub fn history(&self) -> Vec<RevisionEntry> {
        self.history
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
        if ready {
            self.health.start();
        }
    }

    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Asks every worker; one that does not answer in time is missing from the result.
    pub async fn reports(&self, views: bool) -> Vec<Report> {
        let workers = self.workers.clone();
        tokio::task::spawn_blocking(move || workers.inspect(views, INSPECT_TIMEOUT))
            .await
            .unwrap_or_default()
    }
}
