//! The HPACK decoder over blocks of one connection, beside an implementation nobody here wrote.
//!
//! Laws: what we accept the other decodes to the same fields; what we decoded survives our encoder and both decoders.
//! Input: blocks, each behind its length (one byte; 255 takes the rest).
#![no_main]

use gateway_http::h2::hpack::{Decoder, Encoder, SectionLimits};
use gateway_http::head::FieldList;
use libfuzzer_sys::fuzz_target;

const LIMITS: SectionLimits = SectionLimits {
    size_max: 4096,
    fields_max: 64,
};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn fields(list: &FieldList) -> Fields {
    list.iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

fuzz_target!(|input: &[u8]| {
    let (mut ours, mut theirs) = (Decoder::new(), loona_hpack::Decoder::new());
    let (mut encoder, mut back, mut back_theirs) = (Encoder::new(), Decoder::new(), loona_hpack::Decoder::new());
    let mut rest = input;
    while let Some((len, more)) = rest.split_first() {
        let len = if *len == 255 {
            more.len()
        } else {
            usize::from(*len).min(more.len())
        };
        let block;
        (block, rest) = more.split_at(len);
        let mut list = FieldList::new();
        if ours.decode(block, &mut list, LIMITS).is_err() {
            return;
        }
        let expected = match theirs.decode(block) {
            Ok(expected) => expected,
            // It wants a field behind an update of the table's size; RFC 7541 4.2 does not.
            Err(_) if list.is_empty() => return,
            Err(error) => panic!("what we accept is well formed: {error:?}"),
        };
        if list.is_too_large() {
            assert!(expected.starts_with(&fields(&list)), "the front of the section");
            continue;
        }
        assert_eq!(fields(&list), expected);
        if let Some(size) = block.first().filter(|size| **size >= 0xf0) {
            encoder.set_table_size_max(usize::from(*size) * 18);
        }
        let mut again = Vec::new();
        encoder.encode(&list, &mut again);
        let mut relisted = FieldList::new();
        back.decode(&again, &mut relisted, LIMITS).expect("ours reads ours");
        assert_eq!(fields(&relisted), expected);
        assert_eq!(back_theirs.decode(&again).expect("theirs reads ours"), expected);
    }
});
