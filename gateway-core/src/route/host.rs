//! Values by hostname: exact names and wildcards, each one hash away.

use super::Tally;
use super::hash::FixedState;
use crate::ir::HostPattern;
use std::collections::HashMap;

/// A host longer than this is looked up as "any host" only: no DNS name is (RFC 1035 2.3.4), and each of its labels
/// would cost a lookup.
pub const HOST_BYTES_MAX: usize = 255;

/// A value for each hostname pattern.
#[derive(Debug, Default)]
pub struct HostIndex<T> {
    exact: HashMap<Box<str>, T, FixedState>,
    /// By `.suffix`.
    suffixes: HashMap<Box<str>, T, FixedState>,
    any: Option<T>,
}

impl<T: Default> HostIndex<T> {
    /// The value of a pattern, made if there is none.
    pub fn entry(&mut self, pattern: &HostPattern) -> &mut T {
        match pattern {
            HostPattern::Exact(name) => self.exact.entry(name.as_str().into()).or_default(),
            HostPattern::Suffix(suffix) => self.suffixes.entry(suffix.as_str().into()).or_default(),
            HostPattern::Any => self.any.get_or_insert_default(),
        }
    }
}

impl<T> HostIndex<T> {
    /// The value of exactly this pattern.
    pub fn get(&self, pattern: &HostPattern) -> Option<&T> {
        match pattern {
            HostPattern::Exact(name) => self.exact.get(name.as_str()),
            HostPattern::Suffix(suffix) => self.suffixes.get(suffix.as_str()),
            HostPattern::Any => self.any.as_ref(),
        }
    }

    /// Asks the values whose pattern matches `host` (lower case, without port), most specific first, until one has an
    /// answer.
    pub fn ask<'t, R, C: Tally>(
        &'t self,
        host: &str,
        tally: &mut C,
        mut answer: impl FnMut(&'t T, &mut C) -> Option<R>,
    ) -> Option<R> {
        let mut ask = |value: Option<&'t T>| {
            tally.step();
            value.and_then(|value| answer(value, tally))
        };
        if host.len() <= HOST_BYTES_MAX {
            if let Some(found) = ask(self.exact.get(host)) {
                return Some(found);
            }
            let dots = if self.suffixes.is_empty() { "" } else { host };
            // A wildcard stands for at least one label, so not for what is before a leading dot.
            for (at, _) in dots.match_indices('.').filter(|(at, _)| *at > 0) {
                if let Some(found) = ask(self.suffixes.get(&host[at..])) {
                    return Some(found);
                }
            }
        }
        ask(self.any.as_ref())
    }
}
