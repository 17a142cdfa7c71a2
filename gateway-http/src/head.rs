//! A field section (RFC 9110 6.3, 6.5) as one flat list: request heads, response heads and trailers of HTTP/2 and
//! HTTP/1.1 alike, in HTTP/2's vocabulary (lower-case names, pseudo-fields first).
//!
//! All bytes lie in one buffer, each field is 16 bytes beside it. What is worth knowing of a field (token of its
//! name, hash, place in HPACK's static table, whether it is well formed) is computed once, when the field is made,
//! and travels with it: through HPACK's dynamic tables, validation, routing and encoding.
//!
//! A list is a scratch buffer that is cleared and filled again; once warm nothing is allocated. What a removed or
//! replaced field occupied in the buffer stays until the list is cleared.

pub mod authority;
pub mod facts;
mod token;

use crate::h2::hpack::static_table::{ENTRIES, STATIC_LEN};
use gateway_core::decide::Fields;
pub use token::Token;
use token::hash;

/// Longest name and longest value, bytes. The decoders' limits are lower.
pub const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// One field of a [`FieldList`]; name and value are read through the list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Field {
    /// Where the name begins; the value follows it at once.
    offset: u32,
    name_len: u16,
    value_len: u16,
    /// Of name and value together.
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

    pub(crate) fn hash(&self) -> u32 {
        self.hash
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
}

/// What RFC 7541 4.1 and RFC 9113 6.5.2 add to each field's bytes.
pub const ENTRY_OVERHEAD: usize = 32;

/// A field section.
#[derive(Clone, Debug, Default)]
pub struct FieldList {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// A field was left out because it did not fit; see [`FieldList::is_too_large`].
    too_large: bool,
}

impl FieldList {
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the fields, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.too_large = false;
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether fields were left out because the section is over a limit: the list is then incomplete.
    pub fn is_too_large(&self) -> bool {
        self.too_large
    }

    pub(crate) fn mark_too_large(&mut self) {
        self.too_large = true;
    }

    /// Sum of the fields' sizes, each with 32 bytes on top (RFC 9113 6.5.2).
    pub fn section_size(&self) -> usize {
        self.fields.iter().map(Field::size).sum()
    }

    /// The fields in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (self.name(field), self.value(field)))
    }

    pub fn name(&self, field: &Field) -> &[u8] {
        &self.bytes[field.offset()..field.offset() + field.name_len()]
    }

    pub fn value(&self, field: &Field) -> &[u8] {
        let start = field.offset() + field.name_len();
        &self.bytes[start..start + usize::from(field.value_len)]
    }

    /// Name and value, end to end.
    pub(crate) fn name_value(&self, field: &Field) -> &[u8] {
        &self.bytes[field.offset()..field.offset() + field.bytes_len()]
    }

    /// The first field of a known name.
    pub fn find(&self, token: Token) -> Option<&Field> {
        debug_assert!(token != Token::OTHER, "OTHER is not one name");
        self.fields.iter().find(|field| field.token == token)
    }

    /// The first value of a known name.
    pub fn get(&self, token: Token) -> Option<&[u8]> {
        self.find(token).map(|field| self.value(field))
    }

    /// The place of the first field with this lower-case name.
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        let token = Token::of(name);
        if token == Token::OTHER {
            self.fields
                .iter()
                .position(|field| field.token == Token::OTHER && self.name(field) == name)
        } else {
            self.fields.iter().position(|field| field.token == token)
        }
    }

    /// Appends a field; the name must be lower case, or the field is bad. What is longer than [`TEXT_BYTES_MAX`] is
    /// left out and makes the list too large.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        if let Some(field) = self.append(name, value) {
            self.fields.push(field);
        }
    }

    /// Appends a field of a known name.
    pub fn push_known(&mut self, token: Token, value: &[u8]) {
        self.push(token.name(), value);
    }

    /// Appends a field of a known name whose value lies in parts.
    pub fn push_parts(&mut self, token: Token, value: &[&[u8]]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(token.name());
        for part in value {
            self.bytes.extend_from_slice(part);
        }
        self.finish_literal(start, token.name().len(), None, false);
    }

    /// Appends a field as HTTP/1.1 writes it: the name is made lower case.
    pub fn push_any_case(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes[start..].make_ascii_lowercase();
        self.bytes.extend_from_slice(value);
        self.finish_literal(start, name.len(), None, false);
    }

    /// Appends entry `index` (1 to 61) of HPACK's static table.
    pub fn push_static(&mut self, index: usize) {
        let field = STATIC_FIELDS[index];
        let (name, value) = ENTRIES[index];
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.fields.push(field.at(start));
    }

    /// Appends `:status` and its value, 100 to 999.
    pub fn push_status(&mut self, status: u16) {
        self.push(Token::STATUS.name(), &decimal3(status));
    }

    /// Puts a field before all others, as a pseudo-field must be (RFC 9113 8.3).
    pub fn push_front(&mut self, name: &[u8], value: &[u8]) {
        if let Some(field) = self.append(name, value) {
            self.fields.insert(0, field);
        }
    }

    /// Takes the field at `place` away and puts its value before all others under a known name.
    pub(crate) fn promote(&mut self, place: usize, token: Token) {
        let old = self.fields.remove(place);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(token.name());
        self.bytes
            .extend_from_within(old.offset() + old.name_len()..old.offset() + old.bytes_len());
        if let Some(field) = self.describe(start, token.name().len(), None, old.is_never_indexed()) {
            self.fields.insert(0, field);
        }
    }

    /// Gives the field at `place` a new value; its flags other than "bad" stay.
    pub fn set_value(&mut self, place: usize, value: &[u8]) {
        let old = self.fields[place];
        let start = self.bytes.len();
        self.bytes
            .extend_from_within(old.offset()..old.offset() + old.name_len());
        self.bytes.extend_from_slice(value);
        let never = old.is_never_indexed();
        if let Some(field) = self.describe(start, old.name_len(), None, never) {
            self.fields[place] = field;
        }
    }

    /// One field of this name with this value: the first one is changed, others are removed, none is appended.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let Some(place) = self.position(name) else {
            return self.push(name, value);
        };
        self.set_value(place, value);
        let token = Token::of(name);
        let bytes = &self.bytes;
        let mut at = 0;
        self.fields.retain(|field| {
            at += 1;
            at - 1 <= place || !is_named(bytes, field, token, name)
        });
    }

    /// [`FieldList::set`] for a known name.
    pub fn set_known(&mut self, token: Token, value: &[u8]) {
        self.set(token.name(), value);
    }

    /// Removes all fields of a known name.
    pub fn remove(&mut self, token: Token) {
        debug_assert!(token != Token::OTHER, "OTHER is not one name");
        self.fields.retain(|field| field.token != token);
    }

    /// Removes all fields with this lower-case name.
    pub fn remove_named(&mut self, name: &[u8]) {
        let token = Token::of(name);
        let bytes = &self.bytes;
        self.fields.retain(|field| !is_named(bytes, field, token, name));
    }

    /// Keeps the fields for which `keep` (of token, name, value) says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Token, &[u8], &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.fields.retain(|field| {
            let whole = &bytes[field.offset()..field.offset() + field.bytes_len()];
            let (name, value) = whole.split_at(field.name_len());
            keep(field.token, name, value)
        });
    }

    fn append(&mut self, name: &[u8], value: &[u8]) -> Option<Field> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.describe(start, name.len(), None, false)
    }

    /// The end of the buffer, where a decoder may put the bytes of the next field.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes a field of the bytes from `start` on; `known` when the name is proven (token, whether it was bad).
    #[inline]
    pub(crate) fn finish_literal(
        &mut self,
        start: usize,
        name_len: usize,
        known: Option<(Token, bool)>,
        never: bool,
    ) -> Option<Field> {
        let field = self.describe(start, name_len, known, never)?;
        self.fields.push(field);
        Some(field)
    }

    /// Appends a field whose facts are known already.
    #[inline]
    pub(crate) fn push_copy(&mut self, field: &Field, name_value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name_value);
        self.fields.push(field.at(start));
    }

    /// Takes the last field away, bytes included.
    pub(crate) fn pop(&mut self) {
        if let Some(field) = self.fields.pop() {
            self.bytes.truncate(field.offset());
        }
    }

    /// Computes once what is worth knowing. `None`, and the bytes dropped, when a length does not fit.
    #[inline]
    fn describe(&mut self, start: usize, name_len: usize, known: Option<(Token, bool)>, never: bool) -> Option<Field> {
        let whole = &self.bytes[start..];
        let (name, value) = whole.split_at(name_len);
        let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u16::try_from(value.len())) else {
            self.bytes.truncate(start);
            self.too_large = true;
            return None;
        };
        let (token, bad_name) = known.unwrap_or_else(|| (Token::of(name), !name_is_valid(name)));
        let bad = bad_name || !value_is_valid(value);
        let hash = hash(whole) ^ u32::from(name_len);
        let static_index = if token.may_be_static_whole() {
            static_whole(token, value)
        } else {
            0
        };
        let flags = if bad { BAD } else { 0 } | if never { NEVER } else { 0 };
        Some(Field {
            offset: start as u32,
            name_len,
            value_len,
            hash,
            token,
            static_index,
            flags,
        })
    }
}

impl Fields for FieldList {
    fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.position(name).map(|place| self.value(&self.fields[place]))
    }
}

fn is_named(bytes: &[u8], field: &Field, token: Token, name: &[u8]) -> bool {
    field.token == token && (token != Token::OTHER || &bytes[field.offset()..][..field.name_len()] == name)
}

/// Three digits.
pub(crate) fn decimal3(status: u16) -> [u8; 3] {
    let digit = |n: u16| b'0' + (n % 10) as u8;
    [digit(status / 100), digit(status / 10), digit(status)]
}

/// The facts of the static table's entries; offsets are set when one is copied.
static STATIC_FIELDS: [Field; STATIC_LEN + 1] = {
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
            hash: hash(whole.split_at(len).0) ^ name.len() as u32,
            token: Token::of_static(index),
            static_index: index as u8,
            flags: 0,
        };
        index += 1;
    }
    fields
};

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

/// Lower-case token (RFC 9110 5.6.2, RFC 9113 8.2.1), or one of the pseudo-fields.
fn name_is_valid(name: &[u8]) -> bool {
    match name.first() {
        None => false,
        Some(b':') => Token::of(name).is_pseudo(),
        Some(_) => name.iter().all(|byte| NAME_BYTES[usize::from(*byte)]),
    }
}

/// No control character but HTAB, no white space at the ends (RFC 9110 5.5, RFC 9113 8.2.1).
fn value_is_valid(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    // No early exit: the loop is straight and vectorised.
    let controls = value.iter().fold(false, |bad, byte| {
        bad | ((*byte < 0x20) & (*byte != b'\t')) | (*byte == 0x7f)
    });
    !controls && !blank(value.first()) && !blank(value.last())
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
    use super::*;

    fn list(fields: &[(&str, &str)]) -> FieldList {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        list
    }

    fn texts(list: &FieldList) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        list.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn a_field_is_sixteen_bytes() {
        assert_eq!(size_of::<Field>(), 16);
    }

    #[test]
    fn a_pushed_field_equals_the_static_entry() {
        for index in 1..=STATIC_LEN {
            let mut copied = FieldList::new();
            copied.push_static(index);
            let mut pushed = FieldList::new();
            pushed.push(ENTRIES[index].0, ENTRIES[index].1);
            let (a, b) = (copied.fields()[0], pushed.fields()[0]);
            assert_eq!(
                (a.hash, a.token, a.name_len, a.value_len),
                (b.hash, b.token, b.name_len, b.value_len)
            );
            if b.token.may_be_static_whole() {
                assert_eq!(usize::from(b.static_index), index);
            }
            assert!(!b.is_bad());
        }
    }

    #[test]
    fn fields_are_found_by_token_and_by_name() {
        let list = list(&[
            (":method", "GET"),
            ("x-route", "a"),
            ("x-route", "b"),
            ("te", "trailers"),
        ]);
        assert_eq!(list.get(Token::METHOD), Some(&b"GET"[..]));
        assert_eq!(list.field(b"x-route"), Some(&b"a"[..]));
        assert_eq!(list.field(b"te"), Some(&b"trailers"[..]));
        assert_eq!(list.field(b"x-none"), None);
        assert_eq!(
            list.section_size(),
            list.fields().iter().map(|f| f.bytes_len() + 32).sum::<usize>()
        );
    }

    #[test]
    fn set_leaves_one_field_in_the_first_ones_place() {
        let mut list = list(&[("a", "1"), ("x", "2"), ("x", "3"), ("b", "4"), ("x", "5")]);
        list.set(b"x", b"six");
        list.set(b"c", b"new");
        let want = [("a", "1"), ("x", "six"), ("b", "4"), ("c", "new")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(texts(&list), want);
    }

    #[test]
    fn remove_and_retain_drop_what_they_name() {
        let mut list = list(&[("te", "trailers"), ("x-a", "1"), ("host", "h"), ("x-b", "2")]);
        list.remove(Token::TE);
        list.remove_named(b"x-a");
        list.retain(|_, name, _| name != b"x-b");
        assert_eq!(texts(&list), [("host".to_owned(), "h".to_owned())]);
    }

    #[test]
    fn push_front_puts_a_pseudo_field_first() {
        let mut list = list(&[(":method", "GET"), ("a", "1")]);
        list.push_front(b":authority", b"example.com");
        assert_eq!(list.name(&list.fields()[0]), b":authority");
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
            assert!(list(&[(name, value)]).fields()[0].is_bad(), "{name:?}: {value:?}");
        }
        for (name, value) in [("a", ""), ("a", "v w\tx"), ("!#$", "\u{e9}"), (":path", "/")] {
            assert!(!list(&[(name, value)]).fields()[0].is_bad(), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn any_case_is_made_lower() {
        let mut list = FieldList::new();
        list.push_any_case(b"Content-Type", b"Text/Plain");
        assert_eq!(list.get(Token::CONTENT_TYPE), Some(&b"Text/Plain"[..]));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_told() {
        let mut list = FieldList::new();
        list.push(b"a", &vec![b'x'; TEXT_BYTES_MAX + 1]);
        assert!(list.is_empty() && list.is_too_large());
        list.clear();
        assert!(!list.is_too_large());
        list.push(b"a", &vec![b'x'; TEXT_BYTES_MAX]);
        assert_eq!(list.len(), 1);
    }
}
