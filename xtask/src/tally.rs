//! Sums the results that libtest prints, one line for each test binary, and keeps what failed tests said, to be said again
//! at the end: a run is thousands of lines, and who reads only its last ones must learn what failed and why.

use std::fmt;

/// Lines kept of what failed tests said, all together.
const SAID_MAX: usize = 200;

/// How many tests ended how.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
    /// Of the failed ones: their names, then what they said.
    names: Vec<String>,
    said: Vec<String>,
    /// The line belongs to what a failed test said.
    saying: bool,
}

impl Tally {
    /// Takes one line of `cargo test`; other lines change nothing.
    pub fn read(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... FAILED"))
        {
            self.names.push(name.0.to_owned());
        }
        // libtest and the rows head what a test said with its name, and libtest ends it with the list of names.
        self.saying |= line.starts_with("---- ");
        self.saying &= line != "failures:" && !line.starts_with("test result: ");
        if self.saying && self.said.len() < SAID_MAX {
            self.said.push(line.to_owned());
        }
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
        if !self.names.is_empty() {
            writeln!(f, "\n{}\n\nfailed:", self.said.join("\n").trim_end())?;
            self.names.iter().try_for_each(|name| writeln!(f, "    {name}"))?;
        }
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

failures:

---- b stdout ----
assertion failed

failures:
    b

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests gateway_core
test result: ok. 12 passed; 0 failed; 0 ignored; 2 measured; 7 filtered out; finished in 10.42s
";

    #[test]
    fn results_of_all_binaries_are_summed() {
        let mut tally = Tally::default();
        OUTPUT.lines().for_each(|line| tally.read(line));
        assert_eq!((tally.passed, tally.failed, tally.skipped), (13, 1, 1));
    }

    #[test]
    fn what_failed_tests_said_is_said_again_at_the_end() {
        let mut tally = Tally::default();
        OUTPUT.lines().for_each(|line| tally.read(line));
        let end = "---- b stdout ----\nassertion failed\n\nfailed:\n    b\n13 passed, 1 failed, 1 skipped";
        assert_eq!(tally.to_string().trim_start(), end);
        let rows = "test a row (tcx) ... FAILED (0.1 s)\n\n---- a row (tcx) ----\nwhy\n\ntest result: FAILED. 0 passed; 1 failed";
        rows.lines().for_each(|line| tally.read(line));
        let text = tally.to_string();
        assert!(text.contains("why\n") && text.contains("    a row (tcx)\n"), "{text}");
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
