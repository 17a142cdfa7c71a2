//! `sluice check`: what is wrong with configuration files, without applying them.

mod certificates;

use super::Output;
use super::exit::{Code, Exit};
use crate::control::configuration::objects_of;
use crate::source::file::FileSource;
use clap::{Args, ValueEnum};
use gateway_compiler::{Diagnostic, Settings, Severity, compile};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// Where names are taken to lead (RFC 5737).
const ASSUMED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

#[derive(Args, Debug)]
pub struct CheckArgs {
    /// A file, a directory, or - for standard input. May be given more than once.
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// The mildest finding that makes the check fail.
    #[arg(long, value_enum, default_value = "error")]
    fail_on: FailOn,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum FailOn {
    Error,
    Warning,
}

pub fn run(args: CheckArgs) -> super::Result {
    let source = FileSource::new(args.files).map_err(|error| Exit::new(Code::Usage, format!("{error:#}")))?;
    let reading = source.read();
    let unread = reading.problems.clone();
    let (mut objects, _) = objects_of(reading);
    // Nobody is asked here: whether a name resolves is known where it is served.
    let resolved = |name| (name, Ok(vec![IpAddr::from(ASSUMED)]));
    objects.resolve(objects.names_wanted().into_iter().map(resolved).collect());
    let mut compiled = compile(&objects, &Settings::default());
    compiled
        .diagnostics
        .extend(certificates::findings(&compiled.ir, &objects, now_s()));
    compiled.diagnostics.sort();
    let count = |severity| {
        compiled
            .diagnostics
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error) + unread.len(), count(Severity::Warning));
    match args.output {
        Output::Table => {
            unread.iter().for_each(|line| println!("{line}"));
            compiled.diagnostics.iter().for_each(|finding| println!("{finding}"));
            println!(
                "{} objects, {} listeners: {errors} errors, {warnings} warnings",
                objects.len(),
                compiled.ir.listeners.len()
            );
        }
        Output::Json | Output::Yaml => println!(
            "{:#}",
            json!({
                "apiVersion": "sluice.dev/v1", "kind": "CheckReport",
                "objects": objects.len(), "errors": errors, "warnings": warnings, "unreadable": unread,
                "diagnostics": compiled.diagnostics.iter().map(finding).collect::<Vec<_>>(),
            })
        ),
    }
    let failed = errors > 0 || (args.fail_on == FailOn::Warning && warnings > 0);
    if failed {
        Err(Exit::silent(Code::Failed))
    } else {
        Ok(())
    }
}

/// Seconds since 1970.
fn now_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn finding(finding: &Diagnostic) -> Value {
    json!({
        "severity": finding.severity.to_string(),
        "file": finding.position.as_ref().map(|position| position.file.to_string()),
        "line": finding.position.as_ref().map(|position| position.line),
        "column": finding.position.as_ref().map(|position| position.column),
        "object": finding.object.as_ref().map(ToString::to_string),
        "field": finding.field,
        "problem": finding.problem,
        "remedy": finding.remedy,
    })
}
