//! What the gateway tells of the traffic it serves, read by those whom it is for.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, python, repository, sluice, wait_for};
use serde_json::Value;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CALLS: usize = 10;
/// Two for each call, one for the call that was answered by the gateway.
const SPANS: usize = 2 * CALLS + 1;

/// Spans reach a collector, hang together, and follow the client's trace.
pub fn traces(datapath: &str) -> Result<()> {
    let script = |name: &str| -> Result<String> {
        let path = repository().join("tests/e2e/clients").join(name).canonicalize()?;
        Ok(path.display().to_string())
    };
    let output = Lab::file("spans.jsonl");
    let mut collector = Command::new(sluice())
        .args(["lab", "exec", "sluice-gw", "--"])
        .arg(python())
        .args([&script("collector.py")?, "4318", &SPANS.to_string(), "30"])
        .stdin(Stdio::null())
        .stdout(File::create(&output)?)
        .spawn()
        .context("start the collector")?;
    let told = (|| -> Result<String> {
        let read = || std::fs::read_to_string(&output).context("the collector's output");
        wait_for("the collector listens", Duration::from_secs(10), || {
            Ok(read()?.contains("listening"))
        })?;
        let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
        let more = [
            "--set=tracing.endpoint=http://127.0.0.1:4318",
            "--set=tracing.sampling=1",
        ];
        let gateway = Gateway::start_with(datapath, &quickstart, &more)?;
        let client = script("traced.py")?;
        let args = [&client, "198.18.0.10:50052", &CALLS.to_string(), PARENT];
        client_text(python(), &args, Duration::from_secs(30)).with_context(log_tail)?;
        wait_for("every span came", Duration::from_secs(20), || {
            Ok(read()?.lines().count() > SPANS)
        })?;
        let metrics = gateway.get("/stats/prometheus")?;
        let lost = metrics
            .lines()
            .filter(|line| line.starts_with("sluice_spans_lost_total{"));
        ensure!(
            lost.clone().count() > 0 && lost.into_iter().all(|line| line.ends_with(" 0")),
            "spans were lost"
        );
        read()
    })();
    let _ = collector.kill();
    let _ = collector.wait();
    judge(&told?)
}

fn judge(told: &str) -> Result<()> {
    let spans: Vec<Value> = told
        .lines()
        .skip(1)
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(spans.len() == SPANS, "{} spans", spans.len());
    let (servers, clients): (Vec<&Value>, Vec<&Value>) = spans.iter().partition(|span| span["kind"] == 2);
    ensure!(servers.len() == CALLS + 1 && clients.len() == CALLS, "{told}");
    for client in &clients {
        let server = servers.iter().find(|server| server["span"] == client["parent"]);
        let server = server.context("a client span without its server span")?;
        ensure!(server["trace"] == client["trace"] && client["kind"] == 3, "{client}");
        ensure!(server["name"] == "sluice.demo.v1.Echo/Say", "{server}");
        ensure!(
            server["attributes"]["rpc.response.status_code"] == 0 && server["error"] == false,
            "{server}"
        );
        ensure!(
            server["resource"]["service.name"] == "sluice" && server["nanos"].as_u64() > Some(0),
            "{server}"
        );
        ensure!(client["attributes"]["server.port"] == 50051, "{client}");
    }
    let (_, given) = PARENT.split_at(3);
    let followed: Vec<&&Value> = servers.iter().filter(|span| span["parent"] != "").collect();
    ensure!(
        followed.len() == 1,
        "one call had a parent, {} spans have",
        followed.len()
    );
    let id = format!(
        "{}-{}-01",
        followed[0]["trace"].as_str().unwrap_or(""),
        followed[0]["parent"].as_str().unwrap_or("")
    );
    ensure!(id == given, "{id} is not the client's trace");
    let refused = servers.iter().find(|span| span["name"] == "no.such.Service/Method");
    let refused = refused.context("no span of the call without a route")?;
    ensure!(
        refused["error"] == true && refused["attributes"]["error.type"] == "no_route",
        "{refused}"
    );
    Ok(())
}
