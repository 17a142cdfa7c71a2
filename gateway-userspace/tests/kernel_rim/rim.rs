//! What the tests of the rim share: tables, a kernel in a namespace, echo servers, a process to kill.

use crate::wires::{ENDPOINTS4, ENDPOINTS6, VIP4, VIP6, Wires};
use gateway_common::abi::{EndpointState, Reason, VipKey, VipMode};
use gateway_core::lower::KernelTables;
use gateway_core::lower::kernel::{EndpointEntry, RingSpec, VipEntry, marker_key};
use gateway_core::reconcile::plan;
use sluice::kernel::{Datapath, Kernel, KernelOptions};
use sluice::sys::netns;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// False (and said) when the tests cannot run here.
pub fn may_run() -> bool {
    if nix::unistd::Uid::effective().is_root() && sluice::kernel::load::build_facts().object.is_some() {
        return true;
    }
    let why = "needs root, and an eBPF object built in (`cargo xtask ebpf`)";
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
    false
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn options(pin_dir: &str, datapath: Datapath) -> (KernelOptions, Receiver<Vec<u16>>) {
    let (sender, idle) = channel();
    let interfaces = match datapath {
        Datapath::Lookup | Datapath::Off => Vec::new(),
        Datapath::Auto | Datapath::Tcx | Datapath::Xdp => ["c", "b1", "b2"].map(String::from).to_vec(),
    };
    let options = KernelOptions {
        datapath,
        interfaces,
        pin_dir: pin_dir.into(),
        return_path_gateway: false,
        udp_idle: Duration::from_secs(300),
        on_idle: Box::new(move |idle| drop(sender.send(idle.unnamed))),
    };
    (options, idle)
}

/// Hand-off of both VIPs, port 80.
pub fn hand_off() -> KernelTables {
    let mut tables = KernelTables::default();
    for (id, addr) in [(0, VIP4), (1, VIP6)] {
        let entry = VipEntry {
            id,
            mode: VipMode::HandOff,
        };
        tables.vips.insert(VipKey::new(ip(addr), 80, 6), entry);
    }
    tables
}

/// Both VIPs translated to both endpoints (or the first only), each version to its own.
pub fn translated(endpoints: usize) -> KernelTables {
    let mut tables = KernelTables::default();
    for (id, vip, addrs) in [(0u32, VIP4, ENDPOINTS4), (1, VIP6, ENDPOINTS6)] {
        let mut ring = RingSpec::default();
        for (number, addr) in addrs.iter().enumerate() {
            let index = (1 + 2 * id as usize + number) as u16;
            let serves = number < endpoints;
            let state = if serves {
                EndpointState::Serving
            } else {
                EndpointState::Draining
            };
            let addr = SocketAddr::new(ip(addr), 80);
            tables.endpoints.insert(index, EndpointEntry { addr, state });
            if serves {
                ring.turns.push((index, 1));
            }
        }
        tables.rings.insert(id, ring);
        tables
            .vips
            .insert(VipKey::new(ip(vip), 80, 6), VipEntry { id, mode: VipMode::Nat });
        let marker = VipEntry {
            id: 4096,
            mode: VipMode::Address,
        };
        tables.vips.insert(marker_key(ip(vip)), marker);
    }
    tables
}

/// The same, with one endpoint for each client.
pub fn by_client(mut tables: KernelTables) -> KernelTables {
    for vip in tables.vips.values_mut().filter(|vip| vip.mode.forwards()) {
        vip.mode = VipMode::NatByClient;
    }
    for ring in tables.rings.values_mut() {
        ring.by_client = true;
    }
    tables
}

/// Brings a kernel to `desired`, the addresses local.
pub fn apply(kernel: &Kernel, desired: &KernelTables) {
    let actual = kernel.read_tables();
    kernel.apply(plan(&actual, desired)).unwrap();
    assert!(kernel.set_local(&[ip(VIP4), ip(VIP6)]).is_empty());
}

pub fn packets(kernel: &Kernel, vip: u32, wanted: Reason) -> u64 {
    let cells = kernel
        .counters()
        .into_iter()
        .filter(|(id, reason, _)| (*id, *reason) == (vip, wanted));
    cells.map(|(_, _, packets)| packets).sum()
}

/// What is left of a gateway in its namespace: attached programs and addresses made local.
pub fn traces(wires: &Wires) -> Vec<String> {
    let mut traces: Vec<String> = wires
        .ip("g", "route show table local proto 83")
        .lines()
        .map(str::to_owned)
        .collect();
    traces.extend(
        wires
            .ip("g", "-6 route show table local proto 83")
            .lines()
            .map(str::to_owned),
    );
    let links = wires.ip("g", "-d link show");
    traces.extend(
        links
            .lines()
            .filter(|line| line.contains("prog/xdp"))
            .map(str::to_owned),
    );
    if Path::new(&wires.pin_dir).exists() {
        traces.push(wires.pin_dir.clone());
    }
    traces
}

pub fn curl(wires: &Wires, vip: &str) -> Result<String, String> {
    let host = if vip.contains(':') {
        format!("[{vip}]")
    } else {
        vip.to_owned()
    };
    wires.exec("c", &["curl", "-sS", "--max-time", "5", &format!("http://{host}/who")])
}

/// Answers one HTTP request and returns the local address it came to.
pub fn answer_once(listener: &TcpListener) -> SocketAddr {
    let (mut socket, _) = listener.accept().unwrap();
    let _ = socket.read(&mut [0; 1024]).unwrap();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhanded off";
    socket.write_all(answer.as_bytes()).unwrap();
    socket.local_addr().unwrap()
}

/// Echo servers at the endpoints; they live until the test ends.
pub fn echo_servers(wires: &Wires) -> Vec<thread::JoinHandle<()>> {
    let mut servers = Vec::new();
    for (side, addrs) in [
        ("b1", [ENDPOINTS4[0], ENDPOINTS6[0]]),
        ("b2", [ENDPOINTS4[1], ENDPOINTS6[1]]),
    ] {
        for addr in addrs {
            let listen = || TcpListener::bind(SocketAddr::new(ip(addr), 80)).unwrap();
            let listener = netns::within(&wires.namespace(side), listen).unwrap();
            servers.push(thread::spawn(move || {
                for mut socket in listener.incoming().map_while(Result::ok) {
                    thread::spawn(move || {
                        let mut bytes = [0; 64];
                        while let Ok(read @ 1..) = socket.read(&mut bytes) {
                            if socket.write_all(&bytes[..read]).is_err() {
                                return;
                            }
                        }
                    });
                }
            }));
        }
    }
    servers
}

pub fn connect(vip: &str) -> TcpStream {
    let socket = TcpStream::connect_timeout(&SocketAddr::new(ip(vip), 80), Duration::from_secs(3)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket
}

pub fn echoes(socket: &mut TcpStream) {
    socket.write_all(b"still there?").unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still there?");
}

/// A process that runs the rim with both VIPs translated, until it is killed.
pub fn child(wires: &Wires) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "the_process_that_is_killed",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("SLR_NAMESPACE", wires.namespace("g"))
        .env("SLR_PIN_DIR", &wires.pin_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut seen = String::new();
    while !seen.contains("serving") {
        let mut bytes = [0; 256];
        let read = output.read(&mut bytes).unwrap();
        assert!(read > 0, "the child ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    child
}
