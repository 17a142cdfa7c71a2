//! What Gateways are told, once every route is attached.

use super::condition::{Told, condition, holds_without};
use super::gateway::Gateway;
use super::listener::Listener;
use crate::plane;
use crate::status::{ConditionKind, ListenerStatus, ObjectStatus, Status, reason};

/// What a Gateway is told.
pub(super) fn gateway(gateway: &Gateway<'_>) -> ObjectStatus {
    let listeners: Vec<ListenerStatus> = gateway.listeners.iter().map(|it| listener(gateway, it)).collect();
    let serving = gateway.listeners.iter().any(|it| it.serves().is_some());
    let accepted = match &gateway.refused {
        Some(problem) => (false, problem.reason, problem.message.clone()),
        None => accepted(gateway.listeners.iter()),
    };
    let programmed = match (&gateway.refused, &gateway.unplaced) {
        (Some(problem), _) => (false, reason::INVALID, problem.message.clone()),
        (None, Some(problem)) => (false, problem.reason, problem.message.clone()),
        (None, None) if !serving => (false, reason::INVALID, "no listener can be served".to_owned()),
        (None, None) => (true, reason::PROGRAMMED, String::new()),
    };
    let generation = gateway.subject.meta.generation;
    let mut conditions = vec![
        condition(ConditionKind::Accepted, accepted, generation),
        condition(ConditionKind::Programmed, programmed, generation),
        condition(ConditionKind::ResolvedRefs, resolved(gateway), generation),
    ];
    if gateway.insecure {
        let told = "clients are let in whose certificates do not hold".to_owned();
        conditions.push(condition(
            ConditionKind::InsecureFrontendValidationMode,
            (true, reason::CONFIGURATION_CHANGED, told),
            generation,
        ));
    }
    let addresses = gateway.addresses.iter().copied().flatten().collect();
    ObjectStatus {
        object: gateway.subject.id.clone(),
        status: Status::Gateway {
            conditions,
            addresses,
            listeners,
            attached_listener_sets: 0,
        },
    }
}

/// Whether what has these listeners is accepted: one that serves suffices, and those that do not are named.
fn accepted<'l>(listeners: impl Iterator<Item = &'l Listener<'l>>) -> Told {
    let (mut serving, mut bad) = (0, Vec::new());
    for listener in listeners {
        serving += usize::from(listener.serves().is_some());
        if listener.serves().is_none() || listener.unresolved.is_some() {
            bad.push(listener.section);
        }
    }
    let bad = bad.join(", ");
    match (serving, bad.as_str()) {
        (0, _) => (
            false,
            reason::LISTENERS_NOT_VALID,
            "no listener can be served".to_owned(),
        ),
        (_, "") => (true, reason::ACCEPTED, String::new()),
        (_, bad) => (
            true,
            reason::LISTENERS_NOT_VALID,
            format!("not every listener can be served as written: {bad}"),
        ),
    }
}

/// References of the Gateway itself, then those of its listeners.
fn resolved(gateway: &Gateway<'_>) -> Told {
    if let Some(Err(problem)) = &gateway.certificate {
        return (false, problem.reason, problem.message.clone());
    }
    match gateway.listeners.iter().find(|it| it.unresolved.is_some()) {
        Some(listener) => {
            let told = format!("a reference of listener {} does not resolve", listener.section);
            (false, reason::LISTENERS_NOT_RESOLVED, told)
        }
        None => (true, reason::RESOLVED_REFS, String::new()),
    }
}

/// What one of its listeners is told.
fn listener(gateway: &Gateway<'_>, listener: &Listener<'_>) -> ListenerStatus {
    let generation = gateway.subject.meta.generation;
    let bad = listener.refused.as_ref().or(listener.conflict.as_ref());
    let accepted = holds_without(bad, reason::ACCEPTED);
    let unserved = |message: &str| (false, reason::INVALID, message.to_owned());
    let programmed = match (listener.serves(), &listener.unresolved) {
        _ if !accepted.0 => accepted.clone(),
        (None, unresolved) => unserved(unresolved.as_ref().map_or("", |it| it.message.as_str())),
        (Some(_), _) if gateway.addresses.is_empty() => unserved("the Gateway has no address"),
        (Some(_), _) => (true, reason::PROGRAMMED, String::new()),
    };
    let conflicted = match &listener.conflict {
        Some(problem) => (true, problem.reason, problem.message.clone()),
        None => (false, reason::NO_CONFLICTS, String::new()),
    };
    let resolved = holds_without(listener.unresolved.as_ref(), reason::RESOLVED_REFS);
    let mut conditions = vec![
        condition(ConditionKind::Accepted, accepted, generation),
        condition(ConditionKind::Conflicted, conflicted, generation),
        condition(ConditionKind::ResolvedRefs, resolved, generation),
        condition(ConditionKind::Programmed, programmed, generation),
    ];
    if let Some(other) = overlapping(gateway, listener) {
        let told = format!("its hostname overlaps with that of listener {other}; requests between them get 421");
        conditions.push(condition(
            ConditionKind::OverlappingTlsConfig,
            (true, reason::OVERLAPPING_HOSTNAMES, told),
            generation,
        ));
    }
    ListenerStatus {
        name: listener.section.to_owned(),
        supported_kinds: listener.kinds.iter().map(|kind| kind.name()).collect(),
        attached_routes: u32::try_from(listener.attached.len()).unwrap_or(u32::MAX),
        conditions,
    }
}

/// Another HTTPS listener of the same port whose hostname matches some of the same names (GEP-3567).
fn overlapping<'g>(gateway: &'g Gateway<'_>, listener: &Listener<'_>) -> Option<&'g str> {
    let https = |listener: &Listener<'_>| listener.serves() == Some(plane::Protocol::Https);
    let other = gateway.listeners.iter().find(|other| {
        other.section != listener.section
            && other.port == listener.port
            && https(other)
            && other.hostname.intersect(&listener.hostname).is_some()
    });
    other.filter(|_| https(listener)).map(|other| other.section)
}
