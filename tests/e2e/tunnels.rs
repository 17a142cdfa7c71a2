//! Tunnels: WebSocket over HTTP/1.1 and HTTP/2, other upgrades and CONNECT, with clients and endpoints that others wrote.

use anyhow::{Context, Result, ensure};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{python, repository, run, sluice};
use std::process::Command;
use std::time::Duration;

/// `clients/websocket.py`, in a namespace of its own, on loopback.
pub fn websocket(_datapath: &str) -> Result<()> {
    let script = repository().join("tests/e2e/clients/websocket.py").canonicalize()?;
    let mut command = Command::new("unshare");
    command
        .args(["-n", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(python())
        .arg(script)
        .arg(sluice().canonicalize()?)
        .arg(Lab::file("tunnels"));
    let output = run(command, Duration::from_secs(90)).context("tunnels that do not hold")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    println!("    {text}");
    let told: serde_json::Value = serde_json::from_str(&text)?;
    // Not fewer than there are, in four kinds of connections to two kinds of endpoints.
    ensure!(told["held"].as_u64() >= Some(1200), "{text}");
    Ok(())
}
