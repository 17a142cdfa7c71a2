//! GRPCRoute to rules: a gRPC call is a POST to `/service/method`, spoken over HTTP/2 to every backend.
//!
//! A GRPCRoute has no CORS filter, but browsers call it through gRPC-Web: the annotation `sluice.dev/cors-allow-origins`
//! on the route names the origins whose pages may (`filters/cors.rs`).

use super::filters::{self, Place};
use super::http_route::{RuleParts, match_list, rule_name, session_of};
use super::route::{self, Carries, RULES_MAX, Route};
use super::{Work, matches};
use crate::objects::Object;
use crate::objects::kinds::GrpcRoute;
use gateway_core::ir::{Filter, HttpRule, RouteKind, Timeouts};
use std::sync::Arc;

pub(super) fn convert<'o>(work: &mut Work<'o>, object: &'o Object<GrpcRoute>) -> Route {
    let (subject, spec) = (object.subject(), &object.body.spec);
    let mut route = route::begin(work, subject, &spec.parent_refs, &spec.hostnames);
    let cors = filters::cors_for_grpc(subject, &mut work.found);
    let mut rules = Vec::new();
    let count = route::bound(work, subject, "spec.rules", spec.rules.len(), RULES_MAX);
    for (index, rule) in spec.rules.iter().take(count).enumerate() {
        let field = format!("spec.rules[{index}]");
        let verdict = &mut route.verdict;
        let Some(matches) = match_list(work, subject, &field, &rule.matches, matches::grpc, verdict) else {
            continue;
        };
        let parts = RuleParts {
            subject,
            field,
            place: Place::GrpcRule,
            filters: &rule.filters,
            backends: &rule.backend_refs,
        };
        let (mut filters, destinations) = parts.act(work, &matches, verdict);
        filters.extend(cors.clone().map(Filter::Cors));
        let session = session_of(
            work,
            subject,
            index,
            rule.session_persistence.as_ref(),
            &mut route.verdict,
        );
        let (name, timeouts) = (rule_name(subject, index), Timeouts::default());
        rules.push(Arc::new(HttpRule {
            name,
            kind: RouteKind::Grpc,
            matches,
            filters,
            destinations,
            timeouts,
            retry: None,
            session,
        }));
    }
    route.carries = Carries::Http(rules);
    route
}
