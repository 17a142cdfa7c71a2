//! The life of the process: crash and adoption, a dead endpoint, drain, clean exit.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, PINS, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, in_client, python, repository, run, sluice, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn script() -> Result<String> {
    Ok(repository()
        .join("tests/e2e/clients/streams.py")
        .canonicalize()?
        .display()
        .to_string())
}

pub fn adoption(datapath: &str) -> Result<()> {
    let gateway = Gateway::start(datapath)?;
    let script = script()?;
    let mut client = in_client(python(), &[&script, "198.18.0.10:50051", "50", "9", "connections"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(client.stdout.take().context("stdout is piped")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line.trim() == "open", "{line}");
    gateway.kill()?;
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    let gateway = Gateway::start(datapath)?;
    let call = [
        "lab",
        "load",
        "--target",
        "198.18.0.10:50052",
        "--requests",
        "1",
        "--concurrency",
        "1",
    ];
    let text = client_text(sluice(), &call, Duration::from_secs(10)).with_context(log_tail)?;
    let first_call = began.elapsed();
    ensure!(text.contains("\"failed\":0"), "{text}");
    let mut rest = String::new();
    output.read_to_string(&mut rest)?;
    client.wait()?;
    let result: Value = serde_json::from_str(rest.trim()).with_context(|| rest.clone())?;
    ensure!(
        result["failed"] == 0 && result["moved"] == 0,
        "{result}\n{}",
        log_tail()
    );
    println!(
        "     {datapath}: 50 flows lived through SIGKILL; ready again in {:?}, first L7 call answered after {first_call:?} (client start included)",
        gateway.started_in
    );
    ensure!(gateway.started_in < Duration::from_secs(10), "{:?}", gateway.started_in);
    Ok(())
}

pub fn dead_endpoint(datapath: &str) -> Result<()> {
    let _gateway = Gateway::start(datapath)?;
    let args = [
        "lab",
        "load",
        "--target",
        "198.18.0.10:50052",
        "--requests",
        "20000",
        "--connections",
        "4",
        "--concurrency",
        "4",
    ];
    let load = in_client(sluice(), &args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    std::thread::sleep(Duration::from_millis(400));
    Lab::kill_backend("be2")?;
    let output = load.wait_with_output()?;
    let result: Value = serde_json::from_slice(&output.stdout)?;
    let failed = result["failed"].as_u64().context("failed")?;
    println!("     {datapath}: {failed} of 20000 failed, 16 were in flight over four endpoints");
    // Those that were with it when it died, and as many that were sent before its end was heard.
    ensure!(failed <= 32, "{result}\n{}", log_tail());
    Ok(())
}

/// Status of a GET from the probe, in the gateway's namespace, with the Host of a load balancer.
fn probed(path: &str) -> Result<String> {
    let asked = Command::new(sluice())
        .args([
            "lab",
            "exec",
            "sluice-gw",
            "--",
            "curl",
            "-sS",
            "-m",
            "3",
            "-o",
            "/dev/null",
        ])
        .args(["-w", "%{http_code}", "-H", "Host: balancer.example"])
        .arg(format!("http://127.0.0.1:9902{path}"))
        .output()?;
    Ok(String::from_utf8_lossy(&asked.stdout).into_owned())
}

pub fn probe(datapath: &str) -> Result<()> {
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let mut gateway = Gateway::start_with(datapath, &quickstart, &["--probe=127.0.0.1:9902"])?;
    let all = || -> Result<[String; 3]> { Ok([probed("/livez")?, probed("/readyz")?, probed("/startupz")?]) };
    ensure!(all()? == ["200", "200", "200"], "{:?}", all()?);
    ensure!(probed("/config_dump")? == "404", "the probe shows more than it should");
    gateway.upgrade()?;
    ensure!(all()? == ["200", "200", "200"], "after a hand-over: {:?}", all()?);
    let script = script()?;
    let mut client = in_client(python(), &[&script, "198.18.0.10:50052", "1", "6"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(client.stdout.take().context("stdout is piped")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line.trim() == "open", "{line}");
    gateway.signal(nix::sys::signal::Signal::SIGTERM)?;
    wait_for("the probe hears of the drain", Duration::from_secs(5), || {
        Ok(probed("/readyz")? == "503")
    })?;
    // A process that drains is well: nobody may end it early.
    ensure!(all()? == ["200", "503", "200"], "{:?}", all()?);
    client.wait()?;
    Ok(())
}

pub fn drain(datapath: &str) -> Result<()> {
    let gateway = Gateway::start(datapath)?;
    let script = script()?;
    let mut client = in_client(python(), &[&script, "198.18.0.10:50052", "20", "4"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(client.stdout.take().context("stdout is piped")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line.trim() == "open", "{line}");
    let status = gateway.stop(Duration::from_secs(20))?;
    ensure!(status.success(), "{status}\n{}", log_tail());
    let mut rest = String::new();
    output.read_to_string(&mut rest)?;
    client.wait()?;
    let result: Value = serde_json::from_str(rest.trim()).with_context(|| rest.clone())?;
    ensure!(result["failed"] == 0, "{result}");
    Ok(())
}

pub fn clean_exit(datapath: &str) -> Result<()> {
    let routes = || -> Result<String> {
        let mut text = String::new();
        for family in ["-4", "-6"] {
            let mut command = Command::new(sluice());
            command.args([
                "lab",
                "exec",
                "sluice-gw",
                "--",
                "ip",
                family,
                "route",
                "show",
                "table",
                "local",
            ]);
            text.push_str(&String::from_utf8_lossy(&run(command, Duration::from_secs(5))?.stdout));
        }
        Ok(text)
    };
    let ours = |text: &str| text.contains("198.18.0.10") || text.contains("2001:2::a");
    let gateway = Gateway::start(datapath)?;
    ensure!(
        routes()?.contains("198.18.0.10"),
        "the VIP is local while the gateway runs: {}",
        routes()?
    );
    ensure!(
        routes()?.contains("2001:2::a"),
        "the IPv6 VIP is local while the gateway runs: {}",
        routes()?
    );
    let status = gateway.stop(Duration::from_secs(10))?;
    ensure!(status.success(), "{status}\n{}", log_tail());
    ensure!(!ours(&routes()?), "the VIPs are local no more: {}", routes()?);
    ensure!(!Path::new(PINS).exists(), "{PINS} is gone");
    let mut inside = Command::new(sluice());
    inside.args(["lab", "exec", "sluice-gw", "--", "bpftool", "-j", "net", "show"]);
    let shown = String::from_utf8_lossy(&run(inside, Duration::from_secs(5))?.stdout).into_owned();
    ensure!(
        !shown.contains("xdp_ingress") && !shown.contains("tc_ingress"),
        "programs are detached: {shown}"
    );
    Ok(())
}
