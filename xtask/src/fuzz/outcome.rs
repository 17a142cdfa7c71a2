//! How a target's run ended, from what libFuzzer printed.
//!
//! Law: a run that learned nothing from its coverage is a failure, not a success.

use std::fmt;
use std::process::ExitStatus;

/// One target's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub target: String,
    inputs: u64,
    /// Counters hit by any input.
    edges: u64,
    /// Inputs that reach something of their own.
    corpus: u64,
    fault: Option<String>,
}

impl Outcome {
    /// `status` is `None` where it had to be killed.
    pub fn new(target: &str, status: Option<ExitStatus>, printed: &str) -> Self {
        let inputs = after(printed, "stat::number_of_executed_units:").unwrap_or(0);
        let last = printed
            .lines()
            .rev()
            .find(|line| line.contains(" cov: "))
            .unwrap_or_default();
        let (edges, corpus) = (after(last, " cov: ").unwrap_or(0), after(last, " corp: ").unwrap_or(0));
        let words = || {
            printed
                .lines()
                .find(|line| line.contains("panicked at") || line.contains("ERROR: libFuzzer"))
        };
        let fault = match status {
            None => Some("it did not end and was killed".to_owned()),
            Some(status) if !status.success() => Some(words().map_or_else(|| status.to_string(), str::to_owned)),
            Some(_) if inputs == 0 || edges == 0 || corpus < 2 => Some("it had no coverage to go by".to_owned()),
            Some(_) => None,
        };
        Self {
            target: target.to_owned(),
            inputs,
            edges,
            corpus,
            fault,
        }
    }

    pub fn is_good(&self) -> bool {
        self.fault.is_none()
    }
}

/// The number behind `label`.
fn after(text: &str, label: &str) -> Option<u64> {
    let rest = text.split_once(label)?.1.trim_start();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            inputs,
            edges,
            corpus,
            fault,
        } = self;
        write!(
            f,
            "fuzz {target:<16} {inputs:>10} inputs {edges:>6} edges {corpus:>5} kept  "
        )?;
        match fault {
            None => f.write_str("ok"),
            Some(why) => write!(f, "FAILED: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    const GOOD: &str = "#27\tINITED cov: 90 ft: 91 corp: 20/1Kb\n#900\tDONE   cov: 115 ft: 299 corp: 97/6036b lim: 4096\n\
                        stat::number_of_executed_units: 900\n";

    #[test]
    fn a_good_run_tells_its_figures() {
        let outcome = Outcome::new("path", Some(ExitStatus::from_raw(0)), GOOD);
        assert!(outcome.is_good());
        assert_eq!((outcome.inputs, outcome.edges, outcome.corpus), (900, 115, 97));
        assert!(outcome.to_string().ends_with("ok"));
    }

    #[test]
    fn a_crash_a_hang_and_a_blind_run_are_failures() {
        let crash = Outcome::new(
            "path",
            Some(ExitStatus::from_raw(77 << 8)),
            "thread panicked at a.rs:1\n",
        );
        assert!(!crash.is_good() && crash.to_string().contains("panicked at a.rs:1"));
        assert!(!Outcome::new("path", None, GOOD).is_good());
        let blind = GOOD.replace("cov: 115", "cov: 0");
        assert!(!Outcome::new("path", Some(ExitStatus::from_raw(0)), &blind).is_good());
    }
}
