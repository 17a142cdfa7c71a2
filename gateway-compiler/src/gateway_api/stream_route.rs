//! TCPRoute, TLSRoute and UDPRoute to the one rule a listener that does not look into requests can have.

use super::http_route::rule_name;
use super::route::{self, BACKENDS_MAX, Carries, Route, Stream, StreamShare};
use super::{Work, backend_ref};
use crate::diagnostic::Severity;
use crate::objects::kinds::StreamRoute;
use crate::objects::{Kind, Object};
use gateway_core::ir::Destination;

pub(super) fn convert<'o>(work: &mut Work<'o>, object: &'o Object<StreamRoute>) -> Route {
    let (subject, spec) = (object.subject(), &object.body.spec);
    let mut route = route::begin(work, subject, &spec.parent_refs, &spec.hostnames);
    if spec.rules.len() > 1 {
        let problem = "a rule without matches leaves nothing to the ones after it: only the first is served";
        work.found
            .push(subject.finding(Severity::Warning, "spec.rules[1]", problem, "write one rule a route"));
    }
    let mut shares = Vec::new();
    let backends = spec.rules.first().map_or(&[][..], |rule| rule.backend_refs.as_slice());
    if backends.is_empty() {
        let problem = match subject.id.kind {
            Kind::UdpRoute => "the route has no backend: datagrams are dropped",
            _ => "the route has no backend: connections are refused",
        };
        work.found
            .push(subject.finding(Severity::Warning, "spec.rules", problem, "add a backendRef"));
        let to = Destination::Fail {
            status: backend_ref::FAIL_STATUS,
            why: "the route has no backend".to_owned(),
        };
        shares.push(StreamShare {
            weight: 1,
            untouched: to.clone(),
            to,
            protocol: None,
        });
    }
    let count = route::bound(work, subject, "spec.rules[0].backendRefs", backends.len(), BACKENDS_MAX);
    for (index, backend) in backends.iter().take(count).enumerate() {
        let field = format!("spec.rules[0].backendRefs[{index}]");
        let found = backend_ref::resolve(work, subject, &field, backend);
        route.verdict.wishes.extend(found.wish);
        if route.verdict.unresolved.is_none() {
            route.verdict.unresolved = found.unresolved;
        }
        shares.push(StreamShare {
            weight: found.weight,
            to: found.to,
            untouched: found.untouched,
            protocol: found.protocol,
        });
    }
    route.verdict.good_rules = 1;
    route.carries = Carries::Stream(Stream {
        name: rule_name(subject, 0),
        shares,
    });
    route
}
