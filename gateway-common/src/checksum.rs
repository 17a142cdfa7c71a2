//! Internet checksums, updated in place (RFC 1624 eq. 3).
//!
//! A *change* is a one's-complement sum: the complements of the old words plus the new words, unfolded in a `u64`.
//! Sums of 32-bit words fold to the same 16 bits as sums of their halves, so whole words are added.

/// What replacing `old` by `new` adds to a sum.
#[inline(always)]
pub const fn change(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// A sum folded to 32 bits, as the kernel's checksum helpers take it.
#[inline(always)]
pub const fn fold32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

/// A sum folded to 16 bits.
#[inline(always)]
pub const fn fold16(sum: u64) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum field after `change` was applied to what it covers. Room for 2^15 words in `change`.
#[inline(always)]
pub const fn update(field: u16, change: u64) -> u16 {
    !fold16(!field as u64 + change)
}

/// The same for UDP: 0 says that there is no checksum, and stays; one that comes out as 0 is written as its other form
/// (RFC 768, RFC 8200 8.1).
#[inline(always)]
pub const fn update_udp(field: u16, change: u64) -> u16 {
    if field == 0 {
        return 0;
    }
    match update(field, change) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, the plain way.
    fn whole(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|w| u32::from(*w)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        // C = DD2F, m = 5555, m' = 3285, C' = 0000: the case that eq. 2 gets wrong.
        assert_eq!(update(0xdd2f, change(0x5555, 0x3285)), 0x0000);
    }

    #[test]
    fn a_udp_checksum_that_is_absent_stays_so_and_none_becomes_absent() {
        assert_eq!(update_udp(0, change(0x5555, 0x3285)), 0);
        assert_eq!(update_udp(0xdd2f, change(0x5555, 0x3285)), 0xffff);
        assert_eq!(
            update_udp(0xdd2f, change(0x5555, 0x3286)),
            update(0xdd2f, change(0x5555, 0x3286))
        );
    }

    #[test]
    fn an_update_equals_a_computation_from_scratch() {
        let mut words = [
            0x4500u16, 0x0032, 0x0001, 0x4000, 0x4006, 0xc0a8, 0x0701, 0x0ac8, 0x0102,
        ];
        let mut seed = 7u32;
        for _ in 0..10_000 {
            let before = whole(&words);
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (at, new) = ((seed >> 8) as usize % words.len(), seed >> 16);
            let delta = change(u32::from(words[at]), new);
            words[at] = new as u16;
            assert_eq!(update(before, delta), whole(&words));
            assert_eq!(fold16(u64::from(fold32(delta))), fold16(delta));
        }
    }
}
