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
use std::time::Instant;

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
        "tcx carries udp over ipv4 and ipv6 byte for byte",
        traffic::tcx_carries_udp,
    ),
    (
        "xdp carries udp over ipv4 and ipv6 byte for byte",
        traffic::xdp_carries_udp,
    ),
    (
        "a connection to a vip reaches a worker and no stranger",
        traffic::steer_reaches_a_worker_and_no_stranger,
    ),
];

/// Entries of each flow table in these tests.
const FLOWS: u32 = 4096;

fn main() -> ExitCode {
    let only = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let due: Vec<&Test> = TESTS.iter().filter(|(name, _)| name.contains(&only)).collect();
    if std::env::args().any(|argument| argument == "--list") {
        due.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if let Some(why) = lacking() {
        due.iter()
            .for_each(|(name, _)| println!("test {name} ... ignored, {why}"));
        println!(
            "\ntest result: ok. 0 passed; 0 failed; {} ignored; 0 measured; 0 filtered out\n",
            due.len()
        );
        return if std::env::var_os("CI").is_some() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    let failed = match Loaded::new(FLOWS) {
        Ok(mut loaded) => due.iter().filter(|test| !passes(test, &mut loaded)).count(),
        Err(error) => {
            println!("the programs do not load: {error:#}");
            due.len()
        }
    };
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let passed = due.len() - failed;
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Why these tests cannot run here.
fn lacking() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root: loading programs takes CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN".into());
    }
    let object = loaded::object_path();
    (!object.is_file()).then(|| format!("{} is not there: build it with `cargo xtask ebpf`", object.display()))
}

fn passes((name, test): &Test, loaded: &mut Loaded) -> bool {
    let began = Instant::now();
    match test(loaded) {
        Ok(()) => {
            println!("test {name} ... ok ({:.1} s)", began.elapsed().as_secs_f64());
            true
        }
        Err(error) => {
            println!("test {name} ... FAILED\n    {error:#}");
            false
        }
    }
}
