//! Builds what the binary embeds: the eBPF object that `cargo xtask ebpf` made (or nothing), the demo service's code
//! and descriptors, and where all this came from, for `sluice version`.

use protox::prost::Message;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Where `cargo xtask ebpf` leaves its object, from this crate.
const BPF_OBJECT: &str = "../gateway-ebpf/target/sluice.bpf.o";
const PROTO_ROOT: &str = "../proto";
const ECHO_PROTO: &str = "../proto/sluice/demo/v1/echo.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed=build.rs");
    embed_bpf_object(&out)?;
    compile_demo_service(&out)?;
    describe_source();
    Ok(())
}

/// `sluice.bpf.o` in `OUT_DIR`, empty when there is no object; `SLUICE_BPF_HASH` is its FNV-1a hash, or `none`.
fn embed_bpf_object(out: &Path) -> Result<(), Box<dyn Error>> {
    let object = if Path::new(BPF_OBJECT).is_file() {
        println!("cargo:rerun-if-changed={BPF_OBJECT}");
        fs::read(BPF_OBJECT)?
    } else {
        // Watching a path that is not there would build this crate every time; when the object comes, its crate's
        // folder changes.
        println!("cargo:rerun-if-changed=../gateway-ebpf");
        Vec::new()
    };
    let hash = if object.is_empty() {
        "none".to_owned()
    } else {
        format!("{:016x}", fnv1a(&object))
    };
    println!("cargo:rustc-env=SLUICE_BPF_HASH={hash}");
    fs::write(out.join("sluice.bpf.o"), object)?;
    Ok(())
}

/// `sluice.demo.v1.rs` and, for gRPC reflection, `sluice.demo.v1.bin` in `OUT_DIR`.
fn compile_demo_service(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ECHO_PROTO}");
    let descriptors = protox::compile([ECHO_PROTO], [PROTO_ROOT])?;
    fs::write(out.join("sluice.demo.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".sluice.demo.v1")
        .compile_fds(descriptors)?;
    Ok(())
}

/// `SLUICE_GIT`: what git calls this tree, or `unknown` outside one.
fn describe_source() {
    println!("cargo:rerun-if-env-changed=SLUICE_GIT");
    if let Ok(given) = env::var("SLUICE_GIT") {
        println!("cargo:rustc-env=SLUICE_GIT={given}");
        return;
    }
    if Path::new("../.git/HEAD").is_file() {
        println!("cargo:rerun-if-changed=../.git/HEAD");
        // HEAD names a branch; what a commit moves is the reflog beside it.
        if Path::new("../.git/logs/HEAD").is_file() {
            println!("cargo:rerun-if-changed=../.git/logs/HEAD");
        }
    }
    let described = Command::new("git")
        .args(["describe", "--always", "--dirty", "--tags"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo:rustc-env=SLUICE_GIT={described}");
}

/// FNV-1a, 64 bits: names an object, guards nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
