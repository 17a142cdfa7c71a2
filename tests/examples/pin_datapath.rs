//! Loads the kernel programs, fills their tables for a measurement and pins `xdp_ingress`, so that a bench that knows
//! only pins can run it. Root. Pins stay until the directory is removed.
//!
//!     pin_datapath /sys/fs/bpf/DIR
//!
//! VIP 10.200.1.1:80 with 16 endpoints on a settled ring; 65,536 flows whose endpoints are 10.201.0.0 and 10.201.0.1,
//! ports 1024..33791, all with the client 192.168.7.1:31337. Everything leaves by the interface it came in on.

#[path = "../kernel/loaded.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod loaded;
#[path = "../kernel/topology.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod topology;

use anyhow::{Context, Result};
use aya::programs::Xdp;
use gateway_common::abi::{FLOWS_MAX, Flow, FlowKey, FlowPhase, Slot, Vip, VipKey, VipMode, addr_words};
use gateway_common::twin::Twin;

const FLOWS: u32 = 65_536;

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).context("usage: pin_datapath /sys/fs/bpf/DIR")?;
    let mut loaded = loaded::Loaded::new(FLOWS_MAX)?;
    loaded.put(&mut tables())?;
    std::fs::create_dir_all(&dir).with_context(|| dir.clone())?;
    let xdp: &mut Xdp = loaded
        .object
        .program_mut("xdp_ingress")
        .context("xdp_ingress")?
        .try_into()?;
    xdp.pin(format!("{dir}/xdp_ingress"))?;
    println!("{dir}/xdp_ingress");
    Ok(())
}

fn tables() -> Twin {
    let mut twin = Twin::default();
    for number in 1..=16u16 {
        let macs = [0x0101_0102, 0x0209_0101 + u32::from(number), 0x0909_0909];
        twin.put_endpoint(
            number,
            topology::endpoint(&format!("10.0.0.{number}"), topology::NEAR, macs),
        );
    }
    let vip = topology::ip("10.200.1.1");
    twin.vips.insert(
        VipKey::new(vip, 80, 6),
        Vip {
            id: 0,
            mode: VipMode::Nat as u32,
        },
    );
    twin.put_ring(0, |slot| {
        let endpoint = 1 + (slot * 7919 % 16) as u16;
        Slot {
            current: endpoint,
            previous: endpoint,
        }
    });
    let client = addr_words(topology::ip("192.168.7.1"));
    for flow in 0..FLOWS {
        let src = addr_words(topology::ip(&format!("10.201.0.{}", flow >> 15)));
        let port_be = (1024 + (flow & 0x7fff) as u16).to_be();
        let key = FlowKey {
            src,
            dst: client,
            ports: FlowKey::ports(port_be, 31_337u16.to_be()),
            proto: 6,
        };
        let entry = Flow {
            addr: addr_words(vip),
            macs: [1, 2, 3],
            ifindex: topology::NEAR,
            vip: 0,
            seen: 0,
            port_be: 80u16.to_be(),
            endpoint: 1,
            phase: FlowPhase::Established as u8,
            fin_client: 0,
            fin_endpoint: 0,
            pad: 0,
        };
        twin.sources.set(&src, port_be);
        twin.reverse.borrow_mut().insert(key, entry);
    }
    twin
}
