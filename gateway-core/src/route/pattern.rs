//! Regular expressions of routes: anchored, bounded in size, linear in time (RE2 syntax has no backtracking).

use regex::bytes::{Regex, RegexBuilder};
use std::fmt;

/// Longest pattern, bytes (Gateway API: 1,024 for paths, 4,096 for header values).
pub const PATTERN_BYTES_MAX: usize = 4096;
/// Memory of a compiled pattern, bytes: bounds `a{1000}{1000}`.
pub const PATTERN_SIZE_MAX: usize = 512 * 1024;
/// Memory of a pattern's lazily built automaton, bytes per worker.
pub const PATTERN_CACHE_MAX: usize = 256 * 1024;

/// A compiled pattern that must match a whole text.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Why a pattern can not be used, in the words of the syntax error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternError(String);

impl Pattern {
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(PatternError(format!("longer than {PATTERN_BYTES_MAX} bytes")));
        }
        // Alone first: `a)(b` would be well formed between our anchors.
        compile(pattern)?;
        compile(&format!(r"\A(?:{pattern})\z")).map(Self)
    }

    pub fn matches(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

fn compile(pattern: &str) -> Result<Regex, PatternError> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_SIZE_MAX)
        .dfa_size_limit(PATTERN_CACHE_MAX)
        .build()
        .map_err(|error| PatternError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_texts_only() {
        let pattern = Pattern::new("/v[0-9]+|/old").unwrap();
        for (text, expected) in [
            ("/v12", true),
            ("/old", true),
            ("/v12/x", false),
            ("x/old", false),
            ("/v12\n", false),
        ] {
            assert_eq!(pattern.matches(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_malformed_or_too_large_is_an_error_with_its_reason() {
        for (pattern, reason) in [
            ("(", "unclosed group"),
            ("a)(b", "unopened group"),
            ("(a{1000}){1000}", "size limit"),
        ] {
            let error = Pattern::new(pattern).unwrap_err().to_string();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
        assert!(Pattern::new(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn bytes_that_are_no_utf8_can_be_matched_against() {
        assert!(!Pattern::new(".*").unwrap().matches(b"/\xff"));
        assert!(Pattern::new("(?s-u:.)*").unwrap().matches(b"/\xff"));
    }
}
