//! A gateway process in the laboratory's gateway namespace, and questions to its admin.

use crate::lab::Lab;
use crate::shell::{sluice, wait_for};
use anyhow::{Context, Result, bail};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::Value;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Pins of the gateways under test.
pub const PINS: &str = "/sys/fs/bpf/sluice-test";
const INTERFACES: [&str; 5] = ["client", "be1", "be2", "be3", "be4"];

/// A running gateway, which may hand over from process to process; killed on drop if it was not stopped.
pub struct Gateway {
    child: Child,
    /// Of the process that serves now.
    pid: u32,
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
        Self::start_program(&sluice(), datapath, yaml, more)
    }

    /// The same with a copy of the binary that a test may replace.
    pub fn start_program(program: &Path, datapath: &str, yaml: &str, more: &[&str]) -> Result<Self> {
        // Successors outlive the process that started them: they come to us.
        nix::sys::prctl::set_child_subreaper(true)?;
        let config = Lab::file("test.yaml");
        write(&config, yaml)?;
        let admin = Lab::file("test-admin.sock");
        let _ = std::fs::remove_file(&admin);
        let log = File::create(Lab::file("test-gateway.log"))?;
        let mut command = Command::new(sluice());
        command.args(["lab", "exec", "sluice-gw", "--"]).arg(program).arg("run");
        command.arg("-f").arg(&config).arg("-f").arg(Lab::file("lab-tls.yaml"));
        command
            .arg(format!("--datapath={datapath}"))
            .arg(format!("--pin-dir={PINS}"))
            .arg(format!("--state-dir={}", Lab::file("state").display()));
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
            pid: child.id(),
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
        self.pid
    }

    /// SIGUSR2, and the wait for the process that serves then.
    pub fn upgrade(&mut self) -> Result<()> {
        self.signal(nix::sys::signal::Signal::SIGUSR2)?;
        self.succeeded(Duration::from_secs(20))
    }

    /// Waits until another process answers.
    pub fn succeeded(&mut self, limit: Duration) -> Result<()> {
        let before = self.pid;
        wait_for("a successor serves", limit, || {
            match self.serving() {
                Ok(pid) => self.pid = pid,
                // It is the traffic that must not notice; who asks the admin may ask again.
                Err(error) => println!("     the admin did not answer: {error:#}"),
            }
            Ok(self.pid != before)
        })
        .with_context(log_tail)
    }

    /// The process that answers the admin.
    pub fn serving(&self) -> Result<u32> {
        let status = self.json("/api/v1/status")?;
        u32::try_from(status["pid"].as_u64().unwrap_or(0)).context("a pid")
    }

    /// How the process that serves ended, if it did.
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.pid == self.child.id() {
            return Ok(self.child.try_wait()?);
        }
        let pid = nix::unistd::Pid::from_raw(self.pid.cast_signed());
        Ok(match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw(code << 8)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::from_raw(signal as i32)),
            Ok(_) => None,
            // Its predecessor, which still drains, is its parent.
            Err(nix::errno::Errno::ECHILD) if self.parent().is_some() => None,
            Err(error) => return Err(error.into()),
        })
    }

    /// Parent of the process that serves.
    fn parent(&self) -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        line.trim().parse().ok()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid.cast_signed()), signal)?;
        Ok(())
    }

    /// SIGKILL: nothing is cleaned up.
    pub fn kill(mut self) -> Result<()> {
        self.signal(nix::sys::signal::Signal::SIGKILL)?;
        wait_for("the gateway ends", Duration::from_secs(5), || {
            Ok(self.ended()?.is_some())
        })
    }

    /// SIGTERM, and the end within `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        // Until its predecessors have drained, a successor is their child, and its end theirs to see.
        wait_for("the predecessors end", limit, || {
            Ok(self.parent() == Some(std::process::id()))
        })?;
        self.signal(nix::sys::signal::Signal::SIGTERM)?;
        let mut status = None;
        wait_for("the gateway ends", limit, || {
            status = self.ended()?;
            Ok(status.is_some())
        })?;
        status.context("it ended")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // A test that failed in the middle of a hand-over may not know who serves.
        self.pid = self.serving().unwrap_or(self.pid);
        if self.ended().is_ok_and(|status| status.is_none()) {
            // Asked first, so that pins and links go; a test that needs a crash calls `kill`.
            let _ = self.signal(nix::sys::signal::Signal::SIGINT);
            let gone = wait_for("the gateway ends", Duration::from_secs(5), || {
                Ok(self.ended()?.is_some())
            });
            if gone.is_err() {
                let _ = self.signal(nix::sys::signal::Signal::SIGKILL);
                let _ = wait_for("the gateway ends", Duration::from_secs(5), || {
                    Ok(self.ended()?.is_some())
                });
            }
        }
        // A first process that still drains.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
