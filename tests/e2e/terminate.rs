//! TLS that ends at the gateway and is relayed, with certificates, clients and endpoints that others wrote.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, python, repository, run, sluice, wait_for};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The endpoints of `clients/terminate.py`, in the first backend's namespace; they end with the value.
struct Endpoints(Child);

impl Drop for Endpoints {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Terminated, mixed on one port with passthrough and HTTPS, encrypted again, with client certificates, half-closed, in
/// bulk, and while a certificate is renewed.
pub fn relayed(datapath: &str) -> Result<()> {
    let script = repository().join("tests/e2e/clients/terminate.py").canonicalize()?;
    let script = script.display().to_string();
    let folder = Lab::file("terminate").display().to_string();
    let mut make = Command::new(python());
    make.args([script.as_str(), "make", folder.as_str()]);
    run(make, Duration::from_secs(60)).context("certificates and configuration")?;
    let ready = Lab::file("terminate/ready");
    let child = Command::new(sluice())
        .args(["lab", "exec", "sluice-be1", "--"])
        .arg(python())
        .args([script.as_str(), "serve", folder.as_str()])
        .stdin(Stdio::piped())
        .stdout(File::create(&ready)?)
        .spawn()
        .context("start the endpoints")?;
    let _endpoints = Endpoints(child);
    wait_for("the endpoints listen", Duration::from_secs(10), || {
        Ok(!std::fs::read_to_string(&ready)?.is_empty())
    })?;
    let yaml = std::fs::read_to_string(Lab::file("terminate/config.yaml"))?;
    let gateway = Gateway::start_with(datapath, &yaml, &[])?;
    let config = gateway.config.display().to_string();
    let args = [script.as_str(), "ask", &folder, "198.18.0.10", &config, "20000000"];
    let told = client_text(python(), &args, Duration::from_secs(120))
        .with_context(|| format!("rows that do not hold\n{}", log_tail()))?;
    println!("    {told}");
    let told: serde_json::Value = serde_json::from_str(&told)?;
    ensure!(told["held"].as_u64() >= Some(20), "{told}");
    Ok(())
}
