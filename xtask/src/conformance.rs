//! `cargo xtask conformance`: the Gateway API's own suite, against this gateway and a real API server.
//!
//! Control plane, kubelet, suite and gateway are plain processes in namespaces that only they are in ([`isolation`]):
//! nothing listens on the machine, runs do not meet, and however a run ends, nothing of it is left but the files in
//! `target/conformance`.

mod build;
mod cluster;
mod gateway;
mod isolation;
mod options;
mod package;
mod page;
mod process;
mod report;
mod suite;
mod topology;
mod transcript;

use std::path::PathBuf;
use std::time::Instant;

use crate::run;
use crate::setup::Need;
use crate::shell::{self, Failure, say};
use build::Built;
use cluster::Cluster;
use gateway::Gateway;
use options::Options;

/// What the verb calls itself by when it has entered its namespaces.
const INSIDE: &str = "--inside";
/// Features without a test in the suite.
const EXPERIMENTS: &str = "tests/conformance/cluster/experimental.py";
/// What is wanted is not to be had on this machine (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;

pub fn verb(args: &[String]) -> Result<(), Failure> {
    if args.first().is_some_and(|first| first == INSIDE) {
        return inside(&args[1..]);
    }
    let options = Options::parse(args)?;
    let gateway = gateway_binary()?;
    let built = build::ensure(&options.suite, gateway)?;
    if !shell::is_root() {
        return Err(isolation::as_root(&options, &built));
    }
    isolation::enter(&options, &built)
}

/// All that is made from Go modules, for the newest suite.
pub fn build() -> Result<(), Failure> {
    build::ensure(options::SUITES[0], PathBuf::new()).map(drop)
}

/// `SLUICE_BIN`, else the one that is built now.
fn gateway_binary() -> Result<PathBuf, Failure> {
    match std::env::var_os("SLUICE_BIN").filter(|value| !value.is_empty()) {
        Some(binary) => std::fs::canonicalize(&binary)
            .map_err(|error| Failure::new(format!("SLUICE_BIN={}: {error}", binary.display()))),
        None => {
            run::prepare(&[Need::Build, Need::Ebpf, Need::Lab])?;
            run::build_lab_binary()
        }
    }
}

/// In the namespaces, as their first process: when this returns the kernel ends all that is still there.
fn inside(args: &[String]) -> Result<(), Failure> {
    let (built, rest) = Built::from_args(args)?;
    let options = Options::parse(rest)?;
    let began = Instant::now();
    isolation::furnish()?;
    topology::build()?;
    let mut cluster = Cluster::start(&built, &options.out)?;
    if options.package {
        let result = package::prove(&cluster);
        return linger(&options, result.and(cluster.check()));
    }
    let mut gateway = Gateway::start(&built, &cluster, &options.out)?;
    say(&format!(
        "cluster and gateway are up after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    let result = match &options.then {
        Some(script) => cluster.run_in_client(script, &built),
        None => suite::run(&options, &built, &cluster).and_then(|()| experiments(&options, &built, &cluster)),
    };
    // A script may end what it begins anew; the suite finds everything as it was.
    let alive = match &options.then {
        Some(_) => Ok(()),
        None => cluster.check().and_then(|()| gateway.check()),
    };
    linger(&options, result.and(alive))
}

/// What the newest API has and its suite does not test yet, after every run of more than one test.
fn experiments(options: &Options, built: &Built, cluster: &Cluster) -> Result<(), Failure> {
    if options.run.is_some() || options.suite != options::SUITES[0] {
        return Ok(());
    }
    say(&format!("{EXPERIMENTS} runs"));
    cluster.run_in_client(&format!("python3 {EXPERIMENTS}"), built)
}

/// With `--keep` this does not return.
fn linger(options: &Options, result: Result<(), Failure>) -> Result<(), Failure> {
    if options.keep {
        if let Err(failure) = &result {
            say(&failure.why);
        }
        isolation::say_how_to_enter(&options.out);
        loop {
            std::thread::park();
        }
    }
    result
}
