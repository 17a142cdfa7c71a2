//! Field blocks to field lists (RFC 7541 3, 6).
//!
//! A section over the limits does not stop the decoding, because the table must stay in step with the peer's: the
//! list is marked too large (the request gets 431) and further fields only touch the table. Beyond
//! [`SECTION_SIZE_HARD_MAX`] it is an attack and the connection ends.

use super::memo::Memo;
use super::table::{DEFAULT_SIZE, Table};
use super::{HpackError, SectionLimits, huffman, integer};
use crate::h2::hpack::static_table::{ENTRIES, STATIC_LEN};
use crate::head::{ENTRY_OVERHEAD, Field, FieldList, Token, static_token};

/// Decoded size at which a field block is taken for an attack, bytes with 32 per field.
pub const SECTION_SIZE_HARD_MAX: usize = 1 << 20;

/// The decoding side of one connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// Changes with the table.
    epoch: u32,
    memo: Memo,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder with the table size every peer may use unasked.
    pub fn new() -> Self {
        Self {
            table: Table::new(DEFAULT_SIZE),
            epoch: 0,
            memo: Memo::default(),
        }
    }

    /// Appends the fields of a complete block to `into`. After an error the connection is lost: the table is no
    /// longer the peer's.
    pub fn decode(&mut self, block: &[u8], into: &mut FieldList, limits: SectionLimits) -> Result<(), HpackError> {
        let (key, epoch, fresh) = (Memo::key(block), self.epoch, into.is_empty());
        if fresh && let Some(list) = self.memo.recall(key, epoch, block, limits) {
            into.copy_all(list);
            return Ok(());
        }
        let mut at = self.size_updates(block)?;
        let mut size = 0;
        while at < block.len() {
            size += self.field(block, &mut at, into)?;
            if size > limits.size_max || into.len() > limits.fields_max {
                let many = into.len() > limits.fields_max;
                into.pop();
                if many {
                    into.mark_too_many();
                } else {
                    into.mark_too_large();
                }
                return self.decode_rest(block, at, size);
            }
        }
        if fresh && self.epoch == epoch {
            self.memo.note(key, epoch, block, into, limits);
        }
        Ok(())
    }

    /// Goes on without keeping fields, for the table's sake.
    #[cold]
    fn decode_rest(&mut self, block: &[u8], mut at: usize, mut size: usize) -> Result<(), HpackError> {
        let mut scratch = FieldList::new();
        while at < block.len() {
            size += self.field(block, &mut at, &mut scratch)?;
            if size > SECTION_SIZE_HARD_MAX {
                return Err(HpackError::Flood);
            }
            scratch.clear();
        }
        Ok(())
    }

    /// Size updates stand only at the beginning of a block (RFC 7541 4.2) and stay within what we allow.
    fn size_updates(&mut self, block: &[u8]) -> Result<usize, HpackError> {
        let mut at = 0;
        while at < block.len() && block[at] & 0b1110_0000 == 0b0010_0000 {
            let size = integer::read(block, &mut at, 5)?;
            if size > DEFAULT_SIZE {
                return Err(HpackError::SizeUpdate);
            }
            self.table.resize(size);
            self.epoch = self.epoch.wrapping_add(1);
        }
        Ok(at)
    }

    /// One representation; returns the size of its field.
    #[inline]
    fn field(&mut self, block: &[u8], at: &mut usize, into: &mut FieldList) -> Result<usize, HpackError> {
        match block[*at] {
            0b1000_0000.. => self.indexed(integer::read(block, at, 7)?, into),
            0b0100_0000.. => self.literal(block, at, 6, Indexing::Incremental, into),
            0b0010_0000.. => Err(HpackError::SizeUpdate),
            0b0001_0000.. => self.literal(block, at, 4, Indexing::Never, into),
            _ => self.literal(block, at, 4, Indexing::Without, into),
        }
    }

    /// RFC 7541 6.1.
    #[inline]
    fn indexed(&self, index: usize, into: &mut FieldList) -> Result<usize, HpackError> {
        if index > STATIC_LEN {
            let (field, bytes) = self.dynamic(index)?;
            into.push_copy(field, bytes);
            return Ok(field.size());
        }
        if index == 0 {
            return Err(HpackError::Index);
        }
        into.push_static(index);
        Ok(ENTRIES[index].0.len() + ENTRIES[index].1.len() + ENTRY_OVERHEAD)
    }

    /// RFC 7541 6.2.
    fn literal(
        &mut self,
        block: &[u8],
        at: &mut usize,
        prefix: u32,
        indexing: Indexing,
        into: &mut FieldList,
    ) -> Result<usize, HpackError> {
        let index = integer::read(block, at, prefix)?;
        let start = into.buffer().len();
        let known: Option<(Token, bool)> = if index == 0 {
            text(block, at, into.buffer())?;
            None
        } else if index <= STATIC_LEN {
            into.buffer().extend_from_slice(ENTRIES[index].0);
            Some((static_token(index), false))
        } else {
            let (field, bytes) = self.dynamic(index)?;
            into.buffer().extend_from_slice(&bytes[..field.name_len()]);
            // A bad entry may be bad for its value alone: its name is judged again.
            (!field.is_bad()).then_some((field.token(), field.is_claim()))
        };
        let name_len = into.buffer().len() - start;
        text(block, at, into.buffer())?;
        let size = into.buffer().len() - start + ENTRY_OVERHEAD;
        let field = into.finish_literal(start, name_len, known, indexing == Indexing::Never);
        if indexing == Indexing::Incremental {
            self.epoch = self.epoch.wrapping_add(1);
            match field {
                Some(field) => self.table.insert(&field, into.name_value(&field)),
                // Longer than any field may be, so longer than the table (RFC 7541 4.4).
                None => self.table.clear(),
            }
        }
        Ok(size)
    }

    fn dynamic(&self, index: usize) -> Result<(&Field, &[u8]), HpackError> {
        self.table.newest(index - STATIC_LEN - 1).ok_or(HpackError::Index)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Indexing {
    Incremental,
    Without,
    Never,
}

/// Appends a text (RFC 7541 5.2) to `into`.
#[inline]
fn text(block: &[u8], at: &mut usize, into: &mut Vec<u8>) -> Result<(), HpackError> {
    let coded = *block.get(*at).ok_or(HpackError::Truncated)? & 0x80 != 0;
    let len = integer::read(block, at, 7)?;
    let bytes = block.get(*at..*at + len).ok_or(HpackError::Truncated)?;
    *at += len;
    if coded {
        return huffman::decode(bytes, into);
    }
    into.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SectionLimits = SectionLimits {
        size_max: 61_440,
        fields_max: 256,
    };

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<FieldList, HpackError> {
        let mut list = FieldList::new();
        decoder.decode(block, &mut list, LIMITS).map(|()| list)
    }

    fn error(block: &[u8]) -> HpackError {
        decode(&mut Decoder::new(), block).expect_err("must not decode")
    }

    #[test]
    fn a_size_update_stands_only_at_the_start_and_within_the_limit() {
        assert!(
            decode(&mut Decoder::new(), &[0x20, 0x3f, 0xe1, 0x1f, 0x82]).is_ok(),
            "0, then 4096"
        );
        assert_eq!(error(&[0x3f, 0xe2, 0x1f]), HpackError::SizeUpdate, "4097");
        assert_eq!(error(&[0x82, 0x20]), HpackError::SizeUpdate, "after a field");
    }

    #[test]
    fn wrong_indexes_and_cut_blocks_are_errors() {
        assert_eq!(error(&[0x80]), HpackError::Index, "index 0");
        assert_eq!(error(&[0xbe]), HpackError::Index, "62 in an empty table");
        assert_eq!(error(&[0x7f, 0x00]), HpackError::Index, "name 63 in an empty table");
        assert_eq!(error(&[0x40, 0x01, b'a']), HpackError::Truncated, "no value");
        assert_eq!(error(&[0x40, 0x05, b'a']), HpackError::Truncated, "name cut");
        assert_eq!(error(&[0x40, 0x81, 0x00]), HpackError::Huffman, "padding of zeros");
        assert_eq!(error(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]), HpackError::Integer);
    }

    #[test]
    fn a_large_section_is_told_and_the_table_stays_in_step() {
        let mut decoder = Decoder::new();
        let mut list = FieldList::new();
        // Three new fields, one after the limit of one field.
        let block = [0x82, 0x40, 1, b'a', 1, b'1', 0x40, 1, b'b', 1, b'2'];
        decoder
            .decode(
                &block,
                &mut list,
                SectionLimits {
                    size_max: 4096,
                    fields_max: 1,
                },
            )
            .expect("decodes");
        assert!(list.is_too_large());
        assert_eq!(list.len(), 1);
        let later = decode(&mut decoder, &[0xbe, 0xbf]).expect("both entered the table");
        assert_eq!(later.iter().collect::<Vec<_>>(), [(&b"b"[..], &b"2"[..]), (b"a", b"1")]);
    }

    #[test]
    fn the_size_counts_thirty_two_bytes_a_field() {
        let limits = |size_max| SectionLimits {
            size_max,
            fields_max: 9,
        };
        for (size_max, too_large) in [(34, false), (33, true)] {
            let mut list = FieldList::new();
            Decoder::new()
                .decode(&[0, 1, b'a', 1, b'1'], &mut list, limits(size_max))
                .expect("decodes");
            assert_eq!(list.is_too_large(), too_large);
        }
    }

    #[test]
    fn a_bomb_of_references_ends_the_connection() {
        let mut decoder = Decoder::new();
        let mut block = vec![0x40, 1, b'a', 0x7f, 0xa1, 0x1e];
        block.extend(std::iter::repeat_n(b'v', 4000));
        decode(&mut decoder, &block).expect("one large field");
        let bomb = vec![0xbe; 300];
        assert_eq!(decode(&mut decoder, &bomb).expect_err("1.2 MB"), HpackError::Flood);
    }

    #[test]
    fn a_text_longer_than_a_field_may_be_is_too_large_and_empties_the_table() {
        let mut decoder = Decoder::new();
        decode(&mut decoder, &[0x40, 1, b'a', 1, b'1']).expect("decodes");
        let mut block = vec![0x40, 1, b'b'];
        integer::write(&mut block, 0, 7, 70_000);
        block.extend(std::iter::repeat_n(b'v', 70_000));
        assert!(decode(&mut decoder, &block).expect("decodes").is_too_large());
        assert_eq!(decode(&mut decoder, &[0xbe]).expect_err("evicted"), HpackError::Index);
    }

    #[test]
    fn a_name_taken_from_an_entry_with_a_bad_value_is_good() {
        let mut decoder = Decoder::new();
        let bad = decode(&mut decoder, &[0x40, 1, b'a', 1, 0]).expect("decodes");
        assert!(bad.fields()[0].is_bad());
        assert!(
            decode(&mut decoder, &[0xbe]).expect("decodes").fields()[0].is_bad(),
            "stays bad when referenced"
        );
        assert!(!decode(&mut decoder, &[0x0f, 0x2f, 1, b'v']).expect("decodes").fields()[0].is_bad());
    }

    #[test]
    fn a_block_that_repeats_means_what_the_table_says_when_it_comes() {
        let mut decoder = Decoder::new();
        decode(&mut decoder, &[0x40, 1, b'a', 1, b'1']).expect("decodes");
        let values = |decoder: &mut Decoder| {
            let list = decode(decoder, &[0x82, 0xbe]).expect("decodes");
            list.iter()
                .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                .collect::<Vec<_>>()
        };
        for _ in 0..5 {
            assert_eq!(values(&mut decoder), ["GET", "1"]);
        }
        decode(&mut decoder, &[0x40, 1, b'a', 1, b'2']).expect("decodes");
        for _ in 0..5 {
            assert_eq!(values(&mut decoder), ["GET", "2"]);
        }
        // An empty table has no entry 62.
        decode(&mut decoder, &[0x20, 0x82]).expect("decodes");
        assert_eq!(
            decode(&mut decoder, &[0x82, 0xbe]).expect_err("evicted"),
            HpackError::Index
        );
    }

    #[test]
    fn never_indexed_is_remembered() {
        let list = decode(&mut Decoder::new(), &[0x10, 1, b'a', 1, b'1', 0x00, 1, b'b', 1, b'1']).expect("decodes");
        assert!(list.fields()[0].is_never_indexed());
        assert!(!list.fields()[1].is_never_indexed());
    }
}
