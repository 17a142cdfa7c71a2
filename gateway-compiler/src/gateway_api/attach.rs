//! Routes to listeners: which take which, under which hostnames, and what the route is told.
//!
//! Law: besides the route it looks at what `Terms::stage` of [`memo`](super::memo) has, and at nothing else: a route is
//! not attached again as long as that is the same.

use super::Work;
use super::condition::condition;
use super::gateway::Gateway;
use super::listener::{Listener, Namespaces};
use super::route::{Carries, Ready, Verdict};
use super::selector::selects;
use super::tables::Join;
use crate::diagnostic::Severity;
use crate::objects::kinds::ParentRef;
use crate::objects::{Key, Kind, Objects, Subject};
use crate::plane::Protocol;
use crate::status::{Condition, ConditionKind, ObjectStatus, ParentName, ParentStatus, Status, reason};
use gateway_core::ir::HostPattern;
use std::cmp::Reverse;

/// Most parents of one route (Gateway API).
const PARENTS_MAX: usize = 32;

/// To which listeners a route is attached: each that it names and fits. It is told nothing when none of its parents is
/// ours.
pub(super) fn attach<'o>(
    work: &mut Work<'o>,
    gateways: &[Gateway<'o>],
    route: &Ready<'o>,
) -> (Option<ObjectStatus>, Vec<Join>) {
    let mut parents: Vec<ParentStatus> = Vec::new();
    let mut joins: Vec<Join> = Vec::new();
    let count = super::route::bound(work, route.subject, "spec.parentRefs", route.parents.len(), PARENTS_MAX);
    for (index, parent) in route.parents.iter().enumerate().take(count) {
        let field = format!("spec.parentRefs[{index}]");
        let Some((gateway, rank, name)) = find(work, gateways, route, parent, &field) else {
            continue;
        };
        if parents.iter().any(|known| known.parent == name) {
            continue;
        }
        let outcome = to_gateway(
            work.objects,
            (gateway, &gateways[gateway]),
            rank,
            route,
            &name,
            &mut joins,
        );
        if let Err(refusal) = &outcome {
            let at = format!("{field}{}", refusal.part);
            let finding = route
                .subject
                .finding(Severity::Error, at, refusal.problem.as_str(), refusal.remedy);
            work.found.push(finding);
        }
        let refused = outcome.err().map(|refusal| (refusal.reason, refusal.problem));
        let conditions = conditions(&route.verdict, refused, route.subject.meta.generation);
        parents.push(ParentStatus {
            parent: name,
            conditions,
        });
    }
    let status = (!parents.is_empty()).then(|| ObjectStatus {
        object: route.subject.id.clone(),
        status: Status::Route { parents },
    });
    (status, joins)
}

/// Why a parent does not take a route; `part` is below the parentRef.
struct Refusal {
    reason: &'static str,
    part: &'static str,
    problem: String,
    remedy: &'static str,
}

/// The Gateway of ours that a parentRef names, itself (rank 0) or by its set of that rank.
fn find<'o>(
    work: &mut Work<'o>,
    gateways: &[Gateway<'o>],
    route: &Ready<'o>,
    parent: &ParentRef,
    field: &str,
) -> Option<(usize, usize, ParentName)> {
    let group = parent.group.as_deref().unwrap_or(Kind::Gateway.group());
    let kind = parent.kind.as_deref().unwrap_or(Kind::Gateway.name());
    let known = [Kind::Gateway, Kind::ListenerSet].into_iter();
    let Some(kind) = known.into_iter().find(|it| (it.group(), it.name()) == (group, kind)) else {
        let problem = format!("a parent of kind {kind} is not served");
        let remedy = "name a Gateway or a ListenerSet";
        let finding = route
            .subject
            .finding(Severity::Warning, format!("{field}.kind"), problem, remedy);
        work.found.push(finding);
        return None;
    };
    let namespace = parent.namespace.as_deref().unwrap_or(&route.subject.id.namespace);
    let is_named = |subject: Subject<'_>| {
        subject.id.kind == kind && subject.id.namespace == namespace && subject.id.name == parent.name
    };
    let ours = gateways.iter().enumerate().find_map(|(place, gateway)| {
        let set = || gateway.sets.iter().position(|set| is_named(set.subject));
        let rank = match is_named(gateway.subject) {
            true => 0,
            false => set()? + 1,
        };
        Some((place, rank))
    });
    let key = Key::new(namespace, &parent.name);
    let exists = match kind {
        Kind::ListenerSet => work.objects.listener_sets.contains_key(&key),
        _ => work.objects.gateways.contains_key(&key),
    };
    if ours.is_none() && !exists {
        let problem = format!("there is no {kind} {key}: the route serves nothing there");
        let remedy = "add it or correct the name";
        work.found.push(
            route
                .subject
                .finding(Severity::Error, format!("{field}.name"), problem, remedy),
        );
    }
    let name = ParentName {
        kind,
        namespace: namespace.to_owned(),
        name: parent.name.clone(),
        section: parent.section_name.clone().filter(|section| !section.is_empty()),
        port: parent.port,
    };
    ours.map(|(place, rank)| (place, rank, name))
}

fn to_gateway<'o>(
    objects: &Objects,
    (place, gateway): (usize, &Gateway<'o>),
    rank: usize,
    route: &Ready<'o>,
    name: &ParentName,
    joins: &mut Vec<Join>,
) -> Result<(), Refusal> {
    if let Carries::Nothing = route.carries {
        let problem = format!("{} is not served yet", route.subject.id.kind);
        return Err(Refusal {
            reason: reason::UNSUPPORTED_VALUE,
            part: "",
            problem,
            remedy: "remove the route",
        });
    }
    if let Some(problem) = rank.checked_sub(1).and_then(|set| gateway.sets[set].refused.as_ref()) {
        return Err(Refusal {
            reason: reason::NO_MATCHING_PARENT,
            part: ".name",
            problem: format!("the ListenerSet has no listeners: {}", problem.message),
            remedy: "name the Gateway, or see its spec.allowedListeners",
        });
    }
    let of_parent = gateway.listeners.iter().enumerate().filter(|(_, it)| it.rank == rank);
    let mut named: Vec<(usize, &Listener<'o>)> = of_parent.filter(|(_, it)| is_named(it, name)).collect();
    if named.is_empty() {
        let part = if name.section.is_some() {
            ".sectionName"
        } else {
            ".port"
        };
        let problem = format!("{} {}/{} has no such listener", name.kind, name.namespace, name.name);
        let remedy = "name a listener and port that it has";
        return Err(Refusal {
            reason: reason::NO_MATCHING_PARENT,
            part,
            problem,
            remedy,
        });
    }
    named.retain(|(_, listener)| takes(objects, listener, route.subject));
    if named.is_empty() {
        let (kind, namespace) = (route.subject.id.kind, &route.subject.id.namespace);
        let problem = format!("no listener takes routes of kind {kind} from namespace {namespace}");
        let remedy = "see protocol and allowedRoutes of the Gateway's listeners";
        return Err(Refusal {
            reason: reason::NOT_ALLOWED_BY_LISTENERS,
            part: "",
            problem,
            remedy,
        });
    }
    let mut attached = false;
    for (index, listener) in named {
        let mut hosts: Vec<(HostPattern, HostPattern)> = match listener.protocol {
            Some(Protocol::Tcp | Protocol::Udp) => vec![(HostPattern::Any, HostPattern::Any)],
            Some(Protocol::Http | Protocol::Https | Protocol::TlsPassthrough | Protocol::TlsTerminate) | None => route
                .hostnames
                .iter()
                .filter_map(|own| Some((listener.hostname.intersect(own)?, own.clone())))
                .collect(),
        };
        // Of the route's hostnames that meet the listener's in the same one the most specific decides.
        hosts.sort_by_key(|(host, own)| (host.clone(), Reverse(own.specificity())));
        hosts.dedup_by(|a, b| a.0 == b.0);
        if !hosts.is_empty() {
            attached = true;
            let at = (place, index);
            // The same route by two parentRefs joins once.
            if !joins.iter().any(|join| join.at == at) {
                joins.push(Join { at, hosts });
            }
        }
    }
    match attached {
        true => Ok(()),
        false => {
            let problem = "no hostname of the route is one of the listener's".to_owned();
            let remedy = "correct spec.hostnames, or the listener's hostname";
            Err(Refusal {
                reason: reason::NO_MATCHING_LISTENER_HOSTNAME,
                part: "",
                problem,
                remedy,
            })
        }
    }
}

fn is_named(listener: &Listener<'_>, name: &ParentName) -> bool {
    name.section
        .as_deref()
        .is_none_or(|section| section == listener.section)
        && name.port.is_none_or(|port| port == listener.port)
}

fn takes(objects: &Objects, listener: &Listener<'_>, route: Subject<'_>) -> bool {
    listener.kinds.contains(&route.id.kind)
        && match listener.namespaces {
            Namespaces::All => true,
            Namespaces::None => false,
            Namespaces::Same => listener.by.id.namespace == route.id.namespace,
            Namespaces::Selected(selector) => selects(objects, selector, &route.id.namespace),
        }
}

/// What a route is told about one parent.
fn conditions(verdict: &Verdict, refused: Option<(&'static str, String)>, generation: i64) -> Vec<Condition> {
    let wrong = verdict.refused.clone();
    let all_bad = verdict.all_bad();
    let accepted = match (refused, &wrong) {
        (Some((reason, message)), _) => (false, reason, message),
        (None, Some((reason, message))) if all_bad => (false, *reason, message.clone()),
        (None, _) => (true, reason::ACCEPTED, String::new()),
    };
    let partially = accepted.0.then_some(wrong).flatten();
    let resolved = match &verdict.unresolved {
        Some(unresolved) => (false, unresolved.reason, unresolved.message.clone()),
        None => (true, reason::RESOLVED_REFS, String::new()),
    };
    let mut conditions = vec![
        condition(ConditionKind::Accepted, accepted, generation),
        condition(ConditionKind::ResolvedRefs, resolved, generation),
    ];
    if let Some((reason, message)) = partially {
        let message = format!("a rule does not do what it says: {message}");
        conditions.push(condition(
            ConditionKind::PartiallyInvalid,
            (true, reason, message),
            generation,
        ));
    }
    conditions
}
