//! Huffman-coded texts (RFC 7541 5.2, appendix B), decoding only: our encoder writes plain bytes, because the tables
//! take the repetition and coding would cost more than the bytes left.
//!
//! Codes up to 12 bits are found in one look-up; longer ones (rare bytes) by their length, because the code is
//! canonical: codes of one length are consecutive numbers.

use super::HpackError;

/// Longest code, bits.
const CODE_BITS_MAX: u32 = 30;
/// Codes up to this length are in the look-up table.
const SHORT_BITS: u32 = 12;
/// The end-of-string symbol; in a text it is an error (RFC 7541 5.2).
const EOS: usize = 256;

/// Appends the decoded text to `out`.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    // The shortest code has five bits.
    out.reserve(coded.len() * 8 / 5 + 1);
    let mut rest = coded;
    // The next bits, from the top; below `bits` there are zeros.
    let mut window = 0u64;
    let mut bits = 0u32;
    loop {
        while bits <= 32 {
            let Some((word, after)) = rest.split_first_chunk::<4>() else {
                break;
            };
            window |= u64::from(u32::from_be_bytes(*word)) << (32 - bits);
            bits += 32;
            rest = after;
        }
        while bits <= 56 {
            let Some((byte, after)) = rest.split_first() else { break };
            window |= u64::from(*byte) << (56 - bits);
            bits += 8;
            rest = after;
        }
        if bits < CODE_BITS_MAX {
            return decode_end(window, bits, out);
        }
        while bits >= CODE_BITS_MAX {
            let (symbol, len) = symbol(window).ok_or(HpackError::Huffman)?;
            out.push(symbol);
            window <<= len;
            bits -= len;
        }
    }
}

/// The last symbols, then less than eight bits of padding, all ones.
fn decode_end(mut window: u64, mut bits: u32, out: &mut Vec<u8>) -> Result<(), HpackError> {
    loop {
        if bits < 8 && window == !(u64::MAX >> bits) {
            return Ok(());
        }
        match symbol(window) {
            Some((symbol, len)) if len <= bits => {
                out.push(symbol);
                window <<= len;
                bits -= len;
            }
            Some(_) | None => return Err(HpackError::Huffman),
        }
    }
}

/// The symbol whose code begins `window`, and the length of the code; `None` for EOS.
#[inline]
fn symbol(window: u64) -> Option<(u8, u32)> {
    let short = SHORT[(window >> (64 - SHORT_BITS)) as usize];
    if short != 0 {
        Some(((short >> 4) as u8, u32::from(short & 15)))
    } else {
        long_symbol(window)
    }
}

fn long_symbol(window: u64) -> Option<(u8, u32)> {
    let mut len = SHORT_BITS + 1;
    while len <= CODE_BITS_MAX {
        let place = ((window >> (64 - len)) as u32).wrapping_sub(LONG[len as usize].first);
        if place < LONG[len as usize].count {
            let symbol = BY_CODE[LONG[len as usize].start + place as usize];
            return u8::try_from(symbol).ok().map(|symbol| (symbol, len));
        }
        len += 1;
    }
    None
}

/// By the next 12 bits: symbol << 4 | length; 0 when the code is longer.
static SHORT: [u16; 1 << SHORT_BITS] = {
    let mut table = [0u16; 1 << SHORT_BITS];
    let mut symbol = 0;
    while symbol < EOS {
        let (len, code) = CODES[symbol];
        if len <= SHORT_BITS {
            let first = (code << (SHORT_BITS - len)) as usize;
            let mut i = 0;
            while i < 1 << (SHORT_BITS - len) {
                table[first + i] = (symbol as u16) << 4 | len as u16;
                i += 1;
            }
        }
        symbol += 1;
    }
    table
};

/// The codes of one length.
#[derive(Clone, Copy)]
struct Length {
    first: u32,
    count: u32,
    /// Where their symbols begin in [`BY_CODE`].
    start: usize,
}

/// By length.
static LONG: [Length; CODE_BITS_MAX as usize + 1] = SORTED.0;
/// Symbols by length, then code.
static BY_CODE: [u16; EOS + 1] = SORTED.1;

const SORTED: ([Length; CODE_BITS_MAX as usize + 1], [u16; EOS + 1]) = {
    let mut lengths = [Length {
        first: 0,
        count: 0,
        start: 0,
    }; CODE_BITS_MAX as usize + 1];
    let mut by_code = [0u16; EOS + 1];
    let mut filled = 0;
    let mut len = 1;
    while len <= CODE_BITS_MAX {
        lengths[len as usize].start = filled;
        let mut symbol = 0;
        while symbol <= EOS {
            let (code_len, code) = CODES[symbol];
            if code_len == len {
                let length = &mut lengths[len as usize];
                if length.count == 0 {
                    length.first = code;
                }
                assert!(code == length.first + length.count, "the code is canonical");
                length.count += 1;
                by_code[filled] = symbol as u16;
                filled += 1;
            }
            symbol += 1;
        }
        len += 1;
    }
    (lengths, by_code)
};

/// Length in bits and code of every byte and of EOS (RFC 7541 appendix B).
#[rustfmt::skip]
pub(super) static CODES: [(u32, u32); EOS + 1] = [
    (13, 0x1ff8), (23, 0x7fffd8), (28, 0xfffffe2), (28, 0xfffffe3), (28, 0xfffffe4), (28, 0xfffffe5), (28, 0xfffffe6),
    (28, 0xfffffe7), (28, 0xfffffe8), (24, 0xffffea), (30, 0x3ffffffc), (28, 0xfffffe9), (28, 0xfffffea),
    (30, 0x3ffffffd), (28, 0xfffffeb), (28, 0xfffffec), (28, 0xfffffed), (28, 0xfffffee), (28, 0xfffffef),
    (28, 0xffffff0), (28, 0xffffff1), (28, 0xffffff2), (30, 0x3ffffffe), (28, 0xffffff3), (28, 0xffffff4),
    (28, 0xffffff5), (28, 0xffffff6), (28, 0xffffff7), (28, 0xffffff8), (28, 0xffffff9), (28, 0xffffffa),
    (28, 0xffffffb), (6, 0x14), (10, 0x3f8), (10, 0x3f9), (12, 0xffa), (13, 0x1ff9), (6, 0x15), (8, 0xf8),
    (11, 0x7fa), (10, 0x3fa), (10, 0x3fb), (8, 0xf9), (11, 0x7fb), (8, 0xfa), (6, 0x16), (6, 0x17), (6, 0x18),
    (5, 0x0), (5, 0x1), (5, 0x2), (6, 0x19), (6, 0x1a), (6, 0x1b), (6, 0x1c), (6, 0x1d), (6, 0x1e), (6, 0x1f),
    (7, 0x5c), (8, 0xfb), (15, 0x7ffc), (6, 0x20), (12, 0xffb), (10, 0x3fc), (13, 0x1ffa), (6, 0x21), (7, 0x5d),
    (7, 0x5e), (7, 0x5f), (7, 0x60), (7, 0x61), (7, 0x62), (7, 0x63), (7, 0x64), (7, 0x65), (7, 0x66), (7, 0x67),
    (7, 0x68), (7, 0x69), (7, 0x6a), (7, 0x6b), (7, 0x6c), (7, 0x6d), (7, 0x6e), (7, 0x6f), (7, 0x70), (7, 0x71),
    (7, 0x72), (8, 0xfc), (7, 0x73), (8, 0xfd), (13, 0x1ffb), (19, 0x7fff0), (13, 0x1ffc), (14, 0x3ffc), (6, 0x22),
    (15, 0x7ffd), (5, 0x3), (6, 0x23), (5, 0x4), (6, 0x24), (5, 0x5), (6, 0x25), (6, 0x26), (6, 0x27), (5, 0x6),
    (7, 0x74), (7, 0x75), (6, 0x28), (6, 0x29), (6, 0x2a), (5, 0x7), (6, 0x2b), (7, 0x76), (6, 0x2c), (5, 0x8),
    (5, 0x9), (6, 0x2d), (7, 0x77), (7, 0x78), (7, 0x79), (7, 0x7a), (7, 0x7b), (15, 0x7ffe), (11, 0x7fc),
    (14, 0x3ffd), (13, 0x1ffd), (28, 0xffffffc), (20, 0xfffe6), (22, 0x3fffd2), (20, 0xfffe7), (20, 0xfffe8),
    (22, 0x3fffd3), (22, 0x3fffd4), (22, 0x3fffd5), (23, 0x7fffd9), (22, 0x3fffd6), (23, 0x7fffda), (23, 0x7fffdb),
    (23, 0x7fffdc), (23, 0x7fffdd), (23, 0x7fffde), (24, 0xffffeb), (23, 0x7fffdf), (24, 0xffffec), (24, 0xffffed),
    (22, 0x3fffd7), (23, 0x7fffe0), (24, 0xffffee), (23, 0x7fffe1), (23, 0x7fffe2), (23, 0x7fffe3), (23, 0x7fffe4),
    (21, 0x1fffdc), (22, 0x3fffd8), (23, 0x7fffe5), (22, 0x3fffd9), (23, 0x7fffe6), (23, 0x7fffe7), (24, 0xffffef),
    (22, 0x3fffda), (21, 0x1fffdd), (20, 0xfffe9), (22, 0x3fffdb), (22, 0x3fffdc), (23, 0x7fffe8), (23, 0x7fffe9),
    (21, 0x1fffde), (23, 0x7fffea), (22, 0x3fffdd), (22, 0x3fffde), (24, 0xfffff0), (21, 0x1fffdf), (22, 0x3fffdf),
    (23, 0x7fffeb), (23, 0x7fffec), (21, 0x1fffe0), (21, 0x1fffe1), (22, 0x3fffe0), (21, 0x1fffe2), (23, 0x7fffed),
    (22, 0x3fffe1), (23, 0x7fffee), (23, 0x7fffef), (20, 0xfffea), (22, 0x3fffe2), (22, 0x3fffe3), (22, 0x3fffe4),
    (23, 0x7ffff0), (22, 0x3fffe5), (22, 0x3fffe6), (23, 0x7ffff1), (26, 0x3ffffe0), (26, 0x3ffffe1), (20, 0xfffeb),
    (19, 0x7fff1), (22, 0x3fffe7), (23, 0x7ffff2), (22, 0x3fffe8), (25, 0x1ffffec), (26, 0x3ffffe2), (26, 0x3ffffe3),
    (26, 0x3ffffe4), (27, 0x7ffffde), (27, 0x7ffffdf), (26, 0x3ffffe5), (24, 0xfffff1), (25, 0x1ffffed),
    (19, 0x7fff2), (21, 0x1fffe3), (26, 0x3ffffe6), (27, 0x7ffffe0), (27, 0x7ffffe1), (26, 0x3ffffe7),
    (27, 0x7ffffe2), (24, 0xfffff2), (21, 0x1fffe4), (21, 0x1fffe5), (26, 0x3ffffe8), (26, 0x3ffffe9),
    (28, 0xffffffd), (27, 0x7ffffe3), (27, 0x7ffffe4), (27, 0x7ffffe5), (20, 0xfffec), (24, 0xfffff3), (20, 0xfffed),
    (21, 0x1fffe6), (22, 0x3fffe9), (21, 0x1fffe7), (21, 0x1fffe8), (23, 0x7ffff3), (22, 0x3fffea), (22, 0x3fffeb),
    (25, 0x1ffffee), (25, 0x1ffffef), (24, 0xfffff4), (24, 0xfffff5), (26, 0x3ffffea), (23, 0x7ffff4),
    (26, 0x3ffffeb), (27, 0x7ffffe6), (26, 0x3ffffec), (26, 0x3ffffed), (27, 0x7ffffe7), (27, 0x7ffffe8),
    (27, 0x7ffffe9), (27, 0x7ffffea), (27, 0x7ffffeb), (28, 0xffffffe), (27, 0x7ffffec), (27, 0x7ffffed),
    (27, 0x7ffffee), (27, 0x7ffffef), (27, 0x7fffff0), (26, 0x3ffffee), (30, 0x3fffffff),];

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain definition: codes end to end, ones at the end.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        for byte in text {
            let (len, code) = CODES[usize::from(*byte)];
            bits.extend((0..len).rev().map(|i| code >> i & 1 == 1));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push(true);
        }
        bits.chunks(8)
            .map(|byte| byte.iter().fold(0, |all, bit| all << 1 | u8::from(*bit)))
            .collect()
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    #[test]
    fn every_pair_of_bytes_comes_back() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let text = [first, second];
                assert_eq!(decoded(&encode(&text)).as_deref(), Ok(&text[..]));
            }
        }
    }

    #[test]
    fn long_texts_come_back() {
        let mut text = Vec::new();
        let mut seed = 1u32;
        for len in 0..400 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push(if len % 3 == 0 {
                (seed >> 24) as u8
            } else {
                b'a' + (seed >> 28) as u8
            });
            assert_eq!(decoded(&encode(&text)).as_deref(), Ok(&text[..]));
        }
    }

    #[test]
    fn wrong_padding_is_an_error() {
        // 'a' is 00011, then three bits of padding.
        assert_eq!(decoded(&[0b0001_1111]).as_deref(), Ok(&b"a"[..]));
        assert_eq!(decoded(&[0b0001_1110]), Err(HpackError::Huffman));
        assert_eq!(decoded(&[0b0001_1111, 0xff]), Err(HpackError::Huffman));
        assert_eq!(decoded(&[0xff]), Err(HpackError::Huffman));
        assert_eq!(
            decoded(&[0xff, 0xff, 0xff, 0xff]),
            Err(HpackError::Huffman),
            "EOS inside"
        );
        assert_eq!(decoded(&[0xff; 64]), Err(HpackError::Huffman));
        assert_eq!(decoded(&[]).as_deref(), Ok(&b""[..]));
    }
}
