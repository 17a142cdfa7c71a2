//! `/api/v1`: what is live and why, as JSON.

use super::state::AdminState;
use super::view;
use crate::settings::tunables;
use axum::Json;
use axum::extract::State;
use gateway_core::fairness::jain;
use gateway_core::ids::{EndpointId, ListenerId};
use gateway_core::ir::Plane;
use gateway_core::model::ConnectionView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

type Shared = State<Arc<AdminState>>;

pub async fn status(State(state): Shared) -> Json<Value> {
    let published = state.published();
    let kernel = state.kernel.status();
    Json(json!({
        "apiVersion": "sluice.dev/v1", "kind": "Status",
        "version": env!("CARGO_PKG_VERSION"),
        "ready": state.ready(),
        "pid": std::process::id(),
        "revision": published.snapshot.revision.0,
        "workers": state.workers.count(),
        "uptimeSeconds": state.uptime().as_secs(),
        "datapath": {"ingress": kernel.ingress, "lookup": kernel.lookup, "reasons": kernel.reasons},
        "cluster": state.cluster().map(view::cluster),
        "listeners": view::listeners(&published),
        "objects": super::told::all(&published.statuses),
        "diagnostics": published.diagnostics,
    }))
}

pub async fn connections(State(state): Shared) -> Json<Value> {
    let published = state.published();
    let reports = state.reports(true).await;
    let mut items = Vec::new();
    for report in &reports {
        let worker = Some(report.worker);
        items.extend(
            report
                .connections
                .iter()
                .map(|one| view::connection(one, worker, &published.snapshot)),
        );
    }
    items.extend(
        kernel_flows(&state)
            .iter()
            .map(|flow| view::connection(flow, None, &published.snapshot)),
    );
    Json(view::list("ConnectionList", items))
}

/// Flows of the kernel plane as connections, with the endpoints of the revision in force.
fn kernel_flows(state: &AdminState) -> Vec<ConnectionView> {
    let published = state.published();
    let endpoints: BTreeMap<SocketAddr, EndpointId> = published
        .snapshot
        .endpoints
        .iter()
        .flatten()
        .map(|plan| (plan.addr, plan.id))
        .collect();
    state.kernel.flows(|addr| endpoints.get(&addr).copied())
}

pub async fn streams(State(state): Shared) -> Json<Value> {
    let published = state.published();
    let mut items = Vec::new();
    for report in state.reports(true).await {
        items.extend(
            report
                .streams
                .iter()
                .map(|one| view::stream(one, report.worker, &published.snapshot)),
        );
    }
    Json(view::list("StreamList", items))
}

/// What one plane gave an endpoint.
type Count<'a> = &'a dyn Fn(EndpointId) -> u64;

/// How evenly each service's endpoints are used, by plane: requests on the HTTP plane, connections elsewhere.
pub async fn fairness(State(state): Shared) -> Json<Value> {
    let published = state.published();
    let reports = state.reports(false).await;
    let requests = |id: EndpointId| -> u64 {
        reports
            .iter()
            .filter_map(|report| report.http.endpoints.get(id.index()))
            .map(|one| one.requests_total)
            .sum()
    };
    let relays = |id: EndpointId| -> u64 {
        reports
            .iter()
            .filter_map(|report| report.relays.endpoints.get(id.index()))
            .map(|one| one.connections_total)
            .sum()
    };
    let flows = kernel_flows(&state);
    let flow_count = |id: EndpointId| flows.iter().filter(|flow| flow.endpoint == Some(id)).count() as u64;
    let mut items = Vec::new();
    for service in published.snapshot.services.iter().flatten() {
        let counted: [(&str, &str, Count<'_>); 3] = [
            ("http", "requests", &requests),
            ("splice", "connections", &relays),
            ("kernel", "liveFlows", &flow_count),
        ];
        for (plane, unit, count) in counted {
            let mut endpoints: BTreeMap<&str, u64> = BTreeMap::new();
            for plan in published
                .snapshot
                .endpoints
                .iter()
                .flatten()
                .filter(|plan| plan.service == service.id)
            {
                *endpoints.entry(plan.name.as_str()).or_default() += count(plan.id);
            }
            if endpoints.values().any(|count| *count > 0) {
                items.push(json!({
                    "service": service.name.as_str(), "plane": plane, "unit": unit,
                    "jain": jain(endpoints.values().copied()), "endpoints": endpoints,
                }));
            }
        }
    }
    Json(view::list("FairnessList", items))
}

pub async fn listeners(State(state): Shared) -> Json<Value> {
    Json(view::list("ListenerList", view::listeners(&state.published())))
}

pub async fn routes(State(state): Shared) -> Json<Value> {
    Json(view::list("RouteList", view::routes(&state.published())))
}

pub async fn services(State(state): Shared) -> Json<Value> {
    let published = state.published();
    let row = |service: &Arc<gateway_core::ir::Service>| {
        json!({
            "name": service.name.as_str(),
            "balance": format!("{:?}", service.balance),
            "endpointNames": service.endpoints.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
            "endpoints": service.endpoints.iter().map(view::endpoint).collect::<Vec<_>>(),
        })
    };
    Json(view::list(
        "ServiceList",
        published.ir.services.values().map(row).collect(),
    ))
}

pub async fn endpoints(State(state): Shared) -> Json<Value> {
    let published = state.published();
    let reports = state.reports(false).await;
    let mut items = Vec::new();
    for plan in published.snapshot.endpoints.iter().flatten() {
        let shares = reports
            .iter()
            .filter_map(|report| report.http.endpoints.get(plan.id.index()));
        let (requests, failures) = shares.fold((0, 0), |(requests, failures), one| {
            (requests + one.requests_total, failures + one.failures_total)
        });
        items.push(json!({
            "name": plan.name.as_str(), "addr": plan.addr.to_string(),
            "service": published.snapshot.service(plan.service).map(|service| service.name.as_str()),
            "readiness": format!("{:?}", plan.readiness).to_lowercase(),
            "requests": requests, "failures": failures,
        }));
    }
    Json(view::list("EndpointList", items))
}

pub async fn certificates(State(state): Shared) -> Json<Value> {
    let published = state.published();
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for listener in published.ir.listeners.values() {
        if let Plane::Http(rules) = &listener.plane {
            for scope in &rules.scopes {
                for name in &scope.certificates {
                    users.entry(name.as_str()).or_default().push(scope.listener.as_str());
                }
            }
        }
    }
    let row = |(name, certificate): (&gateway_core::ir::CertificateName, &gateway_core::ir::Certificate)| json!({"name": name.as_str(), "chain": certificate.chain.len(), "listeners": users.get(name.as_str())});
    Json(view::list(
        "CertificateList",
        published.ir.certificates.iter().map(row).collect(),
    ))
}

/// Verdicts of the kernel programs by listener and reason.
pub async fn kernel(State(state): Shared) -> Json<Value> {
    let published = state.published();
    let status = state.kernel.status();
    let counters = state.kernel.counters();
    let row = |(vip, reason, packets): &(u32, gateway_common::abi::Reason, u64)| {
        let listener = view::listener_bind(&published.snapshot, Some(ListenerId(*vip)));
        json!({"listener": listener, "reason": reason.name(), "packets": packets})
    };
    Json(json!({
        "apiVersion": "sluice.dev/v1", "kind": "Kernel",
        "ingress": status.ingress, "lookup": status.lookup, "reasons": status.reasons, "interfaces": status.interfaces,
        "programs": state.kernel.programs().iter().map(view::program).collect::<Vec<_>>(),
        "maps": state.kernel.maps().iter().map(view::map).collect::<Vec<_>>(),
        "counters": counters.iter().filter(|(_, _, packets)| *packets > 0).map(row).collect::<Vec<_>>(),
    }))
}

/// Every bound of the workers: its value, default, range and what it is for.
pub async fn settings(State(state): Shared) -> Json<Value> {
    let limits = state.workers.limits();
    let rows = tunables::TABLE.iter().map(|row| row.describe(limits)).collect();
    Json(view::list("SettingList", rows))
}

pub async fn revisions(State(state): Shared) -> Json<Value> {
    let row = |entry: &super::state::RevisionEntry| {
        let at = entry.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        json!({"revision": entry.revision.0, "atUnixSeconds": at.as_secs_f64(), "diagnostics": entry.diagnostics})
    };
    Json(json!({
        "apiVersion": "sluice.dev/v1", "kind": "RevisionList",
        "current": state.published().snapshot.revision.0,
        "items": state.history().iter().map(row).collect::<Vec<_>>(),
    }))
}
