//! Runs the comparison against a running gateway: counts before, load, counts after.

use super::load::LoadResult;
use super::report::{DatapathFacts, LabReport, Run};
use super::{BACKENDS, CLIENT, PORT_L4, PORT_L7, VIP_V4, place, process};
use anyhow::{Context, Result, bail};
use gateway_core::fairness::jain;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

/// Size of each run.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub requests: u64,
    pub connections: u32,
    pub concurrency: u32,
}

/// What the gateway's admin says, asked by path: the JSON of `/api/v1/...`.
pub type Ask<'a> = &'a dyn Fn(&str) -> Result<Value>;

/// Drives both runs and reports.
pub fn compare(size: Size, ask: Ask<'_>) -> Result<LabReport> {
    let mut runs = Vec::new();
    for (listener, port) in [("l4", PORT_L4), ("l7", PORT_L7)] {
        runs.push(one_run(listener, port, size, ask)?);
    }
    let kernel = ask("/api/v1/kernel")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(LabReport {
        api_version: "sluice.dev/v1",
        kind: "LabReport",
        revision: ask("/api/v1/revisions")?["current"].as_u64().unwrap_or(0),
        kernel: crate::sys::process::kernel_release()?,
        datapath: DatapathFacts {
            ingress: text(&kernel["ingress"]),
            lookup: kernel["lookup"].as_bool().unwrap_or(false),
        },
        runs,
    })
}

fn one_run(listener: &'static str, port: u16, size: Size, ask: Ask<'_>) -> Result<Run> {
    let bind = format!("tcp://{VIP_V4}:{port}");
    let counts_before = backend_counts()?;
    let kernel_before = verdicts(&ask("/api/v1/kernel")?, &bind);
    let result = drive(port, size)?;
    let kernel_after = verdicts(&ask("/api/v1/kernel")?, &bind);
    let counts_after = backend_counts()?;
    let per_endpoint: BTreeMap<String, u64> = counts_after
        .iter()
        .map(|(name, after)| {
            (
                name.clone(),
                after.saturating_sub(*counts_before.get(name).unwrap_or(&0)),
            )
        })
        .collect();
    let gained = |reason: &str| {
        let of = |verdicts: &BTreeMap<String, u64>| verdicts.get(reason).copied().unwrap_or(0);
        of(&kernel_after).saturating_sub(of(&kernel_before))
    };
    let plane = plane_of(&ask("/api/v1/listeners")?, &bind);
    Ok(Run {
        plane,
        listener,
        connections: size.connections,
        requests: size.requests,
        failed: result.failed,
        jain: jain(per_endpoint.values().copied()),
        per_endpoint,
        p50_us: result.p50_us,
        p99_us: result.p99_us,
        kernel_packets: (listener == "l4").then(|| gained("forwarded") + gained("returned")),
        handoffs: (listener == "l7").then(|| gained("assigned")),
    })
}

/// The load runs in the client's namespace, as a process of its own.
fn drive(port: u16, size: Size) -> Result<LoadResult> {
    let args = [
        "lab".to_owned(),
        "load".to_owned(),
        format!("--target={VIP_V4}:{port}"),
        format!("--requests={}", size.requests),
        format!("--connections={}", size.connections),
        format!("--concurrency={}", size.concurrency),
    ];
    let mut command = process::sluice_in(CLIENT, &args)?;
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .context("run the load")?;
    if !output.status.success() {
        bail!(
            "the load on port {port} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("what the load printed")
}

fn backend_counts() -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for backend in BACKENDS {
        let path = place::count_socket(backend.name);
        let mut text = String::new();
        UnixStream::connect(&path)
            .and_then(|mut stream| stream.read_to_string(&mut text))
            .with_context(|| format!("ask {} for its count at {}", backend.name, path.display()))?;
        counts.insert(
            backend.name.to_owned(),
            text.trim().parse().context("a backend's count")?,
        );
    }
    Ok(counts)
}

/// Verdicts of one listener by reason, from `/api/v1/kernel`.
fn verdicts(kernel: &Value, bind: &str) -> BTreeMap<String, u64> {
    let rows = kernel["counters"].as_array().cloned().unwrap_or_default();
    rows.iter()
        .filter(|row| row["listener"] == bind)
        .filter_map(|row| Some((row["reason"].as_str()?.to_owned(), row["packets"].as_u64()?)))
        .collect()
}

fn plane_of(listeners: &Value, bind: &str) -> String {
    let items = listeners["items"].as_array().cloned().unwrap_or_default();
    let found = items.iter().find(|item| item["bind"] == bind);
    found
        .and_then(|item| item["plane"].as_str())
        .unwrap_or("unknown")
        .to_owned()
}
