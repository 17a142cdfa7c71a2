//! gRPC's own interoperability cases, and gRPC for browsers, by clients and servers that nobody here wrote.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, python, repository, sluice};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(100);
/// Rounds of the interoperability cases per transport.
const ROUNDS: &str = "3";

/// A process that ends with the value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// gRPC's test service over grpcio in the namespace of be1, once it serves.
fn test_service() -> Result<Server> {
    let script = repository()
        .join("tests/e2e/clients/testservice_server.py")
        .canonicalize()?;
    let mut child = Command::new(sluice())
        .args(["lab", "exec", "sluice-be1", "--"])
        .arg(python())
        .arg(script)
        .arg("50061")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the test service")?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let server = Server(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.trim() == "serving", "the test service did not start: {line:?}");
    Ok(server)
}

/// The quickstart with a route to the test service, and with pages of every origin that may call the demo.
fn config() -> Result<String> {
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    let name = "  name: echo-l7\n";
    ensure!(quickstart.contains(name), "the quickstart has the route echo-l7");
    let annotated = format!("{name}  annotations: {{sluice.dev/cors-allow-origins: \"https://*.example\"}}\n");
    Ok(quickstart.replacen(name, &annotated, 1)
        + "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: interop}
spec:
  parentRefs: [{name: lab, sectionName: l7}, {name: lab, sectionName: https}]
  rules:
  - matches:
    - method: {service: grpc.testing.TestService}
    - method: {service: grpc.testing.UnimplementedService}
    backendRefs: [{name: interop, port: 50061}]
---
apiVersion: v1
kind: Service
metadata: {name: interop}
spec: {ports: [{port: 50061}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: interop-1, labels: {kubernetes.io/service-name: interop}}
addressType: IPv4
ports: [{port: 50061}]
endpoints: [{addresses: [198.18.2.11]}]
")
}

pub fn interop(datapath: &str) -> Result<()> {
    let gateway = Gateway::start_with(datapath, &config()?, &[])?;
    let _server = test_service()?;
    let script = repository().join("tests/e2e/clients/testservice.py").canonicalize()?;
    let script = script.display().to_string();
    let ca = Lab::file("lab-tls.pem").display().to_string();
    for (target, ca) in [("198.18.0.10:50052", None), ("198.18.0.10:8443", Some(ca.as_str()))] {
        let mut args = vec![script.as_str(), target, ROUNDS];
        args.extend(ca);
        let text = client_text(python(), &args, LIMIT).with_context(log_tail)?;
        println!("     {datapath} {target}: {text}");
    }
    let metrics = gateway.get("/stats/prometheus")?;
    let empty = r#"sluice_grpc_calls_total{service="grpc.testing.TestService",method="EmptyCall",code="OK"} 6"#;
    ensure!(metrics.contains(empty), "not there: {empty}");
    Ok(())
}

/// The clients for browsers that `cargo xtask setup` installed.
fn web_clients() -> Result<PathBuf> {
    let folder = std::env::var_os("SLUICE_WEB")
        .context("SLUICE_WEB names the folder of the clients: cargo xtask test sets it")?;
    Ok(PathBuf::from(folder).join("node_modules"))
}

pub fn browsers(datapath: &str) -> Result<()> {
    let _gateway = Gateway::start_with(datapath, &config()?, &[])?;
    // Node looks for modules beside the script.
    let folder = Lab::file("web");
    std::fs::create_dir_all(&folder)?;
    let modules = folder.join("node_modules");
    let _ = std::fs::remove_file(&modules);
    std::os::unix::fs::symlink(web_clients()?, &modules)?;
    let script = folder.join("check.mjs");
    std::fs::copy(repository().join("tests/e2e/web/check.mjs"), &script)?;
    let script = script.display().to_string();
    let text = client_text("node", &[&script, "http://198.18.0.10:50052"], LIMIT).with_context(log_tail)?;
    println!("     {datapath}: {text}");
    preflight("https://app.example", true)?;
    preflight("https://app.example.evil", false)
}

/// Asks as a browser does before a page of another origin may call.
fn preflight(origin: &str, allowed: bool) -> Result<()> {
    let origin_field = format!("origin: {origin}");
    let args = [
        "-sS",
        "-m",
        "5",
        "-i",
        "-X",
        "OPTIONS",
        "-H",
        &origin_field,
        "-H",
        "access-control-request-method: POST",
        "-H",
        "access-control-request-headers: content-type,x-grpc-web",
        "http://198.18.0.10:50052/sluice.demo.v1.Echo/Say",
    ];
    let text = client_text("curl", &args, Duration::from_secs(10)).with_context(log_tail)?;
    ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
    let told = text.contains(&format!("access-control-allow-origin: {origin}"));
    ensure!(told == allowed, "{origin}: {text}");
    ensure!(
        !allowed || text.contains("access-control-allow-headers: content-type,x-grpc-web"),
        "{text}"
    );
    Ok(())
}
