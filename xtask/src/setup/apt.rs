//! Debian packages by what they are needed for, each with the file or program that proves it is there.
//!
//! The proof, not the package database, is what counts: a tool that came from elsewhere is as good.

use std::path::Path;
use std::process::Command;

use super::Need;
use crate::shell::{self, Failure, say, words};

/// A package and its proof: an absolute path, or the name of a program; `|` separates alternatives.
struct Package {
    name: &'static str,
    proof: &'static str,
    need: Need,
}

const PACKAGES: &[Package] = &[
    // aws-lc-sys compiles C and assembler with prebuilt bindings: neither cmake, clang nor Go is asked for.
    Package {
        name: "gcc",
        proof: "cc",
        need: Need::Build,
    },
    Package {
        name: "libc6-dev",
        proof: "/usr/include/stdio.h",
        need: Need::Build,
    },
    Package {
        name: "ca-certificates",
        proof: "/etc/ssl/certs/ca-certificates.crt",
        need: Need::Build,
    },
    Package {
        name: "g++",
        proof: "c++",
        need: Need::Fuzz,
    },
    Package {
        name: "rustc-web",
        proof: "/usr/bin/rustc",
        need: Need::Ebpf,
    },
    Package {
        name: "cargo-web",
        proof: "/usr/bin/cargo",
        need: Need::Ebpf,
    },
    Package {
        name: "libstd-rust-web-dev-bpf",
        proof: "/usr/lib/rustlib/bpfel-unknown-none/lib",
        need: Need::Ebpf,
    },
    Package {
        name: "llvm-22-dev",
        proof: "/usr/lib/llvm-22/lib/libLLVM.so",
        need: Need::Ebpf,
    },
    Package {
        name: "libpolly-22-dev",
        proof: "/usr/lib/llvm-22/lib/libPolly.a",
        need: Need::Ebpf,
    },
    Package {
        name: "zlib1g-dev",
        proof: "/usr/include/zlib.h",
        need: Need::Ebpf,
    },
    Package {
        name: "libzstd-dev",
        proof: "/usr/include/zstd.h",
        need: Need::Ebpf,
    },
    Package {
        name: "libxml2-dev",
        proof: "/usr/include/libxml2",
        need: Need::Ebpf,
    },
    Package {
        name: "iproute2",
        proof: "ip",
        need: Need::Lab,
    },
    Package {
        name: "ethtool",
        proof: "ethtool",
        need: Need::Lab,
    },
    Package {
        name: "valgrind",
        proof: "valgrind",
        need: Need::Test,
    },
    Package {
        name: "curl",
        proof: "curl",
        need: Need::Test,
    },
    Package {
        name: "openssl",
        proof: "openssl",
        need: Need::Test,
    },
    Package {
        name: "nodejs",
        proof: "node",
        need: Need::Test,
    },
    Package {
        name: "npm",
        proof: "npm",
        need: Need::Test,
    },
    Package {
        name: "nghttp2-client",
        proof: "h2load",
        need: Need::Test,
    },
    Package {
        name: "nghttp2-server",
        proof: "nghttpd",
        need: Need::Test,
    },
    Package {
        name: "nginx",
        proof: "nginx",
        need: Need::Test,
    },
    Package {
        name: "python3-venv",
        proof: "/usr/lib/python3.11/ensurepip|/usr/lib/python3.13/ensurepip",
        need: Need::Test,
    },
    Package {
        name: "wrk",
        proof: "wrk",
        need: Need::Test,
    },
    Package {
        name: "procps",
        proof: "sysctl",
        need: Need::Test,
    },
    Package {
        name: "bpftool",
        proof: "bpftool",
        need: Need::Test,
    },
    Package {
        name: "haproxy",
        proof: "haproxy",
        need: Need::Bench,
    },
    Package {
        name: "nghttp2-proxy",
        proof: "nghttpx",
        need: Need::Bench,
    },
    Package {
        name: "libnginx-mod-stream",
        proof: "/usr/lib/nginx/modules/ngx_stream_module.so",
        need: Need::Bench,
    },
    Package {
        name: "linux-perf",
        proof: "perf",
        need: Need::Bench,
    },
    Package {
        name: "qemu-system-x86",
        proof: "qemu-system-x86_64",
        need: Need::Vm,
    },
    Package {
        name: "busybox-static",
        proof: "busybox",
        need: Need::Vm,
    },
];

/// Installs what has no proof. Elsewhere than on Debian, or without root, stops with what to do.
pub fn ensure(needs: &[Need]) -> Result<(), Failure> {
    let missing = missing(needs, is_there);
    if missing.is_empty() {
        return Ok(());
    }
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    match Distribution::of(&os) {
        Distribution::Debian => install(&missing),
        Distribution::Other(name) => Err(Failure::new(format!(
            "this machine ({name}) lacks {}; install what {name} calls these Debian packages, then run this again",
            missing.join(" ")
        ))),
    }
}

/// The packages of one need, as one would type them.
pub fn names(need: Need) -> String {
    missing(&[need], |_| false).join(" ")
}

fn missing(needs: &[Need], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let wanted = PACKAGES.iter().filter(|package| needs.contains(&package.need));
    wanted
        .filter(|package| !is_there(package.proof))
        .map(|package| package.name)
        .collect()
}

fn is_there(proof: &str) -> bool {
    let one = |proof: &str| match proof.starts_with('/') {
        true => Path::new(proof).exists(),
        false => shell::find_program(proof).is_some(),
    };
    proof.split('|').any(one)
}

/// Where packages come from.
#[derive(PartialEq, Eq, Debug)]
enum Distribution {
    Debian,
    Other(String),
}

impl Distribution {
    /// Reads os-release(5).
    fn of(os_release: &str) -> Self {
        let value = |key: &str| {
            let line = os_release
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        match (value("ID").as_str(), value("VERSION_ID").as_str()) {
            ("debian", "12" | "13") => Self::Debian,
            ("", _) => Self::Other("unknown distribution".into()),
            (id, version) => Self::Other(format!("{id} {version}").trim().to_owned()),
        }
    }
}

fn install(missing: &[&str]) -> Result<(), Failure> {
    let line = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !shell::is_root() && !shell::can_sudo() {
        return Err(Failure {
            why: format!("packages are missing and `sudo -n` is refused; type: sudo {line}"),
            exit: shell::EXIT_NO_PERMISSION,
        });
    }
    if missing.iter().any(|name| !is_known(name)) {
        say("reading the package lists (apt-get update)");
        shell::capture(shell::as_root("apt-get").args(["update", "-q"]))?;
    }
    let unknown: Vec<&str> = missing.iter().copied().filter(|name| !is_known(name)).collect();
    if !unknown.is_empty() {
        return Err(Failure::new(format!(
            "this Debian's archives do not offer {}",
            unknown.join(" ")
        )));
    }
    say(&line);
    let mut apt = shell::as_root("env");
    apt.args(words(
        "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends",
    ));
    // A page of dpkg's progress says nothing, unless it failed.
    shell::capture(apt.args(missing)).map(|_| ())
}

fn is_known(package: &str) -> bool {
    let shown = shell::capture(Command::new("apt-cache").args(["policy", package]));
    shown.is_ok_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_proof_is_missing() {
        assert_eq!(missing(&[Need::Lab], |proof| proof == "ip"), ["ethtool"]);
        assert!(missing(&[Need::Build, Need::Ebpf, Need::Lab, Need::Test], |_| true).is_empty());
    }

    #[test]
    fn debian_12_and_13_are_known_and_others_are_named() {
        assert_eq!(Distribution::of("ID=debian\nVERSION_ID=\"12\"\n"), Distribution::Debian);
        assert_eq!(Distribution::of("ID=debian\nVERSION_ID=\"13\"\n"), Distribution::Debian);
        assert_eq!(
            Distribution::of("ID=fedora\nVERSION_ID=42\n"),
            Distribution::Other("fedora 42".into())
        );
        assert_eq!(Distribution::of(""), Distribution::Other("unknown distribution".into()));
    }
}
