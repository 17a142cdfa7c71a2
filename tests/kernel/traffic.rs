//! Real TCP and UDP through the attached programs: clients and endpoints are Python's, and every byte is compared.

use crate::loaded::{Loaded, Program};
use crate::topology::{endpoint, ip};
use crate::wire::{self, Net, PORT, VIP4, VIP6};
use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, SkLookup, TcAttachType, Xdp, XdpMode, tc};
use aya::util::KernelVersion;
use gateway_common::abi::{CONFIG_WORKERS, Endpoint, Reason, Slot, Vip, VipKey, VipMode, addr_words, binding_index};
use gateway_common::maglev::{self, Member};
use gateway_common::twin::Twin;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// Rows of the counters.
const V4: u32 = 0;
const V6: u32 = 1;
/// What the row of a VIP's UDP port is further on.
const UDP: u32 = 4;
/// A bulk body: many GSO segments.
const BULK: usize = 8 << 20;
/// Connections that must spread over both endpoints: that all hash to one has a chance of 2^-39.
const SPREAD: usize = 40;

pub fn tcx_carries_tcp_over_ipv4(loaded: &mut Loaded) -> Result<()> {
    let net = Net::up()?;
    let _attached = attach(loaded, &net, Program::Tcx)?;
    let carried = carry(loaded, &net, VIP4, V4)?;
    // Bulk as GSO: far fewer packets than segments of 1,448 bytes.
    let segments = (2 * BULK / 1448) as u64;
    ensure!(
        carried < segments / 2,
        "{carried} packets for {segments} segments: GSO was lost"
    );
    Ok(())
}

pub fn tcx_carries_tcp_over_ipv6(loaded: &mut Loaded) -> Result<()> {
    let net = Net::up()?;
    let _attached = attach(loaded, &net, Program::Tcx)?;
    carry(loaded, &net, VIP6, V6)?;
    Ok(())
}

pub fn xdp_carries_tcp(loaded: &mut Loaded) -> Result<()> {
    let net = Net::up()?;
    net.ready_for_xdp()?;
    let _attached = attach(loaded, &net, Program::Xdp)?;
    carry(loaded, &net, VIP4, V4)?;
    carry(loaded, &net, VIP6, V6)?;
    Ok(())
}

pub fn tcx_carries_udp(loaded: &mut Loaded) -> Result<()> {
    let net = Net::up()?;
    let _attached = attach(loaded, &net, Program::Tcx)?;
    carry_datagrams(loaded, &net, VIP4, V4 + UDP)?;
    carry_datagrams(loaded, &net, VIP6, V6 + UDP)
}

pub fn xdp_carries_udp(loaded: &mut Loaded) -> Result<()> {
    let net = Net::up()?;
    net.ready_for_xdp()?;
    let _attached = attach(loaded, &net, Program::Xdp)?;
    carry_datagrams(loaded, &net, VIP4, V4 + UDP)?;
    carry_datagrams(loaded, &net, VIP6, V6 + UDP)
}

/// Datagrams of three sizes arrive whole and come back, each flow from one endpoint, all counted.
fn carry_datagrams(loaded: &mut Loaded, net: &Net, vip: &str, row: u32) -> Result<()> {
    for bytes in [0, 100, 1300] {
        let mut names = net.ask_by_datagram(vip, 80, bytes, SPREAD)?;
        ensure!(names.len() == SPREAD, "{} of {SPREAD} flows answered", names.len());
        names.dedup();
        ensure!(names == wire::ENDPOINTS, "only {names:?} answered");
        let counted = sent(&loaded.changes()?, row);
        let all = 3 * SPREAD as u64;
        ensure!(counted == (all, all), "counted {counted:?} of {all} datagrams each way");
    }
    Ok(())
}

/// Small connections spread over the endpoints, a bulk one arrives whole; both counted. Packets of the bulk transfer.
fn carry(loaded: &mut Loaded, net: &Net, vip: &str, row: u32) -> Result<u64> {
    let mut names = net.ask(vip, 80, 100, SPREAD)?;
    ensure!(
        names.len() == SPREAD,
        "{} of {SPREAD} connections answered",
        names.len()
    );
    names.dedup();
    ensure!(names == wire::ENDPOINTS, "only {names:?} answered");
    let small = sent(&loaded.changes()?, row);
    // At least SYN, ACK, data with FIN, and an ACK one way; SYN-ACK, data, FIN the other.
    ensure!(
        small.0 >= SPREAD as u64 * 4 && small.1 >= SPREAD as u64 * 3,
        "counted {small:?}"
    );
    net.ask(vip, 80, BULK, 1)?;
    let bulk = sent(&loaded.changes()?, row);
    ensure!(bulk.0 > 0 && bulk.1 > 0, "the bulk transfer met no program");
    Ok(bulk.0 + bulk.1)
}

/// Forwarded and returned packets of a VIP.
fn sent(counted: &[(u32, Reason, u64)], row: u32) -> (u64, u64) {
    let of = |reason| {
        counted
            .iter()
            .filter(|c| c.0 == row && c.1 == reason)
            .map(|c| c.2)
            .sum()
    };
    (of(Reason::Forwarded), of(Reason::Returned))
}

/// Links that end with this value.
struct Attached {
    _links: Vec<Box<dyn std::any::Any>>,
}

/// Puts the tables for this net, and the program on every wire; TCX also behind XDP.
fn attach(loaded: &mut Loaded, net: &Net, program: Program) -> Result<Attached> {
    let mut twin = tables(net)?;
    loaded.put(&mut twin)?;
    let mut links: Vec<Box<dyn std::any::Any>> = Vec::new();
    let devices: Vec<String> = net.wires().map(|wire| wire.device.clone()).collect();
    let classifier: &mut SchedClassifier = loaded
        .object
        .program_mut("tc_ingress")
        .context("tc_ingress")?
        .try_into()?;
    let tcx = KernelVersion::current()? >= KernelVersion::new(6, 6, 0);
    for device in &devices {
        let id = wire::in_gateway(|| {
            if !tcx {
                tc::qdisc_add_clsact(device)?;
            }
            Ok(classifier.attach(device, TcAttachType::Ingress)?)
        })?;
        let link = classifier.take_link(id)?;
        if tcx {
            links.push(Box::new(link));
        } else {
            // A filter is no file descriptor: it goes with its namespace, and detaching it from here would look for the
            // interface in the wrong one.
            std::mem::forget(link);
        }
    }
    if program == Program::Xdp {
        let xdp: &mut Xdp = loaded
            .object
            .program_mut("xdp_ingress")
            .context("xdp_ingress")?
            .try_into()?;
        for device in &devices {
            let id = wire::in_gateway(|| Ok(xdp.attach(device, XdpMode::Driver)?))?;
            links.push(Box::new(xdp.take_link(id)?));
        }
    }
    loaded.changes()?;
    Ok(Attached { _links: links })
}

fn tables(net: &Net) -> Result<Twin> {
    let mut twin = Twin::default();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (at, wire) in net.endpoints.iter().enumerate() {
        let macs = wire.macs()?;
        let words = [0, 4, 8].map(|i| u32::from_ne_bytes([macs[i], macs[i + 1], macs[i + 2], macs[i + 3]]));
        for (family, addr, members) in [(0, &wire.v4, &mut v4), (2, &wire.v6, &mut v6)] {
            let index = at as u16 + 1 + family;
            let endpoint = Endpoint {
                port_be: PORT.to_be(),
                ..endpoint(addr, wire.ifindex()?, words)
            };
            twin.put_endpoint(index, endpoint);
            members.push(Member::new(index, 1, &endpoint.addr, endpoint.port_be));
        }
    }
    for (id, addr, members) in [(V4, VIP4, &mut v4), (V6, VIP6, &mut v6)] {
        let mut ring = vec![Slot::default(); gateway_common::abi::RING_SLOTS];
        maglev::fill(members, &mut ring);
        gateway_common::ring::unsettle(&mut ring);
        gateway_common::ring::settle(&mut ring, []);
        twin.rings.insert(id, ring.clone());
        twin.rings.insert(id + UDP, ring);
        twin.vips.insert(
            VipKey::new(ip(addr), 80, 17),
            Vip {
                id: id + UDP,
                mode: VipMode::Nat as u32,
            },
        );
        twin.vips.insert(
            VipKey::new(ip(addr), 80, 6),
            Vip {
                id,
                mode: VipMode::Nat as u32,
            },
        );
        twin.vips.insert(
            VipKey::new(ip(addr), 443, 6),
            Vip {
                id: id + 2,
                mode: VipMode::HandOff as u32,
            },
        );
        twin.vips.insert(
            VipKey::address(addr_words(ip(addr))),
            Vip {
                id,
                mode: VipMode::Address as u32,
            },
        );
    }
    twin.clock = 1;
    Ok(twin)
}

/// `steer`: one IPv4 worker socket, none for IPv6; a stranger listens everywhere on the same port.
pub fn steer_reaches_a_worker_and_no_stranger(loaded: &mut Loaded) -> Result<()> {
    let net = Net::up()?;
    loaded.put(&mut tables(&net)?)?;
    let (worker, stranger) = wire::in_gateway(|| {
        let stranger = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 443))?;
        Ok((TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, stranger))
    })?;
    worker.set_nonblocking(true)?;
    stranger.set_nonblocking(true)?;
    loaded.listen(binding_index(0, false), &worker)?;
    loaded.config(CONFIG_WORKERS, 1)?;
    let steer: &mut SkLookup = loaded.object.program_mut("steer").context("steer")?.try_into()?;
    let id = steer.attach(wire::gateway_namespace()?)?;
    let link = steer.take_link(id)?;
    loaded.changes()?;

    // A hand-off VIP, and a kernel VIP that meets no other program: the same sockets.
    for (port, row) in [(443, V4 + 2), (80, V4)] {
        let (heard, local) = std::thread::scope(|scope| {
            let heard = scope.spawn(|| net.hear(VIP4, port));
            let local = answer_one(&worker);
            (heard.join().expect("the client thread does not panic"), local)
        });
        ensure!(heard?.trim() == "worker", "somebody else answered");
        ensure!(
            local? == SocketAddr::new(ip(VIP4), port),
            "the socket's own address is not the VIP"
        );
        ensure!(
            loaded.changes()? == [(row, Reason::Assigned, 1)],
            "one connection, one cell"
        );
    }

    // No IPv6 socket: dropped and counted, although the stranger would take it.
    ensure!(net.hear(VIP6, 443).is_err(), "somebody answered on {VIP6}");
    let counted = loaded.changes()?;
    ensure!(
        counted.len() == 1 && counted[0].0 == V6 + 2 && counted[0].1 == Reason::NoSocket,
        "counted {counted:?}"
    );
    ensure!(stranger.accept().is_err(), "a stranger got the connection");
    drop(link);
    Ok(())
}

/// Answers one connection; the local address it came to.
fn answer_one(listener: &TcpListener) -> Result<SocketAddr> {
    let give_up = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(error).context("nothing to accept"),
        }
    };
    stream.write_all(b"worker")?;
    Ok(stream.local_addr()?)
}
