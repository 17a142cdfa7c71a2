//! `sluice doctor`: what this kernel, these capabilities and these devices allow.

use super::Output;
use super::table::Table;
use crate::kernel::features::{Fact, Standing, survey};
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct DoctorArgs {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Remove what a killed gateway left: pinned maps and links, local routes.
    #[arg(long)]
    clean: bool,
    /// Interfaces to judge for XDP.
    #[arg(long, env = "SLUICE_INTERFACE", value_delimiter = ',')]
    interface: Vec<String>,
    #[arg(long, env = "SLUICE_PIN_DIR", default_value = "/sys/fs/bpf/sluice")]
    pin_dir: PathBuf,
}

pub fn run(args: DoctorArgs) -> super::Result {
    if args.clean {
        let removed = crate::kernel::clean(&args.pin_dir).context("clean up")?;
        for line in &removed {
            println!("removed {line}");
        }
        if removed.is_empty() {
            println!("nothing to remove under {}", args.pin_dir.display());
        }
        return Ok(());
    }
    let facts = survey(&args.pin_dir, &args.interface);
    let datapaths = ["lookup", "tcx", "xdp"].map(|name| (name, works(&facts, name)));
    match args.output {
        Output::Table => {
            let mut table = Table::new(&["FACT", "STANDS", "DETAIL"]);
            for fact in &facts {
                table.row([fact.name.clone(), fact.standing.name().to_owned(), fact.detail.clone()]);
            }
            print!("{}", table.render());
            let mut table = Table::new(&["DATAPATH", "WORKS", "WHY NOT"]);
            for (name, works) in &datapaths {
                let answer = if works.is_ok() { "yes" } else { "no" };
                table.row([
                    (*name).to_owned(),
                    answer.to_owned(),
                    works.clone().err().unwrap_or_default(),
                ]);
            }
            table.row(["off", "yes", ""].map(str::to_owned));
            print!("\n{}", table.render());
        }
        Output::Json | Output::Yaml => {
            let fact = |fact: &Fact| json!({"name": fact.name, "stands": fact.standing.name(), "detail": fact.detail});
            let row = |works: &Result<(), String>| json!({"works": works.is_ok(), "why": works.as_ref().err()});
            let rows: serde_json::Map<_, _> = datapaths
                .iter()
                .map(|(name, works)| ((*name).to_owned(), row(works)))
                .collect();
            println!(
                "{:#}",
                json!({
                    "apiVersion": "sluice.dev/v1", "kind": "DoctorReport",
                    "facts": facts.iter().map(fact).collect::<Vec<_>>(), "datapaths": rows,
                })
            );
        }
    }
    Ok(())
}

/// Whether everything that a datapath needs is there; else what is not. XDP needs one interface that can.
fn works(facts: &[Fact], datapath: &str) -> Result<(), String> {
    let usable = |fact: &Fact| matches!(fact.standing, Standing::Works | Standing::Limited);
    let mut needs = vec!["object", "bpf", "bpffs", "sk_lookup"];
    if datapath == "tcx" {
        needs.push("tcx");
    }
    for fact in facts {
        if needs.contains(&fact.name.as_str()) && !usable(fact) {
            return Err(format!("{}: {}", fact.name, fact.detail));
        }
    }
    let devices: Vec<&Fact> = facts.iter().filter(|fact| fact.name.starts_with("xdp ")).collect();
    match devices.iter().find(|fact| !usable(fact)) {
        Some(fact) if datapath == "xdp" && devices.iter().all(|fact| !usable(fact)) => {
            Err(format!("{}: {}", fact.name, fact.detail))
        }
        _ => Ok(()),
    }
}
