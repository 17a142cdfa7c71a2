//! The packet decision (the kernel's own code over the host twin) on any frame.
//!
//! Laws: total; a frame is never longer or shorter; what is not sent is not touched; what is sent has its checksums as
//! right or as wrong as they were. Input: the frame.
#![no_main]

use gateway_common::abi::{Action, Endpoint, EndpointState, Slot, Vip, VipKey, VipMode, addr_words};
use gateway_common::datapath;
use gateway_common::twin::{Bytes, Twin};
use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;

const CLIENT_SIDE: u32 = 7;

thread_local! {
    static TWIN: Twin = twin();
}

fn twin() -> Twin {
    let mut twin = Twin::default();
    let addr = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let vips = [
        ("10.0.0.1", 80, VipMode::Nat),
        ("10.0.0.1", 81, VipMode::HandOff),
        ("fd00::1", 80, VipMode::Nat),
    ];
    for (id, (vip, port, mode)) in vips.into_iter().enumerate() {
        let id = id as u32;
        twin.vips
            .insert(VipKey::new(addr(vip), port, 6), Vip { id, mode: mode as u32 });
        twin.vips.insert(
            VipKey::address(addr_words(addr(vip))),
            Vip {
                id,
                mode: VipMode::Address as u32,
            },
        );
        let index = if vip.contains(':') { 2 } else { 1 };
        twin.put_ring(id, |slot| Slot {
            current: index,
            previous: if slot % 3 == 0 { 0 } else { index },
        });
    }
    for (index, endpoint) in [(1, "10.0.1.1"), (2, "fd00::2")] {
        let endpoint = Endpoint {
            addr: addr_words(addr(endpoint)),
            ifindex: 3,
            macs: [1, 2, 3],
            port_be: 8080_u16.to_be(),
            state: EndpointState::Serving as u8,
            pad: 0,
        };
        twin.put_endpoint(index, endpoint);
    }
    twin.clock = 100;
    twin
}

/// Ones' complement sum of big-endian words (RFC 1071), folded; 0 and 0xffff are one number.
fn sum(bytes: &[u8]) -> u32 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum % 0xffff
}

/// Sums that a rewrite must keep: of the IPv4 header, and of addresses and segment.
fn sums(frame: &[u8]) -> (u32, u32) {
    let l3 = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    let (header, addresses) = if frame[l3] >> 4 == 4 { (20, 12..20) } else { (40, 8..40) };
    let ip = &frame[l3..l3 + header];
    let own = if header == 20 { sum(ip) } else { 0 };
    (own, (sum(&ip[addresses]) + sum(&frame[l3 + header..])) % 0xffff)
}

fn walk<const LINK: bool>(twin: &Twin, frame: &[u8]) {
    let mut packet = Bytes::<LINK> {
        bytes: frame.to_vec(),
        ifindex: CLIENT_SIDE,
    };
    let outcome = datapath::packet(&mut packet, twin);
    assert_eq!(packet.bytes.len(), frame.len());
    if outcome.reason.action() == Action::Send {
        assert_ne!(outcome.ifindex, 0);
        assert_eq!(sums(&packet.bytes), sums(frame), "checksums stay as right as they were");
    } else {
        assert_eq!(packet.bytes, frame, "{:?} touches nothing", outcome.reason);
    }
}

fuzz_target!(|frame: &[u8]| {
    TWIN.with(|twin| {
        twin.flows.borrow_mut().clear();
        twin.reverse.borrow_mut().clear();
        // Twice: the second one meets the flow that the first one left.
        for _ in 0..2 {
            walk::<true>(twin, frame);
            walk::<false>(twin, frame);
        }
    });
});
