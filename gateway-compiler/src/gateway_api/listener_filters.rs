//! Filters of a listener: who is asked before a route is looked for (GEP-5224).
//!
//! Their order is kept and none is left out. A listener whose filters cannot be had is not accepted, and what it would
//! have taken does not fall to another listener that asks nobody: it is answered with 500.

use super::condition::Problem;
use super::filters::{Referred, auth};
use super::{Work, backend_ref, wanted};
use crate::diagnostic::Severity;
use crate::objects::kinds::{BackendRef, ListenerFilter, ListenerFilters, ObjectRef};
use crate::objects::{Key, Subject};
use crate::plane::Protocol;
use crate::status::reason;
use gateway_core::ir::{Filter, HttpRule, RouteKind, RuleName, Timeouts, UpstreamProtocol};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most filters of one listener (Gateway API).
const FILTERS_MAX: usize = 16;

/// What the filters of a listener come to.
#[derive(Default)]
pub(super) struct Guards {
    /// In order; each asks one service.
    pub rules: Vec<Arc<HttpRule>>,
    /// Why the listener cannot be accepted: nothing passes `rules`.
    pub refused: Option<Problem>,
    /// Why ResolvedRefs does not hold.
    pub unresolved: Option<Problem>,
    /// Services that are asked.
    pub reached: BTreeSet<Key>,
}

/// Where the filters stand.
pub(super) struct Place<'o, 'p> {
    pub by: Subject<'o>,
    /// The listener's name and its field, `spec.listeners[0]`.
    pub section: &'p str,
    pub field: &'p str,
    pub protocol: Option<Protocol>,
}

impl Place<'_, '_> {
    fn rule(&self, index: usize, filters: Vec<Filter>) -> Arc<HttpRule> {
        let id = self.by.id;
        let name = format!("{}/{}/{}/{}/{index}", id.kind, id.namespace, id.name, self.section);
        Arc::new(HttpRule {
            name: RuleName::new(name),
            kind: RouteKind::Http,
            matches: Vec::new(),
            filters,
            destinations: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
        })
    }
}

/// Why a filter cannot be used: the reason, the field below the filter's own, the sentence, the remedy.
type Bad = (&'static str, String, String, &'static str);

pub(super) fn read<'o>(work: &mut Work<'o>, place: &Place<'o, '_>, spec: &ListenerFilters) -> Guards {
    let mut guards = Guards::default();
    if spec.requests.is_empty() && spec.others.is_empty() {
        return guards;
    }
    // What is asked for here is of no route's conversion.
    let asked = std::mem::take(&mut work.asked);
    let http = matches!(place.protocol, Some(Protocol::Http | Protocol::Https));
    if !http && place.protocol.is_some() {
        let problem = "only listeners of protocol HTTP and HTTPS have filters".to_owned();
        let bad = (reason::INVALID_LISTENER_FILTER, String::new(), problem, "remove them");
        guards.refuse(work, place, "filters.requests", bad);
    } else if spec.requests.len() > FILTERS_MAX {
        let problem = format!("more than {FILTERS_MAX} filters");
        let bad = (reason::INVALID_LISTENER_FILTER, String::new(), problem, "remove some");
        guards.refuse(work, place, "filters.requests", bad);
    }
    for other in spec.others.keys() {
        let problem = "no filters of this name are served".to_owned();
        let bad = (
            reason::UNSUPPORTED_VALUE,
            String::new(),
            problem,
            "use requests, or remove them",
        );
        guards.refuse(work, place, &format!("filters.{other}"), bad);
    }
    for (index, filter) in spec.requests.iter().enumerate().take(FILTERS_MAX) {
        let at = format!("filters.requests[{index}]");
        match one(work, place, &at, filter, &mut guards.unresolved) {
            Ok(filter) => guards.rules.push(place.rule(index, vec![filter])),
            Err(bad) => guards.refuse(work, place, &at, bad),
        }
    }
    if guards.refused.is_some() {
        // Asks nobody, so nothing passes.
        guards.rules = vec![place.rule(0, Vec::new())];
    }
    let mine = std::mem::replace(&mut work.asked, asked);
    wanted::besides(work, &mine);
    guards.reached = mine.reached;
    guards
}

impl Guards {
    fn refuse(&mut self, work: &mut Work<'_>, place: &Place<'_, '_>, at: &str, (reason, part, problem, remedy): Bad) {
        let field = format!("{}.{at}{part}", place.field);
        work.found
            .push(place.by.finding(Severity::Error, field, problem.as_str(), remedy));
        let message = format!("{at}: {problem}");
        self.refused.get_or_insert(Problem { reason, message });
    }
}

fn one<'o>(
    work: &mut Work<'o>,
    place: &Place<'o, '_>,
    at: &str,
    filter: &ListenerFilter,
    unresolved: &mut Option<Problem>,
) -> Result<Filter, Bad> {
    let missing = |field: &str| {
        let problem = format!("the filter says type {} but has no {field}", filter.kind);
        (reason::INVALID_LISTENER_FILTER, String::new(), problem, "add it")
    };
    match filter.kind.as_str() {
        "ExternalAuth" => {
            let spec = filter.external_auth.as_ref().ok_or_else(|| missing("externalAuth"))?;
            let mut resolve = |to: &BackendRef, part: String| {
                let backend = backend_ref::resolve(work, place.by, &format!("{}.{at}{part}", place.field), to);
                if let Some(bad) = backend.unresolved {
                    let reason = match bad.reason {
                        reason::REF_NOT_PERMITTED => reason::REF_NOT_PERMITTED,
                        _ => reason::INVALID_LISTENER_FILTER_REF,
                    };
                    let message = format!("{at}: externalAuth.backendRef: {}", bad.message);
                    unresolved.get_or_insert(Problem { reason, message });
                }
                Referred {
                    to: backend.to,
                    protocol: backend.protocol.unwrap_or(UpstreamProtocol::Http1),
                    asked: backend.protocol,
                }
            };
            auth::convert(spec, ".externalAuth", &mut resolve)
                .map(Filter::ExternalAuth)
                .map_err(|bad| {
                    // What we could have and have not is unsupported; the rest is wrong.
                    let reason = match bad.field.as_str() {
                        ".externalAuth.protocol" | ".externalAuth.forwardBody" => reason::UNSUPPORTED_VALUE,
                        _ => reason::INVALID_LISTENER_FILTER,
                    };
                    (reason, bad.field, bad.problem, bad.remedy)
                })
        }
        "ExtensionRef" => {
            let to = filter.extension_ref.as_ref().ok_or_else(|| missing("extensionRef"))?;
            let problem = unknown(to);
            let message = format!("{at}: extensionRef: {problem}");
            unresolved.get_or_insert(Problem {
                reason: reason::INVALID_LISTENER_FILTER_REF,
                message,
            });
            let field = ".extensionRef.kind".to_owned();
            Err((reason::UNSUPPORTED_VALUE, field, problem, "remove the filter"))
        }
        kind => {
            let problem = format!("a listener has no filter of type {kind}");
            let remedy = "use ExternalAuth, or put it into the rules of the listener's routes";
            Err((reason::UNSUPPORTED_VALUE, ".type".to_owned(), problem, remedy))
        }
    }
}

/// No object is an extension of ours.
fn unknown(to: &ObjectRef) -> String {
    let (group, kind) = (to.group.as_deref().unwrap_or(""), to.kind.as_deref().unwrap_or(""));
    format!("the filter ExtensionRef names a {kind} of group {group:?}, and no such extension is served")
}
