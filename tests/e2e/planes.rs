//! Which plane carries what, and that one can see it.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::shell::{client_text, in_client, python, repository, sluice, wait_for};
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

const L4: &str = "tcp://198.18.0.10:50051";
const L7: &str = "tcp://198.18.0.10:50052";

fn load(target: &str, requests: &str, connections: &str) -> Result<Value> {
    let args = [
        "lab",
        "load",
        "--target",
        target,
        "--requests",
        requests,
        "--connections",
        connections,
    ];
    let text = client_text(sluice(), &args, Duration::from_secs(60)).with_context(log_tail)?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

fn counts(result: &Value) -> Vec<u64> {
    result["perEndpoint"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, count)| count.as_u64())
        .collect()
}

pub fn fairness(datapath: &str) -> Result<()> {
    let gateway = Gateway::start(datapath)?;
    for vip in ["198.18.0.10", "[2001:2::a]"] {
        let l4 = load(&format!("{vip}:50051"), "400", "1")?;
        ensure!(l4["failed"] == 0 && counts(&l4) == [400], "{vip}: {l4}");
        let l7 = load(&format!("{vip}:50052"), "400", "1")?;
        ensure!(l7["failed"] == 0 && counts(&l7) == [100, 100, 100, 100], "{vip}: {l7}");
    }
    let fairness = gateway.json("/api/v1/fairness")?;
    let http = fairness["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|item| item["plane"] == "http");
    ensure!(http.is_some_and(|item| item["jain"] == 1.0), "{fairness}");
    if datapath != "off" {
        ensure!(
            gateway.verdicts(L7, "assigned")? >= 1,
            "the connection was handed over by sk_lookup"
        );
    }
    Ok(())
}

pub fn packets_stay(datapath: &str) -> Result<()> {
    let gateway = Gateway::start(datapath)?;
    let result = load("198.18.0.10:50051", "2000", "8")?;
    ensure!(result["failed"] == 0, "{result}");
    let (forwarded, returned) = (gateway.verdicts(L4, "forwarded")?, gateway.verdicts(L4, "returned")?);
    ensure!(
        forwarded >= 200 && returned >= 200,
        "forwarded {forwarded}, returned {returned}"
    );
    ensure!(gateway.verdicts(L4, "assigned")? == 0, "no socket of ours was involved");
    Ok(())
}

/// Eight streams on one L7 connection and two L4 connections are open: the admin shows each where it is.
pub fn seen(datapath: &str) -> Result<()> {
    let gateway = Gateway::start(datapath)?;
    let script = repository()
        .join("tests/e2e/clients/streams.py")
        .canonicalize()?
        .display()
        .to_string();
    let start = |args: &[&str]| {
        in_client(python(), args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    };
    let mut l7 = start(&[&script, "198.18.0.10:50052", "8", "6"])?;
    let mut l4 = start(&[&script, "198.18.0.10:50051", "2", "6", "connections"])?;
    let l4_plane = if matches!(datapath, "tcx" | "xdp") {
        "kernel"
    } else {
        "splice"
    };
    let outcome = wait_for(
        "the admin shows 8 streams over 4 endpoints and both planes",
        Duration::from_secs(5),
        || {
            let streams = gateway.json("/api/v1/streams")?;
            let items = streams["items"].as_array().cloned().unwrap_or_default();
            let endpoints: std::collections::BTreeSet<String> =
                items.iter().map(|item| item["endpoint"].to_string()).collect();
            let connections = gateway.json("/api/v1/connections")?;
            let of = |bind: &str, plane: &str| {
                let rows = connections["items"].as_array().into_iter().flatten();
                rows.filter(|row| row["listener"] == bind && row["plane"] == plane && row["side"] == "downstream")
                    .count()
            };
            Ok(items.len() == 8 && endpoints.len() == 4 && of(L7, "http") == 1 && of(L4, l4_plane) == 2)
        },
    );
    let shown = || {
        format!(
            "{}\n{}",
            gateway.get("/api/v1/connections").unwrap_or_default(),
            log_tail()
        )
    };
    let outcome = outcome.with_context(shown);
    for child in [&mut l7, &mut l4] {
        let _ = child.kill();
        child.wait()?;
    }
    outcome
}

/// 200 MB each way through both planes; the client compares every byte.
pub fn bulk(datapath: &str) -> Result<()> {
    let _gateway = Gateway::start(datapath)?;
    let script = repository()
        .join("tests/e2e/clients/bulk.py")
        .canonicalize()?
        .display()
        .to_string();
    for target in ["198.18.0.10:50051", "[2001:2::a]:50051", "198.18.0.10:50052"] {
        client_text(python(), &[&script, target, "200"], Duration::from_secs(120)).with_context(log_tail)?;
    }
    Ok(())
}
