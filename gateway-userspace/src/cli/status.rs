//! `sluice status`: what runs, on which plane, what is degraded and why.

use super::Output;
use super::client::{AdminArgs, ask};
use super::exit::{Code, Exit};
use super::get::cell;
use super::table::Table;
use crate::settings::duration;
use clap::Args;
use serde_json::Value;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    page.push_str(&cluster(&status["cluster"]));
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

/// What is said of the cluster; nothing where none is watched.
fn cluster(cluster: &Value) -> String {
    if cluster.is_null() {
        return String::new();
    }
    let since = cluster["sinceUnixSeconds"].as_f64().unwrap_or_default();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let for_seconds = (now - since).max(0.0);
    let mut page = match (cluster["reachable"] == true, since > 0.0) {
        (_, false) => "cluster: not reached yet".to_owned(),
        (true, true) => format!("cluster: reachable for {for_seconds:.0} s"),
        (false, true) => format!("cluster: NOT REACHABLE for {for_seconds:.0} s"),
    };
    let objects = cluster["objects"].as_object().into_iter().flatten();
    let objects: u64 = objects.filter_map(|(_, count)| count.as_u64()).sum();
    page.push_str(&format!(
        "   objects {objects}   writes statuses {}   status writes {}\n",
        cell(&cluster["leader"]),
        cell(&cluster["statusWrites"])
    ));
    if let Some(trouble) = cluster["trouble"].as_str() {
        page.push_str(&format!("  {trouble}; what was served last is served on\n"));
    }
    if cluster["complete"] != true {
        page.push_str("  its objects are not all read yet: nothing of it is served\n");
    }
    for refused in cluster["refused"].as_array().into_iter().flatten() {
        page.push_str(&format!("  not watched: {}\n", cell(refused)));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_that_is_gone_says_since_when_and_why() {
        assert_eq!(cluster(&Value::Null), "");
        let lost = json!({"reachable": false, "sinceUnixSeconds": 1.0, "trouble": "connection refused", "complete": true,
            "leader": false, "statusWrites": 3, "objects": {"Gateway": 2, "Service": 5}, "refused": ["Secret: 403"]});
        let text = cluster(&lost);
        assert!(text.starts_with("cluster: NOT REACHABLE for "), "{text}");
        assert!(
            text.contains("objects 7   writes statuses no   status writes 3\n  connection refused; what"),
            "{text}"
        );
        assert!(text.ends_with("  not watched: Secret: 403\n"), "{text}");
    }
}
