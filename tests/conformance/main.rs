//! Conformance tests that nobody here wrote: h2spec, strict, against the gateway on loopback, with nghttpd behind it.
//!
//! Needs neither root nor namespaces. h2spec is found in `SLUICE_H2SPEC` (set by `cargo xtask test`), else on the PATH.

mod loopback;

use loopback::Loopback;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// h2spec waits at most two seconds for each answer: two runs at once on a small machine would be tests of patience.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Cases of h2spec 2.2.1 with `--strict`.
const CASES_MIN: u32 = 145;

fn h2spec() -> PathBuf {
    std::env::var_os("SLUICE_H2SPEC").map_or_else(|| PathBuf::from("h2spec"), PathBuf::from)
}

/// `146 tests, 146 passed, 0 skipped, 0 failed`, as numbers.
fn counts(printed: &str) -> Option<[u32; 4]> {
    let line = printed.lines().rev().find(|line| line.contains(" tests, "))?;
    let mut numbers = line.split(", ").map(|part| part.split(' ').next()?.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??, numbers.next()??])
}

fn conforms(tls: bool) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let gateway = Loopback::start();
    let mut command = Command::new(h2spec());
    command.args(["--strict", "--host", "127.0.0.1", "--port"]);
    if tls {
        command.arg(gateway.https.to_string()).args(["--tls", "--insecure"]);
    } else {
        command.arg(gateway.http.to_string());
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("h2spec starts: cargo xtask setup installs it");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let [all, passed, skipped, failed] = counts(&printed).unwrap_or_else(|| panic!("no result: {printed}"));
    assert!(all >= CASES_MIN, "all of it runs: {all}");
    assert!(
        (passed, skipped, failed) == (all, 0, 0),
        "{passed} passed, {skipped} skipped, {failed} failed of {all}:\n{}\n{}",
        printed.split("Failures:").nth(1).unwrap_or(&printed),
        gateway.log()
    );
}

#[test]
fn h2spec_finds_nothing_over_plain_tcp() {
    conforms(false);
}

#[test]
fn h2spec_finds_nothing_over_tls() {
    conforms(true);
}
