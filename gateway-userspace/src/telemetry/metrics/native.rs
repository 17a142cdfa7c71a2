//! Our own names: `sluice_`, base units, bounded label sets.

use super::Totals;
use super::exposition::{Exposition, Kind};
use crate::telemetry::report::{RelayShare, Report};
use gateway_common::abi::Reason;
use gateway_core::fairness::jain;
use gateway_core::fault::{Fault, Refusal};
use gateway_core::ids::ListenerId;
use gateway_core::snapshot::Snapshot;
use gateway_http::flood::Flood;
use gateway_http::grpc::status;
use gateway_http::metrics::{DURATION_BUCKETS_US, EndpointMetrics, ListenerMetrics};
use gateway_http::retry::{NotRetried, Retried};
use std::fmt::Display;

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
const MICROS: f64 = 1e6;

pub fn write(
    out: &mut Exposition,
    totals: &Totals,
    reports: &[Report],
    kernel: &[(u32, Reason, u64)],
    snapshot: &Snapshot,
) {
    out.family(
        "sluice_revision",
        Kind::Gauge,
        "Revision of the configuration that is served.",
    )
    .sample(&[], snapshot.revision.0);
    connections(out, totals, reports);
    http(out, totals);
    grpc(out, totals);
    listeners(out, totals, snapshot);
    endpoints(out, totals, snapshot);
    relays(out, totals, snapshot);
    tls(out, totals);
    workers(out, reports);
    memory(out, reports);
    packets(out, kernel, snapshot);
}

fn connections(out: &mut Exposition, totals: &Totals, reports: &[Report]) {
    let relayed: u64 = totals
        .relays
        .listeners
        .iter()
        .map(|share| share.connections_active)
        .sum();
    out.family(
        "sluice_connections_active",
        Kind::Gauge,
        "Live downstream connections by plane.",
    )
    .sample(&[("plane", "http")], totals.http.downstream_connections_active)
    .sample(&[("plane", "splice")], relayed)
    .sample(&[("plane", "handshake")], totals.tls.handshakes_active);
    let streams: u64 = reports.iter().map(|report| report.streams_active).sum();
    out.family("sluice_http_streams_active", Kind::Gauge, "Live requests.")
        .sample(&[], streams);
    out.family(
        "sluice_refusals_total",
        Kind::Counter,
        "Connections that were not served, by reason.",
    );
    for refusal in Refusal::ALL {
        out.sample(&[("reason", refusal.name())], totals.refusals.of(refusal));
    }
}

fn http(out: &mut Exposition, totals: &Totals) {
    let http = &totals.http;
    out.family(
        "sluice_http_request_duration_seconds",
        Kind::Histogram,
        "From a request's head to the response's end.",
    )
    .histogram(
        &[],
        DURATION_BUCKETS_US.iter().map(|us| *us as f64 / MICROS),
        &http.duration,
        http.duration_us_sum as f64 / MICROS,
    );
    out.family(
        "sluice_http_faults_total",
        Kind::Counter,
        "Requests that went wrong, by fault.",
    );
    for fault in Fault::ALL {
        out.sample(&[("fault", fault.name())], http.faults[fault as usize]);
    }
    out.family(
        "sluice_http_tunnels_total",
        Kind::Counter,
        "Requests that became tunnels: WebSocket, other upgrades, CONNECT.",
    )
    .sample(&[], http.tunnels_total);
    out.family("sluice_http_tunnels_active", Kind::Gauge, "Tunnels open now.")
        .sample(&[], http.tunnels_active);
    out.family(
        "sluice_http_retries_total",
        Kind::Counter,
        "Requests sent once more: replays of what had no effect, and retries.",
    )
    .sample(&[], http.retries_total);
    out.family(
        "sluice_http_retries_granted_total",
        Kind::Counter,
        "Retries by a rule's policy, by what the attempt before came to.",
    );
    for why in Retried::ALL {
        out.sample(&[("reason", why.name())], http.retry.by[why as usize]);
    }
    out.family(
        "sluice_http_retries_denied_total",
        Kind::Counter,
        "Failed attempts of rules with retries that were the last, by why.",
    );
    for why in NotRetried::ALL {
        out.sample(&[("reason", why.name())], http.retry.not[why as usize]);
    }
    out.family(
        "sluice_http_retries_succeeded_total",
        Kind::Counter,
        "Requests that were retried and then answered otherwise.",
    )
    .sample(&[], http.retry.succeeded);
    let counters = [
        (
            "sluice_http_shed_total",
            "Requests turned away because too many were under way, or memory was short.",
            http.shed_total,
        ),
        (
            "sluice_http_keepalive_timeouts_total",
            "Connections ended because a PING was not answered.",
            http.keepalive_timeouts_total,
        ),
    ];
    for (name, help, value) in counters {
        out.family(name, Kind::Counter, help).sample(&[], value);
    }
    let gauges = [
        (
            "sluice_http_held_bytes",
            "Uploads that wait for slow endpoints and hold up nobody else.",
            http.held_bytes,
        ),
        (
            "sluice_http_window_growth_bytes",
            "By how much flow-control windows were grown for fast readers.",
            http.window_growth_bytes,
        ),
        (
            "sluice_http_streams_waiting",
            "Streams that take turns on a full connection.",
            http.streams_waiting,
        ),
    ];
    for (name, help, value) in gauges {
        out.family(name, Kind::Gauge, help).sample(&[], value);
    }
    super::asides::put(http, out);
    out.family(
        "sluice_http_floods_total",
        Kind::Counter,
        "Connections ended for asking too much, by the limit they went over.",
    );
    for flood in Flood::ALL {
        out.sample(&[("limit", flood.name())], http.floods[flood as usize]);
    }
    out.family(
        "sluice_http_body_bytes_total",
        Kind::Counter,
        "Body bytes from and to clients.",
    )
    .sample(&[("direction", "received")], http.bytes_received)
    .sample(&[("direction", "sent")], http.bytes_sent);
}

/// Only what was seen: most methods know a few of the codes.
fn grpc(out: &mut Exposition, totals: &Totals) {
    let labels = |path: &str| match path.trim_start_matches('/').rsplit_once('/') {
        Some((service, method)) => (service.to_owned(), method.to_owned()),
        None => (String::new(), path.to_owned()),
    };
    out.family(
        "sluice_grpc_calls_total",
        Kind::Counter,
        "Finished gRPC calls by method and status.",
    );
    for method in totals.http.grpc.iter() {
        let (service, name) = labels(&method.path);
        for (code, count) in (0..).zip(method.calls).filter(|(_, count)| *count > 0) {
            let code = status::name(code).unwrap_or("none");
            out.sample(&[("service", &service), ("method", &name), ("code", code)], count);
        }
    }
    out.family(
        "sluice_grpc_messages_total",
        Kind::Counter,
        "Messages of finished gRPC calls from and to clients.",
    );
    for method in totals.http.grpc.iter() {
        let (service, name) = labels(&method.path);
        for (direction, count) in ["received", "sent"].into_iter().zip(method.messages) {
            out.sample(
                &[("service", &service), ("method", &name), ("direction", direction)],
                count,
            );
        }
    }
}

fn listeners(out: &mut Exposition, totals: &Totals, snapshot: &Snapshot) {
    let shares = &totals.http.listeners;
    let mut family = |name, kind, help, value: fn(&ListenerMetrics) -> u64| {
        out.family(name, kind, help);
        for (index, share) in shares.iter().enumerate() {
            of_listener(out, snapshot, index, &[], value(share));
        }
    };
    family(
        "sluice_http_connections_total",
        Kind::Counter,
        "Connections accepted by HTTP listeners.",
        |share| share.connections_total,
    );
    family(
        "sluice_http_connections_active",
        Kind::Gauge,
        "Of those, live.",
        |share| share.connections_active,
    );
    family(
        "sluice_http_requests_total",
        Kind::Counter,
        "Requests by listener.",
        |share| share.requests_total,
    );
    out.family(
        "sluice_http_responses_total",
        Kind::Counter,
        "Responses by listener and status class.",
    );
    for (index, share) in shares.iter().enumerate() {
        for (class, count) in CLASSES.iter().zip(share.responses) {
            of_listener(out, snapshot, index, &[("class", class)], count);
        }
    }
}

fn endpoints(out: &mut Exposition, totals: &Totals, snapshot: &Snapshot) {
    let shares = &totals.http.endpoints;
    let mut family = |name, kind, help, value: fn(&EndpointMetrics) -> u64| {
        out.family(name, kind, help);
        for (index, share) in shares.iter().enumerate() {
            of_endpoint(out, snapshot, index, &[], value(share));
        }
    };
    family(
        "sluice_endpoint_requests_total",
        Kind::Counter,
        "Requests sent to an endpoint.",
        |one| one.requests_total,
    );
    family(
        "sluice_endpoint_requests_active",
        Kind::Gauge,
        "Of those, under way.",
        |one| one.requests_active,
    );
    family(
        "sluice_endpoint_connections_total",
        Kind::Counter,
        "HTTP connections opened to an endpoint.",
        |one| one.connections_total,
    );
    family(
        "sluice_endpoint_connections_active",
        Kind::Gauge,
        "Of those, live.",
        |one| one.connections_active,
    );
    family(
        "sluice_endpoint_failures_total",
        Kind::Counter,
        "Connects that failed, connections that broke.",
        |one| one.failures_total,
    );
    family(
        "sluice_endpoint_connections_idle",
        Kind::Gauge,
        "HTTP connections to an endpoint without a request.",
        |one| one.connections_idle,
    );
    family(
        "sluice_endpoint_requests_pending",
        Kind::Gauge,
        "Requests that wait for a connection to an endpoint or a stream on one.",
        |one| one.requests_pending,
    );
    family(
        "sluice_endpoint_overflows_total",
        Kind::Counter,
        "Requests turned away because an endpoint's connections and queue were full.",
        |one| one.overflows_total,
    );
    out.family(
        "sluice_endpoint_responses_total",
        Kind::Counter,
        "Responses by endpoint and status class.",
    );
    for (index, share) in shares.iter().enumerate() {
        for (class, count) in CLASSES.iter().zip(share.responses) {
            of_endpoint(out, snapshot, index, &[("class", class)], count);
        }
    }
    out.family(
        "sluice_fairness_jain",
        Kind::Gauge,
        "How evenly a service's requests are spread: 1 is even, 1/n is one of n.",
    );
    for service in snapshot.services.iter().flatten() {
        let members = snapshot
            .endpoints
            .iter()
            .flatten()
            .filter(|endpoint| endpoint.service == service.id);
        let counts = members.map(|endpoint| shares.get(endpoint.id.index()).map_or(0, |share| share.requests_total));
        out.sample(&[("service", service.name.as_str())], jain(counts));
    }
}

fn relays(out: &mut Exposition, totals: &Totals, snapshot: &Snapshot) {
    let relays = &totals.relays;
    let mut family = |name, kind, help, value: fn(&RelayShare) -> u64| {
        out.family(name, kind, help);
        for (index, share) in relays.listeners.iter().enumerate() {
            of_listener(out, snapshot, index, &[], value(share));
        }
    };
    family(
        "sluice_relay_connections_total",
        Kind::Counter,
        "Connections relayed.",
        |share| share.connections_total,
    );
    family(
        "sluice_relay_connections_active",
        Kind::Gauge,
        "Of those, live.",
        |share| share.connections_active,
    );
    out.family(
        "sluice_relay_bytes_total",
        Kind::Counter,
        "Bytes relayed to endpoints (up) and to clients (down).",
    );
    for (index, share) in relays.listeners.iter().enumerate() {
        of_listener(out, snapshot, index, &[("direction", "up")], share.bytes_up);
        of_listener(out, snapshot, index, &[("direction", "down")], share.bytes_down);
    }
    out.family(
        "sluice_relay_endpoint_connections_total",
        Kind::Counter,
        "Connections relayed to an endpoint.",
    );
    for (index, share) in relays.endpoints.iter().enumerate() {
        of_endpoint(out, snapshot, index, &[], share.connections_total);
    }
    out.family(
        "sluice_relay_connect_failures_total",
        Kind::Counter,
        "Connects of relays that failed.",
    )
    .sample(&[], relays.connect_failures_total);
    out.family(
        "sluice_relay_resets_total",
        Kind::Counter,
        "Relays that ended by an error.",
    )
    .sample(&[], relays.resets_total);
    out.family(
        "sluice_relay_cut_total",
        Kind::Counter,
        "Relays one of whose sides ended its TLS without a close_notify.",
    )
    .sample(&[], relays.cut_total);
    out.family(
        "sluice_relay_idle_total",
        Kind::Counter,
        "Relays closed for want of traffic.",
    )
    .sample(&[], relays.idle_total);
    out.family(
        "sluice_relay_datagrams_lost_total",
        Kind::Counter,
        "Datagrams that were refused, or that a socket did not take at once.",
    )
    .sample(&[], relays.datagrams_lost_total);
    out.family(
        "sluice_relay_spliced_bytes_total",
        Kind::Counter,
        "Bytes moved by splice(2) instead of a copy.",
    )
    .sample(&[], relays.spliced_bytes_total);
}

fn tls(out: &mut Exposition, totals: &Totals) {
    out.family(
        "sluice_tls_handshakes_total",
        Kind::Counter,
        "TLS handshakes that came to their end.",
    )
    .sample(
        &[("kind", "full")],
        totals.tls.handshakes_total - totals.tls.resumed_total,
    )
    .sample(&[("kind", "resumed")], totals.tls.resumed_total);
    out.family(
        "sluice_upstream_tls_handshakes_total",
        Kind::Counter,
        "TLS handshakes with endpoints, by how they ended.",
    )
    .sample(&[("end", "agreed")], totals.tls.upstream_handshakes_total)
    .sample(&[("end", "failed")], totals.tls.upstream_failures_total);
}

fn workers(out: &mut Exposition, reports: &[Report]) {
    let mut family = |name, kind, help, value: fn(&Report) -> u64| {
        out.family(name, kind, help);
        for report in reports {
            out.sample(&[("worker", &report.worker.to_string())], value(report));
        }
    };
    family(
        "sluice_worker_connections_active",
        Kind::Gauge,
        "Live downstream connections.",
        |it| it.connections_active,
    );
    family("sluice_worker_polls_total", Kind::Counter, "Polls.", |it| {
        it.turns.polls_total
    });
    family(
        "sluice_worker_reads_total",
        Kind::Counter,
        "Reads of HTTP sockets.",
        |it| it.turns.reads_total,
    );
    family(
        "sluice_worker_writes_total",
        Kind::Counter,
        "Writes of HTTP sockets.",
        |it| it.turns.writes_total,
    );
    family(
        "sluice_worker_panics_total",
        Kind::Counter,
        "Times a worker lost its connections by a bug.",
        |it| it.turns.panics_total,
    );
    family(
        "sluice_worker_late_total",
        Kind::Counter,
        "Times a worker did not turn for more than a second.",
        |it| it.turns.late_total,
    );
    family(
        "sluice_worker_accept_failures_total",
        Kind::Counter,
        "Accepts without descriptors or memory.",
        |it| it.turns.accept_failures_total,
    );
    family(
        "sluice_memory_pressure",
        Kind::Gauge,
        "How short of memory: 0 not, 1 shrinks, 2 lets clients go, 3 sheds requests, 4 refuses connections.",
        |it| it.pressure as u64,
    );
    family(
        "sluice_access_log_dropped_total",
        Kind::Counter,
        "Access log lines that found no room.",
        |it| it.turns.log_lines_dropped_total + it.http.outcomes_dropped_total,
    );
    family(
        "sluice_spans_total",
        Kind::Counter,
        "Spans made of traced requests.",
        |it| it.turns.spans_total,
    );
    family(
        "sluice_spans_lost_total",
        Kind::Counter,
        "Spans that found no room, or that the collector did not take.",
        |it| it.turns.spans_lost_total,
    );
    family(
        "sluice_spans_exported_total",
        Kind::Counter,
        "Spans that the collector took.",
        |it| it.turns.spans_exported_total,
    );
}

fn memory(out: &mut Exposition, reports: &[Report]) {
    let Some(seen) = reports.first() else { return };
    out.family(
        "sluice_memory_used_bytes",
        Kind::Gauge,
        "Memory of the process as it is held against its limit.",
    )
    .sample(&[], seen.memory_used_bytes);
    out.family(
        "sluice_memory_limit_bytes",
        Kind::Gauge,
        "That limit; 0 when there is none.",
    )
    .sample(&[], seen.memory_limit_bytes);
}

fn packets(out: &mut Exposition, kernel: &[(u32, Reason, u64)], snapshot: &Snapshot) {
    out.family(
        "sluice_bpf_packets_total",
        Kind::Counter,
        "Packets and socket lookups seen by the kernel programs, by reason.",
    );
    for (vip, reason, count) in kernel {
        let labels = [("reason", reason.name())];
        if *vip == gateway_common::abi::NO_VIP {
            let [reason] = labels;
            out.sample(&[("listener", ""), ("address", ""), reason], count);
        } else {
            of_listener(out, snapshot, *vip as usize, &labels, count);
        }
    }
}

/// A sample with a listener's labels; none if the snapshot does not name it.
fn of_listener(
    out: &mut Exposition,
    snapshot: &Snapshot,
    index: usize,
    more: &[(&'static str, &str)],
    value: impl Display,
) {
    let Some(plan) = snapshot.listener(ListenerId(index as u32)) else {
        return;
    };
    let address = plan.bind.to_string();
    let name = plan.names.first().map_or("", |name| name.as_str());
    let mut labels = vec![("listener", name), ("address", address.as_str())];
    labels.extend_from_slice(more);
    out.sample(&labels, value);
}

/// A sample with an endpoint's labels; none if the snapshot does not name it.
fn of_endpoint(
    out: &mut Exposition,
    snapshot: &Snapshot,
    index: usize,
    more: &[(&'static str, &str)],
    value: impl Display,
) {
    let Some(plan) = snapshot.endpoints.get(index).and_then(Option::as_ref) else {
        return;
    };
    let Some(service) = snapshot.service(plan.service) else {
        return;
    };
    let address = plan.addr.to_string();
    let mut labels = vec![
        ("service", service.name.as_str()),
        ("endpoint", plan.name.as_str()),
        ("address", address.as_str()),
    ];
    labels.extend_from_slice(more);
    out.sample(&labels, value);
}
