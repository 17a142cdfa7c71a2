//! More than the gateway may take: it says so at once, and serves again when there is room.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, in_client, python, repository, wait_for};
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

/// One call by curl: its head, and its time in seconds. Without a body the answer can be no earlier than the request's
/// end: curl 7.88 takes an early answer's RST_STREAM (NO_ERROR) for a failure.
fn call(with_body: bool) -> Result<(String, f64)> {
    let body = Lab::file("request.bin");
    std::fs::write(&body, [0, 0, 0, 0, 7, 0x0a, 5, b'h', b'e', b'l', b'l', b'o'])?;
    let data = format!("@{}", body.display());
    let mut args = vec![
        "-sS",
        "-m",
        "10",
        "--http2-prior-knowledge",
        "-o",
        "/dev/null",
        "-D",
        "-",
        "-w",
        "took=%{time_starttransfer} connect=%{time_connect}",
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        "http://198.18.0.10:50052/sluice.demo.v1.Echo/Say",
    ];
    if with_body {
        args.extend(["--data-binary", &data]);
    }
    let text = client_text("curl", &args, Duration::from_secs(20)).with_context(log_tail)?;
    let number = |key: &str| -> Option<f64> { text.rsplit_once(key)?.1.split(' ').next()?.parse().ok() };
    let took = number("took=").context("took")? - number("connect=").context("connect")?;
    Ok((text, took))
}

fn metric(gateway: &Gateway, name: &str) -> Result<f64> {
    let text = gateway.get("/stats/prometheus")?;
    let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    Ok(lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum())
}

/// As many requests as may be under way are; others hear it at once, and are served when the first have ended.
pub fn requests(datapath: &str) -> Result<()> {
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let gateway = Gateway::start_with(datapath, &quickstart, &["--workers=1", "--set=limits.requests=8"])?;
    let script = repository().join("tests/e2e/clients/streams.py").canonicalize()?;
    let script = script.display().to_string();
    let mut client = in_client(python(), &[&script, "198.18.0.10:50052", "8", "6"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(client.stdout.take().context("stdout is piped")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line.trim() == "open", "{line}");
    let mut slowest: f64 = 0.0;
    for _ in 0..20 {
        let (text, took) = call(false)?;
        ensure!(text.contains("grpc-status: 8"), "{text}");
        slowest = slowest.max(took);
    }
    let shed = metric(&gateway, "sluice_http_shed_total")?;
    ensure!(shed >= 20.0, "{shed} counted");
    let mut rest = String::new();
    output.read_to_string(&mut rest)?;
    client.wait()?;
    ensure!(rest.contains("\"failed\": 0"), "those that were served first: {rest}");
    wait_for("requests are served again", Duration::from_secs(10), || {
        Ok(call(true)?.0.contains("x-endpoint: be"))
    })?;
    println!(
        "     {datapath}: 20 turned away, the slowest in {:.1} ms",
        slowest * 1000.0
    );
    // One that waited for a place would have waited for seconds.
    ensure!(slowest < 2.0, "the slowest refusal took {slowest} s");
    Ok(())
}

/// With more memory in use than it may have, the gateway takes no connection, says why, and stays up.
pub fn memory(datapath: &str) -> Result<()> {
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let gateway = Gateway::start_with(datapath, &quickstart, &["--set=limits.memoryBytes=1Mi"])?;
    wait_for("the pressure is seen", Duration::from_secs(10), || {
        Ok(metric(&gateway, "sluice_memory_pressure")? >= 4.0)
    })?;
    ensure!(call(true).is_err(), "a connection was served");
    let limit = metric(&gateway, "sluice_memory_limit_bytes")?;
    let used = metric(&gateway, "sluice_memory_used_bytes")?;
    ensure!(limit == 1_048_576.0 && used > limit, "{used} of {limit}");
    let dump = gateway.json("/config_dump")?;
    ensure!(dump["limits"]["memoryBytes"] == 1_048_576, "{}", dump["limits"]);
    Ok(())
}
