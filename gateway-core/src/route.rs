//! Route lookup: hostname, then path, then method, headers and query, in Gateway API precedence.
//!
//! Order in which rules are tried, first match wins (HTTPRoute v1, `hostnames` and `rules`):
//! 1. the hostname: exact, then longer wildcards, then any host;
//! 2. the path: exact, then longer prefixes; then regular expressions, longer patterns first; then the prefix `/`.
//!    The specification leaves regular expressions to us: this way a catch-all does not hide them, and a GRPCRoute
//!    that names a method alone ranks between one that names a service and one that names nothing;
//! 3. a method, more headers, more query parameters;
//! 4. the order given (oldest route, name, rule, match).
//!
//! A rule whose conditions fail gives way to the next in this order, down to less specific hostnames of the same
//! Gateway API listener: precedence says who is asked first, not who alone is asked.
//!
//! Laws: a lookup allocates nothing once its regular expressions are warm. Its cost grows with the length of host and
//! path and with the rules that share the very same path, not with the number of routes.

pub mod condition;
pub mod hash;
pub mod path;
pub mod pattern;
pub mod prefix;
pub mod request;

use crate::ids::RuleId;
use crate::ir::{HostPattern, RuleName, VirtualHost};
use hash::FixedState;
use path::PathTable;
pub use pattern::{Pattern, PatternError};
pub use request::{Fields, RequestHead};
use std::collections::HashMap;

/// A host longer than this is looked up as "any host" only: no DNS name is (RFC 1035 2.3.4), and each of its labels
/// would cost a lookup.
pub const HOST_BYTES_MAX: usize = 255;

/// The virtual hosts of one Gateway API listener, compiled.
#[derive(Debug, Default)]
pub struct HostTable {
    exact: HashMap<Box<str>, Tiers, FixedState>,
    /// By `.suffix`.
    suffixes: HashMap<Box<str>, Tiers, FixedState>,
    any: Tiers,
}

/// The tables of one hostname, in the order to try them. More than one when routes with different hostnames of their
/// own meet the listener's in the same one.
type Tiers = Vec<PathTable>;

/// The rule a request belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Matched {
    pub rule: RuleId,
    /// Bytes of the path the prefix match took, without its trailing `/`; 0 if it is not a prefix match.
    pub prefix_len: u16,
}

impl HostTable {
    /// Rules without an id (`id` gives `None`) can not be chosen.
    pub fn compile(hosts: &[VirtualHost], id: impl Fn(&RuleName) -> Option<RuleId>) -> Self {
        let mut table = Self::default();
        for host in hosts {
            let tiers = match &host.hostname {
                HostPattern::Exact(name) => table.exact.entry(name.as_str().into()).or_default(),
                HostPattern::Suffix(suffix) => table.suffixes.entry(suffix.as_str().into()).or_default(),
                HostPattern::Any => &mut table.any,
            };
            tiers.push(PathTable::compile(&host.rules, &id));
        }
        table
    }

    /// The rule for a request, or `None` if no rule matches.
    pub fn find<F: Fields>(&self, head: &RequestHead<'_, F>) -> Option<Matched> {
        self.find_tallied(head, &mut ())
    }

    fn find_tallied<F: Fields>(&self, head: &RequestHead<'_, F>, tally: &mut impl Tally) -> Option<Matched> {
        if head.host.len() <= HOST_BYTES_MAX {
            if let Some(found) = ask(self.exact.get(head.host), head, tally) {
                return Some(found);
            }
            for at in suffix_starts(head.host, self.suffixes.is_empty()) {
                if let Some(found) = ask(self.suffixes.get(&head.host[at..]), head, tally) {
                    return Some(found);
                }
            }
        }
        ask(Some(&self.any), head, tally)
    }
}

fn ask<F: Fields>(tiers: Option<&Tiers>, head: &RequestHead<'_, F>, tally: &mut impl Tally) -> Option<Matched> {
    tally.step();
    tiers?.iter().find_map(|paths| paths.find(head, tally))
}

/// Where the wildcard suffixes of a host begin, longest first: at every dot but a leading one.
fn suffix_starts(host: &str, none: bool) -> impl Iterator<Item = usize> {
    let host = if none { "" } else { host };
    host.bytes()
        .enumerate()
        .skip(1)
        .filter(|(_, byte)| *byte == b'.')
        .map(|(at, _)| at)
}

/// Counts the steps of a lookup: nothing in production, a number in tests.
pub trait Tally {
    fn step(&mut self);
}

impl Tally for () {
    #[inline(always)]
    fn step(&mut self) {}
}

impl Tally for u32 {
    fn step(&mut self) {
        *self += 1;
    }
}

#[cfg(test)]
mod tests;
