//! Looking for a few octets in a text, eight at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x80 * ONES;

/// Whether `text` holds an octet below `least` (at most 0x80) or one of `others`.
#[inline]
pub fn any_below_or_of<const N: usize>(text: &[u8], least: u8, others: [u8; N]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let mut found = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        found |= below(word, least);
        for octet in others {
            found |= below(word ^ (u64::from(octet) * ONES), 1);
        }
    }
    found & TOPS != 0 || rest.iter().any(|octet| *octet < least || others.contains(octet))
}

/// A top bit is set when an octet of the word is below `least`.
#[inline]
const fn below(word: u64, least: u8) -> u64 {
    word.wrapping_sub(least as u64 * ONES) & !word
}

#[cfg(test)]
mod tests {
    use super::any_below_or_of;

    #[test]
    fn what_is_looked_for_is_found_wherever_it_stands_and_nothing_else_is() {
        for len in 0..26 {
            for other in [b'a', b'!', b'$', b'"', b'~', 0x80, 0xa0, 0xa3, 0xff] {
                assert!(!any_below_or_of(&vec![other; len], b'!', [b'#', 0x7f]), "{other} {len}");
                for (place, found) in
                    (0..len).flat_map(|place| [(place, b'#'), (place, 0x7f), (place, 0), (place, b' ')])
                {
                    let mut text = vec![other; len];
                    text[place] = found;
                    assert!(
                        any_below_or_of(&text, b'!', [b'#', 0x7f]),
                        "{found} at {place} of {len} {other}"
                    );
                }
            }
        }
    }
}
