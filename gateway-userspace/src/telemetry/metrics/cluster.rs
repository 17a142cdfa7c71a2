//! The cluster source's figures as Prometheus reads them.

use super::exposition::{Exposition, Kind};
use crate::telemetry::cluster::{APPLY_BUCKETS, ClusterFacts, WriteFailure};
use std::sync::atomic::{AtomicU64, Ordering};

/// In the text format 0.0.4.
pub fn render(facts: &ClusterFacts) -> String {
    let mut out = Exposition::default();
    let said = facts.said();
    let gauges = [
        (
            "sluice_cluster_reachable",
            "Whether the API server answers.",
            facts.reachable().0,
        ),
        (
            "sluice_cluster_complete",
            "Whether every watch had its whole list.",
            facts.complete(),
        ),
        (
            "sluice_cluster_leader",
            "Whether this process writes statuses.",
            facts.leader(),
        ),
    ];
    for (name, help, holds) in gauges {
        out.family(name, Kind::Gauge, help).sample(&[], u8::from(holds));
    }
    let help = "When the API server was last found reachable or not after the other, in seconds since 1970.";
    let since = facts.reachable().1 as f64 / 1e3;
    out.family("sluice_cluster_reachable_changed_timestamp_seconds", Kind::Gauge, help)
        .sample(&[], since);
    out.family(
        "sluice_cluster_objects",
        Kind::Gauge,
        "Objects of the cluster that are held, by kind.",
    );
    for (kind, count) in &said.objects {
        out.sample(&[("kind", kind)], count);
    }
    out.family(
        "sluice_cluster_watches_refused",
        Kind::Gauge,
        "Watches that the API server refuses.",
    )
    .sample(&[], said.refused.len());
    let counters: [(&'static str, &str, &AtomicU64); 5] = [
        ("sluice_cluster_watches_total", "Watches begun.", &facts.watch_starts),
        (
            "sluice_cluster_watch_errors_total",
            "Watches that ended in an error and were begun again.",
            &facts.watch_errors,
        ),
        ("sluice_cluster_lists_total", "Whole lists read.", &facts.lists),
        (
            "sluice_cluster_events_total",
            "Changes that watches showed.",
            &facts.events,
        ),
        (
            "sluice_cluster_status_writes_total",
            "Statuses written.",
            &facts.status_writes,
        ),
    ];
    for (name, help, counter) in counters {
        out.family(name, Kind::Counter, help)
            .sample(&[], counter.load(Ordering::Relaxed));
    }
    out.family(
        "sluice_cluster_status_failures_total",
        Kind::Counter,
        "Tries to write a status that failed, by reason.",
    );
    for failure in WriteFailure::ALL {
        out.sample(&[("reason", failure.name())], facts.failures(failure));
    }
    let (counts, sum) = facts.applied();
    let help = "From a change that a watch showed to its revision in every worker.";
    out.family("sluice_cluster_apply_seconds", Kind::Histogram, help)
        .histogram(&[], APPLY_BUCKETS.into_iter(), &counts, sum);
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_figure_has_its_family_and_value() {
        let facts = ClusterFacts::default();
        facts.set_reachable(true, None);
        facts.say(|said| said.objects = vec![("Gateway", 3)]);
        facts.count_failure(WriteFailure::Conflict);
        facts.count_applied(Duration::from_millis(7));
        let text = render(&facts);
        for line in [
            "sluice_cluster_reachable 1",
            "sluice_cluster_leader 0",
            "sluice_cluster_objects{kind=\"Gateway\"} 3",
            "sluice_cluster_status_failures_total{reason=\"conflict\"} 1",
            "sluice_cluster_apply_seconds_bucket{le=\"0.005\"} 0",
            "sluice_cluster_apply_seconds_bucket{le=\"0.01\"} 1",
            "sluice_cluster_apply_seconds_count 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in:\n{text}");
        }
    }
}
