//! Rules that ask an authorization service first, with Python, nginx, nghttpd, curl and h2load.

use anyhow::{Context, Result, ensure};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{python, repository, run, sluice};
use std::process::Command;
use std::time::Duration;

/// `clients/guarded.py`, in a namespace of its own, on loopback.
pub fn guarded(_datapath: &str) -> Result<()> {
    let script = repository().join("tests/e2e/clients/guarded.py").canonicalize()?;
    let mut command = Command::new("unshare");
    command
        .args(["-n", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(python())
        .arg(script)
        .arg(sluice().canonicalize()?)
        .arg(Lab::file("guarded"));
    let output = run(command, Duration::from_secs(60)).context("a guard that is not as it should be")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    println!("    {text}");
    let told: serde_json::Value = serde_json::from_str(&text)?;
    // Not fewer than there are.
    ensure!(told["held"].as_u64() >= Some(41), "{text}");
    Ok(())
}
