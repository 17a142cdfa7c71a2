//! What Gateways and their ListenerSets are told, once every route is attached.

use super::condition::{Told, condition, holds_without};
use super::gateway::{Gateway, ListenerSet};
use super::listener::Listener;
use crate::plane;
use crate::status::{ConditionKind, GatewayAddress, ListenerStatus, ObjectStatus, Status, reason};

/// What a Gateway and its sets are told.
pub(super) fn gateway(gateway: &Gateway<'_>) -> Vec<ObjectStatus> {
    let accepted = match &gateway.refused {
        Some(problem) => (false, problem.reason, problem.message.clone()),
        None => accepted(gateway, 0),
    };
    let serving = gateway.listeners.iter().any(|it| it.serves().is_some());
    let programmed = match (&gateway.refused, &gateway.unplaced) {
        (Some(problem), _) => (false, reason::INVALID, problem.message.clone()),
        (None, Some(problem)) => (false, problem.reason, problem.message.clone()),
        (None, None) if !serving => (false, reason::INVALID, "no listener can be served".to_owned()),
        (None, None) => (true, reason::PROGRAMMED, String::new()),
    };
    let mut statuses = Vec::new();
    let mut attached = 0;
    for (index, one) in gateway.sets.iter().enumerate() {
        let (status, accepted) = set(gateway, one, index + 1, programmed.0);
        attached += u32::from(accepted);
        statuses.push(status);
    }
    let generation = gateway.subject.meta.generation;
    let mut conditions = vec![
        condition(ConditionKind::Accepted, accepted, generation),
        condition(ConditionKind::Programmed, programmed, generation),
        condition(ConditionKind::ResolvedRefs, resolved(gateway), generation),
    ];
    if let Some(assigned) = assigned(gateway) {
        conditions.push(condition(ConditionKind::AddressesAssigned, assigned, generation));
    }
    if gateway.insecure {
        let told = "clients are let in whose certificates do not hold".to_owned();
        conditions.push(condition(
            ConditionKind::InsecureFrontendValidationMode,
            (true, reason::CONFIGURATION_CHANGED, told),
            generation,
        ));
    }
    let addresses = gateway.addresses.iter().copied().flatten();
    let addresses = addresses
        .map(|addr| GatewayAddress {
            addr,
            routability: gateway.routability.get(&addr).copied().unwrap_or_default(),
        })
        .collect();
    statuses.push(ObjectStatus {
        object: gateway.subject.id.clone(),
        status: Status::Gateway {
            conditions,
            addresses,
            listeners: listeners(gateway, 0),
            attached_listener_sets: attached,
        },
    });
    statuses
}

/// Whether it has every address that it asked for; `None`: nobody could look for any.
fn assigned(gateway: &Gateway<'_>) -> Option<Told> {
    let missing = gateway.unassigned.as_ref()?;
    let message = || missing.join("; ");
    Some(match (missing.is_empty(), gateway.addresses.is_empty()) {
        (true, _) => (true, reason::ADDRESSES_ASSIGNED, String::new()),
        (false, false) => (false, reason::PARTIALLY_ASSIGNED, message()),
        (false, true) => (false, reason::NOT_ASSIGNED, message()),
    })
}

/// What one set is told, and whether it is accepted.
fn set(gateway: &Gateway<'_>, set: &ListenerSet<'_>, rank: usize, programmed: bool) -> (ObjectStatus, bool) {
    let accepted = match (&set.refused, &gateway.refused) {
        (Some(problem), _) => (false, problem.reason, problem.message.clone()),
        (None, Some(_)) => {
            let told = format!("{} is not accepted", gateway.subject.id);
            (false, reason::PARENT_NOT_ACCEPTED, told)
        }
        (None, None) => accepted(gateway, rank),
    };
    let programmed = match accepted.0 {
        false => accepted.clone(),
        true if !programmed => {
            let told = format!("{} is not programmed", gateway.subject.id);
            (false, reason::PARENT_NOT_PROGRAMMED, told)
        }
        true => (true, reason::PROGRAMMED, String::new()),
    };
    let generation = set.subject.meta.generation;
    let (is_accepted, conditions) = (
        accepted.0,
        vec![
            condition(ConditionKind::Accepted, accepted, generation),
            condition(ConditionKind::Programmed, programmed, generation),
        ],
    );
    let listeners = listeners(gateway, rank);
    let status = ObjectStatus {
        object: set.subject.id.clone(),
        status: Status::ListenerSet { conditions, listeners },
    };
    (status, is_accepted)
}

fn listeners(gateway: &Gateway<'_>, rank: usize) -> Vec<ListenerStatus> {
    let of_rank = gateway.listeners.iter().filter(|it| it.rank == rank);
    of_rank.map(|it| listener(gateway, it)).collect()
}

/// Whether a Gateway (rank 0) or its set of that rank is accepted: one listener that serves suffices, and those of its
/// own that do not are named. A Gateway may live by the listeners of its sets.
fn accepted(gateway: &Gateway<'_>, rank: usize) -> Told {
    let (mut serving, mut bad) = (0, Vec::new());
    for listener in gateway.listeners.iter().filter(|it| rank == 0 || it.rank == rank) {
        serving += usize::from(listener.serves().is_some());
        if listener.rank != rank {
            continue;
        }
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
    match gateway
        .listeners
        .iter()
        .find(|it| it.rank == 0 && it.unresolved.is_some())
    {
        Some(listener) => {
            let told = format!("a reference of listener {} does not resolve", listener.section);
            (false, reason::LISTENERS_NOT_RESOLVED, told)
        }
        None => (true, reason::RESOLVED_REFS, String::new()),
    }
}

/// What one of its listeners is told.
fn listener(gateway: &Gateway<'_>, listener: &Listener<'_>) -> ListenerStatus {
    let generation = listener.by.meta.generation;
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
        attached_routes: listener.accepted,
        conditions,
    }
}

/// Another HTTPS listener of the same port whose hostname matches some of the same names (GEP-3567).
fn overlapping<'g>(gateway: &'g Gateway<'_>, listener: &Listener<'_>) -> Option<&'g str> {
    let https = |listener: &Listener<'_>| listener.serves() == Some(plane::Protocol::Https);
    let other = gateway.listeners.iter().find(|other| {
        other.name != listener.name
            && other.port == listener.port
            && https(other)
            && other.hostname.intersect(&listener.hostname).is_some()
    });
    other.filter(|_| https(listener)).map(|other| other.section)
}
