//! Rules that never get a request, because others match the same first.

use super::rank::Rank;
use crate::Diagnostic;
use crate::diagnostic::Severity;
use crate::objects::Objects;
use gateway_core::ir::{FieldMatch, HostPattern, HttpMatch, HttpRule, PathMatch};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A rule whose every match stands in earlier rules too never gets a request.
pub(super) fn report(
    objects: &Objects,
    hostname: &HostPattern,
    rules: &[(&Arc<Rank>, &Arc<HttpRule>)],
    found: &mut Vec<Diagnostic>,
) {
    let mut first: BTreeMap<_, &Arc<HttpRule>> = BTreeMap::new();
    for (route, rule) in rules {
        let mut winner = None;
        let mut own = false;
        for m in &rule.matches {
            let earlier = *first.entry(conditions(m)).or_insert(rule);
            own |= earlier.name == rule.name;
            winner.get_or_insert(earlier);
        }
        let Some(winner) = winner.filter(|_| !own) else {
            continue;
        };
        let index = rule.name.as_str().rsplit('/').next().unwrap_or("0");
        let problem = format!(
            "for host {hostname} this rule gets no request: {} matches the same first",
            winner.name
        );
        let field = format!("spec.rules[{index}]");
        let remedy = "remove one of the two, or match something else";
        let route = route.subject(objects);
        found.extend(route.map(|route| route.finding(Severity::Warning, field, problem, remedy)));
    }
}

/// What a match asks, in an order of its own: that of the conditions does not matter.
fn conditions(of: &HttpMatch) -> (&PathMatch, &Option<String>, Vec<&FieldMatch>, Vec<&FieldMatch>) {
    fn sorted(fields: &[FieldMatch]) -> Vec<&FieldMatch> {
        let mut sorted: Vec<_> = fields.iter().collect();
        sorted.sort_unstable();
        sorted
    }
    (&of.path, &of.method, sorted(&of.headers), sorted(&of.query))
}
