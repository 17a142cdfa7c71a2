//! Integers with a prefix (RFC 7541 5.1).

use super::HpackError;

/// Continuation bytes after the prefix: 28 bits, far above any length we accept.
const CONTINUATION_MAX: u32 = 4;

/// Reads the integer whose first byte, at `*at`, has `prefix` bits of it; moves `at` behind it.
#[inline]
pub(super) fn read(block: &[u8], at: &mut usize, prefix: u32) -> Result<usize, HpackError> {
    let full = (1usize << prefix) - 1;
    let first = usize::from(*block.get(*at).ok_or(HpackError::Truncated)?) & full;
    *at += 1;
    if first < full {
        return Ok(first);
    }
    let mut value = full;
    for step in 0..CONTINUATION_MAX {
        let byte = usize::from(*block.get(*at).ok_or(HpackError::Truncated)?);
        *at += 1;
        value += (byte & 0x7f) << (7 * step);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(HpackError::Integer)
}

/// Writes `value`; `pattern` holds the bits of the first byte above the prefix.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, pattern: u8, prefix: u32, value: usize) {
    let full = (1usize << prefix) - 1;
    if value < full {
        out.push(pattern | value as u8);
    } else {
        write_long(out, pattern, full, value);
    }
}

#[cold]
fn write_long(out: &mut Vec<u8>, pattern: u8, full: usize, value: usize) {
    out.push(pattern | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_appendix_c1() {
        for (value, prefix, bytes) in [
            (10, 5, &[0b0_1010u8][..]),
            (1337, 5, &[0b1_1111, 0b1001_1010, 0b0000_1010]),
            (42, 8, &[0b0010_1010]),
        ] {
            let mut out = Vec::new();
            write(&mut out, 0, prefix, value);
            assert_eq!(out, bytes);
            let mut at = 0;
            assert_eq!(read(bytes, &mut at, prefix), Ok(value));
            assert_eq!(at, bytes.len());
        }
    }

    #[test]
    fn every_value_comes_back() {
        for prefix in 4..=7 {
            for value in (0..300).chain([4095, 4096, 16_511, 65_535, 65_536, 1 << 27]) {
                let mut out = Vec::new();
                write(&mut out, 0, prefix, value);
                assert_eq!(read(&out, &mut 0, prefix), Ok(value));
            }
        }
    }

    #[test]
    fn an_endless_or_cut_integer_is_an_error() {
        assert_eq!(
            read(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0], &mut 0, 7),
            Err(HpackError::Integer)
        );
        assert_eq!(read(&[0x7f, 0x80], &mut 0, 7), Err(HpackError::Truncated));
        assert_eq!(read(&[], &mut 0, 7), Err(HpackError::Truncated));
    }
}
