//! One field and what is known of it. Everything here is computed once, when the field is made.

use super::token::{Token, hash};
use crate::h2::hpack::static_table::{ENTRIES, STATIC_LEN};

/// Longest name and longest value, bytes. The decoders' limits are lower.
pub const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// One field of a [`FieldList`]; name and value are read through the list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Field {
    /// Where the name begins; the value follows it at once.
    offset: u32,
    name_len: u16,
    value_len: u16,
    /// Of name and value together; 0 while nobody asked, because HTTP/1.1 never does.
    hash: u32,
    token: Token,
    /// Index of exactly this name and value in HPACK's static table; 0 when it is not there.
    static_index: u8,
    flags: u8,
}

/// The name or the value is not allowed (RFC 9113 8.2.1).
const BAD: u8 = 1;
/// Must not enter any compression table (RFC 7541 6.2.3).
const NEVER: u8 = 2;
/// The name has an underscore, or speaks of whom a proxy forwards for.
const CLAIM: u8 = 4;

impl Field {
    pub fn token(&self) -> Token {
        self.token
    }

    /// Whether name or value has a byte that is not allowed (RFC 9113 8.2.1).
    pub fn is_bad(&self) -> bool {
        self.flags & BAD != 0
    }

    /// Whether its sender forbade to index it (RFC 7541 6.2.3).
    pub fn is_never_indexed(&self) -> bool {
        self.flags & NEVER != 0
    }

    /// Whether the name has an underscore or is one by which proxies say whom they forward for: what a client may
    /// claim to slip past a check.
    pub fn is_claim(&self) -> bool {
        self.flags & CLAIM != 0
    }

    /// Name, value and the 32 bytes of RFC 7541 4.1.
    pub fn size(&self) -> usize {
        self.bytes_len() + ENTRY_OVERHEAD
    }

    pub(crate) fn bytes_len(&self) -> usize {
        usize::from(self.name_len) + usize::from(self.value_len)
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset as usize
    }

    pub(crate) fn name_len(&self) -> usize {
        usize::from(self.name_len)
    }

    pub(super) fn value_len(&self) -> usize {
        usize::from(self.value_len)
    }

    /// The hash of the field, whose bytes are `whole`.
    #[inline]
    pub(crate) fn hash_of(&self, whole: &[u8]) -> u32 {
        match self.hash {
            0 => hash_of(whole, self.name_len),
            known => known,
        }
    }

    /// The same field, its hash known from now on.
    #[inline]
    pub(crate) fn hashed(self, whole: &[u8]) -> Field {
        Field {
            hash: self.hash_of(whole),
            ..self
        }
    }

    pub(crate) fn static_index(&self) -> u8 {
        self.static_index
    }

    /// The same field at another place of another buffer.
    pub(crate) fn at(self, offset: usize) -> Field {
        Field {
            offset: offset as u32,
            ..self
        }
    }

    /// The field whose name and value are `whole`, which lies at `start`; `known` when the name is proven (token,
    /// whether it is a claim). `proven`: its parser lets no octet through that a field must not have. `None` when a
    /// length does not fit.
    #[inline]
    pub(super) fn describe(
        whole: &[u8],
        start: usize,
        name_len: usize,
        known: Option<(Token, bool)>,
        never: bool,
        proven: bool,
    ) -> Option<Field> {
        let (name, value) = whole.split_at(name_len);
        let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u16::try_from(value.len())) else {
            return None;
        };
        let (token, claim, bad_name) = match known {
            Some((token, claim)) => (token, claim, false),
            None => {
                // A name we know is a valid one.
                let token = Token::of(name);
                let other = token == Token::OTHER;
                let claim = if other {
                    name_is_claim(name)
                } else {
                    token.is_forwarding()
                };
                (token, claim, other && !proven && !name_is_valid(name))
            }
        };
        let bad = bad_name || (!proven && !value_is_valid(value));
        debug_assert!(!proven || (name_is_valid(name) && value_is_valid(value)), "{whole:?}");
        let static_index = if token.may_be_static_whole() {
            static_whole(token, value)
        } else {
            0
        };
        let flags = if bad { BAD } else { 0 } | if never { NEVER } else { 0 } | if claim { CLAIM } else { 0 };
        Some(Field {
            offset: start as u32,
            name_len,
            value_len,
            hash: 0,
            token,
            static_index,
            flags,
        })
    }
}

/// What RFC 7541 4.1 and RFC 9113 6.5.2 add to each field's bytes.
pub const ENTRY_OVERHEAD: usize = 32;

/// The facts of the static table's entries; offsets are set when one is copied.
pub(crate) static STATIC_FIELDS: [Field; STATIC_LEN + 1] = {
    let mut fields = [Field {
        offset: 0,
        name_len: 0,
        value_len: 0,
        hash: 0,
        token: Token::OTHER,
        static_index: 0,
        flags: 0,
    }; STATIC_LEN + 1];
    let mut index = 1;
    while index <= STATIC_LEN {
        let (name, value) = ENTRIES[index];
        let mut whole = [0u8; 64];
        let len = name.len() + value.len();
        let mut i = 0;
        while i < len {
            whole[i] = if i < name.len() { name[i] } else { value[i - name.len()] };
            i += 1;
        }
        fields[index] = Field {
            offset: 0,
            name_len: name.len() as u16,
            value_len: value.len() as u16,
            hash: hash_of(whole.split_at(len).0, name.len() as u16),
            token: Token::of_static(index),
            static_index: index as u8,
            flags: 0,
        };
        index += 1;
    }
    fields
};

/// Never 0.
const fn hash_of(whole: &[u8], name_len: u16) -> u32 {
    let hash = hash(whole) ^ name_len as u32;
    if hash == 0 { 1 } else { hash }
}

/// The token of an entry of the static table.
pub(crate) fn static_token(index: usize) -> Token {
    STATIC_FIELDS[index].token
}

/// The index of exactly this field in the static table; entries of one name stand together.
fn static_whole(token: Token, value: &[u8]) -> u8 {
    let mut index = token.static_name();
    while usize::from(index) <= STATIC_LEN && STATIC_FIELDS[usize::from(index)].token == token {
        if ENTRIES[usize::from(index)].1 == value {
            return index;
        }
        index += 1;
    }
    0
}

/// Lower-case token (RFC 9110 5.6.2, RFC 9113 8.2.1). Pseudo-fields are names we know.
fn name_is_valid(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| NAME_BYTES[usize::from(*byte)])
}

/// See [`Field::is_claim`]; of a name without a token.
fn name_is_claim(name: &[u8]) -> bool {
    name.contains(&b'_') || is_forwarding(name)
}

/// Whether a lower-case name speaks of whom a proxy forwards for.
pub(crate) fn is_forwarding(name: &[u8]) -> bool {
    name.strip_prefix(b"x-").is_some_and(|rest| {
        rest.starts_with(b"forwarded-")
            || rest.starts_with(b"envoy-")
            || rest == b"real-ip"
            || rest == b"original-url"
            || rest == b"rewrite-url"
    }) || name == b"forwarded"
}

/// No control character but HTAB, no white space at the ends (RFC 9110 5.5, RFC 9113 8.2.1).
fn value_is_valid(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    let suspicious = words
        .iter()
        .fold(0, |found, word| found | suspicion(u64::from_le_bytes(*word)))
        != 0;
    let bad = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    // Suspicious may be a tab, or a byte above 0x7f beside a control character: then each byte is looked at.
    let looked_at = if suspicious { value } else { rest };
    !looked_at.iter().any(bad) && !blank(value.first()) && !blank(value.last())
}

/// Not zero when one of eight bytes may be a control character.
#[inline]
const fn suspicion(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x80 * ONES;
    let below_space = word.wrapping_sub(b' ' as u64 * ONES) & !word;
    let not_del = word ^ (0x7f * ONES);
    let del = not_del.wrapping_sub(ONES) & !not_del;
    (below_space | del) & TOPS
}

static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let allowed = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
    let mut i = 0;
    while i < allowed.len() {
        table[allowed[i] as usize] = true;
        i += 1;
    }
    table
};

/// Whether `text` is a token (RFC 9110 5.6.2) of either case: a method, a field name of HTTP/1.1.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|byte| NAME_BYTES[usize::from(byte.to_ascii_lowercase())])
}

#[cfg(test)]
mod tests {
    use super::super::FieldList;
    use super::*;

    fn field(name: &str, value: &str) -> Field {
        let mut list = FieldList::new();
        list.push(name.as_bytes(), value.as_bytes());
        list.fields()[0]
    }

    #[test]
    fn a_field_is_sixteen_bytes() {
        assert_eq!(size_of::<Field>(), 16);
    }

    #[test]
    fn a_pushed_field_equals_the_static_entry() {
        for (index, (name, value)) in ENTRIES.iter().enumerate().skip(1) {
            let mut copied = FieldList::new();
            copied.push_static(index);
            let mut pushed = FieldList::new();
            pushed.push(name, value);
            let (a, b) = (copied.fields()[0], pushed.fields()[0]);
            assert_eq!(
                (a.hash, a.token, a.name_len, a.value_len),
                (b.hash_of(&[*name, *value].concat()), b.token, b.name_len, b.value_len)
            );
            if b.token.may_be_static_whole() {
                assert_eq!(usize::from(b.static_index), index);
            }
            assert!(!b.is_bad());
        }
    }

    #[test]
    fn malformed_names_and_values_are_marked() {
        for (name, value) in [
            ("", "v"),
            ("Upper", "v"),
            ("a b", "v"),
            (":what", "v"),
            ("a", " v"),
            ("a", "v\t"),
            ("a", "v\r\nx: y"),
            ("a", "\0"),
        ] {
            assert!(field(name, value).is_bad(), "{name:?}: {value:?}");
        }
        for (name, value) in [("a", ""), ("a", "v w\tx"), ("!#$", "\u{e9}"), (":path", "/")] {
            assert!(!field(name, value).is_bad(), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn every_byte_is_judged_alike_at_every_place() {
        for byte in 0..=255u8 {
            let allowed = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            for len in 3..=20 {
                for place in 1..len - 1 {
                    let mut value = vec![b'v'; len];
                    value[place] = byte;
                    assert_eq!(value_is_valid(&value), allowed, "{byte} at {place} of {len}");
                    value[place - 1] = 0xe9;
                    assert_eq!(
                        value_is_valid(&value),
                        allowed,
                        "{byte} at {place} of {len}, behind 0xe9"
                    );
                }
            }
        }
    }
}
