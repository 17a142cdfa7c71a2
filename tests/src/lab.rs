//! The laboratory, up for as long as the value lives.

use crate::shell::{run, sluice};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Namespaces and backends; removed on drop.
pub struct Lab {
    _up: (),
}

/// Where the laboratory's files are.
pub const STATE: &str = "/run/sluice-lab";

impl Lab {
    /// `xdp`: links prepared for native XDP.
    pub fn up(xdp: bool) -> Result<Self> {
        let mut command = Command::new(sluice());
        command.args(["lab", "up"]).args(xdp.then_some("--xdp"));
        run(command, Duration::from_secs(60)).context("bring the laboratory up")?;
        Ok(Self { _up: () })
    }

    /// A file of the laboratory.
    pub fn file(name: &str) -> PathBuf {
        PathBuf::from(STATE).join(name)
    }

    /// Ends one backend at once, as a crash would.
    pub fn kill_backend(name: &str) -> Result<()> {
        let pid = std::fs::read_to_string(Self::file(&format!("{name}.pid")))?
            .trim()
            .parse()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut command = Command::new(sluice());
        command.args(["lab", "down"]);
        if let Err(error) = run(command, Duration::from_secs(60)) {
            eprintln!("the laboratory did not go down: {error:#}");
        }
    }
}
