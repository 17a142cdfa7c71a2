//! What the packet tables stand on: VIPs, rings and endpoints, as the twin holds them. `fixtures/packets.py` speaks of
//! the same addresses: change both or neither.

use gateway_common::abi::{Endpoint, EndpointState, SLOT_UNKNOWN, Slot, Vip, VipKey, VipMode, addr_words};
use gateway_common::twin::Twin;
use std::net::IpAddr;

/// VIP ids in use, `0..VIPS`.
pub const VIPS: u32 = 21;
/// Interface of the endpoints; the packets come in on 1 (loopback, where test runs happen).
pub const FAR: u32 = 7;
pub const NEAR: u32 = 1;

pub const PORT: u16 = 8080;
pub const VIP4: &str = "192.0.2.10";
pub const VIP6: &str = "2001:db8::10";

const ENDPOINT_MACS: [u32; 3] = words([2, 0, 0, 0, 0x0e, 1, 2, 0, 0, 0, 0, 1]);

const fn words(b: [u8; 12]) -> [u32; 3] {
    [
        u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
        u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
    ]
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn endpoint(addr: &str, ifindex: u32, macs: [u32; 3]) -> Endpoint {
    Endpoint {
        addr: addr_words(ip(addr)),
        ifindex,
        macs,
        port_be: PORT.to_be(),
        state: EndpointState::Serving as u8,
        pad: 0,
    }
}

/// The tables of the fixture.
pub fn fixture() -> Twin {
    let mut twin = Twin::default();
    twin.put_endpoint(1, endpoint("198.51.100.11", FAR, ENDPOINT_MACS));
    twin.put_endpoint(2, endpoint("2001:db8:e::11", FAR, ENDPOINT_MACS));
    twin.put_endpoint(3, endpoint("198.51.100.13", 5, [0; 3]));
    twin.put_endpoint(4, endpoint("198.51.100.14", NEAR, ENDPOINT_MACS));
    let settled = |endpoint| Slot {
        current: endpoint,
        previous: endpoint,
    };
    for (id, addr, port, mode, slot) in [
        (0, VIP4, 80, VipMode::Nat, settled(1)),
        (1, VIP4, 81, VipMode::Nat, settled(1)),
        (2, VIP4, 443, VipMode::HandOff, settled(0)),
        (3, VIP6, 80, VipMode::Nat, settled(2)),
        (4, VIP4, 82, VipMode::Nat, settled(0)),
        (5, VIP4, 83, VipMode::Nat, settled(3)),
        (6, "192.0.2.20", 443, VipMode::HandOff, settled(0)),
        (
            7,
            VIP4,
            84,
            VipMode::Nat,
            Slot {
                current: 1,
                previous: SLOT_UNKNOWN,
            },
        ),
        (8, VIP4, 85, VipMode::Nat, settled(4)),
        (18, VIP4, 86, VipMode::NatByClient, settled(1)),
        (19, VIP6, 86, VipMode::NatByClient, settled(2)),
    ] {
        twin.vips
            .insert(VipKey::new(ip(addr), port, 6), Vip { id, mode: mode as u32 });
        if mode.by_client() && addr == VIP4 {
            // Neighbouring slots differ, so that another slot shows.
            twin.put_ring(id, |at| settled(if at % 2 == 0 { 1 } else { 4 }));
        } else if mode.forwards() {
            twin.put_ring(id, |_| slot);
        }
    }
    for (id, addr, port, mode, slot) in [
        (11, VIP4, 80, VipMode::Nat, settled(1)),
        (12, VIP6, 80, VipMode::Nat, settled(2)),
        (
            13,
            VIP4,
            84,
            VipMode::Nat,
            Slot {
                current: 1,
                previous: SLOT_UNKNOWN,
            },
        ),
        (14, VIP4, 82, VipMode::Nat, settled(0)),
        (15, VIP4, 443, VipMode::HandOff, settled(0)),
        (16, VIP4, 81, VipMode::Nat, settled(1)),
        (17, VIP4, 83, VipMode::Nat, settled(3)),
        (20, VIP4, 86, VipMode::NatByClient, settled(1)),
    ] {
        twin.vips
            .insert(VipKey::new(ip(addr), port, 17), Vip { id, mode: mode as u32 });
        if mode.by_client() && addr == VIP4 {
            // Neighbouring slots differ, so that another slot shows.
            twin.put_ring(id, |at| settled(if at % 2 == 0 { 1 } else { 4 }));
        } else if mode.forwards() {
            twin.put_ring(id, |_| slot);
        }
    }
    for (id, addr) in [(9, VIP4), (10, VIP6)] {
        twin.vips.insert(
            VipKey::address(addr_words(ip(addr))),
            Vip {
                id,
                mode: VipMode::Address as u32,
            },
        );
    }
    twin.clock = 1000;
    twin
}
