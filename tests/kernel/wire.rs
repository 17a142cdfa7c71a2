//! Namespaces and veth pairs for real traffic: a client, the gateway, two endpoints, each on a wire of its own. Gone
//! when dropped. Addresses are from the benchmark ranges (RFC 2544, RFC 5180).

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

pub const GATEWAY: &str = "slk-gw";
pub const CLIENT: &str = "slk-client";
pub const ENDPOINTS: [&str; 2] = ["slk-be1", "slk-be2"];
pub const VIP4: &str = "198.19.0.10";
pub const VIP6: &str = "2001:2:1::a";
/// Where the endpoints serve.
pub const PORT: u16 = 8080;

/// One side of the gateway: a namespace behind a wire.
pub struct Wire {
    pub peer: &'static str,
    /// Interface in the gateway.
    pub device: String,
    pub v4: String,
    pub v6: String,
}

/// All of it.
pub struct Net {
    pub client: Wire,
    pub endpoints: Vec<Wire>,
    servers: Vec<Child>,
}

impl Net {
    /// Builds the namespaces and starts the endpoints' servers.
    pub fn up() -> Result<Self> {
        down();
        let mut net = Self {
            client: wire(CLIENT, 1),
            endpoints: Vec::new(),
            servers: Vec::new(),
        };
        ip(&format!("netns add {GATEWAY}"))?;
        inside(GATEWAY, "ip link set lo up")?;
        // The gateway must not need forwarding.
        inside(
            GATEWAY,
            "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
        )?;
        inside(GATEWAY, &format!("ip addr add {VIP4}/32 dev lo"))?;
        inside(GATEWAY, &format!("ip -6 addr add {VIP6}/128 dev lo nodad"))?;
        net.client.up()?;
        for (at, name) in ENDPOINTS.iter().enumerate() {
            let wire = wire(name, at as u8 + 2);
            wire.up()?;
            for addr in [&wire.v4, &wire.v6] {
                net.servers.push(serve(name, addr)?);
            }
            net.endpoints.push(wire);
        }
        Ok(net)
    }

    pub fn wires(&self) -> impl Iterator<Item = &Wire> {
        self.endpoints.iter().chain([&self.client])
    }

    /// What native XDP on veth asks of the peers: whole checksums, and NAPI that takes redirected frames.
    pub fn ready_for_xdp(&self) -> Result<()> {
        for wire in self.wires() {
            inside(wire.peer, "ethtool -K eth0 tx off gro on")?;
            inside(GATEWAY, &format!("ethtool -K {} gro on", wire.device))?;
        }
        Ok(())
    }

    /// Names of the endpoints that answered, in order: `times` connections of `bytes` each, echoed and compared.
    pub fn ask(&self, addr: &str, port: u16, bytes: usize, times: usize) -> Result<Vec<String>> {
        self.names("ask", addr, port, bytes, times)
    }

    /// The same over UDP: three datagrams of `bytes` from each of `times` ports.
    pub fn ask_by_datagram(&self, addr: &str, port: u16, bytes: usize, times: usize) -> Result<Vec<String>> {
        self.names("datagrams", addr, port, bytes, times)
    }

    fn names(&self, how: &str, addr: &str, port: u16, bytes: usize, times: usize) -> Result<Vec<String>> {
        let peer = peer_script();
        let out = inside(
            CLIENT,
            &format!("timeout 60 python3 {peer} {how} {addr} {port} {bytes} {times}"),
        )?;
        Ok(out.split_whitespace().map(str::to_owned).collect())
    }

    /// What a client reads that connects and says nothing.
    pub fn hear(&self, addr: &str, port: u16) -> Result<String> {
        inside(
            CLIENT,
            &format!("timeout 3 python3 {} hear {addr} {port}", peer_script()),
        )
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        down();
    }
}

impl Wire {
    fn up(&self) -> Result<()> {
        let Self { peer, device, v4, v6 } = self;
        let (near4, near6) = (gateway_side(v4), gateway_side(v6));
        ip(&format!("netns add {peer}"))?;
        ip(&format!(
            "link add {device} netns {GATEWAY} type veth peer name eth0 netns {peer}"
        ))?;
        inside(peer, "ip link set lo up")?;
        inside(peer, &format!("ip addr add {v4}/24 dev eth0"))?;
        inside(peer, &format!("ip -6 addr add {v6}/64 dev eth0 nodad"))?;
        inside(peer, "ip link set eth0 up")?;
        inside(GATEWAY, &format!("ip addr add {near4}/24 dev {device}"))?;
        inside(GATEWAY, &format!("ip -6 addr add {near6}/64 dev {device} nodad"))?;
        inside(GATEWAY, &format!("ip link set {device} up"))?;
        inside(peer, &format!("ip route add default via {near4}"))?;
        inside(peer, &format!("ip -6 route add default via {near6}"))?;
        Ok(())
    }

    /// Index of its interface in the gateway.
    pub fn ifindex(&self) -> Result<u32> {
        Ok(link(GATEWAY, &self.device)?.0)
    }

    /// Ethernet addresses of a frame from the gateway to the peer.
    pub fn macs(&self) -> Result<[u8; 12]> {
        let both = [link(self.peer, "eth0")?.1, link(GATEWAY, &self.device)?.1].concat();
        both.try_into().ok().context("two Ethernet addresses")
    }
}

/// Index and Ethernet address of an interface, as ip says them: `2: eth0@if3: <..> .. link/ether 12:.. ..`. Not from
/// /sys, which shows another namespace's.
fn link(namespace: &str, device: &str) -> Result<(u32, Vec<u8>)> {
    let text = inside(namespace, &format!("ip -o link show dev {device}"))?;
    let index = text.split(':').next().unwrap_or_default().trim().parse()?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether");
    let address = words.nth(1).context("an Ethernet address")?;
    Ok((
        index,
        address
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<_, _>>()?,
    ))
}

fn wire(peer: &'static str, number: u8) -> Wire {
    let device = format!("slk{number}");
    Wire {
        peer,
        device,
        v4: format!("198.19.{number}.2"),
        v6: format!("2001:2:1:{number}::2"),
    }
}

fn gateway_side(addr: &str) -> String {
    format!("{}1", &addr[..addr.len() - 1])
}

fn peer_script() -> String {
    format!("{}/kernel/fixtures/peer.py", env!("CARGO_MANIFEST_DIR"))
}

fn serve(name: &str, addr: &str) -> Result<Child> {
    let mut server = Command::new("nsenter")
        .args([
            &format!("--net=/run/netns/{name}"),
            "python3",
            &peer_script(),
            "serve",
            name,
            addr,
            &PORT.to_string(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .context("start an endpoint")?;
    let stdout = server.stdout.take().context("stdout is piped")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() != "serving" {
        let _ = server.kill();
        let _ = server.wait();
        bail!("the server on {addr} did not start");
    }
    Ok(server)
}

/// Runs a command in a namespace; its output.
pub fn inside(namespace: &str, command: &str) -> Result<String> {
    run(&format!("nsenter --net=/run/netns/{namespace} {command}"))
}

fn ip(command: &str) -> Result<String> {
    run(&format!("ip {command}"))
}

fn run(command: &str) -> Result<String> {
    let mut words = command.split_whitespace();
    let program = words.next().context("a command")?;
    let out = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .with_context(|| command.to_owned())?;
    if !out.status.success() {
        bail!(
            "{command}: {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn down() {
    for namespace in [GATEWAY, CLIENT].iter().chain(&ENDPOINTS) {
        let _ = run(&format!("ip netns del {namespace}"));
    }
}

/// The gateway's network namespace, opened.
pub fn gateway_namespace() -> Result<std::fs::File> {
    std::fs::File::open(format!("/run/netns/{GATEWAY}")).context("the gateway's namespace")
}

/// Runs a function on a thread that lives in the gateway's namespace.
pub fn in_gateway<R: Send>(work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::setns(gateway_namespace()?.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread
            .join()
            .unwrap_or_else(|_| bail!("the thread in the gateway panicked"))
    })
}
