//! Rules and listeners that ask an authorization service first, with Python, grpcio, nginx, nghttpd, curl and h2load.

use anyhow::Result;
use gateway_tests::lab::Lab;
use gateway_tests::shell::{alone, holds};
use std::time::Duration;

/// `clients/guarded.py`.
pub fn guarded(_datapath: &str) -> Result<()> {
    let mut command = alone("guarded.py")?;
    command.arg(Lab::file("guarded"));
    holds(command, 158, Duration::from_secs(60))
}
