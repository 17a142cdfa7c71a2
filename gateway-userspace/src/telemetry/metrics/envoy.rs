//! The same counters under the names of Envoy's Prometheus statistics, because dashboards for those exist. A cluster is
//! a service, a connection manager is a listener. Times are in milliseconds, as Envoy's are.

use super::Totals;
use super::exposition::{Exposition, Kind};
use gateway_core::ids::ListenerId;
use gateway_core::ir::Bind;
use gateway_core::snapshot::{ListenerPlan, ServicePlan, Snapshot};
use gateway_http::metrics::{DURATION_BUCKETS_US, EndpointMetrics, ListenerMetrics};

pub fn write(out: &mut Exposition, totals: &Totals, snapshot: &Snapshot) {
    out.family("envoy_server_live", Kind::Gauge, "1 while the process serves.")
        .sample(&[], 1);
    downstream(out, totals, snapshot);
    upstream(out, totals, snapshot);
    tcp(out, totals, snapshot);
}

fn downstream(out: &mut Exposition, totals: &Totals, snapshot: &Snapshot) {
    let shares: Vec<_> = totals
        .http
        .listeners
        .iter()
        .enumerate()
        .filter_map(|(id, it)| Some((plan(snapshot, id)?, it)))
        .collect();
    let mut family = |name, kind, help, value: fn(&ListenerMetrics) -> u64| {
        out.family(name, kind, help);
        for (plan, share) in &shares {
            out.sample(&[(PREFIX, name_of(plan))], value(share));
        }
    };
    family("envoy_http_downstream_rq_total", Kind::Counter, "Requests.", |share| {
        share.requests_total
    });
    family(
        "envoy_http_downstream_cx_total",
        Kind::Counter,
        "Connections.",
        |share| share.connections_total,
    );
    family(
        "envoy_http_downstream_cx_active",
        Kind::Gauge,
        "Live connections.",
        |share| share.connections_active,
    );
    out.family(
        "envoy_http_downstream_rq_xx",
        Kind::Counter,
        "Responses by status class.",
    );
    for (plan, share) in &shares {
        for (class, count) in CLASSES.iter().zip(share.responses).skip(1) {
            out.sample(&[(PREFIX, name_of(plan)), (CLASS, class)], count);
        }
    }
    out.family(
        "envoy_http_downstream_rq_time",
        Kind::Histogram,
        "Milliseconds from request to the end of the response.",
    )
    .histogram(
        &[(PREFIX, "all")],
        DURATION_BUCKETS_US.iter().map(|us| *us as f64 / 1e3),
        &totals.http.duration,
        totals.http.duration_us_sum as f64 / 1e3,
    );
    out.family(
        "envoy_listener_downstream_cx_active",
        Kind::Gauge,
        "Live connections by address.",
    );
    for (id, listener) in snapshot.listeners.iter().enumerate() {
        let Some(listener) = listener else { continue };
        let http = totals
            .http
            .listeners
            .get(id)
            .map_or(0, |share| share.connections_active);
        let relayed = totals
            .relays
            .listeners
            .get(id)
            .map_or(0, |share| share.connections_active);
        out.sample(&[("envoy_listener_address", &address(&listener.bind))], http + relayed);
    }
}

fn upstream(out: &mut Exposition, totals: &Totals, snapshot: &Snapshot) {
    let mut family = |name, kind, help, value: fn(&EndpointMetrics) -> u64| {
        out.family(name, kind, help);
        for service in snapshot.services.iter().flatten() {
            out.sample(
                &[(CLUSTER, service.name.as_str())],
                sum(totals, snapshot, service, value),
            );
        }
    };
    family("envoy_cluster_upstream_rq_total", Kind::Counter, "Requests.", |one| {
        one.requests_total
    });
    family(
        "envoy_cluster_upstream_rq_active",
        Kind::Gauge,
        "Requests under way.",
        |one| one.requests_active,
    );
    family(
        "envoy_cluster_upstream_cx_total",
        Kind::Counter,
        "Connections.",
        |one| one.connections_total,
    );
    family(
        "envoy_cluster_upstream_cx_active",
        Kind::Gauge,
        "Live connections.",
        |one| one.connections_active,
    );
    family(
        "envoy_cluster_upstream_cx_connect_fail",
        Kind::Counter,
        "Connections that failed.",
        |one| one.failures_total,
    );
    family(
        "envoy_cluster_upstream_rq_retry",
        Kind::Counter,
        "Retries by a rule's policy.",
        |one| one.retries_total,
    );
    family(
        "envoy_cluster_upstream_rq_retry_success",
        Kind::Counter,
        "Requests that were retried and then answered otherwise.",
        |one| one.retries_succeeded_total,
    );
    family(
        "envoy_cluster_upstream_rq_retry_overflow",
        Kind::Counter,
        "Retries that the service's budget forbade.",
        |one| one.retries_over_budget_total,
    );
    family(
        "envoy_cluster_upstream_rq_retry_limit_exceeded",
        Kind::Counter,
        "Failed requests that had all the retries of their rule.",
        |one| one.retries_exhausted_total,
    );
    out.family(
        "envoy_cluster_upstream_rq_xx",
        Kind::Counter,
        "Responses by status class.",
    );
    for service in snapshot.services.iter().flatten() {
        for (class, name) in CLASSES.iter().enumerate().skip(1) {
            let count = sum(totals, snapshot, service, |one| one.responses[class]);
            out.sample(&[(CLUSTER, service.name.as_str()), (CLASS, name)], count);
        }
    }
    out.family("envoy_cluster_membership_total", Kind::Gauge, "Endpoints.");
    for service in snapshot.services.iter().flatten() {
        let count = members(snapshot, service).count();
        out.sample(&[(CLUSTER, service.name.as_str())], count);
    }
}

fn tcp(out: &mut Exposition, totals: &Totals, snapshot: &Snapshot) {
    let shares = || {
        totals
            .relays
            .listeners
            .iter()
            .enumerate()
            .filter_map(|(id, it)| Some((plan(snapshot, id)?, it)))
    };
    out.family("envoy_tcp_downstream_cx_total", Kind::Counter, "Relayed connections.");
    for (plan, share) in shares() {
        out.sample(&[(TCP, name_of(plan))], share.connections_total);
    }
    out.family(
        "envoy_tcp_downstream_cx_rx_bytes_total",
        Kind::Counter,
        "Relayed bytes from clients.",
    );
    for (plan, share) in shares() {
        out.sample(&[(TCP, name_of(plan))], share.bytes_up);
    }
    out.family(
        "envoy_tcp_downstream_cx_tx_bytes_total",
        Kind::Counter,
        "Relayed bytes to clients.",
    );
    for (plan, share) in shares() {
        out.sample(&[(TCP, name_of(plan))], share.bytes_down);
    }
}

const PREFIX: &str = "envoy_http_conn_manager_prefix";
const CLUSTER: &str = "envoy_cluster_name";
const CLASS: &str = "envoy_response_code_class";
const TCP: &str = "envoy_tcp_prefix";
const CLASSES: [&str; 6] = ["0", "1", "2", "3", "4", "5"];

fn plan(snapshot: &Snapshot, index: usize) -> Option<&ListenerPlan> {
    snapshot.listener(ListenerId(index as u32))
}

fn name_of(plan: &ListenerPlan) -> &str {
    plan.names.first().map_or("", |name| name.as_str())
}

/// `0.0.0.0_80`, as Envoy writes addresses in labels.
fn address(bind: &Bind) -> String {
    match bind.addr {
        Some(addr) => format!("{addr}_{}", bind.port),
        None => format!("0.0.0.0_{}", bind.port),
    }
}

fn members<'a>(snapshot: &'a Snapshot, service: &'a ServicePlan) -> impl Iterator<Item = usize> + 'a {
    let endpoints = snapshot.endpoints.iter().flatten();
    endpoints
        .filter(|endpoint| endpoint.service == service.id)
        .map(|endpoint| endpoint.id.index())
}

fn sum(totals: &Totals, snapshot: &Snapshot, service: &ServicePlan, value: impl Fn(&EndpointMetrics) -> u64) -> u64 {
    members(snapshot, service)
        .filter_map(|index| totals.http.endpoints.get(index))
        .map(value)
        .sum()
}
