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
pub mod host;
pub mod path;
pub mod pattern;
pub mod prefix;
pub mod request;

use crate::ids::RuleId;
use crate::ir::{RuleName, VirtualHost};
pub use host::HostIndex;
use path::PathTable;
pub use pattern::{Pattern, PatternError};
pub use request::{Fields, RequestHead, cookie_in};
use std::sync::Arc;

/// The virtual hosts of one Gateway API listener, compiled.
#[derive(Debug, Default)]
pub struct HostTable(HostIndex<Tiers>);

/// The tables of one hostname, in the order to try them. More than one when routes with different hostnames of their
/// own meet the listener's in the same one.
type Tiers = Vec<Tier>;

/// The rules of one [`VirtualHost`]; shared by the revisions that have it.
#[derive(Clone, Debug)]
struct Tier {
    of: Arc<VirtualHost>,
    /// Every rule has an id: while they are configured they keep them.
    whole: bool,
    paths: Arc<PathTable>,
}

/// The rule a request belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Matched {
    pub rule: RuleId,
    /// Bytes of the path the prefix match took, without its trailing `/`; 0 if it is not a prefix match.
    pub prefix_len: u16,
}

impl HostTable {
    /// Rules without an id (`id` gives `None`) can not be chosen. `before`: a table whose rules had the same ids; what it
    /// has of the very same hosts is shared.
    pub fn compile(
        hosts: &[Arc<VirtualHost>],
        id: impl Fn(&RuleName) -> Option<RuleId>,
        before: Option<&HostTable>,
    ) -> Self {
        let mut table = Self::default();
        for host in hosts {
            let known = before.and_then(|before| before.0.get(&host.hostname));
            let known = known.and_then(|tiers| tiers.iter().find(|tier| tier.whole && Arc::ptr_eq(&tier.of, host)));
            let tier = known.cloned().unwrap_or_else(|| Tier {
                of: Arc::clone(host),
                whole: host.rules.iter().all(|rule| id(&rule.name).is_some()),
                paths: Arc::new(PathTable::compile(&host.rules, &id)),
            });
            table.0.entry(&host.hostname).push(tier);
        }
        table
    }

    /// The rule for a request, or `None` if no rule matches.
    pub fn find<F: Fields>(&self, head: &RequestHead<'_, F>) -> Option<Matched> {
        self.find_tallied(head, &mut ())
    }

    fn find_tallied<F: Fields>(&self, head: &RequestHead<'_, F>, tally: &mut impl Tally) -> Option<Matched> {
        self.0.ask(head.host, tally, |tiers, tally| {
            tiers.iter().find_map(|tier| tier.paths.find(head, tally))
        })
    }
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
