//! Field lists to field blocks.
//!
//! What is wholly in the static table is one byte. What is in the dynamic table is found by a scan over hashes (at
//! most 128) and one comparison. Any other field is a literal, and enters the table only when the same literal was
//! among the last [`SEEN`]: values that never repeat (request ids, dates) evict nothing.

use super::integer;
use super::table::{DEFAULT_SIZE, Table};
use crate::h2::hpack::static_table::STATIC_LEN;
use crate::head::{Field, FieldList, Token};
use std::collections::VecDeque;

/// Literals remembered as seen.
const SEEN: usize = 32;

/// Credentials shorter than this are guessable one by one, so their presence in a table shared by several clients
/// must not show in the length of a block (RFC 7541 7.1).
const SECRET_BYTES_MIN: usize = 20;

/// The encoding side of one connection.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// Hashes of the table's entries, oldest first.
    hashes: VecDeque<u32>,
    /// Hashes of the last literals, a ring: a filter by hash value would let two fields of one block push each other
    /// out for ever.
    seen: [u32; SEEN],
    seen_next: usize,
    /// Where in `hashes` the next field is looked for first: heads repeat, and their fields entered in their order.
    likely: usize,
    /// Sizes to announce in the next block: the smallest since the last one, and the present one.
    resized: Option<(usize, usize)>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder for a peer that has not said otherwise.
    pub fn new() -> Self {
        Self {
            table: Table::new(DEFAULT_SIZE),
            hashes: VecDeque::new(),
            seen: [0; SEEN],
            seen_next: 0,
            likely: 0,
            resized: None,
        }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. More than the default is not used. The change is announced at the
    /// start of the next block (RFC 7541 4.2, 6.3).
    pub fn set_table_size_max(&mut self, size_max: usize) {
        let size = size_max.min(DEFAULT_SIZE);
        if size == self.table.size_max() {
            return;
        }
        self.table.resize(size);
        self.forget_evicted();
        let smallest = self.resized.map_or(size, |(smallest, _)| smallest.min(size));
        self.resized = Some((smallest, size));
    }

    /// Appends the block of `list` to `out`.
    pub fn encode(&mut self, list: &FieldList, out: &mut Vec<u8>) {
        // A block of an update alone is taken for an update at the end by some decoders.
        if let Some((smallest, size)) = self.resized.take_if(|_| !list.is_empty()) {
            if smallest < size {
                integer::write(out, 0b0010_0000, 5, smallest);
            }
            integer::write(out, 0b0010_0000, 5, size);
        }
        for field in list.fields() {
            self.field(field, list.name_value(field), out);
        }
    }

    #[inline]
    fn field(&mut self, field: &Field, bytes: &[u8], out: &mut Vec<u8>) {
        let never = is_secret(field, bytes);
        if field.static_index() != 0 && !never {
            return out.push(0b1000_0000 | field.static_index());
        }
        // What never comes twice is not looked for.
        let unique = field.token() == Token::X_REQUEST_ID;
        let hash = if unique { 0 } else { field.hash_of(bytes) };
        if !unique
            && let Some(index) = self.dynamic_index(field, hash, bytes)
            && !never
        {
            return integer::write(out, 0b1000_0000, 7, index);
        }
        let name_index = usize::from(field.token().static_name());
        let insert = !never && !unique && self.was_seen(hash);
        match (never, insert) {
            (true, _) => integer::write(out, 0b0001_0000, 4, name_index),
            (false, true) => integer::write(out, 0b0100_0000, 6, name_index),
            (false, false) => integer::write(out, 0, 4, name_index),
        }
        let (name, value) = bytes.split_at(field.name_len());
        if name_index == 0 {
            integer::write(out, 0, 7, name.len());
            out.extend_from_slice(name);
        }
        integer::write(out, 0, 7, value.len());
        out.extend_from_slice(value);
        if insert {
            self.table.insert(field, bytes);
            self.hashes.push_back(hash);
            self.forget_evicted();
        }
    }

    #[inline]
    fn dynamic_index(&mut self, field: &Field, hash: u32, bytes: &[u8]) -> Option<usize> {
        let place = match self.hashes.get(self.likely) {
            Some(known) if *known == hash => self.likely,
            Some(_) | None => self.scan(hash)?,
        };
        self.likely = place + 1;
        let (entry, entry_bytes) = self.table.oldest(place)?;
        let same = entry.name_len() == field.name_len() && entry_bytes == bytes;
        same.then(|| STATIC_LEN + self.table.len() - place)
    }

    fn scan(&self, hash: u32) -> Option<usize> {
        let (older, newer) = self.hashes.as_slices();
        let in_slice = |hashes: &[u32]| hashes.iter().position(|known| *known == hash);
        in_slice(older).or_else(|| in_slice(newer).map(|place| place + older.len()))
    }

    /// Whether this literal was among the last ones; remembers it.
    fn was_seen(&mut self, hash: u32) -> bool {
        // No early exit: 32 comparisons in a few vector instructions.
        let seen = self.seen.iter().fold(false, |seen, known| seen | (*known == hash));
        if !seen {
            self.seen[self.seen_next % SEEN] = hash;
            self.seen_next = self.seen_next.wrapping_add(1);
        }
        seen
    }

    fn forget_evicted(&mut self) {
        while self.hashes.len() > self.table.len() {
            self.hashes.pop_front();
        }
    }
}

/// Whether the field must not enter a table: its sender said so, or it is a short credential.
fn is_secret(field: &Field, bytes: &[u8]) -> bool {
    let credential = matches!(
        field.token(),
        Token::AUTHORIZATION | Token::PROXY_AUTHORIZATION | Token::COOKIE
    );
    field.is_never_indexed() || (credential && bytes.len() - field.name_len() < SECRET_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, SectionLimits};
    use super::*;

    const LIMITS: SectionLimits = SectionLimits {
        size_max: 61_440,
        fields_max: 256,
    };

    fn list(fields: &[(&str, &str)]) -> FieldList {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        list
    }

    fn block(encoder: &mut Encoder, list: &FieldList) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.encode(list, &mut out);
        out
    }

    #[test]
    fn repeated_fields_shrink_to_one_byte_each_from_the_third_time_on() {
        let mut encoder = Encoder::new();
        let head = list(&[
            (":method", "POST"),
            (":path", "/echo.Echo/Unary"),
            ("x-route", "a"),
            ("te", "trailers"),
        ]);
        let lens: Vec<usize> = (0..4).map(|_| block(&mut encoder, &head).len()).collect();
        assert_eq!(lens[2], 4);
        assert_eq!(lens[3], 4);
    }

    #[test]
    fn values_that_never_repeat_evict_nothing() {
        let mut encoder = Encoder::new();
        let fixed = list(&[("x-route", "a")]);
        block(&mut encoder, &fixed);
        block(&mut encoder, &fixed);
        for i in 0..1000 {
            block(&mut encoder, &list(&[("x-request-id", &format!("{i:032}"))]));
        }
        assert_eq!(block(&mut encoder, &fixed), [0x80 | 62]);
    }

    #[test]
    fn what_must_not_be_indexed_is_never_indexed() {
        let mut encoder = Encoder::new();
        let mut marked = FieldList::new();
        Decoder::new()
            .decode(&[0x10, 1, b'a', 1, b'1'], &mut marked, LIMITS)
            .expect("decodes");
        for _ in 0..4 {
            assert_eq!(block(&mut encoder, &marked), [0x10, 1, b'a', 1, b'1']);
            assert_eq!(
                block(&mut encoder, &list(&[("cookie", "a=1")]))[0],
                0x1f,
                "never indexed, name 32"
            );
        }
    }

    #[test]
    fn a_smaller_table_is_announced_smallest_first() {
        let mut encoder = Encoder::new();
        let head = list(&[("x-route", "a")]);
        block(&mut encoder, &head);
        block(&mut encoder, &head);
        encoder.set_table_size_max(0);
        encoder.set_table_size_max(100);
        let out = block(&mut encoder, &head);
        assert_eq!(&out[..3], &[0x20, 0x3f, 100 - 31]);
        assert_eq!(out[3], 0x40, "the table was emptied, the literal was seen before");
        encoder.set_table_size_max(100);
        assert_eq!(block(&mut encoder, &head), [0x80 | 62], "nothing to announce");
        encoder.set_table_size_max(1 << 20);
        assert_eq!(
            block(&mut encoder, &head)[..3],
            [0x3f, 0xe1, 0x1f],
            "never more than 4096"
        );
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let mut seed = 7u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for _ in 0..3000 {
            let mut sent = list(&[(":method", "POST"), (":path", &format!("/a/{}", random(7)))]);
            for _ in 0..random(12) {
                let name = format!("x-{}", random(20));
                let value = "v".repeat(random(300) as usize * (random(2) as usize)) + &random(5).to_string();
                sent.push(name.as_bytes(), value.as_bytes());
            }
            if random(50) == 0 {
                encoder.set_table_size_max(random(5000) as usize);
            }
            let mut got = FieldList::new();
            decoder
                .decode(&block(&mut encoder, &sent), &mut got, LIMITS)
                .expect("decodes");
            assert_eq!(got.iter().collect::<Vec<_>>(), sent.iter().collect::<Vec<_>>());
            for (a, b) in got.fields().iter().zip(sent.fields()) {
                assert_eq!(
                    (a.is_bad(), a.token(), a.static_index()),
                    (b.is_bad(), b.token(), b.static_index())
                );
            }
        }
    }
}
