//! One process after another: upgrades under load, and successors that fail.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{in_client, python, repository, sluice, wait_for};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Clients of several kinds at once, until they end by themselves.
pub struct Loads(Vec<(&'static str, Child)>);

impl Loads {
    /// gRPC calls over HTTP/2, HTTP/1.1 with and without keep-alive, and streams that stay open, for `seconds`.
    pub fn start(seconds: u64) -> Result<Self> {
        let file = |name: &str| -> Result<String> {
            let path = repository().join("tests/e2e/clients").join(name).canonicalize()?;
            Ok(path.display().to_string())
        };
        let (calls, lua, streams) = (file("calls.py")?, file("say.lua")?, file("streams.py")?);
        let python = python().display().to_string();
        let (time, wrk) = (seconds.to_string(), format!("-d{seconds}s"));
        let h1 = "http://198.18.0.10:8080";
        let rows: [(&'static str, Vec<&str>); 4] = [
            ("calls", vec![&python, &calls, "198.18.0.10:50052", &time, "8", "60"]),
            ("streams", vec![&python, &streams, "198.18.0.10:50052", "20", &time]),
            (
                "keep-alive",
                vec!["wrk", "-t1", "-c8", "--timeout", "20s", &wrk, "-s", &lua, h1],
            ),
            (
                "new connections",
                vec![
                    "wrk",
                    "-t1",
                    "-c4",
                    "--timeout",
                    "20s",
                    &wrk,
                    "-H",
                    "connection: close",
                    "-s",
                    &lua,
                    h1,
                ],
            ),
        ];
        let mut loads = Self(Vec::new());
        for (name, args) in rows {
            let (program, rest) = args.split_first().context("a program")?;
            let child = in_client(*program, rest)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("start {program}"))?;
            loads.0.push((name, child));
        }
        Ok(loads)
    }

    /// Waits for all of them; nothing may have failed. Returns how many requests there were.
    pub fn finish(mut self) -> Result<u64> {
        let mut total = 0;
        let mut failures = Vec::new();
        for (name, child) in self.0.drain(..) {
            let output = child.wait_with_output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text
                .lines()
                .rev()
                .find(|line| line.starts_with('{'))
                .unwrap_or_default();
            let result: Value = serde_json::from_str(line).with_context(|| format!("{name}: {text}"))?;
            println!("     {name}: {line}");
            let count = |key: &str| result[key].as_u64().unwrap_or(0);
            total += count("ok") + count("messages");
            if count("failed") > 0 || count("moved") > 0 || count("ok") + count("messages") == 0 {
                failures.push(format!("{name}: {line}"));
            }
        }
        ensure!(failures.is_empty(), "{}\n{}", failures.join("\n"), log_tail());
        Ok(total)
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    given.unwrap_or(default)
}

/// `SLUICE_UPGRADES` of them (10 for the acceptance run).
pub fn upgrades(datapath: &str) -> Result<()> {
    let upgrades = number("SLUICE_UPGRADES", 3);
    let mut gateway = Gateway::start(datapath)?;
    let loads = Loads::start(upgrades * 2 + 2)?;
    std::thread::sleep(Duration::from_secs(1));
    let mut slowest = Duration::ZERO;
    for _ in 0..upgrades {
        let began = Instant::now();
        gateway.upgrade()?;
        slowest = slowest.max(began.elapsed());
        std::thread::sleep(Duration::from_secs(2).saturating_sub(began.elapsed()));
    }
    let requests = loads.finish()?;
    println!("     {datapath}: {upgrades} upgrades, {requests} requests, none failed; slowest {slowest:?}");
    let status = gateway.stop(Duration::from_secs(20))?;
    ensure!(status.success(), "{status}\n{}", log_tail());
    Ok(())
}

/// The binary, where a test may replace it.
struct Copy(PathBuf);

impl Copy {
    fn make() -> Result<Self> {
        let copy = Self(Lab::file("sluice-copy"));
        std::fs::copy(sluice(), &copy.0)?;
        Ok(copy)
    }

    /// As a package manager does: by rename.
    fn replace(&self, script: &str) -> Result<()> {
        let beside = self.0.with_extension("new");
        std::fs::write(&beside, script)?;
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755))?;
        Ok(std::fs::rename(&beside, &self.0)?)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn logged(words: &str) -> Result<()> {
    wait_for(words, Duration::from_secs(20), || {
        let text = std::fs::read_to_string(Lab::file("test-gateway.log"))?;
        Ok(text.contains(words))
    })
    .with_context(log_tail)
}

pub fn failures(datapath: &str) -> Result<()> {
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let copy = Copy::make()?;
    let mut gateway = Gateway::start_program(&copy.0, datapath, &quickstart, &["--set=timeouts.handover=4s"])?;
    let first = gateway.pid();
    let loads = Loads::start(12)?;
    let usr2 = || gateway.signal(nix::sys::signal::Signal::SIGUSR2);

    copy.replace("#!/bin/sh\nexit 3\n")?;
    usr2()?;
    logged("ended before it was ready (exit status: 3)")?;

    copy.replace("#!/bin/sh\nexec sleep 60\n")?;
    usr2()?;
    logged("was not ready in time")?;

    let binary = sluice().canonicalize()?;
    // The same binary with a configuration that is broken by now: the old process has its last good version.
    let good = |copy: &Copy| -> Result<()> {
        std::fs::copy(&binary, copy.0.with_extension("new"))?;
        Ok(std::fs::rename(copy.0.with_extension("new"), &copy.0)?)
    };
    good(&copy)?;
    gateway.configure(&quickstart.replacen("kind: GRPCRoute", "kind: [GRPCRoute", 1))?;
    usr2()?;
    logged("the configuration is not whole")?;
    logged("exit status: 78")?;
    gateway.configure(&quickstart)?;

    // One that would serve by another datapath fails after the old one has yielded, and everything is taken back.
    let other = if datapath == "off" { "lookup" } else { "off" };
    let script = format!(
        "#!/bin/sh\nexec env SLUICE_DATAPATH={other} {} $(echo \"$@\" | sed 's/--datapath=[a-z]*//')\n",
        binary.display()
    );
    copy.replace(&script)?;
    usr2()?;
    logged("the datapath would change from")?;
    logged("took back from a successor that failed")?;

    ensure!(gateway.serving()? == first, "the first process serves");
    loads.finish()?;
    // And after all that a good one takes over.
    good(&copy)?;
    gateway.upgrade()?;
    let status = gateway.stop(Duration::from_secs(20))?;
    ensure!(status.success(), "{status}\n{}", log_tail());
    Ok(())
}

/// SIGTERM under load: what was sent before the farewell is answered, and the process ends when the last answer is out.
pub fn drain(datapath: &str) -> Result<()> {
    let seconds = number("SLUICE_DRAIN_SECONDS", 2);
    let gateway = Gateway::start(datapath)?;
    let script = repository().join("tests/e2e/clients/drain.py").canonicalize()?;
    let script = script.display().to_string();
    let mut load = in_client(python(), &[&script, "198.18.0.10", "8080", "50052", "60"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    std::thread::sleep(Duration::from_secs(seconds));
    let began = Instant::now();
    let stopped = gateway.stop(Duration::from_secs(20));
    let took = began.elapsed();
    if stopped.is_err() {
        let _ = load.kill();
    }
    let output = load.wait_with_output()?;
    let status = stopped?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let result: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).with_context(|| text.clone())?;
    println!("     {datapath}: {result}, ended after {took:?}");
    ensure!(status.success(), "{status}\n{}", log_tail());
    ensure!(
        result["failed"] == 0 && result["goodbyes"] == 12,
        "{result}\n{}",
        log_tail()
    );
    ensure!(
        took < Duration::from_secs(5),
        "nothing was open any more, yet it took {took:?}"
    );
    Ok(())
}

/// `SLUICE_KILLS` times SIGKILL while configurations are written (100 for the acceptance run): the next start serves.
pub fn kills(datapath: &str) -> Result<()> {
    let kills = number("SLUICE_KILLS", 3);
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let script = repository().join("tests/e2e/clients/calls.py").canonicalize()?;
    let script = script.display().to_string();
    let mut dice = std::process::id();
    for round in 0..kills {
        let gateway = Gateway::start(datapath)?;
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let until = Instant::now() + Duration::from_millis(u64::from(dice >> 16) % 300);
        let mut weight = 1;
        while Instant::now() < until {
            weight = weight % 50 + 1;
            gateway.configure(&quickstart.replace("weight: 1", &format!("weight: {weight}")))?;
        }
        if round % 3 == 2 {
            // In the middle of a hand-over: old and new at once.
            gateway.signal(nix::sys::signal::Signal::SIGUSR2)?;
            std::thread::sleep(Duration::from_millis(u64::from(dice >> 24)));
        }
        gateway.kill()?;
    }
    let gateway = Gateway::start(datapath)?;
    let args = [script.as_str(), "198.18.0.10:50052", "1", "2", "20"];
    let text = gateway_tests::shell::client_text(python(), &args, Duration::from_secs(20)).with_context(log_tail)?;
    ensure!(text.contains("\"failed\": 0"), "{text}\n{}", log_tail());
    println!("     {datapath}: served after {kills} kills");
    let status = gateway.stop(Duration::from_secs(20))?;
    ensure!(status.success(), "{status}\n{}", log_tail());
    Ok(())
}

/// The access log goes on in a new file after it was moved away.
pub fn reopened_log(datapath: &str) -> Result<()> {
    let (log, moved) = (Lab::file("access.log"), Lab::file("access.log.1"));
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let path = format!("--set=accessLogPath={}", log.display());
    let gateway = Gateway::start_with(datapath, &quickstart, &["--set=accessLog=text", &path])?;
    let call = || {
        let url = "http://198.18.0.10:8080/sluice.demo.v1.Echo/Say";
        let args = ["-s", "-m", "5", "-o", "/dev/null", url];
        gateway_tests::shell::client_text("curl", &args, Duration::from_secs(10))
    };
    let lines = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    call()?;
    wait_for("the first line", Duration::from_secs(5), || Ok(lines(&log) == 1))?;
    std::fs::rename(&log, &moved)?;
    gateway.signal(nix::sys::signal::Signal::SIGUSR1)?;
    wait_for("the new file", Duration::from_secs(5), || Ok(log.exists()))?;
    call()?;
    wait_for("the second line", Duration::from_secs(5), || Ok(lines(&log) == 1))?;
    ensure!(lines(&moved) == 1, "{} lines in the old file", lines(&moved));
    std::fs::remove_file(&log)?;
    Ok(std::fs::remove_file(&moved)?)
}
