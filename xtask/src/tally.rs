//! Sums the results that libtest prints, one line for each test binary.

use std::fmt;

/// How many tests ended how.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Tally {
    /// Takes one line of `cargo test`; other lines change nothing.
    pub fn read(&mut self, line: &str) {
        let Some((_, counts)) = line
            .trim_start()
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let (Some(number), Some(what)) = (words.next().and_then(|word| word.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {} // measured, filtered out, finished in
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test a ... ok
test b ... FAILED
test c ... ignored
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests gateway_core
test result: ok. 12 passed; 0 failed; 0 ignored; 2 measured; 7 filtered out; finished in 10.42s
";

    #[test]
    fn results_of_all_binaries_are_summed() {
        let mut tally = Tally::default();
        OUTPUT.lines().for_each(|line| tally.read(line));
        assert_eq!(
            tally,
            Tally {
                passed: 13,
                failed: 1,
                skipped: 1
            }
        );
        assert_eq!(tally.to_string(), "13 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn lines_that_only_look_alike_change_nothing() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok",
            "test results. 4 passed; 1 failed",
            "3 passed; 0 failed",
            "",
        ] {
            tally.read(line);
        }
        assert_eq!(tally, Tally::default());
    }
}
