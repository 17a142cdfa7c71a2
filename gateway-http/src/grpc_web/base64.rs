//! Base64 (RFC 4648 4) as a stream: bytes may be cut anywhere on either side.
//!
//! gRPC-Web pads where a sender flushes, so padding may stand between groups, and each padded group stands for itself.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Marks of the decoding table: no character of base64, and the padding.
const NONE: u8 = 0xff;
const PAD: u8 = 0xfe;

static VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut index = 0;
    while index < 64 {
        values[ALPHABET[index] as usize] = index as u8;
        index += 1;
    }
    values[b'=' as usize] = PAD;
    values
};

/// Not base64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Text to bytes; holds at most three characters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    group: [u8; 4],
    len: u8,
}

impl Decoder {
    /// Appends what `text` decodes to, as far as its groups are whole.
    pub fn decode(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.reserve(text.len() / 4 * 3 + 3);
        let mut rest = text;
        while self.len > 0 {
            let Some((first, after)) = rest.split_first() else {
                return Ok(());
            };
            rest = after;
            self.push(*first, out)?;
        }
        let (groups, tail) = rest.as_chunks::<4>();
        for group in groups {
            let [a, b, c, d] = group.map(|byte| VALUES[usize::from(byte)]);
            if (a | b | c | d) < 64 {
                out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
            } else {
                group.iter().try_for_each(|byte| self.push(*byte, out))?;
            }
        }
        tail.iter().try_for_each(|byte| self.push(*byte, out))
    }

    /// Whether the text may end here.
    pub const fn is_whole(&self) -> bool {
        self.len == 0
    }

    fn push(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let value = VALUES[usize::from(byte)];
        let padded = self.len == 3 && self.group[2] == PAD;
        // Padding is the fourth, or the third and the fourth, character of a group.
        if value == NONE || (value == PAD && self.len < 2) || (padded && value != PAD) {
            return Err(Malformed);
        }
        self.group[usize::from(self.len)] = value;
        self.len += 1;
        if self.len == 4 {
            self.len = 0;
            let [a, b, c, d] = self.group;
            out.push(a << 2 | b >> 4);
            if c != PAD {
                out.push(b << 4 | c >> 2);
            }
            if d != PAD {
                out.push(c << 6 | d);
            }
        }
        Ok(())
    }
}

/// Bytes to text; holds at most two bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoder {
    kept: [u8; 2],
    len: u8,
}

impl Encoder {
    /// Appends the text of all whole groups; what is left is kept.
    pub fn encode(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.reserve(bytes.len() / 3 * 4 + 8);
        let mut rest = bytes;
        while self.len > 0 {
            let Some((first, after)) = rest.split_first() else {
                return;
            };
            rest = after;
            if self.len == 2 {
                put(&[self.kept[0], self.kept[1], *first], out);
                self.len = 0;
            } else {
                self.kept[1] = *first;
                self.len = 2;
            }
        }
        let (groups, tail) = rest.as_chunks::<3>();
        for group in groups {
            put(group, out);
        }
        self.kept[..tail.len()].copy_from_slice(tail);
        self.len = tail.len() as u8;
    }

    /// Appends what was kept, padded.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        let kept = usize::from(std::mem::take(&mut self.len));
        if kept > 0 {
            let mut group = [0; 3];
            group[..kept].copy_from_slice(&self.kept[..kept]);
            put(&group, out);
            let end = out.len();
            out[end - (3 - kept)..].fill(b'=');
        }
    }
}

fn put(group: &[u8; 3], out: &mut Vec<u8>) {
    let [a, b, c] = *group;
    let letter = |value: u8| ALPHABET[usize::from(value & 63)];
    out.extend_from_slice(&[
        letter(a >> 2),
        letter(a << 4 | b >> 4),
        letter(b << 2 | c >> 6),
        letter(c),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(parts: &[&[u8]]) -> Result<Vec<u8>, Malformed> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        for part in parts {
            decoder.decode(part, &mut out)?;
        }
        if decoder.is_whole() { Ok(out) } else { Err(Malformed) }
    }

    #[test]
    fn the_vectors_of_the_rfc_hold_both_ways() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let (mut encoder, mut out) = (Encoder::default(), Vec::new());
            encoder.encode(plain.as_bytes(), &mut out);
            encoder.flush(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
            assert_eq!(decoded(&[text.as_bytes()]).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn what_is_no_base64_is_malformed() {
        for text in [
            "A", "AA", "AAA", "A===", "=AAA", "AA=A", "AAA\n", "AA-_", "====", "AAAA=",
        ] {
            assert_eq!(decoded(&[text.as_bytes()]), Err(Malformed), "{text}");
        }
        assert_eq!(
            decoded(&[b"Zg==Zm8=Zm9v"]).unwrap(),
            b"ffofoo",
            "padding where a sender flushed"
        );
    }

    proptest! {
        #[test]
        fn text_and_bytes_may_be_cut_and_flushed_anywhere(
            plain in prop::collection::vec(any::<u8>(), 0..400),
            cuts in prop::collection::vec((1..50_usize, any::<bool>()), 1..8),
            text_cuts in prop::collection::vec(1..50_usize, 1..8),
        ) {
            let (mut encoder, mut text) = (Encoder::default(), Vec::new());
            let (mut rest, mut cut) = (&plain[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (count, flush) = cut.next().unwrap();
                let count = (*count).min(rest.len());
                encoder.encode(&rest[..count], &mut text);
                if *flush {
                    encoder.flush(&mut text);
                }
                rest = &rest[count..];
            }
            encoder.flush(&mut text);
            let (mut decoder, mut out) = (Decoder::default(), Vec::new());
            let (mut rest, mut cut) = (&text[..], text_cuts.iter().cycle());
            while !rest.is_empty() {
                let count = (*cut.next().unwrap()).min(rest.len());
                decoder.decode(&rest[..count], &mut out).unwrap();
                rest = &rest[count..];
            }
            prop_assert!(decoder.is_whole());
            prop_assert_eq!(out, plain);
        }
    }
}
