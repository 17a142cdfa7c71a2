//! `cargo xtask test`: pure crates first, because they fail in seconds; then the daemon and what drives it.
//!
//! The kernel and end-to-end tests run as root and find what they need in the environment:
//!
//! | variable | what it is |
//! |---|---|
//! | `SLUICE_BIN` | the daemon, profile `lab` |
//! | `SLUICE_BPF` | the kernel programs' object; unset where it cannot be built |
//! | `SLUICE_PYTHON` | a Python with grpcio, scapy and h2 |
//! | `SLUICE_H2SPEC` | h2spec |
//!
//! A test that cannot run here is no `#[ignore]` but prints libtest's own words, `test NAME ... ignored, REASON`, and is
//! counted as skipped.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::run;
use crate::setup::{Ebpf, Need};
use crate::shell::{self, Failure, say, words};
use crate::tally::Tally;
use crate::{ebpf, tools};

const PURE: &[&str] = &[
    "gateway-common",
    "gateway-core",
    "gateway-http",
    "gateway-compiler",
    "xtask",
];
const RIM: &[&str] = &["gateway-userspace", "gateway-tests"];
const VARIABLES: &str = "SLUICE_BIN,SLUICE_BPF,SLUICE_PYTHON,SLUICE_H2SPEC,SLUICE_WEB,RUST_BACKTRACE,CI";

pub fn verb(args: &[String]) -> Result<(), Failure> {
    let ebpf = run::prepare(&[Need::Build, Need::Ebpf, Need::Lab, Need::Test])?;
    let mut tally = Tally::default();
    let pure = cargo_test(PURE, args, &[], &mut tally)?;
    let binary = run::build_lab_binary()?;
    let mut environment = vec![
        ("SLUICE_BIN".to_owned(), binary.display().to_string()),
        ("SLUICE_PYTHON".to_owned(), tools::python().display().to_string()),
        ("SLUICE_H2SPEC".to_owned(), tools::h2spec().display().to_string()),
        ("SLUICE_WEB".to_owned(), tools::web_folder().display().to_string()),
    ];
    if ebpf == Ebpf::Ready {
        environment.push(("SLUICE_BPF".to_owned(), ebpf::object().display().to_string()));
    }
    if !shell::is_root() {
        become_root_for_tests(&mut environment)?;
    }
    let rim = cargo_test(RIM, args, &environment, &mut tally)?;
    println!("{tally}");
    match pure && rim && tally.failed == 0 {
        true => Ok(()),
        false => Err(Failure::new(
            "there are failed tests, or a test binary that did not build or end; see above",
        )),
    }
}

/// Runs the tests of `packages`, shows their output, sums it; false when anything failed.
fn cargo_test(
    packages: &[&str],
    args: &[String],
    env: &[(String, String)],
    tally: &mut Tally,
) -> Result<bool, Failure> {
    let mut command = shell::cargo();
    command.args(["test", "--no-fail-fast"]);
    for package in packages {
        command.args(["--package", package]);
    }
    command.args(args).envs(env.iter().map(|(name, value)| (name, value)));
    say(&shell::line_of(&command));
    let failed_before = tally.failed;
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| Failure::new(format!("cargo did not start: {error}")))?;
    let stdout = child.stdout.take().expect("stdout was asked to be piped");
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.map_err(|error| Failure::new(format!("reading the tests' output: {error}")))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    let status = child
        .wait()
        .map_err(|error| Failure::new(format!("waiting for cargo: {error}")))?;
    if !status.success() && tally.failed == failed_before {
        // A binary that did not build, or died before its result line, is a failure that nobody counted.
        tally.failed += 1;
    }
    Ok(status.success())
}

/// Builds the test binaries of a package and says where they are.
pub fn binaries(package: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut command = shell::cargo();
    command.args(words(&format!(
        "test --no-run --package {package} --message-format json-render-diagnostics"
    )));
    let messages = shell::capture(&mut command)?;
    // One JSON object a line; the paths cargo makes hold nothing that would be escaped.
    let paths = messages
        .lines()
        .filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    Ok(paths.map(PathBuf::from).collect())
}

/// cargo builds as the user and starts each test binary through `sudo -n`.
fn become_root_for_tests(environment: &mut Vec<(String, String)>) -> Result<(), Failure> {
    if !shell::can_sudo() {
        return Err(Failure {
            why:
                "the kernel and end-to-end tests need root and `sudo -n` is refused; type: sudo -v && cargo xtask test"
                    .into(),
            exit: shell::EXIT_NO_PERMISSION,
        });
    }
    let host = shell::capture(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let runner = format!("CARGO_TARGET_{}_RUNNER", host.trim().replace('-', "_").to_uppercase());
    environment.push((runner, format!("sudo -n --preserve-env={VARIABLES}")));
    Ok(())
}
