//! Failed attempts that are followed by others, timeouts and sessions, with nginx, Python, curl and h2load.

use anyhow::Result;
use gateway_tests::lab::Lab;
use gateway_tests::shell::{alone, holds};
use std::time::Duration;

/// `clients/retries.py`.
pub fn retries(_datapath: &str) -> Result<()> {
    let mut command = alone("retries.py")?;
    command.arg(Lab::file("retries"));
    holds(command, 30, Duration::from_secs(60))
}
