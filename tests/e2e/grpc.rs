//! gRPC's own interoperability cases, by a client and a server over grpcio.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, python, repository, sluice};
use std::io::{BufRead, BufReader};
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

/// The quickstart with a route to the test service.
fn config() -> Result<String> {
    let quickstart = std::fs::read_to_string(Lab::file("quickstart.yaml"))?;
    Ok(quickstart
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
    let _gateway = Gateway::start_with(datapath, &config()?, &[])?;
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
    Ok(())
}
