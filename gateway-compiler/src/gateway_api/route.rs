//! Routes of every kind in one shape: who they belong to and what they carry, before they meet a listener.

use super::backend_ref::Unresolved;
use super::wanted::Asked;
use super::{Work, hostname};
use crate::diagnostic::{Diagnostic, Severity};
use crate::objects::kinds::ParentRef;
use crate::objects::{Kind, Subject};
use crate::plane::{self, Wish};
use crate::status::reason;
use gateway_core::ir::{Destination, HostPattern, HttpRule, RuleName, UpstreamProtocol};
use std::sync::Arc;

/// Most hostnames (of a TLSRoute: more), rules and matches a rule of one route (Gateway API).
pub(super) const HOSTNAMES_MAX: usize = 16;
pub(super) const TLS_HOSTNAMES_MAX: usize = 1024;
pub(super) const RULES_MAX: usize = 16;
pub(super) const MATCHES_MAX: usize = 64;
pub(super) const BACKENDS_MAX: usize = 16;

/// A route that is converted.
pub(super) struct Route {
    /// Never empty: a route without hostnames has [`HostPattern::Any`].
    pub hostnames: Vec<HostPattern>,
    pub carries: Carries,
    pub verdict: Verdict,
}

/// What a route brings to a listener.
#[derive(Debug)]
pub(super) enum Carries {
    Http(Vec<Arc<HttpRule>>),
    Stream(Stream),
    /// A kind that is read but not served yet.
    Nothing,
}

/// The one rule of a TCPRoute, TLSRoute or UDPRoute.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub name: RuleName,
    pub shares: Vec<StreamShare>,
}

/// A backend of it.
#[derive(Clone, Debug)]
pub(super) struct StreamShare {
    pub weight: u32,
    pub to: Destination,
    /// Instead of `to` where the client's own TLS passes through.
    pub untouched: Destination,
    /// What the backend speaks, should the listener be served request by request.
    pub protocol: Option<UpstreamProtocol>,
}

/// What was found while a route was converted.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub wishes: Vec<Wish>,
    /// The first reference that did not resolve.
    pub unresolved: Option<Unresolved>,
    /// Rules that cannot do what they say, with the first reason.
    pub bad_rules: usize,
    pub good_rules: usize,
    pub refused: Option<(&'static str, String)>,
}

impl Verdict {
    /// No rule does what it says: the route is not accepted.
    pub fn all_bad(&self) -> bool {
        self.good_rules == 0 && self.refused.is_some()
    }

    pub fn bad_rule(&mut self, reason: &'static str, message: impl Into<String>) {
        self.bad_rules += 1;
        self.refused.get_or_insert((reason, message.into()));
    }
}

/// A route, ready to be attached.
pub(super) struct Ready<'o> {
    pub subject: Subject<'o>,
    pub parents: &'o [ParentRef],
    pub converted: Arc<Converted>,
}

/// What a route came to: the same as long as nothing it refers to changes.
#[derive(Debug)]
pub(super) struct Converted {
    /// Never empty: a route without hostnames has [`HostPattern::Any`].
    pub hostnames: Vec<HostPattern>,
    pub carries: Carries,
    pub verdict: Verdict,
    pub found: Vec<Diagnostic>,
    pub asked: Asked,
}

impl std::ops::Deref for Ready<'_> {
    type Target = Converted;

    fn deref(&self) -> &Converted {
        &self.converted
    }
}

/// Converts a route, noting what it asks for and what is found.
pub(super) fn converted<'o>(work: &mut Work<'o>, convert: impl FnOnce(&mut Work<'o>) -> Route) -> Arc<Converted> {
    let begun = work.found.len();
    work.asked = Asked::default();
    let route = convert(work);
    Arc::new(Converted {
        hostnames: route.hostnames,
        carries: route.carries,
        verdict: route.verdict,
        found: work.found.split_off(begun),
        asked: std::mem::take(&mut work.asked),
    })
}

/// What every kind of route has.
pub(super) fn begin<'o>(work: &mut Work<'o>, subject: Subject<'o>, parents: &[ParentRef], names: &[String]) -> Route {
    let mut verdict = Verdict::default();
    verdict.wishes.extend(plane::wish(subject, &mut work.found));
    let mut hostnames = Vec::new();
    let max = if subject.id.kind == Kind::TlsRoute {
        TLS_HOSTNAMES_MAX
    } else {
        HOSTNAMES_MAX
    };
    let count = bound(work, subject, "spec.hostnames", names.len(), max);
    for (index, name) in names.iter().enumerate().take(count) {
        match hostname::pattern(Some(name)) {
            Ok(pattern) if !hostnames.contains(&pattern) => hostnames.push(pattern),
            Ok(_) => {}
            Err(problem) => {
                verdict
                    .refused
                    .get_or_insert((reason::UNSUPPORTED_VALUE, problem.clone()));
                let field = format!("spec.hostnames[{index}]");
                work.found
                    .push(subject.finding(Severity::Error, field, problem, "write a hostname, or *. and one"));
            }
        }
    }
    if names.is_empty() {
        hostnames.push(HostPattern::Any);
    }
    if parents.is_empty() {
        let problem = "the route names no parent: it serves nothing";
        work.found.push(subject.finding(
            Severity::Warning,
            "spec.parentRefs",
            problem,
            "name a Gateway in spec.parentRefs",
        ));
    }
    Route {
        hostnames,
        carries: Carries::Nothing,
        verdict,
    }
}

/// How many of `count` items are read; more than `max` are reported.
pub(super) fn bound(work: &mut Work<'_>, subject: Subject<'_>, field: &str, count: usize, max: usize) -> usize {
    if count > max {
        let problem = format!("{count} entries, more than {max}: the rest is left out");
        work.found
            .push(subject.finding(Severity::Error, field, problem, "split the route"));
    }
    count.min(max)
}
