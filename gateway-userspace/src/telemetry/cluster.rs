//! What the cluster source counts about itself: its objects, watches, status writes, and how long a change takes.
//!
//! Written by the cluster's thread, read by the admin; every figure is an atomic of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Upper bounds of the buckets of [`ClusterFacts::applied`], seconds.
pub const APPLY_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Why a status could not be written. Closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// The object changed meanwhile; it was read again.
    Conflict,
    /// The object is gone.
    Gone,
    /// Our account may not.
    Forbidden,
    /// The API server finds the status wrong.
    Refused,
    /// No answer, or one that says later.
    Unavailable,
}

impl WriteFailure {
    pub const ALL: [WriteFailure; 5] = [
        WriteFailure::Conflict,
        WriteFailure::Gone,
        WriteFailure::Forbidden,
        WriteFailure::Refused,
        WriteFailure::Unavailable,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            WriteFailure::Conflict => "conflict",
            WriteFailure::Gone => "gone",
            WriteFailure::Forbidden => "forbidden",
            WriteFailure::Refused => "refused",
            WriteFailure::Unavailable => "unavailable",
        }
    }
}

/// Everything, for as long as the process runs.
#[derive(Debug, Default)]
pub struct ClusterFacts {
    /// Milliseconds since 1970 of the last change between reachable and not; 0: never tried.
    since_ms: AtomicI64,
    reachable: AtomicBool,
    /// Every watch had its first list.
    complete: AtomicBool,
    leader: AtomicBool,
    pub watch_starts: AtomicU64,
    pub watch_errors: AtomicU64,
    pub lists: AtomicU64,
    pub events: AtomicU64,
    pub status_writes: AtomicU64,
    failures: [AtomicU64; WriteFailure::ALL.len()],
    applied: [AtomicU64; APPLY_BUCKETS.len() + 1],
    applied_us: AtomicU64,
    said: Mutex<Said>,
}

/// What is said in words.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The API server's address.
    pub server: String,
    /// Why it cannot be reached.
    pub trouble: Option<String>,
    /// Objects held, by kind.
    pub objects: Vec<(&'static str, u64)>,
    /// Kinds that the server does not serve.
    pub absent: Vec<&'static str>,
    /// Watches that the server refuses, and why.
    pub refused: Vec<String>,
}

impl ClusterFacts {
    /// Says whether the API server answers; true when that is news.
    pub fn set_reachable(&self, reachable: bool, trouble: Option<String>) -> bool {
        self.say(|said| said.trouble = trouble);
        let before = self.reachable.swap(reachable, Ordering::AcqRel);
        let news = before != reachable || self.since_ms.load(Ordering::Acquire) == 0;
        if news {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
            self.since_ms.store(now_ms, Ordering::Release);
        }
        news
    }

    /// Whether the API server answers, and since when that is so (milliseconds since 1970; 0: not known yet).
    pub fn reachable(&self) -> (bool, i64) {
        (
            self.reachable.load(Ordering::Acquire),
            self.since_ms.load(Ordering::Acquire),
        )
    }

    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    pub fn complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    pub fn set_leader(&self, leader: bool) {
        self.leader.store(leader, Ordering::Release);
    }

    /// Whether this process writes statuses.
    pub fn leader(&self) -> bool {
        self.leader.load(Ordering::Acquire)
    }

    pub fn count_failure(&self, failure: WriteFailure) {
        self.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn failures(&self, failure: WriteFailure) -> u64 {
        self.failures[failure as usize].load(Ordering::Relaxed)
    }

    /// A change was served so long after it was seen.
    pub fn count_applied(&self, after: Duration) {
        let seconds = after.as_secs_f64();
        let bucket = APPLY_BUCKETS.iter().position(|bound| seconds <= *bound);
        self.applied[bucket.unwrap_or(APPLY_BUCKETS.len())].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.applied_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Changes by the time they took: one count for each of [`APPLY_BUCKETS`] and one beyond, and the sum in seconds.
    pub fn applied(&self) -> (Vec<u64>, f64) {
        let counts = self
            .applied
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let micros = self.applied_us.load(Ordering::Relaxed);
        (counts, Duration::from_micros(micros).as_secs_f64())
    }

    /// Changes what is said in words.
    pub fn say(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    pub fn said(&self) -> Said {
        self.said
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_reachable_is_news_once_and_keeps_its_time() {
        let facts = ClusterFacts::default();
        assert!(
            facts.set_reachable(false, Some("refused".to_owned())),
            "the first word is news"
        );
        let (_, since) = facts.reachable();
        assert!(!facts.set_reachable(false, Some("still".to_owned())));
        assert_eq!(facts.reachable(), (false, since));
        assert_eq!(facts.said().trouble.as_deref(), Some("still"));
        assert!(facts.set_reachable(true, None));
        assert!(facts.reachable().0 && facts.said().trouble.is_none());
    }

    #[test]
    fn a_change_is_counted_in_the_bucket_of_its_time() {
        let facts = ClusterFacts::default();
        for ms in [5, 6, 60_000] {
            facts.count_applied(Duration::from_millis(ms));
        }
        let (counts, sum) = facts.applied();
        assert_eq!((counts[0], counts[1], counts[10]), (1, 1, 1));
        assert!((sum - 60.011).abs() < 1e-9, "{sum}");
    }
}
