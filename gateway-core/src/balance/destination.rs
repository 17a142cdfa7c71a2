//! Smooth weighted round robin over the destinations of a rule: each pick adds every weight to its credit and takes
//! the total from the highest one. After each round of `sum of weights` picks all credits are zero again, so the
//! shares are exact, and equal picks never come in a row when they need not.

use crate::snapshot::DestinationPlan;

/// Credits of one rule.
#[derive(Clone, Debug, Default)]
pub struct Shares(Vec<Share>);

#[derive(Clone, Copy, Debug)]
struct Share {
    weight: u32,
    credit: i64,
}

impl Shares {
    /// The next destination; `None` when every weight is zero. Begins a new round when the weights are others: credits
    /// earned by old weights would starve a destination for as long as the old round.
    pub fn next(&mut self, destinations: &[DestinationPlan]) -> Option<usize> {
        let weights = || destinations.iter().map(|destination| destination.weight);
        if !self.0.iter().map(|share| share.weight).eq(weights()) {
            self.0.clear();
            self.0.extend(weights().map(|weight| Share { weight, credit: 0 }));
        }
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, share) in self.0.iter_mut().enumerate().filter(|(_, share)| share.weight > 0) {
            share.credit += i64::from(share.weight);
            total += i64::from(share.weight);
            if best.is_none_or(|(_, credit)| share.credit > credit) {
                best = Some((index, share.credit));
            }
        }
        let (chosen, _) = best?;
        self.0[chosen].credit -= total;
        Some(chosen)
    }
}
