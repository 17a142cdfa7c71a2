//! `sluice status`: what runs, on which plane, what is degraded and why.

use super::Output;
use super::client::{AdminArgs, ask};
use super::exit::{Code, Exit};
use super::get::cell;
use super::table::Table;
use crate::settings::duration;
use clap::Args;
use serde_json::Value;
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Wait until the gateway is ready (30s unless a duration is given).
    #[arg(long, value_name = "DUR", num_args = 0..=1, require_equals = true, default_missing_value = "30s", value_parser = duration)]
    wait: Option<Duration>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Between two askings of `--wait`.
const WAIT_STEP: Duration = Duration::from_millis(100);

pub fn run(args: StatusArgs) -> super::Result {
    let give_up = args.wait.map(|limit| Instant::now() + limit);
    let status = loop {
        let answer = ask(&args.admin, "/api/v1/status");
        let ready = answer.as_ref().is_ok_and(|status| status["ready"] == true);
        match give_up {
            Some(when) if !ready && Instant::now() < when => std::thread::sleep(WAIT_STEP),
            Some(_) if !ready => {
                return Err(answer
                    .err()
                    .unwrap_or_else(|| Exit::new(Code::Failed, "not ready in time")));
            }
            _ => break answer?,
        }
    };
    match args.output {
        Output::Table => print!("{}", text(&status)),
        Output::Json | Output::Yaml => println!("{status:#}"),
    }
    Ok(())
}

fn text(status: &Value) -> String {
    let datapath = &status["datapath"];
    let mut page = format!(
        "sluice {}   ready {}   revision {}   workers {}   up {} s\npackets: {}   sockets: {}\n",
        cell(&status["version"]),
        cell(&status["ready"]),
        cell(&status["revision"]),
        cell(&status["workers"]),
        cell(&status["uptimeSeconds"]),
        cell(&datapath["ingress"]),
        if datapath["lookup"] == true { "sk_lookup" } else { "own" },
    );
    for reason in datapath["reasons"].as_array().map(Vec::as_slice).unwrap_or_default() {
        page.push_str(&format!("  degraded: {}\n", cell(reason)));
    }
    let mut table = Table::new(&["BIND", "PLANE", "PROGRAMMED", "WHY"]);
    for listener in status["listeners"].as_array().map(Vec::as_slice).unwrap_or_default() {
        table.row(["bind", "plane", "programmed", "why"].map(|key| cell(&listener[key])));
    }
    page.push('\n');
    page.push_str(&table.render());
    let diagnostics = status["diagnostics"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !diagnostics.is_empty() {
        page.push('\n');
        for diagnostic in diagnostics {
            page.push_str(&format!("{}\n", cell(diagnostic)));
        }
    }
    page
}
