//! Tunnels: WebSocket over HTTP/1.1 and HTTP/2, other upgrades and CONNECT, with clients and endpoints that others wrote.

use anyhow::Result;
use gateway_tests::lab::Lab;
use gateway_tests::shell::{alone, holds};
use std::time::Duration;

/// `clients/websocket.py`.
pub fn websocket(_datapath: &str) -> Result<()> {
    let mut command = alone("websocket.py")?;
    command.arg(Lab::file("tunnels"));
    // Four kinds of connections to two kinds of endpoints.
    holds(command, 1200, Duration::from_secs(90))
}
