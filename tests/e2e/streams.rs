//! What streams of one connection may expect: their share of endpoints, silence, no harm from a slow neighbour.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, in_client, python, repository, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

const L7: &str = "198.18.0.10:50052";
const LIMIT: Duration = Duration::from_secs(60);
/// Above an idle gateway: windows, spare buffers and what the allocator has not yet returned. Less than the 64 MiB that
/// would stand in a gateway that holds no sender back.
const WORKING_KIB_MAX: u64 = 48 * 1024;

fn script(name: &str) -> Result<String> {
    let path = repository().join("tests/e2e/clients").join(name).canonicalize()?;
    Ok(path.display().to_string())
}

/// A client that is read line by line; ends with the value.
struct Client {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(name: &str, args: &[&str]) -> Result<Self> {
        let script = script(name)?;
        let mut child = in_client(python(), &[&[script.as_str()], args].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self { child, output })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the client ended\n{}", log_tail());
        Ok(line.trim().to_owned())
    }

    /// Closes its input and waits for its end.
    fn finish(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}\n{}", log_tail());
        Ok(())
    }

    fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The quickstart without some of its endpoints' IPv4 addresses.
fn without(names: &[&str]) -> Result<String> {
    let text = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let mut kept: Vec<&str> = Vec::new();
    for line in text.lines() {
        if names.iter().any(|name| line.contains(&format!("name: {name}}}"))) {
            ensure!(
                kept.pop().is_some_and(|address| address.contains("addresses:")),
                "the quickstart lists endpoints in two lines each"
            );
        } else {
            kept.push(line);
        }
    }
    Ok(kept.join("\n") + "\n")
}

/// Whether each of these endpoints has its equal share of the calls, within three hundredths of all, and nobody else one.
fn is_fair(line: &str, names: &[&str]) -> Result<bool> {
    let counts: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let counts = counts.as_object().context("counts")?;
    let of = |name: &str| counts.get(name).and_then(Value::as_f64).unwrap_or_default();
    let all: f64 = counts.keys().map(|name| of(name)).sum();
    let share = |name: &&str| (of(name) / all - 1.0 / names.len() as f64).abs() <= 0.03;
    Ok(all >= 50.0 && names.iter().all(share) && counts.keys().all(|name| names.contains(&name.as_str())))
}

/// Ten thousand calls over one connection, then others while endpoints come and go.
pub fn spread(datapath: &str) -> Result<()> {
    let gateway = Gateway::start(datapath)?;
    let mut client = Client::start("spread.py", &[L7, "10000", "16"])?;
    let first = client.line()?;
    ensure!(is_fair(&first, &["be1", "be2", "be3", "be4"])?, "{first}");
    let mut took = Vec::new();
    for (gone, left) in [("be4", ["be1", "be2", "be3"]), ("be3", ["be1", "be2", "be4"])] {
        gateway.configure(&without(&[gone])?)?;
        let changed = Instant::now();
        let mut seen = Vec::new();
        let fair = loop {
            let line = client.line()?;
            let began = changed.elapsed().saturating_sub(Duration::from_millis(200));
            let fair = is_fair(&line, &left)?;
            seen.push(line);
            if fair || began > Duration::from_secs(5) {
                break fair.then_some(began);
            }
        };
        took.push(fair.with_context(|| format!("without {gone} after 5 s: {seen:?}\n{}", log_tail()))?);
    }
    println!(
        "     {datapath}: {first}; an endpoint less: fair after {:?}; one for another: after {:?}",
        took[0], took[1]
    );
    client.finish()
}

/// Silence for three times every timeout is no reason to cut a stream whose client lives. The same timeouts end one whose
/// client does not read what waits for it.
pub fn silent(datapath: &str) -> Result<()> {
    let more = [
        "--set=timeouts.streamIdle=1s",
        "--set=timeouts.stall=1s",
        "--set=timeouts.body=1s",
        "--set=timeouts.idle=1s",
        "--set=timeouts.pingAfter=1s",
        "--set=timeouts.upstreamIdle=1s",
        "--set=timeouts.upstreamPing=1s",
        "--set=timeouts.pingAnswer=1s",
        "--set=limits.bodyBytes=64Ki",
    ];
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let gateway = Gateway::start_with(datapath, &quickstart, &more)?;
    client_text(python(), &[&script("silent.py")?, L7, "3"], LIMIT).with_context(log_tail)?;
    let open = || Ok::<_, anyhow::Error>(gateway.json("/api/v1/streams")?["items"].as_array().map_or(0, Vec::len));
    let mut frozen = Client::start("silent.py", &[L7, "0", "frozen"])?;
    ensure!(frozen.line()? == "open", "the stream opened");
    std::thread::sleep(Duration::from_secs(1));
    ensure!(open()? == 1, "the stream is there while its client reads");
    nix::sys::signal::kill(frozen.pid(), nix::sys::signal::Signal::SIGSTOP)?;
    let stopped = Instant::now();
    wait_for(
        "the stream of a client that takes nothing is ended",
        Duration::from_secs(20),
        || Ok(open()? == 0),
    )?;
    println!(
        "     {datapath}: a frozen client's stream ended after {:?}",
        stopped.elapsed()
    );
    Ok(())
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.context("VmRSS")?.trim().trim_end_matches(" kB").parse()?)
}

/// `SLUICE_SLOW_MEGABYTES` through one slow reader (1024 for the acceptance run), and one among many fast ones.
pub fn slow(datapath: &str) -> Result<()> {
    let megabytes = std::env::var("SLUICE_SLOW_MEGABYTES").unwrap_or_else(|_| "64".to_owned());
    let gateway = Gateway::start(datapath)?;
    let idle = resident(gateway.pid())?;
    let mut client = Client::start("slow.py", &[L7, "bulk", &megabytes, "40"])?;
    ensure!(client.line()? == "warm", "the stream runs");
    let mut samples = Vec::new();
    while client.child.try_wait()?.is_none() {
        samples.push(resident(gateway.pid())?);
        std::thread::sleep(Duration::from_millis(10));
    }
    ensure!(client.line()? == "ok", "all of it came");
    client.finish()?;
    // Buffers come and go within bounds: what must not rise is the floor.
    let (earlier, later) = samples.split_at(samples.len() / 2);
    let floor = |samples: &[u64]| samples.iter().min().copied().context("samples");
    let (before, after) = (floor(earlier)?, floor(later)?);
    let highest = samples.iter().max().copied().context("samples")?;
    println!(
        "     {datapath}: {megabytes} MiB read slowly: resident {idle} KiB idle, from {before} KiB in the first half, from {after} KiB in the second, to {highest} KiB"
    );
    ensure!(after <= before + 4096, "memory grew from {before} to {after} KiB");
    ensure!(
        highest <= idle + WORKING_KIB_MAX,
        "memory went from {idle} to {highest} KiB"
    );

    let text = client_text(python(), &[&script("slow.py")?, L7, "crowd", "99", "200"], LIMIT).with_context(log_tail)?;
    let told: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let (alone, beside) = (told["alone"].as_f64(), told["beside"].as_f64());
    let kept = alone.context("alone")? / beside.context("beside")?;
    println!(
        "     {datapath}: 99 streams beside a slow one keep {:.0} % of their speed: {told}",
        kept * 100.0
    );
    // 90 % is the aim, on a machine that does nothing else; who waits for the slow one keeps nothing.
    ensure!(kept >= 0.3, "{told}");
    Ok(())
}
