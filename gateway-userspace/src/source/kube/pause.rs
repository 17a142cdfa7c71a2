//! Pauses between tries: growing, bounded, and different for every process, so that a server that comes back is not
//! met by everyone at once.

use kube::runtime::utils::Backoff;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Pauses from `first` on, each twice the one before, up to `most`, each shortened by up to a half.
#[derive(Clone, Debug)]
pub struct Pauses {
    first: Duration,
    most: Duration,
    next: Duration,
    lot: RandomState,
    drawn: u64,
}

impl Pauses {
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
            lot: RandomState::new(),
            drawn: 0,
        }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = self.next;
        self.next = (whole * 2).min(self.most);
        self.drawn += 1;
        // 0 to 1 of the half that may be missing.
        let share = (self.lot.hash_one(self.drawn) >> 11) as f64 / (1_u64 << 53) as f64;
        Some(whole.mul_f64(1.0 - share / 2.0))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_begin_anew_and_differ_between_processes() {
        let pauses = || Pauses::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut one = pauses();
        let drawn: Vec<Duration> = one.by_ref().take(20).collect();
        for (at, pause) in drawn.iter().enumerate() {
            let whole = Duration::from_millis(100 << at.min(10)).min(Duration::from_secs(5));
            assert!(*pause <= whole && *pause >= whole / 2, "{at}: {pause:?} of {whole:?}");
        }
        assert_ne!(drawn, pauses().take(20).collect::<Vec<_>>());
        one.reset();
        assert!(one.next().is_some_and(|pause| pause <= Duration::from_millis(100)));
    }
}
