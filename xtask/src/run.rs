//! `cargo xtask run`: from a clone to the laboratory in one command.
//!
//! stdout is the laboratory's alone. Everything is built as the user; only the binary runs as root.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::ebpf;
use crate::setup::{self, Ebpf, Need};
use crate::shell::{self, Failure, say, words};

pub fn verb(args: &[String]) -> Result<(), Failure> {
    let ebpf = prepare(&[Need::Build, Need::Ebpf, Need::Lab])?;
    let binary = build_lab_binary()?;
    let mut words = vec![binary.display().to_string(), "lab".into(), "run".into()];
    words.extend(args.iter().cloned());
    if let Ebpf::Missing(_) = ebpf {
        words.splice(0..0, ["env".to_owned(), "SLUICE_DATAPATH=off".to_owned()]);
    }
    if !shell::is_root() {
        let typed = words.join(" ");
        if !shell::can_sudo() {
            return Err(Failure {
                why: format!("the laboratory needs root and `sudo -n` is refused; type: sudo {typed}"),
                exit: shell::EXIT_NO_PERMISSION,
            });
        }
        words.splice(0..0, ["sudo".to_owned(), "-n".to_owned()]);
    }
    say(&words.join(" "));
    let error = Command::new(&words[0])
        .args(&words[1..])
        .current_dir(shell::root())
        .exec();
    Err(Failure::new(format!("{} did not start: {error}", words[0])))
}

/// Sets up and builds the kernel programs; where they cannot be built, says so loudly and goes on.
pub fn prepare(needs: &[Need]) -> Result<Ebpf, Failure> {
    let mut ebpf = setup::ensure(needs)?;
    if ebpf == Ebpf::Ready {
        // A toolchain that is there but fails is a fault in our sources, not a poor machine.
        ebpf::build()?;
    } else if ebpf::object().is_file() {
        say("the kernel programs' toolchain is missing: using the object that is already there");
        ebpf = Ebpf::Ready;
    }
    if let Ebpf::Missing(why) = &ebpf {
        let line = "=".repeat(100);
        eprintln!("{line}\n{}\n{line}", setup::without_ebpf(why));
    }
    Ok(ebpf)
}

/// The daemon in the profile `lab`.
pub fn build_lab_binary() -> Result<PathBuf, Failure> {
    shell::run(shell::cargo().args(words("build --profile lab --package gateway-userspace --bin sluice")))?;
    Ok(target_folder().join("lab/sluice"))
}

/// Where cargo builds.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| shell::root().join("target"), PathBuf::from)
}
