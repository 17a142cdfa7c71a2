//! The only place where a clock is read for a worker: once a turn for [`Moment`], about once a second for the wall clock.

use gateway_core::time::Moment;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock that counts from its own making. One is made when the process starts and copied to whoever makes
/// moments, so that all of them compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose zero is now.
    pub fn start() -> Self {
        Self::since(Instant::now())
    }

    /// A clock whose zero is `start`.
    pub const fn since(start: Instant) -> Self {
        Self { start }
    }

    pub fn now(&self) -> Moment {
        let nanos = self.start.elapsed().as_nanos();
        Moment::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How wall-clock time relates to moments just now. Taken anew from time to time, so that a corrected system clock
    /// shows in the log.
    pub fn wall(&self) -> Wall {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Wall {
            zero: unix.saturating_sub(self.start.elapsed()),
        }
    }
}

/// Wall-clock time of [`Moment::ZERO`].
#[derive(Clone, Copy, Debug)]
pub struct Wall {
    zero: Duration,
}

impl Wall {
    /// A wall clock whose moment zero is `zero` after the Unix epoch.
    pub const fn from_unix(zero: Duration) -> Self {
        Self { zero }
    }

    /// Nanoseconds since the Unix epoch.
    pub fn unix_nanos(&self, at: Moment) -> u64 {
        let since = self.zero + Duration::from_nanos(at.nanos());
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_millis(&self, at: Moment) -> u64 {
        let since = self.zero + Duration::from_nanos(at.nanos());
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_never_run_backwards() {
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second);
    }

    #[test]
    fn the_wall_clock_of_a_moment_is_zero_plus_the_moment() {
        let wall = Wall::from_unix(Duration::from_secs(1_700_000_000));
        assert_eq!(wall.unix_millis(Moment::from_millis(1_500)), 1_700_000_001_500);
    }
}
