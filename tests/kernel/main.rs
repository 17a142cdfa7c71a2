//! The kernel programs in the real kernel, beside their host twin.
//!
//! Needs root (or CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN) and the object of `cargo xtask ebpf`. Without privilege the
//! tests say so and do nothing; where `CI` is set, that is a failure. Runs its tests one after the other: they share
//! one loaded object.
//!
//! `cargo test -p gateway-tests --test kernel [part of a name]`

mod agree;
mod budget;
mod loaded;
mod rows;
mod topology;
mod traffic;
mod wire;

use anyhow::Result;
use loaded::Loaded;
use std::process::ExitCode;

/// A test on the shared object.
type Test = (&'static str, fn(&mut Loaded) -> Result<()>);

const TESTS: &[Test] = &[
    (
        "every row comes out as scapy built it",
        rows::every_row_comes_out_as_scapy_built_it,
    ),
    (
        "kernel and twin agree on generated packets",
        agree::kernel_and_twin_agree,
    ),
    (
        "full tables refuse new flows and harm no old ones",
        agree::full_tables_refuse_and_harm_nobody,
    ),
    (
        "programs stay within their budget",
        budget::programs_stay_within_their_budget,
    ),
    (
        "tcx carries tcp over ipv4 byte for byte",
        traffic::tcx_carries_tcp_over_ipv4,
    ),
    (
        "tcx carries tcp over ipv6 byte for byte",
        traffic::tcx_carries_tcp_over_ipv6,
    ),
    (
        "xdp carries tcp over ipv4 and ipv6 byte for byte",
        traffic::xdp_carries_tcp,
    ),
    (
        "a connection to a vip reaches a worker and no stranger",
        traffic::steer_reaches_a_worker_and_no_stranger,
    ),
];

/// Entries of each flow table in these tests.
const FLOWS: u32 = 4096;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in TESTS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let only = arguments.iter().find(|argument| !argument.starts_with('-'));
    if !nix::unistd::geteuid().is_root() {
        println!("kernel tests need root: loading programs takes CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN");
        return if std::env::var_os("CI").is_some() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    let mut loaded = match Loaded::new(FLOWS) {
        Ok(loaded) => loaded,
        Err(error) => {
            println!("kernel tests cannot start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = 0;
    for (name, test) in TESTS
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| name.contains(only.as_str())))
    {
        match test(&mut loaded) {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => {
                failed += 1;
                println!("test {name} ... FAILED\n    {error:#}");
            }
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
