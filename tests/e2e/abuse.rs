//! Clients that want to harm: floods, slowness, memory.

use anyhow::{Context, Result, ensure};
use gateway_tests::shell::{python, repository, run, sluice};
use std::process::Command;
use std::time::Duration;

/// Every attack of `abuse.py`, against gateways on loopback.
pub fn cut(_datapath: &str) -> Result<()> {
    let script = repository().join("tests/e2e/clients/abuse.py").canonicalize()?;
    let folder = std::env::temp_dir().join(format!("sluice-abuse-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut command = Command::new(python());
    command.arg(script).arg(sluice()).arg(&folder);
    let output = run(command, Duration::from_secs(120));
    if output.is_ok() {
        let _ = std::fs::remove_dir_all(&folder);
    }
    let output = output.with_context(|| format!("logs and configurations are in {}", folder.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(text.trim_end().ends_with("\nok"), "{text}");
    println!("     {} attacks", text.lines().count() - 1);
    Ok(())
}
