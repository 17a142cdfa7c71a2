//! A gateway process in the laboratory's gateway namespace, and questions to its admin.

use crate::lab::Lab;
use crate::shell::{sluice, wait_for};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Pins of the gateways under test.
pub const PINS: &str = "/sys/fs/bpf/sluice-test";
const INTERFACES: [&str; 5] = ["client", "be1", "be2", "be3", "be4"];

/// A running gateway; killed on drop if it was not stopped.
pub struct Gateway {
    child: Child,
    pub config: PathBuf,
    admin: PathBuf,
    /// From its start to its readiness.
    pub started_in: Duration,
}

impl Gateway {
    /// Runs the quickstart configuration on `datapath` and waits until it is ready.
    pub fn start(datapath: &str) -> Result<Self> {
        let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
        Self::start_with(datapath, &quickstart, &[])
    }

    /// Runs `yaml` (and the laboratory's Secret) with further arguments.
    pub fn start_with(datapath: &str, yaml: &str, more: &[&str]) -> Result<Self> {
        let config = Lab::file("test.yaml");
        write(&config, yaml)?;
        let admin = Lab::file("test-admin.sock");
        let _ = std::fs::remove_file(&admin);
        let log = File::create(Lab::file("test-gateway.log"))?;
        let mut command = Command::new(sluice());
        command
            .args(["lab", "exec", "sluice-gw", "--"])
            .arg(sluice())
            .arg("run");
        command.arg("-f").arg(&config).arg("-f").arg(Lab::file("lab-tls.yaml"));
        command
            .arg(format!("--datapath={datapath}"))
            .arg(format!("--pin-dir={PINS}"));
        command
            .arg(format!("--admin=unix:{}", admin.display()))
            .arg("--set=accessLog=off");
        command
            .args(INTERFACES.map(|name| format!("--interface={name}")))
            .args(more);
        let began = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start sluice")?;
        let mut gateway = Self {
            child,
            config,
            admin,
            started_in: Duration::ZERO,
        };
        let ready = wait_for("the gateway is ready", Duration::from_secs(20), || {
            if let Some(status) = gateway.child.try_wait()? {
                bail!("the gateway ended with {status}");
            }
            Ok(gateway.get("/ready").is_ok())
        });
        ready.with_context(log_tail)?;
        gateway.started_in = began.elapsed();
        Ok(gateway)
    }

    /// Body of a GET from its admin, by curl.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut command = Command::new("curl");
        command
            .args(["-sSf", "-m", "5", "--unix-socket"])
            .arg(&self.admin)
            .arg(format!("http://localhost{path}"));
        let output = command.output().context("run curl")?;
        if !output.status.success() {
            bail!("GET {path}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn json(&self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.get(path)?).with_context(|| format!("the answer to {path}"))
    }

    /// Packets (or sockets) of one listener that ended for `reason`.
    pub fn verdicts(&self, bind: &str, reason: &str) -> Result<u64> {
        let kernel = self.json("/api/v1/kernel")?;
        let rows = kernel["counters"].as_array().cloned().unwrap_or_default();
        let row = rows
            .iter()
            .find(|row| row["listener"] == bind && row["reason"] == reason);
        Ok(row.and_then(|row| row["packets"].as_u64()).unwrap_or(0))
    }

    pub fn revision(&self) -> Result<u64> {
        Ok(self.json("/api/v1/revisions")?["current"].as_u64().unwrap_or(0))
    }

    /// Replaces the configuration as an editor or the kubelet would: by rename.
    pub fn configure(&self, yaml: &str) -> Result<()> {
        write(&self.config, yaml)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), signal)?;
        Ok(())
    }

    /// SIGKILL: nothing is cleaned up.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and the end within `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(nix::sys::signal::Signal::SIGTERM)?;
        let mut status = None;
        wait_for("the gateway ends", limit, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        status.context("it ended")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // Asked first, so that pins and links go; a test that needs a crash calls `kill`.
            let _ = self.signal(nix::sys::signal::Signal::SIGINT);
            let gone = wait_for("the gateway ends", Duration::from_secs(5), || {
                Ok(self.child.try_wait()?.is_some())
            });
            if gone.is_err() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path).with_context(|| format!("write {}", path.display()))
}

/// The end of the gateway's log.
pub fn log_tail() -> String {
    let text = std::fs::read_to_string(Lab::file("test-gateway.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!(
        "log of the gateway:\n{}",
        lines[lines.len().saturating_sub(20)..].join("\n")
    )
}
