//! The pinned bpf-linker, built from the registry against the LLVM that Debian's rustc writes bitcode with.
//!
//! Cargo installs it whole or not at all, so the file is the proof.

use std::path::Path;

use crate::shell::{self, Failure, say, words};
use crate::tools::{self, BPF_LINKER, LLVM_PREFIX};

/// Builds it where it is not in the cache yet: about 70 s on two cores.
pub fn ensure() -> Result<(), Failure> {
    let binary = tools::bpf_linker();
    if binary.is_file() {
        return Ok(());
    }
    let folder = binary
        .parent()
        .and_then(Path::parent)
        .expect("<folder>/bin/bpf-linker has two parents");
    say(&format!(
        "building bpf-linker {} into {} (a minute)",
        BPF_LINKER,
        folder.display()
    ));
    std::fs::create_dir_all(folder).map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    let build = folder.join("build");
    let mut install = shell::cargo();
    install.args(words(&format!(
        "install bpf-linker --version {BPF_LINKER} --locked --no-default-features"
    )));
    install
        .args(["--features", "llvm-22", "--root"])
        .arg(folder)
        .arg("--target-dir")
        .arg(&build);
    // One is read by bpf-linker's own build script, one by llvm-sys.
    install
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("LLVM_SYS_221_PREFIX", LLVM_PREFIX);
    let built = shell::capture(&mut install).map(|_| ());
    // The build tree is 300 MB that nobody reads again; a failed one is kept for the next try.
    if built.is_ok() {
        let _ = std::fs::remove_dir_all(&build);
    }
    built
}
