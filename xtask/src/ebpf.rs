//! Builds `gateway-ebpf` and leaves one object at a stable path, where the daemon's build script embeds it.
//!
//! Two toolchains can: Debian's rustc-web, which ships core for `bpfel-unknown-none`, and any rustup toolchain with
//! `rust-src`, which builds core itself. The object is rewritten only when its bytes change, so nothing above is rebuilt
//! for nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::setup::{self, Ebpf, Need};
use crate::shell::{self, Failure, say};
use crate::tools;

const TARGET: &str = "bpfel-unknown-none";
const BINARY: &str = "sluice-ebpf";
const CRATE: &str = "gateway-ebpf";
/// What the object is made of, from the repository's root.
const SOURCES: &[&str] = &["gateway-ebpf", "gateway-common"];

pub fn verb(args: &[String]) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        return Err(Failure::usage(format!("ebpf takes no arguments, not '{arg}'")));
    }
    match setup::ensure(&[Need::Build, Need::Ebpf])? {
        Ebpf::Ready => build().map(|_| ()),
        Ebpf::Missing(why) => Err(Failure::new(setup::without_ebpf(&why))),
    }
}

/// Where the object is left.
pub fn object() -> PathBuf {
    shell::root().join(CRATE).join("target/sluice.bpf.o")
}

/// Builds where sources or toolchain changed since the last object.
pub fn build() -> Result<PathBuf, Failure> {
    let object = object();
    let stamp = object.with_extension("o.stamp");
    let toolchain = Toolchain::find()?;
    let fingerprint = format!("{:016x} {}\n", fingerprint(&shell::root())?, toolchain.name());
    if object.is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == fingerprint) {
        return Ok(object);
    }
    say(&format!("building the kernel programs with {}", toolchain.name()));
    shell::run(&mut toolchain.cargo_build())?;
    let built = shell::root()
        .join(CRATE)
        .join("target")
        .join(TARGET)
        .join("release")
        .join(BINARY);
    let bytes = fs::read(stripped(&built)).map_err(|error| at(&built, &error))?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(Failure::new(format!(
            "{} is not an ELF object: is the linker bpf-linker?",
            built.display()
        )));
    }
    if fs::read(&object).is_ok_and(|old| old == bytes) {
        say("the object is what it was");
    } else {
        // Moved into place whole: a daemon build beside us never embeds half an object.
        let fresh = object.with_extension("o.new");
        fs::write(&fresh, &bytes).map_err(|error| at(&fresh, &error))?;
        fs::rename(&fresh, &object).map_err(|error| at(&object, &error))?;
        say(&format!("{} ({} KiB)", object.display(), bytes.len() / 1024));
    }
    fs::write(&stamp, fingerprint).map_err(|error| at(&stamp, &error))?;
    Ok(object)
}

/// Without DWARF, which only the linker reads: a fifth of the size. BTF and its line information stay for the verifier.
fn stripped(built: &Path) -> PathBuf {
    let slim = built.with_extension("slim");
    let mut strip = Command::new(format!("{}/bin/llvm-strip", tools::LLVM_PREFIX));
    strip.arg("--strip-debug").arg("-o").arg(&slim).arg(built);
    // A machine without LLVM's tools embeds the whole object, which loads as well.
    if shell::run(&mut strip).is_ok() {
        slim
    } else {
        built.to_path_buf()
    }
}

/// Who compiles.
pub enum Toolchain {
    Debian { linker: PathBuf },
    Rustup { cargo: PathBuf, linker: PathBuf },
}

impl Toolchain {
    fn find() -> Result<Self, Failure> {
        let debian_core = Path::new("/usr/lib/rustlib").join(TARGET).join("lib");
        let linker = tools::bpf_linker();
        if debian_core.is_dir() && Path::new("/usr/bin/cargo").is_file() && linker.is_file() {
            return Ok(Self::Debian { linker });
        }
        rustup_route()
            .ok_or_else(|| Failure::new("no toolchain for the kernel programs; `cargo xtask setup` tells more"))
    }

    fn name(&self) -> String {
        match self {
            Self::Debian { .. } => format!("Debian's rustc-web, bpf-linker {}", tools::BPF_LINKER),
            Self::Rustup { cargo, .. } => format!("{} and rust-src", cargo.display()),
        }
    }

    fn cargo_build(&self) -> Command {
        let (cargo, linker) = match self {
            Self::Debian { linker } => (Path::new("/usr/bin/cargo"), linker),
            Self::Rustup { cargo, linker } => (cargo.as_path(), linker),
        };
        let folder = shell::root().join(CRATE);
        let bin = cargo.parent().expect("cargo lies in a folder");
        let mut command = Command::new(cargo);
        // What the outer cargo and rustup export would send this one to their own compiler and target folder.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if (name.starts_with("CARGO") && name != "CARGO_HOME") || name.starts_with("RUST") {
                command.env_remove(&name);
            }
        }
        command.current_dir(&folder).stdin(Stdio::null());
        command
            .env("PATH", shell::path_with(bin))
            .env("RUSTC", bin.join("rustc"));
        // core for this target, and the attributes aya-ebpf uses, are unstable; the compiler is pinned by the archive.
        command
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", folder.join("target"));
        let flags = [
            "-Cdebuginfo=2",
            "-Clink-arg=--btf",
            &format!("-Clinker={}", linker.display()),
        ]
        .join("\x1f");
        command.env("CARGO_ENCODED_RUSTFLAGS", flags);
        command.args(["build", "--release", "--target", TARGET]);
        if let Self::Rustup { .. } = self {
            command.args(["-Z", "build-std=core"]);
        }
        if folder.join("Cargo.lock").is_file() {
            command.arg("--locked");
        }
        command
    }
}

/// A rustup toolchain with `rust-src` (the one that runs us, else nightly) and a bpf-linker, from the cache or PATH.
pub fn rustup_route() -> Option<Toolchain> {
    let linker = Some(tools::bpf_linker())
        .filter(|path| path.is_file())
        .or_else(|| shell::find_program("bpf-linker"))?;
    let ours = std::env::var_os("CARGO").map(PathBuf::from);
    let nightly = shell::capture(Command::new("rustup").args(["which", "--toolchain", "nightly", "cargo"]));
    let nightly = nightly.ok().map(|path| PathBuf::from(path.trim()));
    let mut cargos = [ours, nightly].into_iter().flatten();
    let cargo = cargos.find(|cargo| {
        let toolchain = cargo.parent().and_then(Path::parent);
        toolchain.is_some_and(|folder| folder.join("lib/rustlib/src/rust/library/core").is_dir())
    })?;
    Some(Toolchain::Rustup { cargo, linker })
}

/// Names and bytes of every source, in order of their paths.
fn fingerprint(root: &Path) -> Result<u64, Failure> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = tools::fnv1a(TARGET.as_bytes());
    for file in files {
        hash = tools::fnv1a_more(
            hash,
            file.strip_prefix(root).unwrap_or(&file).as_os_str().as_encoded_bytes(),
        );
        hash = tools::fnv1a_more(hash, &fs::read(&file).map_err(|error| at(&file, &error))?);
    }
    Ok(hash)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder).map_err(|error| at(folder, &error))? {
        let path = entry.map_err(|error| at(folder, &error))?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, files)?;
            }
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn at(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_follows_every_source_and_nothing_built() {
        let root = std::env::temp_dir().join(format!("xtask-fingerprint-{}", std::process::id()));
        for source in SOURCES {
            fs::create_dir_all(root.join(source).join("src")).unwrap();
            fs::create_dir_all(root.join(source).join("target")).unwrap();
            fs::write(root.join(source).join("src/lib.rs"), "one").unwrap();
        }
        let first = fingerprint(&root).unwrap();
        fs::write(root.join("gateway-ebpf/target/made"), "anything").unwrap();
        assert_eq!(fingerprint(&root).unwrap(), first);
        fs::write(root.join("gateway-common/src/lib.rs"), "two").unwrap();
        assert_ne!(fingerprint(&root).unwrap(), first);
        fs::remove_dir_all(&root).unwrap();
    }
}
