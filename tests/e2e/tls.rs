//! TLS on both sides, with certificates made by openssl and clients and endpoints that others wrote.

use anyhow::{Context, Result};
use gateway_tests::shell::{client_text, python, repository, sluice};
use std::time::Duration;

/// One part of `clients/tls.py`, which runs a gateway of its own on the loopback of the client's namespace.
fn part(name: &str, factor: &str) -> Result<()> {
    let script = repository().join("tests/e2e/clients/tls.py").canonicalize()?;
    let (script, sluice) = (
        script.display().to_string(),
        sluice().canonicalize()?.display().to_string(),
    );
    let told = client_text(python(), &[&script, &sluice, name, factor], Duration::from_secs(120))
        .with_context(|| format!("rows of {name} that do not hold"))?;
    println!("    {told}");
    Ok(())
}

pub fn clients(_datapath: &str) -> Result<()> {
    part("clients", "1")
}

pub fn upstream(_datapath: &str) -> Result<()> {
    part("upstream", "1")
}

/// A third of what is run by hand.
pub fn rotation(_datapath: &str) -> Result<()> {
    part("rotation", "0.3")
}

pub fn hello(_datapath: &str) -> Result<()> {
    part("hello", "0.5")
}
