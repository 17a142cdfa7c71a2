//! The kernel rim on the real kernel, in namespaces of its own: hand-off, translation, adoption, leaving.
//!
//! Needs root; without it the tests say so and pass, except where `CI` is set: there they fail.

#[path = "kernel_rim/wires.rs"]
mod wires;

use gateway_common::abi::{EndpointState, Reason, VipKey, VipMode};
use gateway_core::lower::KernelTables;
use gateway_core::lower::kernel::{EndpointEntry, RingSpec, VipEntry, marker_key};
use gateway_core::reconcile::plan;
use sluice::kernel::attach::{Hook, How};
use sluice::kernel::load::{Ingress, load};
use sluice::kernel::pins::Pins;
use sluice::kernel::{Datapath, Kernel, KernelError, KernelOptions};
use sluice::sys::netlink::Netlink;
use sluice::sys::{classifier, interfaces, netns, sockets};
use sluice::warden::{Answer, Request, Warden};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;
use wires::{ENDPOINTS4, ENDPOINTS6, For, VIP4, VIP6, Wires};

/// False (and said) when the tests cannot run here.
fn may_run() -> bool {
    if nix::unistd::Uid::effective().is_root() && sluice::kernel::load::build_facts().object.is_some() {
        return true;
    }
    let why = "needs root, and an eBPF object built in (`cargo xtask ebpf`)";
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
    false
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn options(pin_dir: &str, datapath: Datapath) -> (KernelOptions, Receiver<Vec<u16>>) {
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
        on_idle: Box::new(move |idle| drop(sender.send(idle.unnamed))),
    };
    (options, idle)
}

/// Hand-off of both VIPs, port 80.
fn hand_off() -> KernelTables {
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
fn translated(endpoints: usize) -> KernelTables {
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

/// Brings a kernel to `desired`, the addresses local.
fn apply(kernel: &Kernel, desired: &KernelTables) {
    let actual = kernel.read_tables();
    kernel.apply(plan(&actual, desired)).unwrap();
    assert!(kernel.set_local(&[ip(VIP4), ip(VIP6)]).is_empty());
}

fn packets(kernel: &Kernel, vip: u32, wanted: Reason) -> u64 {
    let cells = kernel
        .counters()
        .into_iter()
        .filter(|(id, reason, _)| (*id, *reason) == (vip, wanted));
    cells.map(|(_, _, packets)| packets).sum()
}

/// What is left of a gateway in its namespace: attached programs and addresses made local.
fn traces(wires: &Wires) -> Vec<String> {
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

fn curl(wires: &Wires, vip: &str) -> Result<String, String> {
    let host = if vip.contains(':') {
        format!("[{vip}]")
    } else {
        vip.to_owned()
    };
    wires.exec("c", &["curl", "-sS", "--max-time", "5", &format!("http://{host}/who")])
}

#[test]
fn connections_to_a_vip_are_handed_to_the_workers_socket_and_nothing_stays_behind() {
    if !may_run() {
        return;
    }
    let wires = Wires::new(For::Bulk);
    let gateway = wires.namespace("g");
    netns::within(&gateway, || {
        let (options, _idle) = options(&wires.pin_dir, Datapath::Lookup);
        let kernel = Kernel::start(options).unwrap();
        assert!(kernel.status().lookup && !kernel.status().adopted);
        let listeners = [false, true].map(|ipv6| sockets::hand_off_listener(ipv6).unwrap());
        for (ipv6, listener) in [false, true].into_iter().zip(&listeners) {
            listener.set_nonblocking(false).unwrap();
            kernel.register_listener(0, ipv6, listener.as_raw_fd()).unwrap();
        }
        apply(&kernel, &hand_off());
        for (vip, listener) in [VIP4, VIP6].into_iter().zip(&listeners) {
            let server = listener.try_clone().unwrap();
            let local = thread::spawn(move || answer_once(&server));
            assert_eq!(curl(&wires, vip).unwrap(), "handed off");
            assert_eq!(local.join().unwrap(), SocketAddr::new(ip(vip), 80));
        }
        assert_eq!(
            (
                packets(&kernel, 0, Reason::Assigned),
                packets(&kernel, 1, Reason::Assigned)
            ),
            (1, 1)
        );
        drop(listeners);
        assert!(
            curl(&wires, VIP4).is_err(),
            "no socket is there, and nobody else gets the connection"
        );
        assert!(packets(&kernel, 0, Reason::NoSocket) > 0);
        kernel.stop(false).unwrap();
    })
    .unwrap();
    assert_eq!(traces(&wires), [] as [String; 0]);
}

/// Answers one HTTP request and returns the local address it came to.
fn answer_once(listener: &TcpListener) -> SocketAddr {
    let (mut socket, _) = listener.accept().unwrap();
    let _ = socket.read(&mut [0; 1024]).unwrap();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhanded off";
    socket.write_all(answer.as_bytes()).unwrap();
    socket.local_addr().unwrap()
}

#[test]
fn tcx_translates_to_every_endpoint_and_back() {
    translates(Datapath::Tcx, For::Bulk);
}

#[test]
fn xdp_translates_to_every_endpoint_and_back() {
    translates(Datapath::Xdp, For::Xdp);
}

fn translates(datapath: Datapath, good_for: For) {
    if !may_run() {
        return;
    }
    let mut wires = Wires::new(good_for);
    wires.serve();
    let gateway = wires.namespace("g");
    netns::within(&gateway, || {
        let (options, _idle) = options(&wires.pin_dir, datapath);
        let kernel = Kernel::start(options).unwrap();
        assert_eq!(kernel.status().ingress, datapath.name());
        for endpoint in ENDPOINTS4.iter().chain(&ENDPOINTS6) {
            kernel.reach(SocketAddr::new(ip(endpoint), 80)).unwrap();
        }
        apply(&kernel, &translated(2));
        for (id, vip) in [(0, VIP4), (1, VIP6)] {
            let who: BTreeSet<String> = (0..24).map(|_| curl(&wires, vip).unwrap()).collect();
            assert_eq!(who, BTreeSet::from(["b1".to_owned(), "b2".to_owned()]), "{vip}");
            assert!(packets(&kernel, id, Reason::Forwarded) >= 24 && packets(&kernel, id, Reason::Returned) >= 24);
        }
        kernel.stop(false).unwrap();
    })
    .unwrap();
    assert_eq!(traces(&wires), [] as [String; 0]);
}

#[test]
fn an_endpoint_without_a_way_back_is_not_taken_and_the_reason_says_what_to_do() {
    if !may_run() {
        return;
    }
    let wires = Wires::new(For::Bulk);
    netns::within(&wires.namespace("g"), || {
        wires.ip("g", "route add 10.84.0.0/16 via 10.83.2.11");
        let (mut options, _idle) = options(&wires.pin_dir, Datapath::Tcx);
        options.interfaces = vec!["c".into(), "b1".into()];
        let kernel = Kernel::start(options).unwrap();
        let why = |addr: &str| kernel.reach(addr.parse().unwrap()).unwrap_err();
        assert!(kernel.reach("10.83.2.11:80".parse().unwrap()).is_ok());
        assert!(why("10.84.0.1:80").contains("--return-path gateway"));
        assert!(why("10.83.3.11:80").contains("--interface b2"));
        assert_eq!(why("192.0.2.1:80"), "there is no route to it");
        kernel.stop(false).unwrap();
    })
    .unwrap();
}

#[test]
fn flows_outlive_a_killed_process_and_the_next_one_adopts_them() {
    if !may_run() {
        return;
    }
    let wires = Wires::new(For::Bulk);
    let echo = echo_servers(&wires);
    let mut first = child(&wires);
    let mut flows: Vec<TcpStream> = netns::within(&wires.namespace("c"), || {
        let vips = [VIP4, VIP6].into_iter().cycle().take(20);
        vips.map(connect).collect()
    })
    .unwrap();
    flows.iter_mut().for_each(echoes);
    first.kill().unwrap();
    first.wait().unwrap();
    flows.iter_mut().for_each(echoes);
    netns::within(&wires.namespace("g"), || {
        let (options, idle) = options(&wires.pin_dir, Datapath::Tcx);
        let kernel = Kernel::start(options).unwrap();
        assert!(kernel.status().adopted);
        let adopted = kernel.adopted().unwrap();
        assert_eq!(adopted.vips, translated(2).vips);
        assert_eq!(adopted.endpoints, translated(2).endpoints);
        apply(&kernel, &translated(2));
        assert_eq!(kernel.live_flows().len(), flows.len());
        flows.iter_mut().for_each(echoes);
        // The second endpoints leave: their flows stay, new ones go elsewhere, and once they end, it is told.
        apply(&kernel, &translated(1));
        flows.iter_mut().for_each(echoes);
        let on_second = |flow: &sluice::kernel::flows::KernelFlow| flow.endpoint.ip() == ip(ENDPOINTS4[1]);
        assert!(
            kernel.live_flows().iter().any(on_second),
            "20 flows, and none was on the second endpoint"
        );
        let told: Vec<u16> = idle.try_iter().flatten().collect();
        assert!(!told.contains(&2), "it is told to be idle while it has flows");
        kernel.stop(false).unwrap();
    })
    .unwrap();
    assert_eq!(traces(&wires), [] as [String; 0]);
    drop(echo);
}

#[test]
fn live_flows_stay_where_they_are_while_endpoints_come_and_go() {
    if !may_run() {
        return;
    }
    let wires = Wires::new(For::Bulk);
    let _echo = echo_servers(&wires);
    netns::within(&wires.namespace("g"), || {
        let (options, idle) = options(&wires.pin_dir, Datapath::Tcx);
        let kernel = Kernel::start(options).unwrap();
        apply(&kernel, &translated(2));
        let open = || {
            [VIP4, VIP6]
                .into_iter()
                .cycle()
                .take(40)
                .map(connect)
                .collect::<Vec<_>>()
        };
        let mut flows = netns::within(&wires.namespace("c"), open).unwrap();
        for round in 0..10 {
            apply(&kernel, &translated(1 + round % 2));
            flows.iter_mut().for_each(echoes);
        }
        // Sweeps run and settle what no flow contradicts; then once more.
        thread::sleep(Duration::from_millis(1200));
        apply(&kernel, &translated(1));
        flows.iter_mut().for_each(echoes);
        thread::sleep(Duration::from_millis(1200));
        flows.iter_mut().for_each(echoes);
        assert!(idle.try_iter().all(|told| !told.contains(&2) && !told.contains(&4)));
        kernel.stop(false).unwrap();
    })
    .unwrap();
}

#[test]
fn a_draining_endpoint_without_flows_is_told_to_be_idle() {
    if !may_run() {
        return;
    }
    let wires = Wires::new(For::Bulk);
    netns::within(&wires.namespace("g"), || {
        let (options, idle) = options(&wires.pin_dir, Datapath::Tcx);
        let kernel = Kernel::start(options).unwrap();
        apply(&kernel, &translated(2));
        apply(&kernel, &translated(1));
        let told = idle.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(BTreeSet::from_iter(told), BTreeSet::from([2, 4]));
        kernel.stop(false).unwrap();
    })
    .unwrap();
}

#[test]
fn a_clsact_filter_is_put_replaced_found_and_removed() {
    if !may_run() {
        return;
    }
    let wires = Wires::new(For::Bulk);
    netns::within(&wires.namespace("g"), || {
        let mut netlink = Netlink::open().unwrap();
        let on = interfaces::by_name(&mut netlink, "c").unwrap().unwrap();
        let hook = Hook::Clsact(on.index);
        let pins = Pins::open(Path::new(&wires.pin_dir)).unwrap();
        let (_maps, programs) = load(&pins, Ingress::Tcx).unwrap();
        let mut warden = Warden::new(Some((pins, programs))).unwrap();
        assert!(matches!(
            warden.handle(Request::Attach(hook)),
            Answer::Attached(How::Attached)
        ));
        let first = classifier::find(&mut netlink, on.index).unwrap();
        assert_eq!(first, warden.program_ids().first().copied());
        assert!(matches!(
            warden.handle(Request::Attach(hook)),
            Answer::Attached(How::Adopted)
        ));
        assert_eq!(warden.pinned_hooks().unwrap(), [hook]);
        assert!(matches!(warden.handle(Request::RemoveAll), Answer::Done));
        assert_eq!(classifier::find(&mut netlink, on.index).unwrap(), None);
    })
    .unwrap();
    assert_eq!(traces(&wires), [] as [String; 0]);
}

#[test]
fn someone_elses_xdp_program_is_refused_by_name_and_left_alone() {
    if !may_run() {
        return;
    }
    let wires = Wires::new(For::Xdp);
    netns::within(&wires.namespace("g"), || {
        let (theirs, _) = options(&format!("{}-theirs", wires.pin_dir), Datapath::Xdp);
        let theirs = Kernel::start(theirs).unwrap();
        let Err(KernelError::Unavailable(why)) = Kernel::start(options(&wires.pin_dir, Datapath::Xdp).0) else {
            panic!("it started")
        };
        assert!(
            why.contains("carries the XDP program `xdp_ingress`") && why.contains("--datapath tcx"),
            "{why}"
        );
        assert!(!Path::new(&wires.pin_dir).exists(), "what it had added is gone again");
        assert_eq!(
            wires.ip("g", "-d link show").matches("prog/xdp").count(),
            3,
            "theirs are still there"
        );
        theirs.stop(false).unwrap();
    })
    .unwrap();
}

#[test]
fn without_privileges_auto_is_off_with_the_reason_and_a_demand_is_refused() {
    if !may_run() {
        return;
    }
    // Another user may not reach the build's folder.
    let program = std::env::temp_dir().join(format!("slr-{}-unprivileged", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
            "--inh-caps=-all",
        ])
        .arg(&program)
        .args(["--exact", "the_process_without_privileges", "--ignored", "--nocapture"])
        .current_dir("/")
        .output()
        .unwrap();
    std::fs::remove_file(&program).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("as it should be"), "{text}");
}

/// Not a test: what the test above runs as nobody.
#[test]
#[ignore = "run by another test, as another user"]
fn the_process_without_privileges() {
    if nix::unistd::Uid::effective().is_root() {
        return;
    }
    let mut automatic = options("/sys/fs/bpf/slr-nobody", Datapath::Auto).0;
    automatic.interfaces.clear();
    let kernel = Kernel::start(automatic).unwrap();
    let status = kernel.status();
    assert_eq!(
        (status.ingress, status.lookup, status.reasons.len()),
        ("off", false, 2),
        "{:?}",
        status.reasons
    );
    assert!(kernel.set_local(&[ip(VIP4)])[&ip(VIP4)].contains("not permitted"));
    kernel.stop(false).unwrap();
    let refused = Kernel::start(options("/sys/fs/bpf/slr-nobody", Datapath::Lookup).0);
    assert!(matches!(refused, Err(KernelError::NotPermitted(_))));
    assert!(!Path::new("/sys/fs/bpf/slr-nobody").exists());
    println!("as it should be");
}

#[test]
fn two_processes_never_share_a_pin_directory() {
    if !may_run() {
        return;
    }
    let wires = Wires::new(For::Bulk);
    netns::within(&wires.namespace("g"), || {
        let first = Kernel::start(options(&wires.pin_dir, Datapath::Lookup).0).unwrap();
        let second = Kernel::start(options(&wires.pin_dir, Datapath::Lookup).0);
        let Err(KernelError::Failed(why)) = second else {
            panic!("it started")
        };
        assert!(why.contains("in use by another sluice"), "{why}");
        first.stop(false).unwrap();
    })
    .unwrap();
}

#[test]
fn what_a_killed_process_left_is_cleaned_without_starting_anything() {
    if !may_run() {
        return;
    }
    let wires = Wires::new(For::Bulk);
    let mut killed = child(&wires);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!traces(&wires).is_empty());
    let removed = netns::within(&wires.namespace("g"), || {
        sluice::kernel::clean(Path::new(&wires.pin_dir))
    })
    .unwrap();
    let removed = removed.unwrap();
    assert!(removed.iter().any(|name| name == "sk_lookup") && removed.iter().any(|name| name == "local 10.83.0.1"));
    assert_eq!(traces(&wires), [] as [String; 0]);
}

/// Echo servers at the endpoints; they live until the test ends.
fn echo_servers(wires: &Wires) -> Vec<thread::JoinHandle<()>> {
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

fn connect(vip: &str) -> TcpStream {
    let socket = TcpStream::connect_timeout(&SocketAddr::new(ip(vip), 80), Duration::from_secs(3)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket
}

fn echoes(socket: &mut TcpStream) {
    socket.write_all(b"still there?").unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still there?");
}

/// A process that runs the rim with both VIPs translated, until it is killed.
fn child(wires: &Wires) -> Child {
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

/// Not a test: what [`child`] runs.
#[test]
#[ignore = "run by other tests, as a process to kill"]
fn the_process_that_is_killed() {
    let Some(namespace) = std::env::var("SLR_NAMESPACE").ok() else {
        return;
    };
    let pin_dir = std::env::var("SLR_PIN_DIR").unwrap();
    netns::within(&namespace, || {
        let kernel = Kernel::start(options(&pin_dir, Datapath::Tcx).0).unwrap();
        apply(&kernel, &translated(2));
        println!("serving");
        thread::sleep(Duration::from_secs(60));
    })
    .unwrap();
}
