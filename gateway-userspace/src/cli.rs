//! The command line: verbs, flags, exit codes. stdout is the result, stderr the log.
//!
//! Every flag is also `SLUICE_<FLAG>`. `-o json` output carries `"apiVersion": "sluice.dev/v1"` and is stable.

pub mod check;
pub mod client;
pub mod doctor;
pub mod exit;
pub mod get;
pub mod lab;
pub mod log;
#[cfg(test)]
mod packaging;
pub mod run;
pub mod status;
pub mod table;
pub mod version;

use crate::sys::process;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use exit::Exit;
use std::process::ExitCode;

/// An L4/L7 gateway for Linux nodes: eBPF where packets suffice, its own HTTP engine where requests matter.
#[derive(Parser, Debug)]
#[command(name = "sluice", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Run the gateway.
    Run(Box<run::RunArgs>),
    /// Check configuration files without applying them.
    Check(check::CheckArgs),
    /// Show what a running gateway serves.
    Get(get::GetArgs),
    /// What runs, on which plane, what is degraded and why.
    Status(status::StatusArgs),
    /// What this kernel, these capabilities and these devices allow. Changes nothing without --clean.
    Doctor(doctor::DoctorArgs),
    /// The built-in laboratory: client, gateway and four backends in network namespaces.
    Lab(lab::LabArgs),
    /// Print a completion script.
    Completion { shell: clap_complete::Shell },
    /// Print the version, the git revision and the hash of the embedded BPF object.
    Version(version::VersionArgs),
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Output {
    Table,
    Json,
    Yaml,
}

/// Parses the arguments, runs the verb, returns the exit code of `exit.rs`.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help and version to stdout with code 0, and usage errors to stderr with code 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // Those that serve outlive whoever read their first line.
    if !matches!(cli.verb, Verb::Run(_) | Verb::Lab(_)) {
        process::end_with_its_reader();
    }
    let outcome = match cli.verb {
        Verb::Run(args) => run::run(*args),
        Verb::Check(args) => check::run(args),
        Verb::Get(args) => get::run(args),
        Verb::Status(args) => status::run(args),
        Verb::Doctor(args) => doctor::run(args),
        Verb::Lab(args) => lab::run(args),
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut std::io::stdout());
            Ok(())
        }
        Verb::Version(args) => version::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

/// What a verb gives back.
pub type Result = std::result::Result<(), Exit>;
