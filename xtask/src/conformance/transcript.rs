//! What `go test -test.v=test2json` prints, taken apart: how each top-level test ended, and what it said then.
//!
//! A line belongs to the test that the last marked line named; marks are lines that begin with 0x16 (`cmd/internal/test2json`).

use std::collections::BTreeMap;
use std::fmt;

const MARK: char = '\u{16}';
/// All tests of the suite are parts of this one.
pub const ROOT: &str = "TestConformance";
/// What is kept of a test's lines until it has ended.
const LINES_MAX: usize = 400;
/// What is told of a test that did not pass.
const SAID_MAX: usize = 600;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        })
    }
}

/// A top-level test that has ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Test {
    pub name: String,
    pub outcome: Outcome,
    pub seconds: f64,
    /// Why it failed or was skipped, in its own words; empty where it passed.
    pub said: String,
}

/// Reads line after line.
#[derive(Default)]
pub struct Transcript {
    current: String,
    lines: BTreeMap<String, Vec<String>>,
}

impl Transcript {
    /// Takes a line; returns the test that ended with it, [`ROOT`] itself only where it failed outside of any test.
    pub fn read(&mut self, line: &str) -> Option<Test> {
        let Some(marked) = line.strip_prefix(MARK) else {
            self.keep(line);
            return None;
        };
        if let Some(rest) = marked.strip_prefix("=== ") {
            self.current = rest.split_whitespace().nth(1).map(top).unwrap_or_default().to_owned();
            return None;
        }
        let (result, rest) = marked.trim_start().strip_prefix("--- ")?.split_once(": ")?;
        let (path, time) = rest.split_once(' ')?;
        let seconds = time
            .trim_start_matches('(')
            .trim_end()
            .trim_end_matches("s)")
            .parse()
            .unwrap_or(0.0);
        let outcome = match result {
            "PASS" => Outcome::Passed,
            "FAIL" => Outcome::Failed,
            "SKIP" => Outcome::Skipped,
            _ => return None,
        };
        let name = top(path);
        let is_top = path.split('/').count() == 2;
        let is_root = path == ROOT && outcome == Outcome::Failed;
        if !is_top && !is_root {
            if outcome == Outcome::Failed {
                // The parts' names tell which case of a test it is.
                self.current = name.to_owned();
                let case = path.splitn(3, '/').nth(2).unwrap_or_default();
                self.keep(&format!("Case: {case}"));
            }
            return None;
        }
        let lines = self.lines.remove(name).unwrap_or_default();
        let said = match outcome {
            Outcome::Passed => String::new(),
            Outcome::Failed => why_failed(&lines),
            Outcome::Skipped => lines.last().map(|line| message(line)).unwrap_or_default(),
        };
        let name = name.to_owned();
        Some(Test {
            name,
            outcome,
            seconds,
            said,
        })
    }

    fn keep(&mut self, line: &str) {
        if self.current.is_empty() || line.trim().is_empty() {
            return;
        }
        let lines = self.lines.entry(self.current.clone()).or_default();
        if lines.len() == LINES_MAX {
            lines.remove(0);
        }
        lines.push(line.to_owned());
    }
}

/// `B` of `A/B/C`; `A` of `A`.
fn top(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or(path)
}

/// The first assertion's `Error:` and `Messages:`, with the cases that failed; without an assertion the last words.
fn why_failed(lines: &[String]) -> String {
    const FIELDS: [&str; 4] = ["Error Trace:", "Error:", "Test:", "Messages:"];
    let (mut said, mut cases) = (Vec::new(), Vec::new());
    let mut in_field = "";
    let mut blocks = 0;
    for line in lines {
        let text = line.trim();
        if let Some(case) = text.strip_prefix("Case: ") {
            cases.push(case.to_owned());
            continue;
        }
        if let Some(field) = FIELDS.iter().find(|field| text.starts_with(**field)) {
            in_field = field;
            blocks += usize::from(*field == "Error Trace:");
        } else if text.contains(".go:") || text.starts_with('{') {
            in_field = "";
        }
        if blocks == 1 && matches!(in_field, "Error:" | "Messages:") {
            said.push(text.trim_start_matches(in_field).trim().to_owned());
        }
    }
    if said.is_empty() {
        let last = lines
            .iter()
            .rev()
            .filter(|line| !line.trim().starts_with("Case: "))
            .take(2);
        said = last.map(|line| message(line)).collect();
        said.reverse();
    }
    if !cases.is_empty() {
        said.push(format!("in: {}", cases.join("; ")));
    }
    shortened(&said.join(" "))
}

/// Without the place in the suite's sources before it.
fn message(line: &str) -> String {
    let text = line.trim();
    let behind = text.split_once(".go:").and_then(|(_, rest)| rest.split_once(": "));
    shortened(behind.map_or(text, |(_, rest)| rest))
}

fn shortened(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(SAID_MAX) {
        Some((end, _)) => format!("{}...", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Test> {
        let mut transcript = Transcript::default();
        text.replace('^', "\u{16}")
            .lines()
            .filter_map(|line| transcript.read(line))
            .collect()
    }

    #[test]
    fn a_test_ends_with_its_own_line_and_not_with_those_of_its_parts() {
        let text = "^=== RUN   TestConformance\n^=== RUN   TestConformance/A\n^=== RUN   TestConformance/A/x\n    x.go:1: hello\n\
                    ^--- PASS: TestConformance/A/x (0.10s)\n^--- PASS: TestConformance/A (0.25s)\n^--- PASS: TestConformance (1.00s)\n";
        let expected = Test {
            name: "A".into(),
            outcome: Outcome::Passed,
            seconds: 0.25,
            said: String::new(),
        };
        assert_eq!(read(text), [expected]);
    }

    #[test]
    fn a_failed_test_says_its_first_assertion_and_its_cases() {
        let text = "^=== RUN   TestConformance/A\n^=== RUN   TestConformance/A/1_request_to_/\n    a.go:1: waiting\n    a.go:2: \n\
                    \x20       \tError Trace:\t/x/a.go:2\n        \tError:      \tReceived unexpected error:\n\
                    \x20       \t            \tno route\n        \tTest:       \tTestConformance/A\n        \tMessages:   \tasked 3 times\n\
                    ^--- FAIL: TestConformance/A/1_request_to_/ (30.00s)\n^--- FAIL: TestConformance/A (30.10s)\n";
        let tests = read(text);
        assert_eq!(tests.len(), 1);
        assert_eq!(
            tests[0].said,
            "Received unexpected error: no route asked 3 times in: 1_request_to_/"
        );
    }

    #[test]
    fn lines_of_tests_at_once_go_to_the_test_that_was_named_last() {
        let text = "^=== RUN   TestConformance/A\n    a.go:1: of A\n^=== CONT  TestConformance/B\n    b.go:1: Skipping B: not supported\n\
                    ^=== NAME  TestConformance/A\n    a.go:9: bad: of A too\n^--- SKIP: TestConformance/B (0.00s)\n^--- FAIL: TestConformance/A (0.00s)\n";
        let said: Vec<(String, String)> = read(text).into_iter().map(|test| (test.name, test.said)).collect();
        let expected = [("B", "Skipping B: not supported"), ("A", "of A bad: of A too")];
        assert_eq!(said, expected.map(|(name, said)| (name.to_owned(), said.to_owned())));
    }

    #[test]
    fn what_fails_before_any_test_is_told_too() {
        let text = "^=== RUN   TestConformance\n    suite.go:3: the class is not accepted\n^--- FAIL: TestConformance (60.00s)\n";
        let tests = read(text);
        assert_eq!((&*tests[0].name, &*tests[0].said), (ROOT, "the class is not accepted"));
    }
}
