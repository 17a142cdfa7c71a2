//! Services of type LoadBalancer: who may connect, and which endpoint a client gets, on every datapath.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::shell::{client_text, python, repository, sluice, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use crate::udp::{NAMES, Servers};

const STICKY: &str = "198.18.0.20";
const FENCED: &str = "198.18.0.21";
const CLOSED: &str = "198.18.0.22";
const LOCAL: &str = "198.18.0.23";
/// Connections or datagrams of one client.
const TIMES: u64 = 24;

fn service(name: &str, addr: &str, more: &str) -> String {
    let endpoints: Vec<String> = NAMES
        .iter()
        .map(|name| format!("{{addresses: [198.18.2.1{}], nodeName: node-{name}}}", &name[2..]))
        .collect();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, loadBalancerClass: \
         sluice.dev/lb, loadBalancerIP: {addr}, {more} ports: [{{name: udp, port: 53, protocol: UDP}}, {{name: tcp, port: \
         53}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, labels: \
         {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: udp, port: 5353, protocol: UDP}}, \
         {{name: tcp, port: 5353}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

fn configuration() -> String {
    [
        service("sticky", STICKY, "sessionAffinity: ClientIP,"),
        service(
            "fenced",
            FENCED,
            "loadBalancerSourceRanges: [198.18.1.2/32, \"2001:db8::/32\"],",
        ),
        service("closed", CLOSED, "loadBalancerSourceRanges: [198.18.1.0/31],"),
        service("local", LOCAL, "externalTrafficPolicy: Local,"),
    ]
    .concat()
}

/// How often each endpoint answered one client's `TIMES` datagrams or connections; `lost` those that nobody answered.
fn asked(kind: &str, addr: &str, from: &str) -> Result<Value> {
    let script = repository().join("tests/e2e/clients/datagrams.py").canonicalize()?;
    let (script, times) = (script.display().to_string(), TIMES.to_string());
    let args = [script.as_str(), "ask", kind, addr, "53", &times, from];
    let text = client_text(python(), &args, Duration::from_secs(30)).with_context(log_tail)?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// The names that answered, when all of them did.
fn names(seen: &Value) -> Result<BTreeSet<String>> {
    let counts = seen.as_object().context("names and counts")?;
    let total: u64 = counts.values().filter_map(Value::as_u64).sum();
    ensure!(total == TIMES && !counts.contains_key("lost"), "{seen}");
    Ok(counts.keys().cloned().collect())
}

/// Further addresses of the client; gone when dropped.
struct Addresses(Vec<String>);

impl Addresses {
    fn add(count: u8) -> Result<Self> {
        let mut added = Self(Vec::new());
        for last in 0..count {
            let addr = format!("198.18.1.{}/24", 100 + last);
            ip(&["addr", "add", &addr, "dev", "eth0"])?;
            added.0.push(addr);
        }
        Ok(added)
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        for addr in &self.0 {
            let _ = ip(&["addr", "del", addr, "dev", "eth0"]);
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let mut command = Command::new(sluice());
    command.args(["lab", "exec", "sluice-client", "--", "ip"]).args(args);
    ensure!(command.status()?.success(), "ip {args:?}");
    Ok(())
}

fn refusals(gateway: &Gateway) -> Result<u64> {
    let metrics = gateway.get("/stats/prometheus")?;
    let mut lines = metrics.lines();
    let line = lines.find(|line| line.starts_with("sluice_refusals_total") && line.contains("\"not_allowed\""));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.context("sluice_refusals_total has a row of not_allowed")
}

pub fn services(datapath: &str) -> Result<()> {
    let gateway = Gateway::start_with(datapath, &configuration(), &["--node=node-be3"])?;
    let _servers = Servers::start()?;
    let clients = Addresses::add(4)?;
    // One client, one endpoint; of several clients not all the same.
    for kind in ["tcp", "udp"] {
        let mut all = BTreeSet::new();
        for client in &clients.0 {
            let client = client.trim_end_matches("/24");
            let chosen = names(&asked(kind, STICKY, client)?)?;
            ensure!(chosen.len() == 1, "{kind} from {client}: {chosen:?}");
            all.extend(chosen);
        }
        ensure!(all.len() > 1, "{kind}: every client has {all:?}");
        // Who may connect does, and goes to every endpoint; others are refused and counted.
        let near = names(&asked(kind, FENCED, "198.18.1.2")?)?;
        ensure!(near.len() == NAMES.len(), "{kind}: {near:?}");
        for (addr, client) in [(FENCED, "198.18.1.100"), (CLOSED, "198.18.1.2")] {
            let before = refusals(&gateway)?;
            let seen = asked(kind, addr, client)?;
            ensure!(seen["lost"] == TIMES, "{kind} to {addr} from {client}: {seen}");
            let counted = || Ok(refusals(&gateway)? == before + TIMES);
            wait_for("each is counted", Duration::from_secs(5), counted)?;
        }
        // Endpoints of this node alone.
        let own = names(&asked(kind, LOCAL, "198.18.1.2")?)?;
        ensure!(own == BTreeSet::from(["be3".to_owned()]), "{kind}: {own:?}");
    }
    // No endpoint of this node is left: it has the address no longer, and refuses what comes.
    gateway.configure(&configuration().replace("nodeName: node-be3", "nodeName: node-be9"))?;
    let here = || -> Result<bool> {
        let mut command = Command::new(sluice());
        command.args(["lab", "exec", "sluice-gw", "--", "ip", "route", "get", LOCAL]);
        let output = command.output()?;
        Ok(String::from_utf8_lossy(&output.stdout).starts_with("local"))
    };
    wait_for("the address is no longer local", Duration::from_secs(10), || {
        Ok(!here()?)
    })
    .with_context(log_tail)?;
    let seen = asked("tcp", LOCAL, "198.18.1.2")?;
    ensure!(seen["lost"] == TIMES, "{seen}");
    if matches!(datapath, "tcx" | "xdp") {
        let dropped = gateway.verdicts(&format!("tcp://{LOCAL}:53"), "no_endpoint")?;
        ensure!(dropped >= TIMES, "{dropped} dropped and counted");
    }
    Ok(())
}
