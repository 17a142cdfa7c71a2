//! The comparison: what the laboratory measured, for people and as `LabReport` JSON.

use serde::Serialize;
use std::collections::BTreeMap;

/// `kind: LabReport`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabReport {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub revision: u64,
    /// Release of the running kernel.
    pub kernel: String,
    pub datapath: DatapathFacts,
    pub runs: Vec<Run>,
}

#[derive(Clone, Debug, Serialize)]
pub struct DatapathFacts {
    /// `tcx`, `xdp`, or `off`.
    pub ingress: String,
    /// Whether `sk_lookup` hands connections over.
    pub lookup: bool,
}

/// One load through one listener.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Who handled the bytes: `kernel`, `splice` or `http`.
    pub plane: String,
    pub listener: &'static str,
    pub connections: u32,
    pub requests: u64,
    pub failed: u64,
    /// As counted by the backends.
    pub per_endpoint: BTreeMap<String, u64>,
    /// Jain's fairness index over the endpoints: 1 is even, 1/n is all on one (Jain, Chiu, Hawe 1984).
    pub jain: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    /// Ingress and reverse verdicts of the VIP and port over the run, from the maps. Only of the kernel plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_packets: Option<u64>,
    /// Sockets assigned by `sk_lookup` over the run. Only of the HTTP plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handoffs: Option<u64>,
}

/// Fairness the HTTP plane has to reach.
const FAIR_MIN: f64 = 0.99;

impl LabReport {
    /// Why the comparison did not come out as it should; empty when it did.
    pub fn shortcomings(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for run in &self.runs {
            let carried: u64 = run.per_endpoint.values().sum();
            if run.failed > 0 {
                wrong.push(format!(
                    "listener {}: {} of {} requests failed",
                    run.listener, run.failed, run.requests
                ));
            }
            if carried == 0 {
                wrong.push(format!("listener {}: no backend answered anything", run.listener));
            }
            if run.listener == "l7" && run.jain < FAIR_MIN {
                wrong.push(format!(
                    "listener l7: fairness {:.3}, at least {FAIR_MIN} expected",
                    run.jain
                ));
            }
        }
        wrong
    }

    /// A page for people.
    pub fn text(&self) -> String {
        let mut page = String::new();
        page.push_str(&format!(
            "\n  The same load twice: one gRPC connection, {} unary calls, four endpoints.\n",
            self.runs.first().map_or(0, |run| run.requests)
        ));
        for run in &self.runs {
            page.push_str(&run.text());
        }
        page.push_str(&format!(
            "\n  kernel {}   packets: {}   sockets: {}   revision {}\n",
            self.kernel,
            self.datapath.ingress,
            if self.datapath.lookup { "sk_lookup" } else { "own" },
            self.revision
        ));
        page
    }
}

impl Run {
    fn text(&self) -> String {
        let (what, why) = match self.listener {
            "l4" => (
                "L4",
                "one connection is one flow: every call on it goes to the same endpoint",
            ),
            _ => (
                "L7",
                "every call is a stream of its own, and each stream picks an endpoint",
            ),
        };
        let mut text = format!(
            "\n  {what}  listener {}, {} plane: {why}\n\n",
            self.listener, self.plane
        );
        let most = self.per_endpoint.values().copied().max().unwrap_or(0).max(1);
        for (endpoint, count) in &self.per_endpoint {
            let bar = "█".repeat(usize::try_from(count * 40 / most).unwrap_or(0));
            text.push_str(&format!("      {endpoint:<4} {count:>6}  {bar}\n"));
        }
        text.push_str(&format!(
            "\n      fairness (Jain) {:.2}   p50 {} us   p99 {} us   failed {}",
            self.jain, self.p50_us, self.p99_us, self.failed
        ));
        if let Some(packets) = self.kernel_packets {
            text.push_str(&format!("   packets in the kernel {packets}"));
        }
        if let Some(handoffs) = self.handoffs {
            text.push_str(&format!("   sockets handed over {handoffs}"));
        }
        text.push('\n');
        text
    }
}
