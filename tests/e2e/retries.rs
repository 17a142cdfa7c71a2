//! Failed attempts that are followed by others, timeouts and sessions, with nginx, Python, curl and h2load.

use anyhow::{Context, Result, ensure};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{python, repository, run, sluice};
use std::process::Command;
use std::time::Duration;

/// `clients/retries.py`, in a namespace of its own, on loopback.
pub fn retries(_datapath: &str) -> Result<()> {
    let script = repository().join("tests/e2e/clients/retries.py").canonicalize()?;
    let mut command = Command::new("unshare");
    command
        .args(["-n", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(python())
        .arg(script)
        .arg(sluice().canonicalize()?)
        .arg(Lab::file("retries"));
    let output = run(command, Duration::from_secs(60)).context("retries that are not as they should be")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    println!("    {text}");
    let told: serde_json::Value = serde_json::from_str(&text)?;
    // Not fewer than there are.
    ensure!(told["held"].as_u64() >= Some(30), "{text}");
    Ok(())
}
