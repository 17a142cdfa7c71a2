//! `sluice version`.

use super::Output;
use clap::Args;
use serde_json::json;

#[derive(Args, Debug)]
pub struct VersionArgs {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub fn run(args: VersionArgs) -> super::Result {
    let build = crate::kernel::load::build_facts();
    match args.output {
        Output::Table => {
            println!("sluice {} (git {})", env!("CARGO_PKG_VERSION"), build.git);
            println!(
                "bpf object {}",
                build
                    .object
                    .unwrap_or("none: this binary runs with --datapath off only")
            );
        }
        Output::Json | Output::Yaml => println!(
            "{:#}",
            json!({
                "apiVersion": "sluice.dev/v1", "kind": "Version", "version": env!("CARGO_PKG_VERSION"),
                "git": build.git, "bpfObject": build.object,
            })
        ),
    }
    Ok(())
}
