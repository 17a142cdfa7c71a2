//! `sluice get`: what a running gateway serves, from its admin.

use super::Output;
use super::client::{AdminArgs, ask};
use super::table::Table;
use clap::{Args, ValueEnum};
use serde_json::Value;

#[derive(Args, Debug)]
pub struct GetArgs {
    #[arg(value_enum)]
    what: What,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Listeners,
    Routes,
    Services,
    Endpoints,
    Certificates,
    Kernel,
    Settings,
}

impl What {
    /// Path of the admin, where the rows are in its answer, and the columns: heading and JSON key.
    fn source(self) -> (&'static str, &'static str, &'static [(&'static str, &'static str)]) {
        match self {
            What::Listeners => (
                "/api/v1/listeners",
                "items",
                &[
                    ("BIND", "bind"),
                    ("PLANE", "plane"),
                    ("PROGRAMMED", "programmed"),
                    ("LISTENERS", "names"),
                    ("WHY", "why"),
                ],
            ),
            What::Routes => (
                "/api/v1/routes",
                "items",
                &[
                    ("ROUTE", "name"),
                    ("LISTENER", "listener"),
                    ("HOST", "hostname"),
                    ("MATCH", "matches"),
                    ("TO", "destinations"),
                ],
            ),
            What::Services => (
                "/api/v1/services",
                "items",
                &[
                    ("SERVICE", "name"),
                    ("BALANCE", "balance"),
                    ("ENDPOINTS", "endpointNames"),
                ],
            ),
            What::Endpoints => (
                "/api/v1/endpoints",
                "items",
                &[
                    ("ENDPOINT", "name"),
                    ("ADDRESS", "addr"),
                    ("SERVICE", "service"),
                    ("READINESS", "readiness"),
                    ("REQUESTS", "requests"),
                ],
            ),
            What::Certificates => (
                "/api/v1/certificates",
                "items",
                &[("CERTIFICATE", "name"), ("CHAIN", "chain"), ("LISTENERS", "listeners")],
            ),
            What::Kernel => (
                "/api/v1/kernel",
                "counters",
                &[("LISTENER", "listener"), ("REASON", "reason"), ("PACKETS", "packets")],
            ),
            What::Settings => (
                "/api/v1/settings",
                "items",
                &[
                    ("SETTING", "name"),
                    ("VALUE", "value"),
                    ("DEFAULT", "default"),
                    ("UNIT", "unit"),
                    ("WHAT", "about"),
                ],
            ),
        }
    }
}

pub fn run(args: GetArgs) -> super::Result {
    let (path, rows, columns) = args.what.source();
    let answer = ask(&args.admin, path)?;
    match args.output {
        Output::Json => println!("{answer:#}"),
        Output::Yaml => print!("{}", yaml(&answer, 0)),
        Output::Table => {
            let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
            let mut table = Table::new(&headings);
            for item in answer[rows].as_array().map(Vec::as_slice).unwrap_or_default() {
                table.row(columns.iter().map(|(_, key)| cell(&item[*key])));
            }
            print!("{}", table.render());
        }
    }
    Ok(())
}

/// A JSON value as one cell.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// JSON as block YAML; strings are always quoted, which is valid and never ambiguous.
fn yaml(value: &Value, depth: usize) -> String {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => map
            .iter()
            .map(|(key, inner)| match inner {
                Value::Object(map) if !map.is_empty() => format!("{pad}{key}:\n{}", yaml(inner, depth + 1)),
                Value::Array(items) if !items.is_empty() => format!("{pad}{key}:\n{}", yaml(inner, depth)),
                _ => format!("{pad}{key}: {inner}\n"),
            })
            .collect(),
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .map(|inner| match inner {
                Value::Object(map) if !map.is_empty() => {
                    let block = yaml(inner, depth + 1);
                    format!("{pad}- {}", block.trim_start())
                }
                _ => format!("{pad}- {inner}\n"),
            })
            .collect(),
        _ => format!("{pad}{value}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::yaml;
    use serde_json::json;

    #[test]
    fn json_becomes_block_yaml() {
        let value = json!({"items": [{"a": "x", "b": [1, 2]}], "kind": "List"});
        assert_eq!(
            yaml(&value, 0),
            "items:\n- a: \"x\"\n  b:\n  - 1\n  - 2\nkind: \"List\"\n"
        );
    }
}
