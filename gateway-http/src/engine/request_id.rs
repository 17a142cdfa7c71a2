//! Ids for requests that come without one, without randomness of our own: a seed from the rim and a counter, mixed.

/// An id for a request that came without: unique in the process, and over processes as far as the seed is. Written
/// like a UUID of version 4, because that is what people's tools recognise.
pub fn request_id(seed: u64, worker: u16, counter: u64) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    /// Where the two digits of each byte stand.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let (high, low) = words(seed, worker, counter);
    let bits = (u128::from(high) << 64 | u128::from(low)) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut text = [b'-'; 36];
    for (byte, place) in bits.to_be_bytes().into_iter().zip(PLACES) {
        text[place] = DIGITS[usize::from(byte >> 4)];
        text[place + 1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// Two words that no other counter and no other worker gives.
pub fn words(seed: u64, worker: u16, counter: u64) -> (u64, u64) {
    let high = scatter(seed ^ (u64::from(worker) << 48) ^ counter);
    (high, scatter(high ^ seed.rotate_left(32)))
}

/// A bijection on 64 bits that mixes well (SplitMix64's finisher).
fn scatter(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::request_id;
    use std::collections::BTreeSet;

    #[test]
    fn request_ids_look_like_uuids_and_differ() {
        let ids: BTreeSet<_> = (0..10_000).map(|counter| request_id(7, 3, counter)).collect();
        assert_eq!(ids.len(), 10_000);
        for id in ids {
            assert_eq!((id[8], id[14]), (b'-', b'4'));
            assert!(matches!(id[19], b'8' | b'9' | b'a' | b'b'));
        }
    }
}
