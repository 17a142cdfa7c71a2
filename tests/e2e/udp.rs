//! UDPRoute on every datapath: Python's sockets on both ends.

use anyhow::{Context, Result, bail, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::shell::{client_text, in_client, python, repository, sluice, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

const V4: &str = "198.18.0.10";
const V6: &str = "2001:2::a";
pub const NAMES: [&str; 4] = ["be1", "be2", "be3", "be4"];

fn script() -> Result<String> {
    let path = repository().join("tests/e2e/clients/datagrams.py").canonicalize()?;
    Ok(path.display().to_string())
}

/// The backends' servers; ended when dropped.
pub struct Servers(Vec<Child>);

impl Servers {
    pub fn start() -> Result<Self> {
        let mut servers = Self(Vec::new());
        for name in NAMES {
            let mut command = Command::new(sluice());
            command.args(["lab", "exec", &format!("sluice-{name}"), "--"]);
            command.arg(python()).args([&script()?, "serve", name, "5353"]);
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
            let stdout = child.stdout.take().context("stdout is piped")?;
            servers.0.push(child);
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            ensure!(line.trim() == "serving", "{name}: {line}");
        }
        Ok(servers)
    }

    fn kill(&mut self, name: &str) -> Result<()> {
        let at = NAMES.iter().position(|known| *known == name).context("a backend")?;
        self.0[at].kill()?;
        self.0[at].wait()?;
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Which endpoints a Service has, by name; those of `draining` are on their way out.
fn slices(service: &str, names: &[&str], draining: &[&str], families: &[&str]) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {service}}}\nspec: {{ports: [{{name: udp, port: 53, \
         protocol: UDP}}, {{name: tcp, port: 53}}]}}\n"
    );
    for family in families {
        let prefix = if *family == "IPv4" {
            "198.18.2.1"
        } else {
            "2001:2:0:2::1"
        };
        let endpoints: Vec<String> = names
            .iter()
            .map(|name| {
                let out = draining.contains(name);
                format!(
                    "{{addresses: [\"{prefix}{}\"], targetRef: {{kind: Pod, name: {name}}}, conditions: {{ready: {}, \
                     serving: true, terminating: {out}}}}}",
                    &name[2..],
                    !out
                )
            })
            .collect();
        text.push_str(&format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-{}, labels: \
             {{kubernetes.io/service-name: {service}}}}}\naddressType: {family}\nports: [{{name: udp, port: 5353, \
             protocol: UDP}}, {{name: tcp, port: 5353}}]\nendpoints: [{}]\n",
            family.to_lowercase(),
            endpoints.join(", ")
        ));
    }
    text
}

fn route(name: &str, more: &str, backends: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: UDPRoute\nmetadata: {{name: {name}{more}}}\nspec: \
         {{parentRefs: [{{name: edge, sectionName: {name}}}], rules: [{{backendRefs: [{backends}]}}]}}\n"
    )
}

const BOTH: &[&str] = &["IPv4", "IPv6"];

/// `alone`: no other listener has the endpoints too.
fn configuration(draining: &[&str], there: &[&str], alone: bool) -> String {
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: sluice}}\nspec: \
         {{controllerName: sluice.dev/gateway-controller}}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: \
         Gateway\nmetadata: {{name: edge}}\nspec:\n  gatewayClassName: sluice\n  addresses: [{{value: {V4}}}, {{value: \
         \"{V6}\"}}]\n  listeners:\n  - {{name: dns, protocol: UDP, port: 53}}\n  - {{name: dns-tcp, protocol: TCP, \
         port: 53}}\n  - {{name: weighted, protocol: UDP, port: 54}}\n  - {{name: broken, protocol: UDP, port: 55}}\n  \
         - {{name: relayed, protocol: UDP, port: 56}}\n  - {{name: four, protocol: UDP, port: 57}}\n"
    );
    text.push_str(&slices("all", there, draining, BOTH));
    text.push_str(&route("dns", "", "{name: all, port: 53}"));
    if alone {
        return text;
    }
    for name in &NAMES[..3] {
        text.push_str(&slices(name, &[name], &[], BOTH));
    }
    text.push_str(&slices("four", &NAMES, &[], &["IPv4"]));
    text.push_str(&route("dns-tcp", "", "{name: all, port: 53}").replace("UDPRoute", "TCPRoute"));
    text.push_str(&route(
        "weighted",
        "",
        "{name: be1, port: 53, weight: 70}, {name: be2, port: 53, weight: 30}, {name: be3, port: 53, weight: 0}",
    ));
    text.push_str(&route("broken", "", "{name: be1, port: 53}, {name: nobody, port: 53}"));
    text.push_str(&route(
        "relayed",
        ", annotations: {sluice.dev/plane: splice}",
        "{name: all, port: 53}",
    ));
    text.push_str(&route("four", "", "{name: four, port: 53}"));
    text
}

fn start(datapath: &str) -> Result<Gateway> {
    Gateway::start_with(datapath, &configuration(&[], &NAMES, false), &[])
}

/// Answers by name, of datagrams from so many ports.
fn spread(addr: &str, port: &str, flows: &str) -> Result<impl Fn(&str) -> u64 + use<>> {
    let args = [&script()?, "spread", addr, port, flows];
    let text = client_text(python(), &args, Duration::from_secs(60)).with_context(log_tail)?;
    let result: Value = serde_json::from_str(&text)?;
    ensure!(result["wrong"] == 0, "{result}");
    Ok(move |name: &str| result["seen"][name].as_u64().unwrap_or(0))
}

fn by_packets(datapath: &str) -> bool {
    matches!(datapath, "tcx" | "xdp")
}

/// Every kind of UDP listener carries every datagram, from the VIP's address, with the weights it was given.
pub fn carried(datapath: &str) -> Result<()> {
    let gateway = start(datapath)?;
    let _servers = Servers::start()?;
    for addr in [V4, V6] {
        for port in ["53", "56", "57"] {
            let seen = spread(addr, port, "400")?;
            let total: u64 = NAMES.iter().map(|name| seen(name)).sum();
            ensure!(total == 400, "{addr} {port}: {} lost", seen("lost"));
            ensure!(NAMES.iter().all(|name| seen(name) > 50), "{addr} {port}: not spread");
        }
        let seen = spread(addr, "54", "1000")?;
        let (first, second) = (seen("be1"), seen("be2"));
        ensure!(
            first + second == 1000,
            "{addr}: {first} and {second}, {} lost",
            seen("lost")
        );
        // Three standard deviations of a flow's hash.
        ensure!(
            (655..=745).contains(&first),
            "{addr}: {first} of 1000 for a weight of 70 %"
        );
        let seen = spread(addr, "55", "100")?;
        let (served, refused) = (seen("be1"), seen("lost"));
        ensure!(
            served + refused == 100 && (45..=55).contains(&served),
            "{addr}: {served} served, {refused} refused for a broken half"
        );
    }
    let planes = gateway.json("/api/v1/connections")?;
    let rows = planes["items"].as_array().cloned().unwrap_or_default();
    let of = |listener: &str| -> Vec<&Value> { rows.iter().filter(|row| row["listener"] == listener).collect() };
    let (packets, relayed) = (of("udp://198.18.0.10:53"), of("udp://198.18.0.10:56"));
    let plane = if by_packets(datapath) { "kernel" } else { "splice" };
    for (shown, plane) in [(packets, plane), (relayed, "splice")] {
        let right = |row: &&Value| row["protocol"] == "udp" && row["plane"] == plane;
        ensure!(
            shown.len() >= 400 && shown.iter().all(right),
            "{} of 400, of {plane}: {:?}",
            shown.len(),
            shown.first()
        );
    }
    if by_packets(datapath) {
        let udp = |reason| gateway.verdicts("udp://198.18.0.10:53", reason);
        ensure!(
            (udp("forwarded")?, udp("returned")?) == (400, 400),
            "one counter for each datagram"
        );
    }
    // The TCP listener of the same port is another.
    let text = "import socket,sys; s=socket.create_connection((sys.argv[1],53),5); print(s.recv(9).decode())";
    let name = client_text(python(), &["-c", text, V4], Duration::from_secs(10))?;
    ensure!(NAMES.contains(&name.as_str()), "{name}");
    Ok(())
}

/// A client that keeps its port.
struct Held {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Held {
    fn start(addr: &str, port: &str) -> Result<(Self, String)> {
        let mut child = in_client(python(), &[&script()?, "hold", addr, port])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut held = Self { child, lines };
        let name = held.next()?;
        Ok((held, name))
    }

    /// The next endpoint that answers.
    fn next(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn end(mut self) -> Result<Value> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.lines.read_to_string(&mut text)?;
        self.child.wait()?;
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| text.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configure(gateway: &Gateway, yaml: &str) -> Result<()> {
    let before = gateway.revision()?;
    gateway.configure(yaml)?;
    wait_for("the change is served", Duration::from_secs(10), || {
        Ok(gateway.revision()? > before)
    })
}

/// A flow stays on an endpoint that drains, and goes elsewhere once it has left.
pub fn endpoints_change(datapath: &str) -> Result<()> {
    let gateway = Gateway::start_with(datapath, &configuration(&[], &NAMES, true), &[])?;
    let mut servers = Servers::start()?;
    for addr in [V4, V6] {
        let (mut held, first) = Held::start(addr, "53")?;
        configure(&gateway, &configuration(&[&first], &NAMES, true))?;
        std::thread::sleep(Duration::from_millis(1500));
        let left: Vec<&str> = NAMES.into_iter().filter(|name| *name != first).collect();
        configure(&gateway, &configuration(&[], &left, true))?;
        let second = held.next()?;
        ensure!(left.contains(&second.as_str()), "{second} after {first}");
        // Back again: nobody moves.
        configure(&gateway, &configuration(&[], &NAMES, true))?;
        std::thread::sleep(Duration::from_millis(300));
        let result = held.end()?;
        ensure!(result["names"] == serde_json::json!([first, second]), "{result}");
        ensure!(result["lost"].as_u64().is_some_and(|lost| lost <= 1), "{result}");
    }
    if !by_packets(datapath) {
        // Its host says that nobody is there: the relay hears it.
        let (mut held, first) = Held::start(V4, "53")?;
        servers.kill(&first)?;
        let second = held.next()?;
        ensure!(
            second != first && NAMES.contains(&second.as_str()),
            "{second} after {first}"
        );
        let result = held.end()?;
        ensure!(result["lost"].as_u64().is_some_and(|lost| lost <= 3), "{result}");
    }
    Ok(())
}

/// A flow outlives the process, and goes on under the next one.
pub fn adopted(datapath: &str) -> Result<()> {
    let gateway = start(datapath)?;
    let _servers = Servers::start()?;
    let (held, name) = Held::start(V4, "53")?;
    gateway.kill()?;
    std::thread::sleep(Duration::from_secs(1));
    let seen = spread(V6, "53", "100")?;
    ensure!(seen("lost") == 0, "new flows without a process: {} lost", seen("lost"));
    let gateway = start(datapath)?;
    std::thread::sleep(Duration::from_secs(1));
    let shown = gateway.json("/api/v1/connections")?;
    let rows = shown["items"].as_array().into_iter().flatten();
    ensure!(
        rows.filter(|row| row["listener"] == "udp://198.18.0.10:53").count() == 1,
        "{shown}"
    );
    let result = held.end()?;
    if result["names"] != serde_json::json!([name]) || result["lost"] != 0 {
        bail!("{result}\n{}", log_tail());
    }
    Ok(())
}

/// A relayed client is answered through a change of processes, by one or the other.
pub fn handed_over(datapath: &str) -> Result<()> {
    let mut gateway = start(datapath)?;
    let _servers = Servers::start()?;
    let (held, _) = Held::start(V4, "56")?;
    gateway.upgrade()?;
    std::thread::sleep(Duration::from_millis(1500));
    let seen = spread(V4, "56", "200")?;
    ensure!(seen("lost") == 0, "{} lost after it", seen("lost"));
    let result = held.end()?;
    ensure!(result["lost"].as_u64().is_some_and(|lost| lost <= 1), "{result}");
    Ok(())
}
