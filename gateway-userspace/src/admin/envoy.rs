//! The Envoy-shaped read paths, for the tools and habits that know them.

use super::state::{AdminState, Published};
use super::view;
use crate::settings::tunables;
use crate::telemetry::access_log::timestamp::Timestamps;
use crate::telemetry::metrics;
use crate::worker::tls::x509::{self, CertificateFacts};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use gateway_core::ir::CertificateName;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

type Shared = State<Arc<AdminState>>;

/// `?format=json` and friends.
#[derive(Deserialize, Default)]
pub struct Format {
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    filter: Option<String>,
}

impl Format {
    fn json(&self) -> bool {
        self.format.as_deref() == Some("json")
    }
}

const PATHS: [&str; 19] = [
    "/ready",
    "/server_info",
    "/stats",
    "/stats/prometheus",
    "/config_dump",
    "/clusters",
    "/listeners",
    "/certs",
    "/api/v1/status",
    "/api/v1/connections",
    "/api/v1/streams",
    "/api/v1/fairness",
    "/api/v1/listeners",
    "/api/v1/routes",
    "/api/v1/services",
    "/api/v1/endpoints",
    "/api/v1/kernel",
    "/api/v1/revisions",
    "/api/v1/settings",
];

pub async fn index() -> Html<String> {
    let link = |path: &&str| format!("<li><a href=\"{path}\">{path}</a></li>");
    Html(format!(
        "<!doctype html><title>sluice</title><ul>{}</ul>",
        PATHS.iter().map(link).collect::<String>()
    ))
}

pub async fn ready(State(state): Shared) -> Response {
    if state.ready() {
        (StatusCode::OK, "LIVE\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "NOT READY\n").into_response()
    }
}

pub async fn server_info(State(state): Shared) -> Json<Value> {
    let build = crate::kernel::load::build_facts();
    Json(json!({
        "version": format!("{}/{}", env!("CARGO_PKG_VERSION"), build.git),
        "state": if state.ready() { "LIVE" } else { "PRE_INITIALIZING" },
        "uptime_current_epoch": format!("{}s", state.uptime().as_secs()),
        "bpf_object": build.object,
        "command_line_options": {"concurrency": state.workers.count()},
    }))
}

async fn exposition(state: &AdminState) -> String {
    let published = state.published();
    let reports = state.reports(false).await;
    let certificates: Vec<_> = certificate_facts(&published).collect();
    let expiries: Vec<(&str, i64)> = certificates
        .iter()
        .map(|(name, facts)| (name.as_str(), facts.not_after))
        .collect();
    let cluster = state.cluster().map(metrics::cluster::render).unwrap_or_default();
    metrics::render(&reports, &state.kernel.counters(), &published.snapshot) + &metrics::expiries(&expiries) + &cluster
}

pub async fn prometheus(State(state): Shared) -> Response {
    let text = exposition(&state).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// `name: value` lines; `?filter=` keeps those that contain the text; `?format=prometheus`.
pub async fn stats(State(state): Shared, Query(query): Query<Format>) -> Response {
    let text = exposition(&state).await;
    if query.format.as_deref() == Some("prometheus") {
        return ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response();
    }
    let filter = query.filter.clone().unwrap_or_default();
    let samples = text
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(&filter));
    let pairs: Vec<(&str, &str)> = samples.filter_map(|line| line.rsplit_once(' ')).collect();
    if query.json() {
        let rows: Vec<Value> = pairs
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        return Json(json!({"stats": rows})).into_response();
    }
    pairs
        .iter()
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect::<String>()
        .into_response()
}

pub async fn config_dump(State(state): Shared) -> Json<Value> {
    let published = state.published();
    let settings = tunables::values(state.workers.limits());
    let service = |service: &Arc<gateway_core::ir::Service>| {
        json!({
            "name": service.name.as_str(), "balance": format!("{:?}", service.balance),
            "endpoints": service.endpoints.iter().map(view::endpoint).collect::<Vec<_>>(),
        })
    };
    Json(json!({
        "apiVersion": "sluice.dev/v1", "kind": "ConfigDump",
        "revision": published.snapshot.revision.0,
        "listeners": view::listeners(&published),
        "routes": view::routes(&published),
        "services": published.ir.services.values().map(service).collect::<Vec<_>>(),
        // Private keys are not part of any dump.
        "certificates": published.ir.certificates.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
        "limits": settings["limits"],
        "timeouts": settings["timeouts"],
        "tls": state.workers.tls_settings().values(),
        "objects": super::told::all(&published.statuses),
        "diagnostics": published.diagnostics,
    }))
}

pub async fn clusters(State(state): Shared, Query(query): Query<Format>) -> Response {
    let published = state.published();
    let reports = state.reports(false).await;
    let mut text = String::new();
    let mut rows = Vec::new();
    for plan in published.snapshot.endpoints.iter().flatten() {
        let service = published
            .snapshot
            .service(plan.service)
            .map_or("unknown", |service| service.name.as_str());
        let shares: Vec<_> = reports
            .iter()
            .filter_map(|report| report.http.endpoints.get(plan.id.index()))
            .collect();
        let sum =
            |of: fn(&gateway_http::metrics::EndpointMetrics) -> u64| shares.iter().map(|share| of(share)).sum::<u64>();
        let figures = [
            ("cx_active", sum(|share| share.connections_active)),
            ("cx_total", sum(|share| share.connections_total)),
            ("rq_active", sum(|share| share.requests_active)),
            ("rq_total", sum(|share| share.requests_total)),
            ("rq_error", sum(|share| share.failures_total)),
        ];
        for (name, value) in figures {
            let _ = writeln!(text, "{service}::{}::{name}::{value}", plan.addr);
        }
        let _ = writeln!(text, "{service}::{}::hostname::{}", plan.addr, plan.name);
        let stats: Vec<Value> = figures
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        rows.push(json!({"cluster": service, "address": plan.addr.to_string(), "hostname": plan.name.as_str(), "stats": stats}));
    }
    if query.json() {
        Json(json!({"cluster_statuses": rows})).into_response()
    } else {
        text.into_response()
    }
}

pub async fn listeners(State(state): Shared, Query(query): Query<Format>) -> Response {
    let rows = view::listeners(&state.published());
    if query.json() {
        return Json(json!({"listener_statuses": rows})).into_response();
    }
    let line = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let names: Vec<&str> = row["names"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        format!("{}::{}::{}\n", names.join(","), text("bind"), text("plane"))
    };
    rows.iter().map(line).collect::<String>().into_response()
}

pub async fn certs(State(state): Shared) -> Json<Value> {
    let published = state.published();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let days = |until: i64| until.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX)).max(0) / 86_400;
    let row = |(name, facts): (&CertificateName, CertificateFacts)| {
        let dns = facts.dns.iter().map(|name| json!({"dns": name}));
        let names: Vec<Value> = dns.chain(facts.uris.iter().map(|uri| json!({"uri": uri}))).collect();
        json!({
            "name": name.as_str(),
            "ca_cert": [],
            "cert_chain": [{
                "path": "<inline>",
                "serial_number": facts.serial,
                "subject": facts.subject,
                "issuer": facts.issuer,
                "subject_alt_names": names,
                "days_until_expiration": days(facts.not_after).to_string(),
                "valid_from": time_text(facts.not_before),
                "expiration_time": time_text(facts.not_after),
            }],
        })
    };
    let rows: Vec<Value> = certificate_facts(&published).map(row).collect();
    Json(json!({"certificates": rows}))
}

/// What each configured certificate says of itself; of one that is none, nothing.
fn certificate_facts(published: &Published) -> impl Iterator<Item = (&CertificateName, CertificateFacts)> {
    published.ir.certificates.iter().map(|(name, certificate)| {
        let leaf = certificate.chain.first();
        (name, leaf.and_then(|der| x509::facts(der)).unwrap_or_default())
    })
}

/// RFC 3339, of seconds since 1970.
fn time_text(seconds: i64) -> String {
    let millis = u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    Timestamps::default().rfc3339(millis).to_owned()
}
