//! What a worker remembers of an endpoint's failures.
//!
//! A failed endpoint is left out for [`OUT_MIN`], doubling up to [`OUT_MAX`]. When that time is over one request tries
//! it, and only one: the others go on leaving it out until it answers, so an endpoint that swallows packets costs one
//! connect timeout per period and not one per request.

use crate::time::Moment;
use std::time::Duration;

/// Left out after the first failure.
pub const OUT_MIN: Duration = Duration::from_secs(1);
/// Left out at most.
pub const OUT_MAX: Duration = Duration::from_secs(30);

/// Failures of one endpoint since it last answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures {
    /// In a row, each after its time out was over.
    count: u8,
    /// One request tries it now.
    trial: bool,
    out_until: Moment,
    failed_at: Moment,
}

impl Failures {
    pub fn is_out(&self, now: Moment) -> bool {
        self.count > 0 && now < self.out_until
    }

    /// When it last failed; [`Moment::ZERO`] if it did not.
    pub fn failed_at(&self) -> Moment {
        self.failed_at
    }

    /// A request goes to it.
    pub fn picked(&mut self, now: Moment) {
        if self.count > 0 && !self.is_out(now) {
            self.trial = true;
            self.out_until = now + self.out_for();
        }
    }

    /// Many requests fail at once when an endpoint dies: while it is out already, that is one failure.
    pub fn failed(&mut self, now: Moment) {
        if self.trial || !self.is_out(now) {
            self.count = self.count.saturating_add(1);
            self.out_until = now + self.out_for();
            self.trial = false;
        }
        self.failed_at = now;
    }

    fn out_for(&self) -> Duration {
        let doublings = u32::from(self.count.saturating_sub(1)).min(10);
        (OUT_MIN * (1 << doublings)).min(OUT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out_ms(failures: &Failures, since: u64) -> u64 {
        (since..).find(|ms| !failures.is_out(Moment::from_millis(*ms))).unwrap() - since
    }

    #[test]
    fn the_time_out_doubles_from_one_to_thirty_seconds() {
        let mut failures = Failures::default();
        let mut now = 0;
        for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            failures.failed(Moment::from_millis(now));
            assert_eq!(out_ms(&failures, now), expected);
            now += expected;
        }
    }

    #[test]
    fn failures_while_it_is_out_are_the_same_failure() {
        let mut failures = Failures::default();
        for ms in 0..100 {
            failures.failed(Moment::from_millis(ms));
        }
        assert_eq!(out_ms(&failures, 0), 1_000);
        assert_eq!(failures.failed_at(), Moment::from_millis(99));
    }

    #[test]
    fn when_its_time_is_over_one_request_tries_it_and_the_others_wait() {
        let mut failures = Failures::default();
        failures.failed(Moment::ZERO);
        let now = Moment::from_millis(1_000);
        assert!(!failures.is_out(now));
        failures.picked(now);
        assert!(failures.is_out(now));
        failures.failed(Moment::from_millis(1_500));
        assert_eq!(out_ms(&failures, 1_500), 2_000);
    }
}
