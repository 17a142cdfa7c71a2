//! Keys and values of the BPF maps. One file a map family; sizes are proven by the compiler.
//!
//! The layout's version is part of the pin path (`PIN_VERSION`): a binary never adopts maps of another layout.

pub mod binding;
pub mod counters;
pub mod endpoint;
pub mod flow;
pub mod source;
pub mod vip;

pub use binding::{CONFIG_UDP_IDLE, CONFIG_WORDS, CONFIG_WORKERS, LISTENERS_MAX, WORKERS_MAX, binding_index};
pub use counters::{Action, NO_VIP, REASONS, Reason, counter_index};
pub use endpoint::{ENDPOINTS_MAX, Endpoint, EndpointState};
pub use flow::{FLOWS_MAX, Flow, FlowKey, FlowPhase, TICKS_PER_SECOND};
pub use source::{SOURCE_BITS, SOURCE_WORDS, Sources, source_bit};
pub use vip::{RING_SLOTS, Ring, SLOT_UNKNOWN, Slot, VIPS_MAX, Vip, VipKey, VipMode};

/// Version of every layout in this module; the pin directory is `<pin-dir>/v<PIN_VERSION>`.
pub const PIN_VERSION: u32 = 1;

/// An address as four words in wire order; IPv4 is mapped (`::ffff:a.b.c.d`, RFC 4291 2.5.5.2).
pub type AddrWords = [u32; 4];

/// The third word of every IPv4-mapped address.
pub const V4_MARK: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// IPv4 address bytes (wire order) as [`AddrWords`].
#[inline(always)]
pub const fn v4_words(addr_be: u32) -> AddrWords {
    [0, 0, V4_MARK, addr_be]
}

/// `IpAddr` as [`AddrWords`].
pub const fn addr_words(addr: core::net::IpAddr) -> AddrWords {
    match addr {
        core::net::IpAddr::V4(a) => v4_words(u32::from_ne_bytes(a.octets())),
        core::net::IpAddr::V6(a) => {
            let o = a.octets();
            [
                u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
                u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
                u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
                u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
            ]
        }
    }
}

/// [`AddrWords`] back to an address; mapped addresses come out as IPv4.
pub fn addr_from_words(words: AddrWords) -> core::net::IpAddr {
    if words[0] == 0 && words[1] == 0 && words[2] == V4_MARK {
        return core::net::IpAddr::V4(core::net::Ipv4Addr::from(words[3].to_ne_bytes()));
    }
    let mut octets = [0u8; 16];
    for (four, word) in octets.chunks_exact_mut(4).zip(words) {
        four.copy_from_slice(&word.to_ne_bytes());
    }
    core::net::IpAddr::V6(core::net::Ipv6Addr::from(octets))
}
