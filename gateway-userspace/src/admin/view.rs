//! Live things and configuration as JSON. The only place where they get their outside names.

use super::state::Published;
use crate::kernel::inspect::{MapView, ProgramView};
use crate::telemetry::cluster::{ClusterFacts, WriteFailure};
use gateway_core::ids::{EndpointId, ListenerId, RuleId};
use gateway_core::ir::{
    Destination, Endpoint, HttpMatch, HttpRule, PathMatch, Readiness, StreamRule, ValueMatch, Weighted,
};
use gateway_core::model::{ConnectionView, Side, StreamView};
use gateway_core::snapshot::Snapshot;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// A list answer of `/api/v1`.
pub fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({"apiVersion": "sluice.dev/v1", "kind": kind, "items": items})
}

pub fn listener_bind(snapshot: &Snapshot, id: Option<ListenerId>) -> Value {
    id.and_then(|id| snapshot.listener(id))
        .map_or(Value::Null, |plan| json!(plan.bind.to_string()))
}

pub fn endpoint_name(snapshot: &Snapshot, id: Option<EndpointId>) -> Value {
    id.and_then(|id| snapshot.endpoint(id))
        .map_or(Value::Null, |plan| json!(plan.name.as_str()))
}

pub fn rule_name(snapshot: &Snapshot, id: Option<RuleId>) -> Value {
    id.and_then(|id| snapshot.rule(id))
        .map_or(Value::Null, |plan| json!(plan.name.as_str()))
}

pub fn connection(view: &ConnectionView, worker: Option<u16>, snapshot: &Snapshot) -> Value {
    let reason = view
        .listener
        .and_then(|id| snapshot.listener(id))
        .map(|plan| plan.why.as_str());
    json!({
        "id": view.id.to_string(),
        "worker": worker,
        "plane": view.plane.name(),
        "protocol": view.protocol,
        "side": match view.side { Side::Downstream => "downstream", Side::Upstream => "upstream" },
        "peer": view.peer.to_string(),
        "local": view.local.to_string(),
        "listener": listener_bind(snapshot, view.listener),
        "endpoint": endpoint_name(snapshot, view.endpoint),
        "serverName": view.server_name,
        "identity": view.identity,
        "streams": view.streams,
        "streamsTotal": view.streams_total,
        "bytesIn": view.bytes_in,
        "bytesOut": view.bytes_out,
        "ageMs": view.age_ms,
        "why": view.why.or(reason),
    })
}

pub fn stream(view: &StreamView, worker: u16, snapshot: &Snapshot) -> Value {
    json!({
        "connection": view.connection.to_string(),
        "worker": worker,
        "stream": view.stream,
        "plane": "http",
        "listener": listener_bind(snapshot, Some(view.listener)),
        "rule": rule_name(snapshot, view.rule),
        "endpoint": endpoint_name(snapshot, view.endpoint),
        "method": view.method,
        "path": view.path,
        "kind": view.kind,
        "bytesUp": view.bytes_up,
        "bytesDown": view.bytes_down,
        "ageMs": view.age_ms,
    })
}

/// The cluster that is watched, in figures and words.
pub fn cluster(facts: &ClusterFacts) -> Value {
    let (said, (reachable, since_ms)) = (facts.said(), facts.reachable());
    let (counts, sum) = facts.applied();
    let objects: BTreeMap<&str, u64> = said.objects.into_iter().collect();
    let failures = WriteFailure::ALL.map(|failure| (failure.name(), facts.failures(failure)));
    json!({
        "reachable": reachable,
        "sinceUnixSeconds": since_ms as f64 / 1e3,
        "trouble": said.trouble,
        "complete": facts.complete(),
        "leader": facts.leader(),
        "objects": objects,
        "absent": said.absent,
        "refused": said.refused,
        "statusWrites": facts.status_writes.load(Ordering::Relaxed),
        "statusFailures": BTreeMap::from(failures),
        "watchErrors": facts.watch_errors.load(Ordering::Relaxed),
        "applied": counts.iter().sum::<u64>(),
        "appliedSecondsSum": sum,
    })
}

/// Every listener of the revision, with what could not be programmed.
pub fn listeners(published: &Published) -> Vec<Value> {
    let row = |listener: &gateway_core::ir::Listener| {
        let problem = published.unprogrammed.get(&listener.bind);
        json!({
            "bind": listener.bind.to_string(),
            "plane": listener.plane.name(),
            "names": listener.names.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            "programmed": problem.is_none(),
            "why": problem.unwrap_or(&listener.why),
        })
    };
    published.ir.listeners.values().map(row).collect()
}

/// Every rule of every listener.
pub fn routes(published: &Published) -> Vec<Value> {
    let mut rows = Vec::new();
    for listener in published.ir.listeners.values() {
        rows.extend(listener.plane.stream_rules().iter().map(stream_rule));
        match &listener.plane {
            gateway_core::ir::Plane::Kernel(_) | gateway_core::ir::Plane::Splice(_) => {}
            gateway_core::ir::Plane::Http(rules) => {
                for scope in &rules.scopes {
                    let guard = |rule: &std::sync::Arc<HttpRule>| {
                        http_rule(rule, scope.listener.as_str(), &scope.hostname.to_string())
                    };
                    rows.extend(scope.guards.iter().map(guard));
                    for host in scope.hosts.iter() {
                        let row = |rule: &std::sync::Arc<HttpRule>| {
                            http_rule(rule, scope.listener.as_str(), &host.hostname.to_string())
                        };
                        rows.extend(host.rules.iter().map(row));
                    }
                }
            }
        }
    }
    rows
}

fn stream_rule(rule: &StreamRule) -> Value {
    json!({
        "name": rule.name.as_str(),
        "listener": rule.listener.as_str(),
        "hostname": rule.hostname.to_string(),
        "matches": [],
        "destinations": rule.destinations.iter().map(|share| destination(share.weight, &share.to)).collect::<Vec<_>>(),
    })
}

fn http_rule(rule: &HttpRule, listener: &str, hostname: &str) -> Value {
    let share = |weighted: &Weighted<gateway_core::ir::HttpDestination>| destination(weighted.weight, &weighted.to.to);
    json!({
        "name": rule.name.as_str(),
        "listener": listener,
        "hostname": hostname,
        "matches": rule.matches.iter().map(http_match).collect::<Vec<_>>(),
        "destinations": rule.destinations.iter().map(share).collect::<Vec<_>>(),
    })
}

fn http_match(http_match: &HttpMatch) -> String {
    let mut words = vec![match &http_match.path {
        PathMatch::Exact(path) => format!("={path}"),
        PathMatch::Prefix(path) => format!("{path}*"),
        PathMatch::Regex(path) => format!("~{path}"),
    }];
    words.extend(http_match.method.clone());
    for (sign, fields) in [("", &http_match.headers), ("?", &http_match.query)] {
        for field in fields {
            words.push(match &field.value {
                ValueMatch::Exact(value) => format!("{sign}{}={value}", field.name),
                ValueMatch::Regex(value) => format!("{sign}{}~{value}", field.name),
            });
        }
    }
    words.join(" ")
}

fn destination(weight: u32, to: &Destination) -> String {
    match to {
        Destination::Service(name) => format!("{name} ({weight})"),
        Destination::Fail { status, why } => format!("fail {status}: {why} ({weight})"),
    }
}

pub fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "name": endpoint.name.as_str(),
        "addr": endpoint.addr.to_string(),
        "weight": endpoint.weight,
        "readiness": match endpoint.readiness { Readiness::Serving => "serving", Readiness::Draining => "draining" },
    })
}

/// One of our programs as the kernel holds it.
pub fn program(program: &ProgramView) -> Value {
    json!({
        "id": program.id, "name": program.name, "instructions": program.instructions,
        "verifiedInstructions": program.verified, "jitedBytes": program.jited_bytes, "memoryBytes": program.memory_bytes,
    })
}

/// One of our maps as the kernel holds it.
pub fn map(map: &MapView) -> Value {
    json!({
        "id": map.id, "name": map.name, "keyBytes": map.key_bytes, "valueBytes": map.value_bytes,
        "entriesMax": map.entries_max,
    })
}
