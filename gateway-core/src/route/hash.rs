//! The hash of the routing tables. Fixed seed: the keys come from the configuration, so a client can not make them
//! collide, and a lookup is the same in every process.

use std::hash::{BuildHasherDefault, Hasher};

/// For `HashMap`s of this crate.
pub type FixedState = BuildHasherDefault<FixedHasher>;

/// Multiply and rotate over words of eight bytes, mixed at the end.
#[derive(Clone, Copy, Default, Debug)]
pub struct FixedHasher(u64);

/// 2^64 divided by the golden ratio, odd (Knuth, TAOCP 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl FixedHasher {
    #[inline]
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(GOLDEN);
    }
}

impl Hasher for FixedHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    /// The table takes its slot from the low bits and its tag from the high ones: both must depend on all of it.
    #[inline]
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(GOLDEN);
        mixed ^ (mixed >> 29)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::hash::BuildHasher;

    #[test]
    fn ten_thousand_similar_keys_spread_over_slots_and_tags() {
        let hashes = || (0..10_000).map(|n| FixedState::default().hash_one(format!("/team-{n}/api/v1").as_bytes()));
        let slots: BTreeSet<u64> = hashes().map(|hash| hash & 0x3fff).collect();
        let tags: BTreeSet<u64> = hashes().map(|hash| hash >> 57).collect();
        // 10,000 balls into 16,384 bins leave 7,484 non-empty on average.
        assert!(slots.len() > 7_000, "{}", slots.len());
        assert_eq!(tags.len(), 128);
    }

    #[test]
    fn keys_that_differ_only_in_trailing_zeros_differ() {
        let hash = |bytes: &[u8]| FixedState::default().hash_one(bytes);
        assert_ne!(hash(b"/a"), hash(b"/a\0"));
        assert_ne!(hash(b"/1234567"), hash(b"/1234567\0"));
    }
}
