//! Counters as Prometheus reads them.
//!
//! [`render`] is a pure function of what the workers and the kernel counted; names come from the snapshot. Workers count
//! for themselves, so a sum is made here and nowhere else. Ids that the snapshot does not name any more are left out:
//! their labels are gone.

mod asides;
pub mod cluster;
pub mod envoy;
pub mod exposition;
pub mod native;

use crate::telemetry::report::{Refusals, RelayMetrics, Report, TlsMetrics};
use exposition::Exposition;
use gateway_common::abi::Reason;
use gateway_core::snapshot::Snapshot;
use gateway_http::metrics::{EndpointMetrics, ListenerMetrics, Metrics};

/// Everything, in the text format 0.0.4: our own names, then the view for dashboards made for Envoy. `kernel`: packets
/// by VIP (the `ListenerId` of its bind) and reason.
pub fn render(reports: &[Report], kernel: &[(u32, Reason, u64)], snapshot: &Snapshot) -> String {
    let totals = Totals::of(reports);
    let mut out = Exposition::default();
    native::write(&mut out, &totals, reports, kernel, snapshot);
    envoy::write(&mut out, &totals, snapshot);
    out.finish()
}

/// Until when each configured certificate is good, in seconds since 1970; in the text format 0.0.4.
pub fn expiries(certificates: &[(&str, i64)]) -> String {
    let mut out = Exposition::default();
    out.family(
        "sluice_certificate_expiry_timestamp_seconds",
        exposition::Kind::Gauge,
        "When a configured certificate stops being good.",
    );
    for (name, at) in certificates {
        out.sample(&[("certificate", name)], at);
    }
    out.finish()
}

/// The workers' counters added up.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub http: Metrics,
    pub relays: RelayMetrics,
    pub tls: TlsMetrics,
    pub refusals: Refusals,
}

impl Totals {
    pub fn of(reports: &[Report]) -> Self {
        let mut totals = Self::default();
        for report in reports {
            add_http(&mut totals.http, &report.http);
            totals.relays.add(&report.relays);
            totals.tls.add(&report.tls);
            totals.refusals.add(&report.refusals);
        }
        totals
    }
}

fn add_http(sum: &mut Metrics, one: &Metrics) {
    sum.downstream_connections_total += one.downstream_connections_total;
    sum.downstream_connections_active += one.downstream_connections_active;
    sum.upstream_connections_total += one.upstream_connections_total;
    sum.upstream_connections_active += one.upstream_connections_active;
    sum.requests_total += one.requests_total;
    sum.requests_active += one.requests_active;
    add_each(&mut sum.responses, &one.responses);
    add_each(&mut sum.duration, &one.duration);
    sum.duration_us_sum += one.duration_us_sum;
    add_each(&mut sum.faults, &one.faults);
    sum.tunnels_total += one.tunnels_total;
    sum.tunnels_active += one.tunnels_active;
    sum.retries_total += one.retries_total;
    add_each(&mut sum.retry.by, &one.retry.by);
    add_each(&mut sum.retry.not, &one.retry.not);
    sum.retry.succeeded += one.retry.succeeded;
    sum.mirrors_total += one.mirrors_total;
    sum.mirrors_dropped_total += one.mirrors_dropped_total;
    sum.mirrors_failed_total += one.mirrors_failed_total;
    sum.auth_allowed_total += one.auth_allowed_total;
    sum.auth_denied_total += one.auth_denied_total;
    sum.auth_failed_total += one.auth_failed_total;
    add_each(&mut sum.auth_unanswered, &one.auth_unanswered);
    sum.grpc.add(&one.grpc);
    sum.keepalive_timeouts_total += one.keepalive_timeouts_total;
    sum.shed_total += one.shed_total;
    sum.held_bytes += one.held_bytes;
    sum.window_growth_bytes += one.window_growth_bytes;
    sum.streams_waiting += one.streams_waiting;
    add_each(&mut sum.floods, &one.floods);
    sum.outcomes_dropped_total += one.outcomes_dropped_total;
    sum.bytes_received += one.bytes_received;
    sum.bytes_sent += one.bytes_sent;
    grow(&mut sum.endpoints, one.endpoints.len());
    for (sum, one) in sum.endpoints.iter_mut().zip(&one.endpoints) {
        add_endpoint(sum, one);
    }
    grow(&mut sum.listeners, one.listeners.len());
    for (sum, one) in sum.listeners.iter_mut().zip(&one.listeners) {
        add_listener(sum, one);
    }
}

fn add_endpoint(sum: &mut EndpointMetrics, one: &EndpointMetrics) {
    sum.requests_total += one.requests_total;
    sum.requests_active += one.requests_active;
    sum.connections_total += one.connections_total;
    sum.connections_active += one.connections_active;
    sum.failures_total += one.failures_total;
    sum.overflows_total += one.overflows_total;
    sum.retries_total += one.retries_total;
    sum.retries_succeeded_total += one.retries_succeeded_total;
    sum.retries_over_budget_total += one.retries_over_budget_total;
    sum.retries_exhausted_total += one.retries_exhausted_total;
    sum.connections_idle += one.connections_idle;
    sum.requests_pending += one.requests_pending;
    add_each(&mut sum.responses, &one.responses);
}

fn add_listener(sum: &mut ListenerMetrics, one: &ListenerMetrics) {
    sum.connections_total += one.connections_total;
    sum.connections_active += one.connections_active;
    sum.requests_total += one.requests_total;
    add_each(&mut sum.responses, &one.responses);
}

fn add_each(sum: &mut [u64], one: &[u64]) {
    for (sum, one) in sum.iter_mut().zip(one) {
        *sum += one;
    }
}

fn grow<T: Default + Clone>(list: &mut Vec<T>, len: usize) {
    if list.len() < len {
        list.resize(len, T::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::fault::Refusal;
    use gateway_core::ids::{EndpointId, ListenerId, ServiceId};
    use gateway_core::ir::{Bind, Readiness, Recognise};
    use gateway_core::snapshot::{EndpointPlan, ListenerPlan, Serve, ServicePlan, StreamPlan};

    fn snapshot() -> Snapshot {
        let listener = ListenerPlan {
            bind: Bind::tcp("192.0.2.1:80".parse().unwrap()),
            names: vec!["default/gw/http".into()],
            why: String::new(),
            exposure: Default::default(),
            serve: Serve::Splice(StreamPlan {
                recognise: Recognise::Nothing,
                rules: vec![],
                by_name: Default::default(),
            }),
        };
        let service = ServicePlan {
            id: ServiceId(0),
            name: "default/echo:80".into(),
            balance: Default::default(),
            turns: vec![EndpointId(0), EndpointId(1)],
            tls: None,
        };
        let endpoint = |id: u32| EndpointPlan {
            id: EndpointId(id),
            service: ServiceId(0),
            name: format!("be{id}").as_str().into(),
            addr: format!("10.0.0.{id}:80").parse().unwrap(),
            readiness: Readiness::Serving,
        };
        Snapshot {
            listeners: vec![Some(listener)],
            services: vec![Some(service)],
            endpoints: vec![Some(endpoint(0)), Some(endpoint(1))],
            ..Snapshot::default()
        }
    }

    fn reports() -> Vec<Report> {
        let mut reports = vec![
            Report::default(),
            Report {
                worker: 1,
                ..Report::default()
            },
        ];
        for (report, counts) in reports.iter_mut().zip([[30, 10], [10, 30]]) {
            report.http.requests_total = 40;
            report.http.duration[3] = 40;
            report.http.duration_us_sum = 20_000;
            report.http.endpoints = counts
                .map(|n| EndpointMetrics {
                    requests_total: n,
                    responses: [0, 0, n, 0, 0, 0],
                    ..Default::default()
                })
                .to_vec();
            report.http.listeners = vec![ListenerMetrics {
                connections_active: 2,
                requests_total: 40,
                ..Default::default()
            }];
            report.refusals.count(Refusal::NotTls);
            report.relays.listener(ListenerId(0)).bytes_up = 5;
            report.turns.polls_total = 7;
        }
        reports
    }

    /// Lines that begin with `name`.
    #[track_caller]
    fn check(text: &str, line: &str) {
        let name = line.split(['{', ' ']).next().unwrap();
        let near: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert!(near.contains(&line), "not there: {line}\nbut: {near:#?}");
    }

    #[test]
    fn workers_are_added_up_and_named() {
        let kernel = [
            (0, Reason::Forwarded, 9),
            (gateway_common::abi::NO_VIP, Reason::NotOurs, 4),
        ];
        let text = render(&reports(), &kernel, &snapshot());
        let listener = r#"listener="default/gw/http",address="tcp://192.0.2.1:80""#;
        check(&text, &format!("sluice_http_requests_total{{{listener}}} 80"));
        check(
            &text,
            r#"sluice_endpoint_requests_total{service="default/echo:80",endpoint="be0",address="10.0.0.0:80"} 40"#,
        );
        check(&text, r#"sluice_fairness_jain{service="default/echo:80"} 1"#);
        check(&text, r#"sluice_refusals_total{reason="not_tls"} 2"#);
        check(
            &text,
            &format!("sluice_relay_bytes_total{{{listener},direction=\"up\"}} 10"),
        );
        check(&text, r#"sluice_worker_polls_total{worker="1"} 7"#);
        check(
            &text,
            &format!("sluice_bpf_packets_total{{{listener},reason=\"forwarded\"}} 9"),
        );
        check(
            &text,
            r#"sluice_bpf_packets_total{listener="",address="",reason="not_ours"} 4"#,
        );
        check(&text, r#"sluice_http_request_duration_seconds_bucket{le="0.0005"} 0"#);
        check(&text, r#"sluice_http_request_duration_seconds_bucket{le="0.001"} 80"#);
        check(&text, r#"sluice_http_request_duration_seconds_bucket{le="+Inf"} 80"#);
        check(&text, "sluice_http_request_duration_seconds_sum 0.04");
        check(&text, "sluice_http_request_duration_seconds_count 80");
    }

    #[test]
    fn dashboards_made_for_envoy_find_their_names() {
        let text = render(&reports(), &[], &snapshot());
        check(
            &text,
            r#"envoy_cluster_upstream_rq_total{envoy_cluster_name="default/echo:80"} 80"#,
        );
        check(
            &text,
            r#"envoy_cluster_upstream_rq_xx{envoy_cluster_name="default/echo:80",envoy_response_code_class="2"} 80"#,
        );
        check(
            &text,
            r#"envoy_cluster_membership_total{envoy_cluster_name="default/echo:80"} 2"#,
        );
        check(
            &text,
            r#"envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="default/gw/http"} 80"#,
        );
        check(
            &text,
            r#"envoy_listener_downstream_cx_active{envoy_listener_address="192.0.2.1_80"} 4"#,
        );
        check(&text, "envoy_server_live 1");
    }

    #[test]
    fn every_family_is_declared_once_and_before_its_samples() {
        let text = render(&reports(), &[], &snapshot());
        let mut declared = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(!declared.contains(&name), "{name} twice");
                declared.push(name);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let family = *declared.last().unwrap();
                assert!(name.strip_prefix(family).is_some(), "{name} under {family}");
            }
        }
    }
}
