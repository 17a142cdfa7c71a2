//! `cargo xtask check`: all that can be said about the sources without running them.
//!
//! Every step runs even when an earlier one failed, so one run tells everything.

use crate::setup::{self, Need};
use crate::shell::{self, Failure, say, words};
use crate::tidy;

/// A step's name and what it runs.
type Step = (&'static str, fn() -> Result<(), Failure>);

const STEPS: &[Step] = &[("fmt", fmt), ("tidy", tidy_step), ("clippy", clippy), ("deny", deny)];

pub fn verb(args: &[String]) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        return Err(Failure::usage(format!("check takes no arguments, not '{arg}'")));
    }
    setup::ensure(&[Need::Build])?;
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        say(name);
        if let Err(failure) = step() {
            eprintln!("{}", failure.why);
            failed.push(*name);
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!("failed: {}", failed.join(", ")))),
    }
}

fn fmt() -> Result<(), Failure> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    if !shell::root().join("gateway-ebpf/Cargo.toml").is_file() {
        return Ok(());
    }
    for manifest in ["gateway-ebpf/Cargo.toml", "tests/fuzz/Cargo.toml"] {
        shell::run(shell::cargo().args(["fmt", "--manifest-path", manifest, "--check"]))?;
    }
    Ok(())
}

fn tidy_step() -> Result<(), Failure> {
    tidy::verb(&[])
}

fn clippy() -> Result<(), Failure> {
    shell::run(shell::cargo().args(words("clippy --workspace --all-targets --quiet -- -D warnings")))
}

/// cargo-deny adds advisories and duplicates where it is installed; licences and bans are tidy's own everywhere.
fn deny() -> Result<(), Failure> {
    if shell::find_program("cargo-deny").is_none() {
        say("cargo-deny is not installed: licences and bans were checked by tidy, advisories were not");
        return Ok(());
    }
    shell::run(shell::cargo().args(["deny", "--workspace", "check", "bans", "licenses", "sources"]))
}
