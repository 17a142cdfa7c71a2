//! Runs the official suite in the client's namespace and tells how each test ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use super::build::Built;
use super::cluster::Cluster;
use super::gateway::CLASS;
use super::options::{Options, PROFILES};
use super::page::{self, Findings};
use super::report;
use super::topology::{UNUSABLE, USABLE};
use super::transcript::{Outcome, ROOT, Test, Transcript};
use crate::shell::{Failure, say};

/// Core features of the kinds of the standard channel; and two whose absence has core tests of its own.
const CORE: &str = "Gateway,ReferenceGrant,HTTPRoute,GRPCRoute,TLSRoute,TLSRouteModeTerminate,TLSRouteModeMixed";
/// The profiles that have them.
const CORE_PROFILES: &str = "GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS";
const TIME_MAX: &str = "30m";
/// What the report says of who made it. There is no other address yet.
const HOME: &str = "https://sluice.dev";

pub fn run(options: &Options, built: &Built, cluster: &Cluster) -> Result<(), Failure> {
    let report_file = options.out.join("report.yaml");
    let mut command = cluster.client_command(&built.suite.join("conformance.test").display().to_string());
    command.args(["-test.v=test2json", "-test.run=TestConformance"]);
    command.arg(format!("-test.timeout={TIME_MAX}"));
    command.args(flags(options, cluster, &report_file)?);
    command.stdout(Stdio::piped()).stdin(Stdio::null());
    let log_file = options.out.join("suite.log");
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", log_file.display()));
    let mut log = File::create(&log_file).map_err(failed)?;
    command.stderr(log.try_clone().map_err(failed)?);
    say(&format!(
        "the suite {} runs; what it prints is in {}",
        options.suite,
        log_file.display()
    ));
    let began = Instant::now();
    let child = command.spawn();
    let mut child = child.map_err(|error| Failure::new(format!("nsenter (util-linux) did not start: {error}")))?;
    let stdout = child.stdout.take().expect("stdout was asked to be piped");
    let mut transcript = Transcript::default();
    let mut tests = Vec::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.map_err(failed)?;
        let line = String::from_utf8_lossy(&line);
        writeln!(log, "{}", line.trim_start_matches('\u{16}')).map_err(failed)?;
        if options.run.is_some() {
            println!("{}", line.trim_start_matches('\u{16}'));
        }
        if let Some(test) = transcript.read(&line) {
            if test.name == ROOT && tests.iter().any(|one: &Test| one.outcome == Outcome::Failed) {
                // It fails with each of its parts.
                continue;
            }
            show(&test, options);
            tests.push(test);
        }
    }
    let status = child.wait().map_err(failed)?;
    let seconds = began.elapsed().as_secs();
    let text = fs::read_to_string(&report_file).unwrap_or_default();
    let findings = Findings {
        suite: &options.suite,
        core_only: options.core,
        seconds,
        tests: &tests,
        profiles: &report::read(&text),
    };
    let page = page::text(&findings);
    if options.run.is_none() {
        println!("{page}");
    }
    // In CI the tree is not ours to change; and a part of the suite says nothing about the rest.
    if options.is_whole() && std::env::var_os("CI").is_none() {
        page::write(&findings, &page, &text)?;
    }
    judge(&tests, status.success(), options)
}

fn flags(options: &Options, cluster: &Cluster, report: &Path) -> Result<Vec<String>, Failure> {
    let profiles: Vec<String> = options.profiles.iter().map(|name| format!("GATEWAY-{name}")).collect();
    let mut flags = vec![
        format!("-gateway-class={CLASS}"),
        format!("-usable-address={USABLE}"),
        format!("-unusable-address={UNUSABLE}"),
        format!("-cleanup-base-resources={}", !options.keep),
        format!("-report-output={}", report.display()),
        "-organization=sluice".to_owned(),
        "-project=sluice".to_owned(),
        format!("-url={HOME}"),
        format!("-contact={HOME}"),
        format!("-version=v{}", env!("CARGO_PKG_VERSION")),
    ];
    if options.core {
        flags.push(format!("-supported-features={CORE}"));
        flags.push(format!("-conformance-profiles={CORE_PROFILES}"));
        return Ok(flags);
    }
    flags.push(format!("-conformance-profiles={}", profiles.join(",")));
    if options.run.is_none() && options.profiles == PROFILES {
        // The suite itself asks the class.
        return Ok(flags);
    }
    if let Some(test) = &options.run {
        flags.push(format!("-run-test={test}"));
    }
    let names = cluster.kubectl(&format!(
        "get gatewayclass {CLASS} -o jsonpath={{.status.supportedFeatures[*].name}}"
    ))?;
    let names: Vec<&str> = match options.run {
        Some(_) => names.split_whitespace().collect(),
        None => features_of(&options.profiles, &names),
    };
    flags.push(format!("-supported-features={}", names.join(",")));
    Ok(flags)
}

/// All but those of routes of other profiles.
fn features_of<'a>(profiles: &[&str], features: &'a str) -> Vec<&'a str> {
    let others = PROFILES.iter().filter(|name| !profiles.contains(name));
    let others: Vec<String> = others.map(|name| format!("{name}Route")).collect();
    let is_ours = |feature: &&str| !others.iter().any(|other| feature.starts_with(&**other));
    features.split_whitespace().filter(is_ours).collect()
}

fn show(test: &Test, options: &Options) {
    // A single test among many: all others are skipped, and its own output is there already.
    if test.name != ROOT && options.run.as_ref().is_some_and(|name| *name != test.name) {
        return;
    }
    let said = if test.said.is_empty() {
        String::new()
    } else {
        format!(": {}", test.said)
    };
    say(&format!("{} {} ({:.1} s){said}", test.outcome, test.name, test.seconds));
}

fn judge(tests: &[Test], ended_well: bool, options: &Options) -> Result<(), Failure> {
    let failed: Vec<&str> = tests
        .iter()
        .filter(|test| test.outcome == Outcome::Failed)
        .map(|test| &*test.name)
        .collect();
    if !failed.is_empty() {
        return Err(Failure::new(format!(
            "{} tests failed: {}",
            failed.len(),
            failed.join(" ")
        )));
    }
    if !ended_well || tests.iter().all(|test| test.outcome != Outcome::Passed) {
        let log = options.out.join("suite.log");
        return Err(Failure::new(format!(
            "the suite did not run to its end; see {}",
            log.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_leaves_out_the_routes_of_others() {
        let features = "Gateway TLSRoute TCPRoute HTTPRouteRetry HTTPRoute ListenerSet";
        assert_eq!(features_of(&["TLS"], features), ["Gateway", "TLSRoute", "ListenerSet"]);
        assert_eq!(features_of(&PROFILES, features).len(), 6);
    }
}
