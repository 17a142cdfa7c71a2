//! Workers that hang: found by their count of turns standing still although they were woken.
//!
//! A thread cannot be ended from outside, so a worker that hangs too long is the end of the process: the kernel plane
//! goes on, and who supervises the process starts a new one.

use crate::worker::Workers;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Without a turn for so long, a worker is late: said in the log and counted.
const LATE_AFTER: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// What was seen of each worker.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    seen: Vec<Seen>,
    looked: Option<Instant>,
    /// Without a turn for so long, a worker hangs; zero is never.
    pub(super) limit: Duration,
}

#[derive(Debug)]
struct Seen {
    pulse: u32,
    moved: Instant,
    late: bool,
}

impl Watchdog {
    /// Workers that are late now.
    pub(super) fn late(&self) -> usize {
        self.seen.iter().filter(|seen| seen.late).count()
    }

    /// Looks at every worker, now and then; the number of one that hangs.
    pub(super) fn look(&mut self, workers: &Workers) -> Option<usize> {
        let now = Instant::now();
        if self.looked.is_some_and(|at| now.duration_since(at) < LOOK) {
            return None;
        }
        // A process that was stopped, or a machine that slept, says nothing about its workers.
        let slept = self
            .looked
            .replace(now)
            .is_some_and(|at| now.duration_since(at) > LATE_AFTER);
        let pulses = workers.pulses();
        if slept || self.seen.len() != pulses.len() {
            let seen = |pulse| Seen {
                pulse,
                moved: now,
                late: false,
            };
            self.seen = pulses.into_iter().map(seen).collect();
            return None;
        }
        let mut hangs = None;
        for (worker, (seen, pulse)) in self.seen.iter_mut().zip(pulses).enumerate() {
            if seen.pulse != pulse {
                if seen.late {
                    info!("worker {worker} turns again after {:?}", now.duration_since(seen.moved));
                }
                *seen = Seen {
                    pulse,
                    moved: now,
                    late: false,
                };
                continue;
            }
            // An idle worker waits in its poll: this makes it turn.
            workers.poke(worker);
            let still = now.duration_since(seen.moved);
            if still >= LATE_AFTER && !seen.late {
                seen.late = true;
                workers.count_late();
                warn!("worker {worker} has not turned for {still:?}");
            }
            if !self.limit.is_zero() && still >= self.limit {
                hangs = Some(worker);
            }
        }
        hangs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::access_log::{AccessLogOptions, Format};
    use crate::worker::WorkerOptions;
    use std::thread::sleep;

    fn workers() -> Workers {
        let access_log = AccessLogOptions {
            format: Format::Off,
            ..AccessLogOptions::default()
        };
        let options = WorkerOptions {
            workers: 2,
            access_log,
            ..WorkerOptions::default()
        };
        Workers::start(options).unwrap()
    }

    /// What the watchdog says within `time`.
    fn watch(watchdog: &mut Watchdog, workers: &Workers, time: Duration) -> Option<usize> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if let Some(found) = watchdog.look(workers) {
                return Some(found);
            }
            sleep(Duration::from_millis(50));
        }
        None
    }

    #[test]
    fn a_worker_that_hangs_is_found_by_number_and_counted_and_idle_ones_are_not() {
        let workers = workers();
        let mut watchdog = Watchdog {
            limit: Duration::from_millis(1_500),
            ..Watchdog::default()
        };
        assert_eq!(watch(&mut watchdog, &workers, Duration::from_millis(2_000)), None);
        assert_eq!((workers.late_total(), watchdog.late()), (0, 0));
        workers.hang(1, Duration::from_secs(4));
        assert_eq!(watch(&mut watchdog, &workers, Duration::from_secs(3)), Some(1));
        assert_eq!((workers.late_total(), watchdog.late()), (1, 1));
    }
}
