//! The kernel rim on the real kernel, in namespaces of its own: hand-off, translation, adoption, leaving.
//!
//! Needs root; without it the tests say so and pass, except where `CI` is set: there they fail.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "kernel_rim/rim.rs"]
mod rim;
#[path = "kernel_rim/wires.rs"]
mod wires;

use gateway_common::abi::Reason;
use rim::{
    answer_once, apply, by_client, child, connect, curl, echo_servers, echoes, hand_off, ip, may_run, options, packets,
    traces, translated,
};
use sluice::kernel::attach::{Hook, How};
use sluice::kernel::load::{Ingress, load};
use sluice::kernel::pins::Pins;
use sluice::kernel::{Datapath, Kernel, KernelError};
use sluice::sys::netlink::Netlink;
use sluice::sys::{classifier, interfaces, netns, sockets};
use sluice::warden::{Answer, Request, Warden};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;
use wires::{ENDPOINTS4, ENDPOINTS6, For, VIP4, VIP6, Wires};

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
        kernel.open_door().unwrap();
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
fn live_flows_stay_where_they_are_when_ports_cease_to_choose_the_endpoint_and_begin_again() {
    if !may_run() {
        return;
    }
    let wires = Wires::new(For::Bulk);
    let _echo = echo_servers(&wires);
    netns::within(&wires.namespace("g"), || {
        let (options, _idle) = options(&wires.pin_dir, Datapath::Tcx);
        let kernel = Kernel::start(options).unwrap();
        let mut flows = Vec::new();
        for tables in [translated(2), by_client(translated(2)), translated(2)] {
            apply(&kernel, &tables);
            let open = || {
                let vips = [VIP4, VIP6].into_iter().cycle();
                vips.take(20).map(connect).collect::<Vec<_>>()
            };
            // Also those that were opened while their slots were unsettled.
            flows.extend(netns::within(&wires.namespace("c"), open).unwrap());
            flows.iter_mut().for_each(echoes);
            thread::sleep(Duration::from_millis(1200));
            flows.iter_mut().for_each(echoes);
            assert_eq!(kernel.read_tables().vips, tables.vips);
        }
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
