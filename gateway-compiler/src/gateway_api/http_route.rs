//! HTTPRoute to rules.

use super::filters::{self, Place, Referred};
use super::route::{self, BACKENDS_MAX, Carries, MATCHES_MAX, RULES_MAX, Route, Verdict};
use super::{Work, backend_ref, duration, matches, retry, session};
use crate::diagnostic::Severity;
use crate::objects::kinds::{
    BackendRef, HttpRoute, HttpRouteMatch, HttpRouteRule, RouteFilter, RouteTimeouts, SessionSpec,
};
use crate::objects::{Kind, Object, Subject};
use crate::status::reason;
use gateway_core::ir::{
    Destination, Filter, HttpDestination, HttpMatch, HttpRule, PathMatch, RouteKind, RuleName, Session, Timeouts,
    UpstreamProtocol, Weighted,
};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn convert<'o>(work: &mut Work<'o>, object: &'o Object<HttpRoute>) -> Route {
    let (subject, spec) = (object.subject(), &object.body.spec);
    let mut route = route::begin(work, subject, &spec.parent_refs, &spec.hostnames);
    // Absent rules are one that matches everything (Gateway API default).
    let absent = [HttpRouteRule::default()];
    let rules = spec.rules.as_deref().unwrap_or(&absent);
    let count = route::bound(work, subject, "spec.rules", rules.len(), RULES_MAX);
    let converted = rules.iter().take(count).enumerate();
    let rules = converted
        .filter_map(|(index, rule)| one(work, subject, index, rule, &mut route.verdict))
        .map(Arc::new)
        .collect();
    route.carries = Carries::Http(rules);
    route
}

fn one<'o>(
    work: &mut Work<'o>,
    subject: Subject<'o>,
    index: usize,
    rule: &HttpRouteRule,
    verdict: &mut Verdict,
) -> Option<HttpRule> {
    let field = format!("spec.rules[{index}]");
    let matches = match_list(work, subject, &field, &rule.matches, matches::http, verdict)?;
    let timeouts = match timeouts(&rule.timeouts) {
        Ok(timeouts) => timeouts,
        Err((part, problem)) => {
            let at = format!("{field}.timeouts.{part}");
            work.found.push(subject.finding(
                Severity::Error,
                at,
                problem.as_str(),
                "write a duration such as 10s or 500ms",
            ));
            verdict.bad_rule(reason::UNSUPPORTED_VALUE, problem);
            Timeouts::default()
        }
    };
    let retry = match rule.retry.as_ref().map(|spec| retry::convert(spec, &field)) {
        None => None,
        Some(Ok((retry, warnings))) => {
            for (at, problem, remedy) in warnings {
                work.found.push(subject.finding(Severity::Warning, at, problem, remedy));
            }
            retry
        }
        Some(Err((at, problem, remedy))) => {
            work.found
                .push(subject.finding(Severity::Error, at, problem.as_str(), remedy));
            verdict.bad_rule(reason::UNSUPPORTED_VALUE, problem);
            None
        }
    };
    let parts = RuleParts {
        subject,
        field,
        place: Place::HttpRule,
        filters: &rule.filters,
        backends: &rule.backend_refs,
    };
    let (filters, destinations) = parts.act(work, &matches, verdict);
    Some(HttpRule {
        name: rule_name(subject, index),
        kind: RouteKind::Http,
        matches,
        filters,
        destinations,
        timeouts,
        retry,
        session: session_of(work, subject, index, rule.session_persistence.as_ref(), verdict),
    })
}

/// A rule whose sessions cannot be kept goes without them.
pub(super) fn session_of(
    work: &mut Work<'_>,
    subject: Subject<'_>,
    index: usize,
    spec: Option<&SessionSpec>,
    verdict: &mut Verdict,
) -> Option<Session> {
    match session::convert(spec?, &rule_name(subject, index), &subject.meta.uid) {
        Ok(session) => Some(session),
        Err((field, problem, remedy)) => {
            let at = format!("spec.rules[{index}].sessionPersistence.{field}");
            work.found
                .push(subject.finding(Severity::Error, at, problem.as_str(), remedy));
            verdict.bad_rule(reason::UNSUPPORTED_VALUE, problem);
            None
        }
    }
}

pub(super) fn rule_name(subject: Subject<'_>, index: usize) -> RuleName {
    let id = subject.id;
    RuleName::new(format!("{}/{}/{}/{index}", id.kind, id.namespace, id.name))
}

/// A spec that can be one of several matches of a rule.
pub(super) trait MatchSpec {}
impl MatchSpec for HttpRouteMatch {}
impl MatchSpec for crate::objects::kinds::GrpcRouteMatch {}

/// The matches of a rule that are good; none given match everything. `None`: all are bad, the rule is dropped.
pub(super) fn match_list<M: MatchSpec>(
    work: &mut Work<'_>,
    subject: Subject<'_>,
    field: &str,
    specs: &[M],
    convert: fn(&M) -> Result<HttpMatch, matches::BadMatch>,
    verdict: &mut Verdict,
) -> Option<Vec<HttpMatch>> {
    if specs.is_empty() {
        return Some(vec![matches::everything()]);
    }
    let mut good = Vec::new();
    let count = route::bound(work, subject, &format!("{field}.matches"), specs.len(), MATCHES_MAX);
    for (index, spec) in specs.iter().take(count).enumerate() {
        match convert(spec) {
            Ok(found) => good.push(found),
            Err(bad) => {
                let at = format!("{field}.matches[{index}]{}", bad.field);
                work.found
                    .push(subject.finding(Severity::Error, at, bad.problem.as_str(), bad.remedy));
                verdict.refused.get_or_insert((reason::UNSUPPORTED_VALUE, bad.problem));
            }
        }
    }
    if good.is_empty() {
        verdict.bad_rules += 1;
        return None;
    }
    Some(good)
}

/// What an HTTPRoute's and a GRPCRoute's rule have in common besides the matches.
pub(super) struct RuleParts<'o, 'r> {
    pub subject: Subject<'o>,
    pub field: String,
    pub place: Place,
    pub filters: &'r [RouteFilter],
    pub backends: &'r [BackendRef],
}

impl<'o> RuleParts<'o, '_> {
    /// Filters and destinations; a rule whose filters cannot be applied answers 500 instead of skipping them.
    pub fn act(
        &self,
        work: &mut Work<'o>,
        matches: &[HttpMatch],
        verdict: &mut Verdict,
    ) -> (Vec<Filter>, Vec<Weighted<HttpDestination>>) {
        let prefixes = matches.iter().all(|m| matches!(m.path, PathMatch::Prefix(_)));
        let list = format!("{}.filters", self.field);
        let mut resolve = |to: &BackendRef, field: String| {
            let backend = backend_ref::resolve(work, self.subject, &format!("{list}{field}"), to);
            verdict.wishes.extend(backend.wish);
            if verdict.unresolved.is_none() {
                verdict.unresolved = backend.unresolved;
            }
            Referred {
                to: backend.to,
                protocol: self.protocol(backend.protocol),
                asked: backend.protocol,
            }
        };
        let filters = match filters::convert(self.filters, self.place, prefixes, &mut resolve) {
            Ok(filters) => filters,
            Err(bad) => {
                let at = format!("{}.filters{}", self.field, bad.field);
                work.found.push(
                    self.subject
                        .finding(Severity::Error, at, bad.problem.as_str(), bad.remedy),
                );
                let why = bad.problem.clone();
                verdict.bad_rule(bad.reason, bad.problem);
                return (Vec::new(), vec![fail(1, why, self.protocol(None))]);
            }
        };
        let redirects = filters.iter().any(|filter| matches!(filter, Filter::Redirect(_)));
        if redirects && !self.backends.is_empty() {
            let at = format!("{}.backendRefs", self.field);
            let problem = "a rule that redirects never reaches its backends";
            work.found
                .push(self.subject.finding(Severity::Warning, at, problem, "remove them"));
        }
        verdict.good_rules += 1;
        let mut destinations = self.destinations(work, redirects, prefixes, verdict);
        if filters.iter().any(|filter| matches!(filter, Filter::ExternalAuth(_))) {
            self.unasked(work, &mut destinations, verdict);
        }
        (filters, destinations)
    }

    /// A backendRef that redirects answers before anybody is asked: not in a rule that asks.
    fn unasked(&self, work: &mut Work<'o>, destinations: &mut [Weighted<HttpDestination>], verdict: &mut Verdict) {
        for (index, share) in destinations.iter_mut().enumerate() {
            let redirects = |filter: &Filter| matches!(filter, Filter::Redirect(_));
            if share.to.filters.iter().any(redirects) {
                let problem =
                    "RequestRedirect answers before the rule's ExternalAuth could ask anybody: it answers 500";
                let at = format!("{}.backendRefs[{index}].filters", self.field);
                work.found
                    .push(self.subject.finding(Severity::Error, at, problem, "keep one of them"));
                verdict
                    .refused
                    .get_or_insert((reason::INCOMPATIBLE_FILTERS, problem.to_owned()));
                *share = fail(share.weight, problem.to_owned(), share.to.protocol);
            }
        }
    }

    fn destinations(
        &self,
        work: &mut Work<'o>,
        redirects: bool,
        prefixes: bool,
        verdict: &mut Verdict,
    ) -> Vec<Weighted<HttpDestination>> {
        if self.backends.is_empty() {
            if redirects {
                return Vec::new();
            }
            let problem = "the rule has no backend: it answers 500";
            let at = format!("{}.backendRefs", self.field);
            work.found
                .push(self.subject.finding(Severity::Warning, at, problem, "add a backendRef"));
            return vec![fail(1, "the rule has no backend".to_owned(), self.protocol(None))];
        }
        let list = format!("{}.backendRefs", self.field);
        let count = route::bound(work, self.subject, &list, self.backends.len(), BACKENDS_MAX);
        let mut destinations = Vec::with_capacity(count);
        for (index, backend) in self.backends.iter().take(count).enumerate() {
            let field = format!("{list}[{index}]");
            let found = backend_ref::resolve(work, self.subject, &field, backend);
            verdict.wishes.extend(found.wish);
            if verdict.unresolved.is_none() {
                verdict.unresolved = found.unresolved;
            }
            let protocol = self.protocol(found.protocol);
            let mut nowhere = |_: &BackendRef, _: String| Referred {
                to: found.to.clone(),
                protocol,
                asked: None,
            };
            let place = match self.place {
                Place::HttpRule | Place::HttpBackend => Place::HttpBackend,
                Place::GrpcRule | Place::GrpcBackend => Place::GrpcBackend,
            };
            match filters::convert(&backend.filters, place, prefixes, &mut nowhere) {
                Ok(filters) => {
                    let to = HttpDestination {
                        to: found.to,
                        protocol,
                        filters,
                    };
                    destinations.push(Weighted {
                        weight: found.weight,
                        to,
                    });
                }
                Err(bad) => {
                    let at = format!("{field}.filters{}", bad.field);
                    work.found.push(
                        self.subject
                            .finding(Severity::Error, at, bad.problem.as_str(), bad.remedy),
                    );
                    verdict.refused.get_or_insert((bad.reason, bad.problem.clone()));
                    verdict.bad_rules += 1;
                    destinations.push(fail(found.weight, bad.problem, protocol));
                }
            }
        }
        destinations
    }

    /// gRPC is HTTP/2; else what the Service says, else HTTP/1.1.
    fn protocol(&self, asked: Option<UpstreamProtocol>) -> UpstreamProtocol {
        match self.subject.id.kind {
            Kind::GrpcRoute => UpstreamProtocol::H2c,
            _ => asked.unwrap_or(UpstreamProtocol::Http1),
        }
    }
}

fn fail(weight: u32, why: String, protocol: UpstreamProtocol) -> Weighted<HttpDestination> {
    let to = Destination::Fail {
        status: backend_ref::FAIL_STATUS,
        why,
    };
    Weighted {
        weight,
        to: HttpDestination {
            to,
            protocol,
            filters: Vec::new(),
        },
    }
}

/// Zero is none (GEP-1742).
fn timeouts(spec: &RouteTimeouts) -> Result<Timeouts, (&'static str, String)> {
    let read = |text: &Option<String>, field: &'static str| match text {
        None => Ok(None),
        Some(text) => match duration::parse(text) {
            Some(duration) => Ok(Some(duration).filter(|d| *d != Duration::ZERO)),
            None => Err((field, format!("{text:?} is no duration"))),
        },
    };
    let timeouts = Timeouts {
        request: read(&spec.request, "request")?,
        backend_request: read(&spec.backend_request, "backendRequest")?,
    };
    match (timeouts.request, timeouts.backend_request) {
        (Some(request), Some(backend)) if backend > request => {
            Err(("backendRequest", "backendRequest is longer than request".to_owned()))
        }
        _ => Ok(timeouts),
    }
}
