//! The tables of smuggling and of paths over real sockets: the binary in front of a real nginx and a real Python server.

use anyhow::{Context, Result, ensure};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{alone, repository, run};
use std::time::Duration;

/// Every row of `gateway-http/tests/desync/fixtures`, counted where it arrives. In a namespace of its own, on loopback.
pub fn tables(_datapath: &str) -> Result<()> {
    let fixtures = repository().join("gateway-http/tests/desync/fixtures").canonicalize()?;
    let mut command = alone("desync.py")?;
    command.arg(fixtures).arg(Lab::file("desync"));
    let output = run(command, Duration::from_secs(60)).context("the tables over real sockets")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Not fewer than there are rows: 100 requests to two servers, 145 targets through six listeners.
    for (what, least) in [("ok smuggling ", 200), ("ok paths ", 700)] {
        let count = text.lines().find_map(|line| line.strip_prefix(what));
        let count: u32 = count.context("a total")?.parse()?;
        ensure!(count >= least, "{what}{count}");
    }
    Ok(())
}
