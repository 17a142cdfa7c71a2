//! Instructions and stack of each program, against `gateway-ebpf/budget.toml`.

use crate::loaded::{self, Loaded};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::process::Command;

/// Name of a number, and the number.
type Numbers = BTreeMap<String, u32>;

pub fn programs_stay_within_their_budget(_: &mut Loaded) -> Result<()> {
    let budget = parse(include_str!("../../gateway-ebpf/budget.toml"))?;
    let measured = measure()?;
    ensure!(
        budget.keys().eq(measured.keys()),
        "budget for {:?}, programs {:?}",
        budget.keys(),
        measured.keys()
    );
    for (program, most) in &budget {
        for (what, most) in most {
            let name = what.strip_suffix("_max").context("a budget is a maximum")?;
            let now = *measured[program]
                .get(name)
                .with_context(|| format!("{name} is not measured"))?;
            println!("    {program} {name} {now} of {most}");
            ensure!(now <= *most, "{program}: {name} is {now}, the budget {most}");
            ensure!(
                now * 2 > *most,
                "{program}: {name} is {now}: tighten the budget of {most}"
            );
        }
    }
    Ok(())
}

/// From the verifier's own words, which bpftool shows.
fn measure() -> Result<BTreeMap<String, Numbers>> {
    const PINS: &str = "/sys/fs/bpf/slk-budget";
    let object = loaded::object_path();
    let out = Command::new("bpftool")
        .args(["-d", "prog", "loadall"])
        .arg(&object)
        .arg(PINS)
        .output();
    let out = out.context("bpftool shows the stack's depth: install it (Debian: apt-get install bpftool)")?;
    // Nothing else is below: the pins are this function's own.
    let _ = std::fs::remove_dir_all(PINS);
    let text = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        bail!("bpftool: {}", text.lines().last().unwrap_or("no reason"));
    }
    let mut measured: BTreeMap<String, Numbers> = BTreeMap::new();
    let mut program = None;
    for line in text.lines() {
        if let Some((name, _)) = line
            .strip_prefix("libbpf: prog '")
            .and_then(|rest| rest.split_once("': -- BEGIN"))
        {
            program = Some(measured.entry(name.to_owned()).or_default());
        }
        let Some(numbers) = &mut program else { continue };
        if let Some(depth) = line.strip_prefix("stack depth ") {
            // One figure a subprogram, joined by "+".
            let deepest = depth
                .split('+')
                .map(|depth| depth.trim().parse::<u32>())
                .sum::<Result<u32, _>>()?;
            numbers.insert("stack_bytes".into(), deepest);
        }
        if let Some((insns, _)) = line
            .strip_prefix("processed ")
            .and_then(|rest| rest.split_once(" insns"))
        {
            numbers.insert("insns".into(), insns.parse()?);
        }
    }
    Ok(measured)
}

fn parse(text: &str) -> Result<BTreeMap<String, Numbers>> {
    let mut budget: BTreeMap<String, Numbers> = BTreeMap::new();
    let mut program = String::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix("[bpf.").and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut program);
            continue;
        }
        let (what, most) = line.split_once(" = ").with_context(|| format!("budget.toml: {line}"))?;
        budget
            .entry(program.clone())
            .or_default()
            .insert(what.to_owned(), most.parse()?);
    }
    Ok(budget)
}
