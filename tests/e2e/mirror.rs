//! Copies of requests: they arrive whole, and the original never hears of them.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, python, repository, sluice, wait_for};
use serde_json::Value;
use std::fmt::Write;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const REQUESTS: usize = 20;
/// An echo request: "hello".
const BODY: [u8; 12] = [0, 0, 0, 0, 7, 0x0a, 5, b'h', b'e', b'l', b'l', b'o'];
/// Name, address, port and protocol of each mirror: two that record, one that refuses connections, one that is not there.
const MIRRORS: [(&str, &str, u16, &str); 4] = [
    ("mirror-h1", "198.18.2.11", 8091, "http"),
    ("mirror-h2", "198.18.2.11", 8092, "kubernetes.io/h2c"),
    ("mirror-closed", "198.18.2.11", 8093, "http"),
    ("mirror-gone", "198.18.2.99", 8094, "kubernetes.io/h2c"),
];

/// The quickstart whose plain HTTP route has the mirrors.
fn config() -> Result<String> {
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let rule = "        type: PathPrefix\n        value: /\n";
    ensure!(
        quickstart.matches(rule).count() == 1,
        "the quickstart has one such rule"
    );
    let mut filters = format!("{rule}    filters:\n");
    let mut services = String::new();
    for (name, address, port, protocol) in MIRRORS {
        writeln!(
            filters,
            "    - {{type: RequestMirror, requestMirror: {{backendRef: {{name: {name}, port: {port}}}}}}}"
        )?;
        writeln!(
            services,
            "---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: {port}, appProtocol: {protocol}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [{address}]}}]"
        )?;
    }
    Ok(quickstart.replacen(rule, &filters, 1) + &services)
}

/// The recorder; ends with the value.
struct Recorder(Child);

impl Recorder {
    fn start() -> Result<Self> {
        let script = repository().join("tests/e2e/clients/recorder.py").canonicalize()?;
        let child = Command::new(sluice())
            .args(["lab", "exec", "sluice-be1", "--"])
            .arg(python())
            .arg(script)
            .args(["8091", "8092"])
            .stdin(Stdio::null())
            .stdout(File::create(Lab::file("recorded.jsonl"))?)
            .spawn()
            .context("start the recorder")?;
        let recorder = Self(child);
        wait_for("the recorder listens", Duration::from_secs(10), || {
            Ok(!recorded("ready")?.is_empty())
        })?;
        Ok(recorder)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What came over one protocol so far.
fn recorded(by: &str) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(Lab::file("recorded.jsonl"))?;
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let mut lines: Vec<Value> = whole.map(serde_json::from_str).collect::<Result<_, _>>()?;
    lines.retain(|line| line["by"] == by);
    Ok(lines)
}

/// One request by curl, answered by an endpoint; how long it took, seconds. (A connection each: Debian's curl 7.88 fails
/// to use one twice with prior knowledge of HTTP/2.)
fn ask(version: &str, data: &str, number: usize) -> Result<f64> {
    let url = format!("http://198.18.0.10:8080/sluice.demo.v1.Echo/Say?n={number}");
    let shown = "%{http_code} %header{x-endpoint} %{size_download} %{time_total}";
    let mut args = vec!["-sS", "-m", "5", version, "-o", "/dev/null", "-w", shown];
    args.extend([
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        "-H",
        "x-copied: yes",
    ]);
    args.extend(["--data-binary", data, &url]);
    let text = client_text("curl", &args, Duration::from_secs(10)).with_context(log_tail)?;
    let told: Vec<&str> = text.split(' ').collect();
    ensure!(
        told.len() == 4 && told[0] == "200" && told[1].starts_with("be") && told[2] == "19",
        "{version}: {text}"
    );
    Ok(told[3].parse()?)
}

pub fn mirrors(datapath: &str) -> Result<()> {
    let gateway = Gateway::start_with(datapath, &config()?, &[])?;
    let _recorder = Recorder::start()?;
    let body = Lab::file("request.bin");
    std::fs::write(&body, BODY)?;
    let data = format!("@{}", body.display());
    let mut slowest = 0.0_f64;
    for number in 1..=REQUESTS {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            slowest = slowest.max(ask(version, &data, number)?);
        }
    }
    // A connection to nowhere is given up after two seconds: nobody waited for that.
    ensure!(slowest < 1.9, "the slowest request took {slowest} s");
    let body: String = BODY.iter().map(|byte| format!("{byte:02x}")).collect();
    for (by, payload) in [("h1", body.as_str()), ("h2", &body[10..])] {
        let wanted = 2 * REQUESTS;
        wait_for(&format!("{wanted} copies over {by}"), Duration::from_secs(5), || {
            Ok(recorded(by)?.len() >= wanted)
        })
        .with_context(|| format!("{:?}\n{}", recorded(by), log_tail()))?;
        let copies = recorded(by)?;
        ensure!(copies.len() == wanted, "{} copies over {by}", copies.len());
        for number in 1..=REQUESTS {
            let path = format!("/sluice.demo.v1.Echo/Say?n={number}");
            let same = copies.iter().filter(|copy| copy["path"] == path.as_str());
            ensure!(same.count() == 2, "{path} over {by}: {copies:?}");
        }
        let whole = |copy: &&Value| copy["body"] == payload && copy["fields"]["x-copied"] == "yes";
        ensure!(copies.iter().all(|copy| whole(&copy)), "{copies:?}");
    }
    let count = |outcome: &str| -> Result<usize> {
        let text = gateway.get("/stats/prometheus")?;
        let name = format!("sluice_http_mirrors_total{{outcome=\"{outcome}\"}} ");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&name))
            .context(name.clone())?;
        Ok(line.parse()?)
    };
    let dead = 2 * 2 * REQUESTS;
    wait_for(
        "mirrors that do not answer are counted",
        Duration::from_secs(10),
        || Ok(count("failed")? >= dead),
    )
    .with_context(|| {
        format!(
            "begun {:?}, failed {:?}, dropped {:?}",
            count("begun"),
            count("failed"),
            count("dropped")
        )
    })?;
    let (begun, failed, dropped) = (count("begun")?, count("failed")?, count("dropped")?);
    println!("     {datapath}: slowest request {slowest} s; mirrors begun {begun}, failed {failed}, dropped {dropped}");
    ensure!(
        begun == 2 * MIRRORS.len() * REQUESTS && failed == dead && dropped == 0,
        "{begun} {failed} {dropped}"
    );
    Ok(())
}
