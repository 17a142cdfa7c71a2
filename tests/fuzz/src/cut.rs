//! How an input is cut into chunks. The first byte says how, so that the rest of an input stays readable as it is.

/// The chunks of `input`: whole, byte by byte, or in pieces of up to 4, 64 or 4,096 bytes drawn from the first byte.
pub fn chunks(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (how, mut rest) = input.split_first().map_or((0, input), |(how, rest)| (*how, rest));
    let mut dice = u32::from(how) | 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let bound = match how % 5 {
            0 => usize::MAX,
            1 => 1,
            2 => 4,
            3 => 64,
            _ => 4096,
        };
        let len = match bound {
            1 | usize::MAX => bound,
            bound => 1 + (dice >> 16) as usize % bound,
        };
        let chunk;
        (chunk, rest) = rest.split_at(len.min(rest.len()));
        Some(chunk)
    })
}
