//! What the process knows of its own health, for who supervises it: written by the control loop, read by the probe.
//!
//! Alive means that a restart would not help: the control loop and every worker turn. It does not mean that there is
//! something to serve, nor that anybody upstream answers.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The control loop turns ten times a second; the longest of its steps, a change of the whole configuration, takes
/// seconds. Without a turn for so long it is stuck.
pub const LOOP_STUCK_AFTER: Duration = Duration::from_secs(30);

/// Set by the control loop only.
#[derive(Debug)]
pub struct Health {
    zero: Instant,
    /// Milliseconds from `zero` to the control loop's last turn; 0 before the first one.
    turned_ms: AtomicU64,
    /// Workers that have gone without a turn for longer than they should.
    late: AtomicU32,
    /// It has served once: what follows is no start-up any more.
    started: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            zero: Instant::now(),
            turned_ms: AtomicU64::new(0),
            late: AtomicU32::new(0),
            started: AtomicBool::new(false),
        }
    }
}

impl Health {
    /// The control loop turns.
    pub fn turned(&self) {
        let ms = u64::try_from(self.zero.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned_ms.store(ms.max(1), Ordering::Relaxed);
    }

    /// So many workers are late, as the watchdog sees it.
    pub fn late(&self, workers: usize) {
        self.late
            .store(u32::try_from(workers).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub fn start(&self) {
        self.started.store(true, Ordering::Release);
    }

    pub fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// Whether everything turns; else what does not. Before its first turn the control loop is not judged: start-up has
    /// a probe of its own.
    pub fn alive(&self) -> Result<(), String> {
        let late = self.late.load(Ordering::Relaxed);
        if late > 0 {
            return Err(format!("{late} of the workers do not turn"));
        }
        let turned = self.turned_ms.load(Ordering::Relaxed);
        let still = self.zero.elapsed().saturating_sub(Duration::from_millis(turned));
        if turned > 0 && still >= LOOP_STUCK_AFTER {
            return Err(format!("the control loop has not turned for {} s", still.as_secs()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_worker_or_a_stuck_loop_is_not_alive_and_both_recover() {
        let mut health = Health::default();
        assert_eq!(health.alive(), Ok(()));
        health.late(2);
        assert_eq!(health.alive(), Err("2 of the workers do not turn".into()));
        health.late(0);
        assert_eq!(health.alive(), Ok(()));
        let Some(before) = Instant::now().checked_sub(LOOP_STUCK_AFTER + Duration::from_secs(2)) else {
            return;
        };
        health.zero = before;
        assert_eq!(health.alive(), Ok(()), "it has not begun");
        health.turned_ms.store(1_000, Ordering::Relaxed);
        assert_eq!(health.alive(), Err("the control loop has not turned for 31 s".into()));
        health.turned();
        assert_eq!(health.alive(), Ok(()));
    }
}
