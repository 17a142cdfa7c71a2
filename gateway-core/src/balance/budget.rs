//! How much one worker may retry at a service, so that retries never make an outage worse.
//!
//! Each request whose rule has retries saves up a share of another attempt, and time saves up a few more so that quiet
//! services can be retried at all; each further attempt costs a whole one. What is saved is at most [`SAVED`] of time's
//! part: when everything fails, the service gets little more than its requests' share on top (Finagle's RetryBudget).

use crate::time::Moment;
use std::time::Duration;

/// Time saves up retries for so long, and no more.
pub const SAVED: Duration = Duration::from_secs(10);
/// Parts of an attempt.
const WHOLE: u64 = 1_000_000;

/// What may be retried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// Further attempts for each hundred requests.
    pub percent: u32,
    /// And so many a second whatever comes.
    pub per_second: u32,
}

/// What one worker has left for one service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Millionths of attempts; `None` before the first request.
    saved: Option<u64>,
    seen: Moment,
}

impl Budget {
    /// A request came that could be retried.
    pub fn request(&mut self, allowance: Allowance, now: Moment) {
        let share = u64::from(allowance.percent) * (WHOLE / 100);
        self.saved = Some((self.saved(allowance, now) + share).min(most(allowance)));
        self.seen = now;
    }

    /// Whether there is another attempt left; it is taken.
    pub fn take(&mut self, allowance: Allowance, now: Moment) -> bool {
        let saved = self.saved(allowance, now);
        self.seen = now;
        let left = saved.checked_sub(WHOLE);
        self.saved = Some(left.unwrap_or(saved));
        left.is_some()
    }

    fn saved(&self, allowance: Allowance, now: Moment) -> u64 {
        let Some(saved) = self.saved else {
            return most(allowance);
        };
        let since = now.since(self.seen).min(SAVED).as_micros();
        let by_time = u64::try_from(since)
            .unwrap_or(u64::MAX)
            .saturating_mul(allowance.per_second.into());
        saved.saturating_add(by_time).min(most(allowance))
    }
}

/// A share of requests alone can be saved as well: at least one attempt.
fn most(allowance: Allowance) -> u64 {
    (SAVED.as_secs() * u64::from(allowance.per_second)).max(1) * WHOLE
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance {
        percent: 20,
        per_second: 10,
    };

    /// Attempts granted in `seconds` at `rate` requests a second that all fail, each asking for three more.
    fn granted(budget: &mut Budget, from_s: u64, seconds: u64, rate: u64) -> u64 {
        let mut count = 0;
        for request in 0..seconds * rate {
            let now = Moment::from_nanos(from_s * 1_000_000_000 + request * 1_000_000_000 / rate);
            budget.request(ALLOWANCE, now);
            count += (0..3).filter(|_| budget.take(ALLOWANCE, now)).count() as u64;
        }
        count
    }

    #[test]
    fn an_outage_is_retried_by_a_fifth_and_a_little_more() {
        let mut budget = Budget::default();
        let first = granted(&mut budget, 1, 1, 1000);
        assert!(
            (300..=311).contains(&first),
            "what was saved and a second's share: {first}"
        );
        let later = granted(&mut budget, 2, 10, 1000);
        assert!((2090..=2110).contains(&later), "{later}");
    }

    #[test]
    fn a_quiet_service_is_retried_whatever_the_share() {
        let mut budget = Budget::default();
        assert_eq!(granted(&mut budget, 1, 10, 3), 90);
    }

    #[test]
    fn what_is_saved_has_an_end() {
        let mut budget = Budget::default();
        (0..10_000).for_each(|_| budget.request(ALLOWANCE, Moment::from_millis(1)));
        let late = Moment::from_millis(3_600_000);
        assert_eq!((0..1000).filter(|_| budget.take(ALLOWANCE, late)).count(), 100);
    }

    #[test]
    fn nothing_allowed_is_nothing_but_the_first() {
        let none = Allowance {
            percent: 0,
            per_second: 0,
        };
        let mut budget = Budget::default();
        budget.request(none, Moment::ZERO);
        assert!(budget.take(none, Moment::ZERO));
        assert!(!budget.take(none, Moment::from_millis(100_000)));
    }
}
