//! Routes of every kind in one shape: who they belong to and what they carry, before they meet a listener.

use super::backend_ref::Unresolved;
use super::{Work, grpc_route, hostname, http_route, stream_route};
use crate::diagnostic::Severity;
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

/// A route, converted.
pub(super) struct Route<'o> {
    pub subject: Subject<'o>,
    pub parents: &'o [ParentRef],
    /// Never empty: a route without hostnames has [`HostPattern::Any`].
    pub hostnames: Vec<HostPattern>,
    pub carries: Carries,
    pub verdict: Verdict<'o>,
}

/// What a route brings to a listener.
pub(super) enum Carries {
    Http(Vec<Arc<HttpRule>>),
    Stream(Stream),
    /// A kind that is read but not served yet.
    Nothing,
}

/// The one rule of a TCPRoute, TLSRoute or UDPRoute.
#[derive(Clone)]
pub(super) struct Stream {
    pub name: RuleName,
    pub shares: Vec<StreamShare>,
}

/// A backend of it.
#[derive(Clone)]
pub(super) struct StreamShare {
    pub weight: u32,
    pub to: Destination,
    /// Instead of `to` where the client's own TLS passes through.
    pub untouched: Destination,
    /// What the backend speaks, should the listener be served request by request.
    pub protocol: Option<UpstreamProtocol>,
}

/// What was found while a route was converted.
#[derive(Default)]
pub(super) struct Verdict<'o> {
    pub wishes: Vec<Wish<'o>>,
    /// The first reference that did not resolve.
    pub unresolved: Option<Unresolved>,
    /// Rules that cannot do what they say, with the first reason.
    pub bad_rules: usize,
    pub good_rules: usize,
    pub refused: Option<(&'static str, String)>,
}

impl Verdict<'_> {
    /// No rule does what it says: the route is not accepted.
    pub fn all_bad(&self) -> bool {
        self.good_rules == 0 && self.refused.is_some()
    }

    pub fn bad_rule(&mut self, reason: &'static str, message: impl Into<String>) {
        self.bad_rules += 1;
        self.refused.get_or_insert((reason, message.into()));
    }
}

/// Every route, oldest first: the order in which they win.
pub(super) fn all<'o>(work: &mut Work<'o>) -> Vec<Route<'o>> {
    let objects = work.objects;
    let mut routes: Vec<Route<'o>> = Vec::new();
    routes.extend(
        objects
            .http_routes
            .values()
            .map(|route| http_route::convert(work, route)),
    );
    routes.extend(
        objects
            .grpc_routes
            .values()
            .map(|route| grpc_route::convert(work, route)),
    );
    for table in [&objects.tcp_routes, &objects.tls_routes, &objects.udp_routes] {
        routes.extend(table.values().map(|route| stream_route::convert(work, route)));
    }
    routes.sort_by(|a, b| (a.subject.age(), a.subject.id).cmp(&(b.subject.age(), b.subject.id)));
    routes
}

/// What every kind of route has.
pub(super) fn begin<'o>(
    work: &mut Work<'o>,
    subject: Subject<'o>,
    parents: &'o [ParentRef],
    names: &[String],
) -> Route<'o> {
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
        subject,
        parents,
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
