//! The rules of one hostname by path.

use super::condition::Candidate;
use super::hash::FixedState;
use super::prefix::{Entry, PrefixTree};
use super::{Fields, Matched, Pattern, RequestHead, Tally};
use crate::ids::RuleId;
use crate::ir::{HttpRule, PathMatch, RuleName};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Matches by path pattern of one hostname. They are tried one by one, so more are not to be had: those beyond, in
/// order of precedence, never match.
pub const PATTERNS_MAX: usize = 1024;

/// Paths to the rules that may serve them.
#[derive(Debug, Default)]
pub struct PathTable {
    exact: HashMap<Box<[u8]>, Candidates, FixedState>,
    prefixes: PrefixTree,
    /// By `Entry::value`.
    by_prefix: Vec<Candidates>,
    /// In order of precedence; none of them sees a request that a longer prefix than `/` takes.
    patterns: Vec<(Pattern, Candidate)>,
}

/// The rules of one path in the order to ask them.
type Candidates = Vec<Candidate>;

impl PathTable {
    pub fn compile(rules: &[Arc<HttpRule>], id: impl Fn(&RuleName) -> Option<RuleId>) -> Self {
        let mut exact: BTreeMap<&[u8], Candidates> = BTreeMap::new();
        let mut prefixes: BTreeMap<&[u8], Candidates> = BTreeMap::new();
        let mut patterns: Vec<(&str, Candidate)> = Vec::new();
        for rule in rules {
            let Some(rule_id) = id(&rule.name) else { continue };
            for matches in &rule.matches {
                let candidate = Candidate::compile(rule_id, matches);
                match &matches.path {
                    PathMatch::Exact(path) => exact.entry(path.as_bytes()).or_default().push(candidate),
                    PathMatch::Prefix(prefix) => prefixes.entry(prefix_key(prefix)).or_default().push(candidate),
                    PathMatch::Regex(pattern) => patterns.push((pattern, candidate)),
                }
            }
        }
        Self {
            prefixes: PrefixTree::build(prefixes.keys().copied().zip(0..)),
            by_prefix: prefixes.into_values().map(ranked).collect(),
            exact: exact
                .into_iter()
                .map(|(path, candidates)| (path.into(), ranked(candidates)))
                .collect(),
            patterns: compiled(patterns),
        }
    }

    pub fn find<F: Fields>(&self, head: &RequestHead<'_, F>, tally: &mut impl Tally) -> Option<Matched> {
        tally.step();
        if let Some(rule) = self.exact.get(head.path).and_then(|rules| first(rules, head, tally)) {
            return Some(Matched { rule, prefix_len: 0 });
        }
        let mut root = None;
        for entry in self.prefixes.matches(head.path, tally) {
            if entry.len == 0 {
                root = Some(entry);
                break;
            }
            if let Some(matched) = self.of_prefix(entry, head, tally) {
                return Some(matched);
            }
        }
        self.of_patterns(head, tally)
            .or_else(|| self.of_prefix(root?, head, tally))
    }

    fn of_prefix<F: Fields>(&self, entry: Entry, head: &RequestHead<'_, F>, tally: &mut impl Tally) -> Option<Matched> {
        let rule = first(self.by_prefix.get(entry.value as usize)?, head, tally)?;
        Some(Matched {
            rule,
            prefix_len: u16::try_from(entry.len).unwrap_or(u16::MAX),
        })
    }

    fn of_patterns<F: Fields>(&self, head: &RequestHead<'_, F>, tally: &mut impl Tally) -> Option<Matched> {
        let (_, candidate) = self.patterns.iter().find(|(pattern, candidate)| {
            tally.step();
            candidate.accepts(head) && pattern.matches(head.path)
        })?;
        Some(Matched {
            rule: candidate.rule,
            prefix_len: 0,
        })
    }
}

/// A prefix without its trailing `/`, which has no meaning (Gateway API PathPrefix).
fn prefix_key(prefix: &str) -> &[u8] {
    prefix.trim_end_matches('/').as_bytes()
}

/// Longer patterns first, then as for any path. What can not be compiled is left out: it never matches.
fn compiled(mut patterns: Vec<(&str, Candidate)>) -> Vec<(Pattern, Candidate)> {
    patterns.sort_by_key(|(pattern, candidate)| (Reverse(pattern.len()), candidate.precedence()));
    let mut known: BTreeMap<&str, Option<Pattern>> = BTreeMap::new();
    let compile = |(pattern, candidate)| {
        let pattern = known.entry(pattern).or_insert_with(|| Pattern::new(pattern).ok());
        Some((pattern.clone()?, candidate))
    };
    patterns.into_iter().filter_map(compile).take(PATTERNS_MAX).collect()
}

/// Stable: ties keep the order given.
fn ranked(mut candidates: Candidates) -> Candidates {
    candidates.sort_by_key(Candidate::precedence);
    candidates
}

fn first<F: Fields>(rules: &Candidates, head: &RequestHead<'_, F>, tally: &mut impl Tally) -> Option<RuleId> {
    rules.iter().find_map(|candidate| {
        tally.step();
        candidate.accepts(head).then_some(candidate.rule)
    })
}
