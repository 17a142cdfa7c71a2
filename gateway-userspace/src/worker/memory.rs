//! Watches the process's memory, off the workers' path, and tells them how short it is.
//!
//! From 85, 92, 95 and 98 percent of the limit on the workers take less and less ([`Pressure`]); a step is taken back
//! when use is [`HYSTERESIS_PERCENT`] below where it began, so that it does not flicker.

use super::command::{Command, Mailbox};
use crate::sys::memory::{MemorySource, MemoryUse};
use gateway_http::engine::Pressure;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Between two looks.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Percent of the limit from which each step holds.
pub const STEPS: [(Pressure, u64); 4] = [
    (Pressure::Shrink, 85),
    (Pressure::Leave, 92),
    (Pressure::Shed, 95),
    (Pressure::Refuse, 98),
];
/// How far below a step's begin use must fall before it is taken back.
pub const HYSTERESIS_PERCENT: u64 = 3;

/// What was seen last.
#[derive(Debug, Default)]
pub struct MemoryGauge {
    used: AtomicU64,
    limit: AtomicU64,
    stop: AtomicBool,
}

impl MemoryGauge {
    /// Bytes used and allowed; zero when there is no limit to watch.
    pub fn last(&self) -> MemoryUse {
        MemoryUse {
            used: self.used.load(Ordering::Relaxed),
            limit: self.limit.load(Ordering::Relaxed),
        }
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The step for this use, after `before`.
pub fn step(seen: MemoryUse, before: Pressure) -> Pressure {
    let percent = seen.used.saturating_mul(100) / seen.limit.max(1);
    let mut now = Pressure::None;
    for (pressure, begins) in STEPS {
        let slack = if pressure <= before { HYSTERESIS_PERCENT } else { 0 };
        if percent >= begins - slack {
            now = pressure;
        }
    }
    now
}

/// Starts watching, if there is a limit.
pub fn watch(own: Option<u64>, mailboxes: Vec<Mailbox>) -> io::Result<Arc<MemoryGauge>> {
    let gauge = Arc::new(MemoryGauge::default());
    let Some(source) = MemorySource::find(own) else {
        return Ok(gauge);
    };
    let shared = Arc::clone(&gauge);
    thread::Builder::new().name("memory".to_owned()).spawn(move || {
        let mut pressure = Pressure::None;
        while !shared.stop.load(Ordering::Relaxed) {
            if let Some(seen) = source.sample() {
                shared.used.store(seen.used, Ordering::Relaxed);
                shared.limit.store(seen.limit, Ordering::Relaxed);
                let next = step(seen, pressure);
                if next != pressure {
                    tracing::warn!(
                        from = pressure.name(),
                        to = next.name(),
                        used_bytes = seen.used,
                        limit_bytes = seen.limit,
                        "memory"
                    );
                    pressure = next;
                    for mailbox in &mailboxes {
                        // A worker that has ended said so in the log.
                        let _ = mailbox.send(Command::Pressure(pressure));
                    }
                }
            }
            thread::sleep(LOOK_INTERVAL);
        }
    })?;
    Ok(gauge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_climbed_at_once_and_left_a_little_later() {
        let mut pressure = Pressure::None;
        for (percent, wanted) in [
            (84, Pressure::None),
            (85, Pressure::Shrink),
            (83, Pressure::Shrink),
            (81, Pressure::None),
            (96, Pressure::Shed),
            (92, Pressure::Shed),
            (91, Pressure::Leave),
            (99, Pressure::Refuse),
            (150, Pressure::Refuse),
            (10, Pressure::None),
        ] {
            let seen = MemoryUse {
                used: percent,
                limit: 100,
            };
            pressure = step(seen, pressure);
            assert_eq!(pressure, wanted, "{percent} %");
        }
    }
}
