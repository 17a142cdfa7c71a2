//! Configuration changes while traffic runs.

use anyhow::{Context, Result, bail, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, in_client, python, repository, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// A streams.py that has opened all its streams.
struct Streams {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Streams {
    fn open(target: &str, count: &str, seconds: &str, connections: bool) -> Result<Self> {
        let script = repository()
            .join("tests/e2e/clients/streams.py")
            .canonicalize()?
            .display()
            .to_string();
        let mut args = vec![script.as_str(), target, count, seconds];
        args.extend(connections.then_some("connections"));
        let mut child = in_client(python(), &args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut streams = Self { child, output };
        let mut line = String::new();
        streams.output.read_line(&mut line)?;
        if line.trim() != "open" {
            streams.output.read_to_string(&mut line)?;
            bail!("{count} streams to {target} did not open: {line}\n{}", log_tail());
        }
        Ok(streams)
    }

    /// What it says at its end.
    fn finish(mut self) -> Result<Value> {
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        self.child.wait()?;
        serde_json::from_str(text.trim()).with_context(|| text.clone())
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The quickstart in variants: another route, other weights, an endpoint less.
fn variant(number: u32) -> Result<String> {
    let base = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let extra = format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: extra}}\nspec:\n  \
         parentRefs: [{{name: lab, sectionName: http}}]\n  rules:\n  - matches: [{{path: {{type: PathPrefix, value: /extra/{number}}}}}]\n    \
         backendRefs: [{{name: echo, port: 50051, weight: {}}}]\n",
        number + 1
    );
    let without = number % 4;
    let mut text = String::new();
    for document in base.split("\n---\n") {
        let mut document = document.to_owned();
        if document.contains("kind: EndpointSlice") && number % 2 == 1 {
            document = without_endpoint(&document, &format!("be{}", without + 1));
        }
        text.push_str(&document);
        text.push_str("\n---\n");
    }
    text.push_str(&extra);
    Ok(text)
}

/// Removes the list item of `endpoints:` that names `name`.
fn without_endpoint(document: &str, name: &str) -> String {
    let mut kept = Vec::new();
    let mut item: Vec<&str> = Vec::new();
    let flush = |item: &mut Vec<&str>, kept: &mut Vec<String>| {
        if !item.iter().any(|line| line.contains(&format!("name: {name}"))) {
            kept.extend(item.iter().map(|line| (*line).to_owned()));
        }
        item.clear();
    };
    for line in document.lines() {
        if line.trim_start().starts_with("- ") || !line.starts_with(' ') {
            flush(&mut item, &mut kept);
        }
        item.push(line);
    }
    flush(&mut item, &mut kept);
    kept.join("\n")
}

/// `SLUICE_CHANGE_SECONDS` of ten changes a second (20 for the acceptance run).
pub fn under_load(datapath: &str) -> Result<()> {
    let seconds: u64 = std::env::var("SLUICE_CHANGE_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(5);
    let gateway = Gateway::start(datapath)?;
    let length = (seconds + 12).to_string();
    let l7 = Streams::open("198.18.0.10:50052", "200", &length, false)?;
    let l4 = Streams::open("198.18.0.10:50051", "200", &length, true)?;
    let before = gateway.revision()?;
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        gateway.configure(&variant(number)?)?;
        number += 1;
        std::thread::sleep(
            (began + Duration::from_millis(100 * u64::from(number))).saturating_duration_since(Instant::now()),
        );
    }
    let applied = gateway.revision()? - before;
    for (plane, streams) in [("L7", l7), ("L4", l4)] {
        let result = streams.finish()?;
        ensure!(
            result["failed"] == 0 && result["moved"] == 0,
            "{plane}: {result} after {applied} revisions\n{}",
            log_tail()
        );
        ensure!(
            result["messages"].as_u64().unwrap_or(0) >= 200 * seconds,
            "{plane}: {result}"
        );
    }
    ensure!(
        applied >= u64::from(number) / 2,
        "{applied} of {number} changes became revisions"
    );
    println!(
        "     {datapath}: {number} changes, {applied} revisions, 200 L7 streams and 200 L4 flows: none failed, none moved"
    );
    Ok(())
}

fn number(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    given.unwrap_or(default)
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.context("VmRSS")?.trim().trim_end_matches(" kB").parse()?)
}

/// The time of each change, from reading to applied, in milliseconds, in order.
fn apply_times() -> Result<Vec<f64>> {
    let log = std::fs::read_to_string(Lab::file("test-gateway.log"))?;
    let applied = log.lines().filter(|line| line.contains("configuration applied"));
    let times = applied.filter_map(|line| line.rsplit_once("ms=")?.1.trim().parse().ok());
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// `SLUICE_FLAP_SECONDS` of a hundred changes a second with `SLUICE_FLAP_STREAMS` open (60 and 1000 for the acceptance run).
pub fn flap(datapath: &str) -> Result<()> {
    let (seconds, count) = (number("SLUICE_FLAP_SECONDS", 4), number("SLUICE_FLAP_STREAMS", 200));
    let gateway = Gateway::start(datapath)?;
    let (length, count) = ((seconds + 12).to_string(), count.to_string());
    let streams = Streams::open("198.18.0.10:50052", &count, &length, false)?;
    let script = repository().join("tests/e2e/clients/calls.py").canonicalize()?;
    let script = script.display().to_string();
    let rate = ["198.18.0.10:50052", &seconds.to_string(), "10", "60"].map(str::to_owned);
    let mut args = vec![script.as_str()];
    args.extend(rate.iter().map(String::as_str));
    let calls = in_client(python(), &args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let before = gateway.revision()?;
    let began = Instant::now();
    let (mut number, mut warm) = (0, None);
    while began.elapsed() < Duration::from_secs(seconds) {
        gateway.configure(&variant(number)?)?;
        number += 1;
        if warm.is_none() && began.elapsed() > Duration::from_secs(1) {
            warm = Some(resident(gateway.pid())?);
        }
        let due = began + Duration::from_millis(10 * u64::from(number));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let grown = resident(gateway.pid())?.saturating_sub(warm.unwrap_or_default());
    let applied = gateway.revision()? - before;
    let output = calls.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let called: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).with_context(|| text.clone())?;
    let streamed = streams.finish()?;
    let times = apply_times()?;
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    println!(
        "     {datapath}: {number} changes, {applied} revisions; {count} streams: {} failed; calls: {called}; memory +{grown} KiB; apply p99 {p99:.1} ms",
        streamed["failed"]
    );
    ensure!(
        streamed["failed"] == 0 && streamed["moved"] == 0,
        "{streamed}\n{}",
        log_tail()
    );
    ensure!(called["failed"] == 0 && called["ok"] != 0, "{called}\n{}", log_tail());
    ensure!(grown <= 10 * 1024, "memory grew by {grown} KiB");
    ensure!(
        applied >= u64::from(number) / 4,
        "{applied} of {number} changes became revisions"
    );
    Ok(())
}

pub fn broken(datapath: &str) -> Result<()> {
    let gateway = Gateway::start(datapath)?;
    let good = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let call = || {
        let script = repository()
            .join("tests/e2e/clients/interop.py")
            .canonicalize()?
            .display()
            .to_string();
        client_text(python(), &[&script, "198.18.0.10:50052"], Duration::from_secs(60)).with_context(log_tail)
    };
    let rows = [
        (
            "a syntax error in one document",
            good.replacen("kind: GRPCRoute", "kind: [GRPCRoute", 1),
        ),
        (
            "a field of the wrong type",
            good.replacen("port: 50052", "port: many", 1),
        ),
        ("an empty file", String::new()),
    ];
    for (what, yaml) in rows {
        gateway.configure(&good)?;
        std::thread::sleep(Duration::from_millis(100));
        gateway.configure(&yaml)?;
        if !yaml.is_empty() {
            wait_for(&format!("{what} is reported"), Duration::from_secs(10), || {
                let status = gateway.json("/api/v1/status")?;
                let lines = status["diagnostics"].as_array().cloned().unwrap_or_default();
                Ok(lines
                    .iter()
                    .any(|line| line.as_str().is_some_and(|line| line.contains("test.yaml:"))))
            })?;
            call().with_context(|| format!("{what}: traffic goes on"))?;
        }
    }
    Ok(())
}

/// From the rename of the file to a request that is answered by the new route.
pub fn fast(datapath: &str) -> Result<()> {
    let gateway = Gateway::start(datapath)?;
    let mut times = Vec::new();
    for number in 0..10 {
        let before = gateway.revision()?;
        let text = variant(number * 2)?;
        let began = Instant::now();
        gateway.configure(&text)?;
        while gateway.revision()? == before {
            ensure!(
                began.elapsed() < Duration::from_secs(10),
                "change {number} was not applied\n{}",
                log_tail()
            );
        }
        times.push(began.elapsed());
    }
    times.sort();
    println!(
        "     file to revision: median {:?}, worst {:?} (each includes asking by curl)",
        times[5], times[9]
    );
    // Speed is measured, not asserted to the millisecond: this catches a path that waits where it must not.
    ensure!(times[5] < Duration::from_millis(500), "{times:?}");
    Ok(())
}
