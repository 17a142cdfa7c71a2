//! HPACK against the RFC's own vectors and against implementations nobody here wrote.

use gateway_http::h2::hpack::{Decoder, Encoder, SectionLimits};
use gateway_http::head::FieldList;
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: SectionLimits = SectionLimits {
    size_max: 61_440,
    fields_max: 256,
};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn fields(list: &FieldList) -> Fields {
    list.iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Fields {
    let mut list = FieldList::new();
    decoder.decode(block, &mut list, LIMITS).expect("a well-formed block");
    assert!(!list.is_too_large());
    fields(&list)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ' ')
        .map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Decodes every block of a fixture (its form is told in `rfc7541.txt`) and returns how many there were.
fn check_fixture(text: &str) -> usize {
    let (mut decoder, mut blocks) = (Decoder::new(), 0);
    let (mut got, mut expected): (Fields, Fields) = (Vec::new(), Vec::new());
    for line in text
        .lines()
        .chain(["connection end"])
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix("connection ") {
            assert_eq!(got, expected, "before connection {name}");
            (decoder, got, expected) = (Decoder::new(), Vec::new(), Vec::new());
        } else if let Some(block) = line.strip_prefix("block ") {
            assert_eq!(got, expected, "before block {block}");
            (got, expected) = (decode(&mut decoder, &hex(block)), Vec::new());
            blocks += 1;
        } else {
            let colon = 1 + line[1..].find(": ").expect("a field has a colon");
            expected.push((line[..colon].into(), line[colon + 2..].into()));
        }
    }
    blocks
}

#[test]
fn the_vectors_of_the_rfc_decode() {
    assert_eq!(check_fixture(include_str!("fixtures/hpack/rfc7541.txt")), 16);
}

#[test]
fn what_pythons_hpack_wrote_decodes() {
    assert_eq!(check_fixture(include_str!("fixtures/hpack/python-hpack.txt")), 8 * 15);
}

#[test]
fn what_we_write_is_what_pythons_hpack_read() {
    let (mut encoder, mut blocks) = (Encoder::new(), 0);
    let (mut list, mut block) = (FieldList::new(), "");
    let text = include_str!("fixtures/hpack/python-reads.txt");
    for line in text.lines().filter(|line| !line.starts_with('#')).chain([""]) {
        if let Some((name, value)) = line.trim_start_matches('!').rsplit_once(": ") {
            list.push(name.as_bytes(), value.as_bytes());
            continue;
        }
        if !list.is_empty() {
            let mut wrote = Vec::new();
            encoder.encode(&list, &mut wrote);
            assert!(
                wrote == hex(block),
                "block {blocks} is another than hpack read: run fixtures/hpack/generate.py again\n{wrote:02x?}"
            );
            list.clear();
            blocks += 1;
        }
        match line.split_once(' ') {
            Some(("connection", _)) => encoder = Encoder::new(),
            Some(("table", size)) => encoder.set_table_size_max(size.parse().expect("a size")),
            Some(("block", text)) => block = text,
            Some(_) | None => assert_eq!(line, ""),
        }
    }
    assert_eq!(blocks, 8 * 15);
    assert!(
        text.contains("\n!authorization: Basic YTpi\n"),
        "a short credential enters no table"
    );
}

/// Names and values that repeat often, so that tables are used, and sometimes do not.
fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let name = prop_oneof![
        4 => prop::sample::select(vec![":path", ":method", "content-type", "cookie", "x-a", "x-b", "te"])
            .prop_map(|name| name.as_bytes().to_vec()),
        1 => "[a-z-]{1,20}".prop_map(String::into_bytes),
    ];
    let value = prop_oneof![
        4 => prop::sample::select(vec!["", "/", "GET", "trailers", "application/grpc", "a value of twenty-odd bytes"])
            .prop_map(|value| value.as_bytes().to_vec()),
        2 => "[ -~]{0,60}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..500),
    ];
    (name, value)
}

/// A section, or a change of the table's size before the next one.
#[derive(Clone, Debug)]
enum Step {
    Section(Fields),
    TableSize(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => vec(field(), 0..12).prop_map(Step::Section),
        1 => (0usize..6000).prop_map(Step::TableSize),
    ];
    vec(step, 1..40)
}

proptest! {
    #[test]
    fn an_independent_decoder_reads_what_we_write(steps in steps()) {
        let (mut encoder, mut ours, mut theirs) = (Encoder::new(), Decoder::new(), loona_hpack::Decoder::new());
        for step in steps {
            match step {
                Step::TableSize(size) => encoder.set_table_size_max(size),
                Step::Section(section) => {
                    let mut list = FieldList::new();
                    for (name, value) in &section {
                        list.push(name, value);
                    }
                    let mut block = Vec::new();
                    encoder.encode(&list, &mut block);
                    prop_assert_eq!(&theirs.decode(&block).expect("well formed"), &section);
                    prop_assert_eq!(&decode(&mut ours, &block), &section);
                }
            }
        }
    }

    #[test]
    fn we_read_what_an_independent_encoder_writes(sections in vec(vec(field(), 0..12), 1..40)) {
        let (mut encoder, mut decoder) = (loona_hpack::Encoder::new(), Decoder::new());
        for section in sections {
            let block = encoder.encode(section.iter().map(|(name, value)| (&name[..], &value[..])));
            prop_assert_eq!(decode(&mut decoder, &block), section);
        }
    }

    #[test]
    fn any_bytes_decode_as_elsewhere_or_not_at_all(blocks in vec(vec(any::<u8>(), 0..200), 1..4)) {
        let (mut ours, mut theirs) = (Decoder::new(), loona_hpack::Decoder::new());
        for block in blocks {
            let mut list = FieldList::new();
            if ours.decode(&block, &mut list, LIMITS).is_err() {
                break;
            }
            // The other one takes an update that no field follows for an update at the end.
            if list.is_empty() && !block.is_empty() {
                break;
            }
            prop_assert_eq!(theirs.decode(&block).ok(), Some(fields(&list)), "{:02x?}", block);
        }
    }
}
