//! `sluice doctor`: what this kernel, these capabilities and these devices allow.

use super::Output;
use super::table::Table;
use crate::kernel::features::Features;
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
    let features = Features::detect(&args.interface);
    let rows = [
        ("lookup", "sockets of any address and port (sk_lookup)", &features.lookup),
        ("tcx", "packets forwarded at the traffic control hook", &features.tcx),
        ("xdp", "packets forwarded in the driver", &features.xdp),
    ];
    match args.output {
        Output::Table => {
            println!("kernel {}", features.kernel);
            let mut table = Table::new(&["DATAPATH", "WHAT", "WORKS", "WHY NOT"]);
            for (name, what, works) in rows {
                let why = works.as_ref().err().cloned().unwrap_or_default();
                table.row([name, what, if works.is_ok() { "yes" } else { "no" }, &why].map(str::to_owned));
            }
            table.row(["off", "own sockets, everything relayed or proxied", "yes", ""].map(str::to_owned));
            print!("{}", table.render());
            for note in &features.notes {
                println!("note: {note}");
            }
        }
        Output::Json | Output::Yaml => {
            let row = |works: &Result<(), String>| json!({"works": works.is_ok(), "why": works.as_ref().err()});
            let datapaths: serde_json::Map<_, _> =
                rows.iter().map(|(name, _, works)| ((*name).to_owned(), row(works))).collect();
            println!(
                "{:#}",
                json!({
                    "apiVersion": "sluice.dev/v1", "kind": "DoctorReport", "kernel": features.kernel,
                    "datapaths": datapaths, "notes": features.notes,
                })
            );
        }
    }
    Ok(())
}
