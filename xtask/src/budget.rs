//! `cargo xtask budget`: user instructions of the HTTP engine for one request, against `gateway-http/budget.toml`.
//!
//! Two runs of different length are counted and their difference divided, so that start-up and warming up are not in
//! the figure. Instructions are counted by callgrind, inside the engine's turns alone: they do not depend on what else
//! the machine does. The kernel programs' budget is a test of its own (`gateway-ebpf/budget.toml`).

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{self, Need};
use crate::shell::{self, Failure, say, words};

const FILE: &str = "gateway-http/budget.toml";
/// What is counted: the one function in which the engine works.
const INSIDE: &str = "*engine_turn*";
/// Rounds of the two runs: warm after the first.
const ROUNDS: [u64; 2] = [100, 200];
/// A budget this much above the figure, percent, is to be tightened.
const SLACK_PERCENT: u64 = 25;

/// One line of the file.
#[derive(Debug, PartialEq, Eq)]
struct Budget {
    cell: String,
    instructions_max: u64,
}

pub fn verb(args: &[String]) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        return Err(Failure::usage(format!("budget takes no arguments, not '{arg}'")));
    }
    setup::ensure(&[Need::Build, Need::Test])?;
    let text = std::fs::read_to_string(shell::root().join(FILE));
    let text = text.map_err(|error| Failure::new(format!("{FILE}: {error}")))?;
    let budgets = parse(&text)?;
    let program = build()?;
    let mut over = Vec::new();
    for budget in &budgets {
        let now = per_request(&program, &budget.cell)?;
        let Budget { cell, instructions_max } = budget;
        println!("{cell}: {now} instructions a request, budget {instructions_max}");
        if now > *instructions_max {
            over.push(format!("{cell}: {now} is over the budget of {instructions_max}"));
        } else if now * (100 + SLACK_PERCENT) / 100 < *instructions_max {
            over.push(format!("{cell}: {now} is far below {instructions_max}: tighten {FILE}"));
        }
    }
    match over.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(over.join("; "))),
    }
}

fn build() -> Result<PathBuf, Failure> {
    let mut command = shell::cargo();
    command.args(words(
        "build --release --package gateway-http --example requests --message-format json-render-diagnostics",
    ));
    say(&shell::line_of(&command));
    let messages = shell::capture(&mut command)?;
    // One JSON object a line; the paths cargo makes hold nothing that would be escaped.
    let path = messages
        .lines()
        .filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next())
        .next_back();
    path.map(PathBuf::from)
        .ok_or_else(|| Failure::new("cargo did not say where the example `requests` is"))
}

fn per_request(program: &Path, cell: &str) -> Result<u64, Failure> {
    let [short, long] = ROUNDS;
    let (few, less) = count(program, cell, short)?;
    let (many, more) = count(program, cell, long)?;
    match many.checked_sub(few) {
        Some(requests) if requests > 0 => Ok(more.saturating_sub(less) / requests),
        Some(_) | None => Err(Failure::new(format!("{cell}: a longer run made no more requests"))),
    }
}

/// Requests made and instructions counted.
fn count(program: &Path, cell: &str, rounds: u64) -> Result<(u64, u64), Failure> {
    let out = shell::root().join(format!("target/budget-{cell}-{rounds}.callgrind"));
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .args(["--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={INSIDE}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([cell, &rounds.to_string()]);
    let said = shell::capture(&mut command)?;
    let requests = said.split(' ').next().and_then(|number| number.parse().ok());
    let profile = std::fs::read_to_string(&out).map_err(|error| Failure::new(format!("{}: {error}", out.display())))?;
    let total = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    let total = total.and_then(|number| number.trim().parse().ok());
    match (requests, total) {
        (Some(requests), Some(total)) if total > 0 => Ok((requests, total)),
        _ => Err(Failure::new(format!(
            "callgrind counted nothing inside {INSIDE}: {said}"
        ))),
    }
}

/// Tables of one number each.
fn parse(text: &str) -> Result<Vec<Budget>, Failure> {
    let mut budgets: Vec<Budget> = Vec::new();
    let mut cell = None;
    for (number, line) in text.lines().enumerate() {
        let wrong = || {
            Failure::new(format!(
                "{FILE}:{}: neither [cell] nor instructions_max = N",
                number + 1
            ))
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            cell = Some(name.to_owned());
            continue;
        }
        let most = line
            .strip_prefix("instructions_max = ")
            .and_then(|most| most.parse().ok());
        let (Some(cell), Some(instructions_max)) = (cell.take(), most) else {
            return Err(wrong());
        };
        budgets.push(Budget { cell, instructions_max });
    }
    match budgets.is_empty() {
        false => Ok(budgets),
        true => Err(Failure::new(format!("{FILE} holds no budget"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_table_of_one_number() {
        let budget = |cell: &str, instructions_max| Budget {
            cell: cell.to_owned(),
            instructions_max,
        };
        let read = parse("# why\n[a]\ninstructions_max = 7\n\n[b]\ninstructions_max = 8\n").expect("well formed");
        assert_eq!(read, [budget("a", 7), budget("b", 8)]);
        for wrong in ["", "[a]\nmax = 1", "instructions_max = 1", "[a]\ninstructions_max = x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
