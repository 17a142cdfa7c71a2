//! The shape of statuses in the Kubernetes API: what an object's status becomes when our part of it is put in.
//!
//! Pure. What others wrote stays as it is, byte for byte: entries of other controllers, conditions of types that are
//! not ours. A condition that says what it said keeps its time, so that nothing changes where nothing changed.

use gateway_compiler::objects::{Kind, ObjectId};
use gateway_compiler::status::{Condition, GatewayAddress, ListenerStatus, ParentName, ParentStatus, Status};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

const GATEWAY_API: &str = "gateway.networking.k8s.io";
/// Most entries of `status.parents` (Gateway API CRDs).
const PARENTS_MAX: usize = 32;
/// Most entries of a policy's `status.ancestors`.
const ANCESTORS_MAX: usize = 16;
/// Most entries of `status.listeners`.
const LISTENERS_MAX: usize = 64;
/// Most characters of a condition's message.
const MESSAGE_MAX: usize = 32_768;
/// Types of conditions that are ours on what is ours: what we do not say any more is removed.
const OURS: &[&str] = &[
    "Accepted",
    "Programmed",
    "ResolvedRefs",
    "Conflicted",
    "PartiallyInvalid",
    "OverlappingTLSConfig",
    "InsecureFrontendValidationMode",
    "AddressesAssigned",
    "SupportedVersion",
    "AttachedListenerSets",
    "Scheduled",
    "Ready",
    "Detached",
];

/// The same of Services, whose other conditions are others'.
const OF_SERVICES: &[&str] = &["sluice.dev/Served"];

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Hand<'h> {
    /// `controllerName` of our entries.
    pub controller: &'h str,
    /// RFC 3339, in seconds.
    pub now: &'h str,
    /// The definition of Gateway has a place for the routability of addresses; where it has none the API server takes
    /// nothing that names one.
    pub routability: bool,
}

/// The object's status with ours put in; `None` when it says all that already. Without `ours` our part is taken out.
pub fn merged(id: &ObjectId, ours: Option<&Status>, current: Option<&Value>, hand: Hand<'_>) -> Option<Value> {
    let empty = Map::new();
    let before = current.and_then(Value::as_object).unwrap_or(&empty);
    let mut after = before.clone();
    match ours {
        Some(Status::Class {
            conditions,
            supported_features,
        }) => {
            put_conditions(&mut after, conditions, hand);
            let features = supported_features.iter().map(|name| json!({"name": name}));
            put_list(&mut after, "supportedFeatures", features.collect());
        }
        Some(Status::Gateway {
            conditions,
            addresses,
            listeners,
            attached_listener_sets,
        }) => {
            put_conditions(&mut after, conditions, hand);
            put_list(
                &mut after,
                "addresses",
                addresses.iter().map(|one| address(one, hand)).collect(),
            );
            put_listeners(&mut after, listeners, hand);
            // Older definitions have no such field; absent is none.
            if *attached_listener_sets > 0 || after.contains_key("attachedListenerSets") {
                after.insert("attachedListenerSets".to_owned(), json!(attached_listener_sets));
            }
        }
        Some(Status::ListenerSet { conditions, listeners }) => {
            put_conditions(&mut after, conditions, hand);
            put_listeners(&mut after, listeners, hand);
        }
        Some(Status::Balancer { addresses, conditions }) => {
            put_ingress(&mut after, addresses);
            put_conditions_of(OF_SERVICES, &mut after, conditions, hand);
        }
        Some(Status::Route { parents }) => put_parents(&mut after, &PARENTS, id, parents, hand),
        Some(Status::Policy { ancestors }) => put_parents(&mut after, &ANCESTORS, id, ancestors, hand),
        None => match id.kind {
            Kind::BackendTlsPolicy => put_parents(&mut after, &ANCESTORS, id, &[], hand),
            // Its addresses go with its type: the API server sees to that.
            Kind::Service => put_conditions_of(OF_SERVICES, &mut after, &[], hand),
            // Of a Gateway or a class that is not ours any more everything is its new controller's.
            _ => put_parents(&mut after, &PARENTS, id, &[], hand),
        },
    }
    let says = newest(&after, hand);
    // Another process of ours may be ahead of this one. What is taken out says nothing.
    let behind = says > 0 && says < newest(before, hand);
    (after != *before && !behind).then_some(Value::Object(after))
}

/// Whether the status has an entry of ours.
pub fn mentions(status: &Value, controller: &str) -> bool {
    let of = |list: &str| status[list].as_array().map(Vec::as_slice).unwrap_or_default();
    let served = |one: &Value| one["type"].as_str().is_some_and(|kind| OF_SERVICES.contains(&kind));
    let entries = [PARENTS.list, ANCESTORS.list].into_iter().flat_map(of);
    of("conditions").iter().any(served) || entries.into_iter().any(|entry| entry["controllerName"] == controller)
}

/// The newest generation that our conditions were decided from.
fn newest(status: &Map<String, Value>, hand: Hand<'_>) -> i64 {
    let entries = [PARENTS.list, ANCESTORS.list].into_iter().flat_map(|list| {
        let entries = status.get(list).and_then(Value::as_array);
        entries
            .into_iter()
            .flatten()
            .filter(|one| one["controllerName"] == hand.controller)
    });
    let of_entries = entries.filter_map(|entry| entry["conditions"].as_array()).flatten();
    let own = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
    own.chain(of_entries)
        .filter(|condition| condition["type"].as_str().is_some_and(|name| OURS.contains(&name)))
        .filter_map(|condition| condition["observedGeneration"].as_i64())
        .max()
        .unwrap_or(0)
}

/// `status.loadBalancer` of a Service.
fn put_ingress(status: &mut Map<String, Value>, addresses: &[IpAddr]) {
    let ingress = |addr: &IpAddr| {
        let addr = addr.to_string();
        let mut ingress = json!({"ip": addr});
        // Filled in by the API server, and kept.
        let current = status
            .get("loadBalancer")
            .and_then(|balancer| balancer["ingress"].as_array());
        if let Some(old) = current.into_iter().flatten().find(|old| old["ip"] == addr.as_str()) {
            ingress = old.clone();
        }
        ingress
    };
    let ingress: Vec<Value> = addresses.iter().map(ingress).collect();
    let balancer = match ingress.is_empty() {
        true => json!({}),
        false => json!({"ingress": ingress}),
    };
    if status.contains_key("loadBalancer") || !addresses.is_empty() {
        status.insert("loadBalancer".to_owned(), balancer);
    }
}

fn put_conditions(status: &mut Map<String, Value>, ours: &[Condition], hand: Hand<'_>) {
    put_conditions_of(OURS, status, ours, hand);
}

/// Of the `types` that are ours.
fn put_conditions_of(types: &[&str], status: &mut Map<String, Value>, ours: &[Condition], hand: Hand<'_>) {
    let current = status.get("conditions").and_then(Value::as_array);
    let merged = conditions(types, current.map(Vec::as_slice).unwrap_or_default(), ours, hand);
    put_list(status, "conditions", merged);
}

/// Sets a list; an empty one where there is none is no change.
fn put_list(status: &mut Map<String, Value>, name: &str, items: Vec<Value>) {
    if !items.is_empty() || status.contains_key(name) {
        status.insert(name.to_owned(), Value::Array(items));
    }
}

/// Ours in the places they have, new ones at the end.
fn conditions(types: &[&str], current: &[Value], ours: &[Condition], hand: Hand<'_>) -> Vec<Value> {
    let kind = |one: &Value| one["type"].as_str().unwrap_or_default().to_owned();
    let mut merged = Vec::with_capacity(current.len().max(ours.len()));
    for old in current {
        match ours.iter().find(|one| one.kind.name() == kind(old)) {
            Some(new) => merged.push(condition(new, Some(old), hand)),
            None if types.contains(&kind(old).as_str()) => {}
            None => merged.push(old.clone()),
        }
    }
    for new in ours {
        if !current.iter().any(|old| kind(old) == new.kind.name()) {
            merged.push(condition(new, None, hand));
        }
    }
    merged
}

fn condition(new: &Condition, old: Option<&Value>, hand: Hand<'_>) -> Value {
    let holds = if new.holds { "True" } else { "False" };
    let kept = old
        .filter(|old| old["status"] == holds)
        .and_then(|old| old["lastTransitionTime"].as_str());
    json!({
        "type": new.kind.name(),
        "status": holds,
        "reason": new.reason,
        "message": new.message.chars().take(MESSAGE_MAX).collect::<String>(),
        "observedGeneration": new.observed_generation,
        "lastTransitionTime": kept.unwrap_or(hand.now),
    })
}

fn address(of: &GatewayAddress, hand: Hand<'_>) -> Value {
    let mut address = json!({"type": "IPAddress", "value": of.addr.to_string()});
    if hand.routability {
        address["routability"] = json!(of.routability);
    }
    address
}

fn put_listeners(status: &mut Map<String, Value>, ours: &[ListenerStatus], hand: Hand<'_>) {
    let current = status.get("listeners").and_then(Value::as_array);
    let listeners = ours.iter().take(LISTENERS_MAX);
    let listeners = listeners.map(|one| listener(one, current, hand)).collect();
    put_list(status, "listeners", listeners);
}

fn listener(ours: &ListenerStatus, current: Option<&Vec<Value>>, hand: Hand<'_>) -> Value {
    let old = current
        .into_iter()
        .flatten()
        .find(|old| old["name"] == ours.name.as_str());
    let old_conditions = old.and_then(|old| old["conditions"].as_array());
    let kinds = ours.supported_kinds.iter();
    json!({
        "name": ours.name,
        "supportedKinds": kinds.map(|kind| json!({"group": GATEWAY_API, "kind": kind})).collect::<Vec<_>>(),
        "attachedRoutes": ours.attached_routes,
        "conditions": conditions(OURS, old_conditions.map(Vec::as_slice).unwrap_or_default(), &ours.conditions, hand),
    })
}

/// Where the entries of several controllers stand side by side.
struct Entries {
    list: &'static str,
    reference: &'static str,
    most: usize,
}

const PARENTS: Entries = Entries {
    list: "parents",
    reference: "parentRef",
    most: PARENTS_MAX,
};
const ANCESTORS: Entries = Entries {
    list: "ancestors",
    reference: "ancestorRef",
    most: ANCESTORS_MAX,
};

/// Entries of others stay where they are, ours are replaced in place, taken out, or added.
fn put_parents(status: &mut Map<String, Value>, at: &Entries, id: &ObjectId, ours: &[ParentStatus], hand: Hand<'_>) {
    let current = status
        .get(at.list)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let names: Vec<ParentName> = ours.iter().map(|one| one.parent.clone()).collect();
    let mut had = vec![false; ours.len()];
    let mut merged = Vec::with_capacity(current.len().max(ours.len()));
    for old in &current {
        if old["controllerName"] != hand.controller {
            merged.push(old.clone());
            continue;
        }
        let name = parent_name(&old[at.reference], &id.namespace);
        if let Some(index) = (0..names.len()).find(|index| !had[*index] && names[*index] == name) {
            had[index] = true;
            merged.push(parent(at, &ours[index], Some(old), hand));
        }
    }
    for (new, _) in ours.iter().zip(&had).filter(|(_, had)| !**had) {
        if merged.len() < at.most {
            merged.push(parent(at, new, None, hand));
        }
    }
    if merged != current || !status.contains_key(at.list) && !merged.is_empty() {
        status.insert(at.list.to_owned(), Value::Array(merged));
    }
}

fn parent(at: &Entries, ours: &ParentStatus, old: Option<&Value>, hand: Hand<'_>) -> Value {
    let old_conditions = old.and_then(|old| old["conditions"].as_array());
    json!({
        at.reference: reference(&ours.parent),
        "controllerName": hand.controller,
        "conditions": conditions(OURS, old_conditions.map(Vec::as_slice).unwrap_or_default(), &ours.conditions, hand),
    })
}

fn reference(parent: &ParentName) -> Value {
    let mut reference = json!({
        "group": GATEWAY_API, "kind": parent.kind.name(), "namespace": parent.namespace, "name": parent.name,
    });
    if let Some(section) = &parent.section {
        reference["sectionName"] = json!(section);
    }
    if let Some(port) = parent.port {
        reference["port"] = json!(port);
    }
    reference
}

/// A reference as it stands in a status, defaults filled in.
fn parent_name(reference: &Value, namespace: &str) -> ParentName {
    let text = |name: &str| reference[name].as_str().map(ToOwned::to_owned);
    let set = reference["kind"] == Kind::ListenerSet.name();
    ParentName {
        kind: if set { Kind::ListenerSet } else { Kind::Gateway },
        namespace: text("namespace").unwrap_or_else(|| namespace.to_owned()),
        name: text("name").unwrap_or_default(),
        section: text("sectionName"),
        port: reference["port"].as_u64().and_then(|port| u16::try_from(port).ok()),
    }
}

#[cfg(test)]
mod tests;
