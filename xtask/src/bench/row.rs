//! All rounds of one proxy in one cell: their spread, and the ratio of two of them.

use super::load::Sample;

pub struct Row {
    /// Sorted.
    figures: Vec<f64>,
    /// Sorted; empty where a rate says nothing.
    rates: Vec<f64>,
    ok: u64,
    pub failed: u64,
}

impl Row {
    pub fn of<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> Option<Self> {
        let sorted = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all
        };
        let figures = sorted(samples.clone().map(|sample| sample.figure).collect());
        (!figures.is_empty()).then(|| Self {
            figures,
            rates: sorted(samples.clone().filter_map(|sample| sample.rate).collect()),
            ok: samples.clone().map(|sample| sample.ok).sum(),
            failed: samples.clone().map(|sample| sample.failed).sum(),
        })
    }

    pub fn median(&self) -> f64 {
        median(&self.figures)
    }

    /// `ours` by this, in medians. A row with failures has none: what fails costs nothing.
    pub fn ratio_of(&self, ours: &Row) -> Option<f64> {
        let fair = self.failed == 0 && ours.failed == 0 && self.median() > 0.0 && ours.median() > 0.0;
        fair.then(|| ours.median() / self.median())
    }

    /// Smallest, median and largest, or what failed.
    pub fn spread(&self, decimals: usize) -> String {
        let (min, max) = (self.figures[0], self.figures[self.figures.len() - 1]);
        match self.failed {
            0 => format!("{min:.decimals$} / {:.decimals$} / {max:.decimals$}", self.median()),
            failed => format!("**{failed} of {} requests failed**", self.ok + failed),
        }
    }

    pub fn rate_shown(&self) -> String {
        match self.rates.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.0}", median(&self.rates)),
        }
    }
}

/// Of sorted values; the mean of the middle two where their number is even.
fn median(sorted: &[f64]) -> f64 {
    let (low, high) = ((sorted.len().max(1) - 1) / 2, sorted.len() / 2);
    (sorted[low] + sorted[high]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }
}
