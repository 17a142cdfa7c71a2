//! `SOURCES`: a bitmap of the endpoints' own addresses and ports, so that a packet that cannot be a reply is known as
//! such without a hash lookup. A false positive costs one lookup in `REVERSE`; a missing bit loses replies.
//!
//! Written by userspace: the bit of an endpoint is set before the endpoint is put into `ENDPOINTS`, and cleared only
//! when no endpoint that is left has the same bit (rebuild the whole map from the endpoints, then write it).

use super::AddrWords;

/// Bits in the map; a power of two.
pub const SOURCE_BITS: u32 = 65_536;
/// 64-bit words of the map's only value.
pub const SOURCE_WORDS: usize = (SOURCE_BITS / 64) as usize;

/// The only value of `SOURCES` (index 0): bit `n` is bit `n % 64` of word `n / 64`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sources {
    pub words: [u64; SOURCE_WORDS],
}
const _: () = assert!(core::mem::size_of::<Sources>() == 8192);

impl Sources {
    pub const EMPTY: Sources = Sources {
        words: [0; SOURCE_WORDS],
    };

    /// Sets the bit of an endpoint.
    pub const fn set(&mut self, addr: &AddrWords, port_be: u16) {
        let bit = source_bit(addr, port_be);
        self.words[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    /// Whether a packet with this source may be an endpoint's reply.
    pub const fn may_hold(&self, addr: &AddrWords, port_be: u16) -> bool {
        let bit = source_bit(addr, port_be);
        self.words[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }
}

/// The bit of an endpoint, `0..SOURCE_BITS`.
#[inline(always)]
pub const fn source_bit(addr: &AddrWords, port_be: u16) -> u32 {
    let folded = addr[0] ^ addr[1].rotate_left(8) ^ addr[2].rotate_left(16) ^ addr[3];
    (folded ^ (port_be as u32).rotate_left(13)).wrapping_mul(0x9e37_79b1) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::v4_words;

    #[test]
    fn a_bit_that_is_set_is_found_and_another_source_is_not() {
        let mut sources = Sources::EMPTY;
        let (endpoint, other) = (v4_words(0x0b02_12c6), v4_words(0x0c02_12c6));
        sources.set(&endpoint, 50051u16.to_be());
        assert!(sources.may_hold(&endpoint, 50051u16.to_be()));
        assert!(!sources.may_hold(&endpoint, 50052u16.to_be()));
        assert!(!sources.may_hold(&other, 50051u16.to_be()));
    }
}
