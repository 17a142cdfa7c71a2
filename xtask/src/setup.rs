//! Brings a machine with only Rust to a working state, and says each thing it does in one line.
//!
//! Nothing is remembered: what is missing is looked for on the machine itself, so a second run costs milliseconds and a
//! removed package is noticed. Only the kernel programs' toolchain may be missing; everything else stops with instructions.

mod apt;
mod envoy;
pub mod go;
mod h2spec;
pub mod helm;
mod linker;
mod python;
mod web;

use std::process::Command;

use crate::shell::{self, Failure, say};

/// What a verb wants to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// A C compiler, for crates with C inside.
    Build,
    /// Compile and link the kernel programs.
    Ebpf,
    /// Namespaces and links of the laboratory.
    Lab,
    /// Peers that nobody here wrote.
    Test,
    /// The proxies we are measured beside; only `bench` asks for them, and for [`Need::Test`] with them.
    Bench,
    /// A C++ compiler, for libFuzzer; only `fuzz` asks for it.
    Fuzz,
    /// Boot another kernel; only `vm` asks for it.
    Vm,
}

/// Whether the kernel programs can be built here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ebpf {
    Ready,
    /// The reason, and how to mend it.
    Missing(String),
}

pub fn verb(args: &[String]) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        return Err(Failure::usage(format!("setup takes no arguments, not '{arg}'")));
    }
    match ensure(&[Need::Build, Need::Ebpf, Need::Lab, Need::Test])? {
        Ebpf::Ready => say("everything is in place"),
        Ebpf::Missing(why) => return Err(Failure::new(without_ebpf(&why))),
    }
    Ok(())
}

/// Installs what is missing of `needs`.
pub fn ensure(needs: &[Need]) -> Result<Ebpf, Failure> {
    report_bootstrap();
    let required: Vec<Need> = needs.iter().copied().filter(|need| *need != Need::Ebpf).collect();
    apt::ensure(&required)?;
    let mut ebpf = Ebpf::Missing("not asked for".into());
    if needs.contains(&Need::Ebpf) {
        ebpf = match apt::ensure(&[Need::Ebpf]).and_then(|()| linker::ensure()) {
            Ok(()) => Ebpf::Ready,
            // Another toolchain may do; `ebpf` looks for it.
            Err(_) if crate::ebpf::rustup_route().is_some() => Ebpf::Ready,
            Err(failure) => Ebpf::Missing(failure.why),
        };
    }
    if needs.contains(&Need::Lab) {
        mount_bpffs();
    }
    if needs.contains(&Need::Test) {
        python::ensure()?;
        web::ensure()?;
        h2spec::ensure()?;
    }
    if needs.contains(&Need::Bench) {
        envoy::ensure();
    }
    Ok(ebpf)
}

/// Installs the Debian packages of `needs` alone.
pub fn packages(needs: &[Need]) -> Result<(), Failure> {
    apt::ensure(needs)
}

/// Linking this very program may have installed the C compiler (`xtask/cc`), unheard.
fn report_bootstrap() {
    let note = shell::root().join("target/cc-installed");
    if let Ok(text) = std::fs::read_to_string(&note) {
        say(&format!(
            "a C compiler was missing to link xtask itself: {}",
            text.trim()
        ));
        // Said twice is no harm.
        let _ = std::fs::remove_file(&note);
    }
}

/// The loud words for a machine that cannot build the kernel programs.
pub fn without_ebpf(why: &str) -> String {
    format!(
        "THE KERNEL PROGRAMS CANNOT BE BUILT HERE: {why}\n\
         Sluice still runs with `--datapath off`: own sockets, layer 4 by relay, no XDP, TCX or sk_lookup.\n\
         To mend it, do one of:\n\
         \x20 * use Debian 12 (bookworm) with its security archive: packages {}\n\
         \x20 * rustup component add rust-src --toolchain nightly  and  cargo install bpf-linker --version {}",
        apt::names(Need::Ebpf),
        crate::tools::BPF_LINKER,
    )
}

/// Pins need bpffs. Without it (an unprivileged container) only pinning is lost, and the daemon says so itself.
fn mount_bpffs() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        return;
    }
    say("mounting bpffs at /sys/fs/bpf");
    let mut mount: Command = shell::as_root("mount");
    if let Err(failure) = shell::run(mount.args(["-t", "bpf", "bpf", "/sys/fs/bpf"])) {
        say(&format!(
            "bpffs is not mounted, so nothing can be pinned: {}",
            failure.why
        ));
    }
}
