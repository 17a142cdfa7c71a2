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
mod field;
pub(crate) mod octets;
mod token;

use crate::h2::hpack::static_table::ENTRIES;
pub(crate) use field::is_forwarding;
pub use field::{ENTRY_OVERHEAD, Field, TEXT_BYTES_MAX, is_token};
pub(crate) use field::{STATIC_FIELDS, static_token};
use gateway_core::decide::Fields;
use gateway_core::route::cookie_in;
pub use token::Token;
pub(crate) use token::hash;

/// A field section.
#[derive(Clone, Debug, Default)]
pub struct FieldList {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// A field was left out because it did not fit; see [`FieldList::is_too_large`].
    too_large: bool,
    /// It is the number of fields that is over its limit.
    too_many: bool,
    /// Bits of the tokens that were ever put in: most questions are about fields that are not there.
    tokens: u64,
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
        self.too_many = false;
        self.tokens = 0;
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

    /// Whether the limit that was passed is that of the number of fields.
    pub fn is_too_many(&self) -> bool {
        self.too_many
    }

    pub(crate) fn mark_too_large(&mut self) {
        self.too_large = true;
    }

    pub(crate) fn mark_too_many(&mut self) {
        self.too_large = true;
        self.too_many = true;
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
        &self.bytes[start..start + field.value_len()]
    }

    /// Name and value, end to end.
    pub(crate) fn name_value(&self, field: &Field) -> &[u8] {
        &self.bytes[field.offset()..field.offset() + field.bytes_len()]
    }

    /// The first field of a known name.
    #[inline]
    pub fn find(&self, token: Token) -> Option<&Field> {
        debug_assert!(token != Token::OTHER, "OTHER is not one name");
        if self.tokens & token.bit() == 0 {
            return None;
        }
        self.fields.iter().find(|field| field.token() == token)
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
                .position(|field| field.token() == Token::OTHER && self.name(field) == name)
        } else {
            self.place_of(token)
        }
    }

    /// The place of the first field of a known name.
    #[inline]
    pub fn place_of(&self, token: Token) -> Option<usize> {
        if self.tokens & token.bit() == 0 {
            return None;
        }
        self.fields.iter().position(|field| field.token() == token)
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
        self.push_parts(token, &[value]);
    }

    /// Appends a field of a known name whose value lies in parts.
    pub fn push_parts(&mut self, token: Token, value: &[&[u8]]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(token.name());
        for part in value {
            self.bytes.extend_from_slice(part);
        }
        self.finish_literal(start, token.name().len(), Some((token, false)), false);
    }

    /// Appends a field that an HTTP/1.1 parser read: the name is made lower case. The parser has rejected every octet
    /// that RFC 9110 5.1 and 5.5 do not allow, and has cut off the white space around the value.
    pub(crate) fn push_parsed(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes[start..].make_ascii_lowercase();
        self.bytes.extend_from_slice(value);
        if let Some(field) = self.describe(start, name.len(), None, false, true) {
            self.fields.push(field);
        }
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
        self.tokens |= field.token().bit();
        self.fields.push(field.at(start));
    }

    /// Appends `:status` and its value, 100 to 999.
    pub fn push_status(&mut self, status: u16) {
        self.push_known(Token::STATUS, &decimal3(status));
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
        if let Some(field) = self.describe(
            start,
            token.name().len(),
            Some((token, false)),
            old.is_never_indexed(),
            false,
        ) {
            self.fields.insert(0, field);
        }
    }

    /// Takes the field at `place` away and puts its value behind all others under a known name.
    pub(crate) fn rename(&mut self, place: usize, token: Token) {
        let old = self.fields.remove(place);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(token.name());
        self.bytes
            .extend_from_within(old.offset() + old.name_len()..old.offset() + old.bytes_len());
        self.finish_literal(start, token.name().len(), Some((token, false)), old.is_never_indexed());
    }

    /// Gives the field at `place` a new value; its flags other than "bad" stay.
    pub fn set_value(&mut self, place: usize, value: &[u8]) {
        let old = self.fields[place];
        let start = self.bytes.len();
        self.bytes
            .extend_from_within(old.offset()..old.offset() + old.name_len());
        self.bytes.extend_from_slice(value);
        let never = old.is_never_indexed();
        if let Some(field) = self.describe(start, old.name_len(), None, never, false) {
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
        if self.place_of(token).is_none() {
            self.push_known(token, value);
        } else {
            self.set(token.name(), value);
        }
    }

    /// Removes all fields of a known name.
    pub fn remove(&mut self, token: Token) {
        debug_assert!(token != Token::OTHER, "OTHER is not one name");
        self.fields.retain(|field| field.token() != token);
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
            keep(field.token(), name, value)
        });
    }

    /// Keeps the fields for which `keep` says so.
    pub(crate) fn retain_fields(&mut self, keep: impl FnMut(&Field) -> bool) {
        self.fields.retain(keep);
    }

    fn append(&mut self, name: &[u8], value: &[u8]) -> Option<Field> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.describe(start, name.len(), None, false, false)
    }

    /// The end of the buffer, where a decoder may put the bytes of the next field.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes a field of the bytes from `start` on; `known` when the name is proven (token, whether it is a claim).
    #[inline]
    pub(crate) fn finish_literal(
        &mut self,
        start: usize,
        name_len: usize,
        known: Option<(Token, bool)>,
        never: bool,
    ) -> Option<Field> {
        let field = self.describe(start, name_len, known, never, false)?;
        self.fields.push(field);
        Some(field)
    }

    /// Appends a field whose facts are known already.
    #[inline]
    pub(crate) fn push_copy(&mut self, field: &Field, name_value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name_value);
        self.tokens |= field.token().bit();
        self.fields.push(field.at(start));
    }

    /// Bytes of names and values, those of removed fields included.
    pub(crate) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Becomes what `other` is; this list must be empty.
    #[inline]
    pub(crate) fn copy_all(&mut self, other: &FieldList) {
        debug_assert!(
            self.bytes.is_empty() && self.fields.is_empty(),
            "places in the buffer are copied too"
        );
        self.bytes.extend_from_slice(&other.bytes);
        self.fields.extend_from_slice(&other.fields);
        self.tokens = other.tokens;
        self.too_large = other.too_large;
    }

    /// Takes the last field away, bytes included.
    pub(crate) fn pop(&mut self) {
        if let Some(field) = self.fields.pop() {
            self.bytes.truncate(field.offset());
        }
    }

    /// Computes once what is worth knowing. `None`, and the bytes dropped, when a length does not fit.
    #[inline]
    fn describe(
        &mut self,
        start: usize,
        name_len: usize,
        known: Option<(Token, bool)>,
        never: bool,
        proven: bool,
    ) -> Option<Field> {
        let field = Field::describe(&self.bytes[start..], start, name_len, known, never, proven);
        match field {
            Some(field) => self.tokens |= field.token().bit(),
            None => {
                self.bytes.truncate(start);
                self.too_large = true;
            }
        }
        field
    }
}

impl Fields for FieldList {
    fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.position(name).map(|place| self.value(&self.fields[place]))
    }

    fn cookie(&self, name: &[u8]) -> Option<&[u8]> {
        let cookies = self.fields.iter().filter(|field| field.token() == Token::COOKIE);
        cookies
            .map(|field| self.value(field))
            .find_map(|field| cookie_in(field, name))
    }
}

fn is_named(bytes: &[u8], field: &Field, token: Token, name: &[u8]) -> bool {
    field.token() == token && (token != Token::OTHER || &bytes[field.offset()..][..field.name_len()] == name)
}

/// Three digits.
pub(crate) fn decimal3(status: u16) -> [u8; 3] {
    let digit = |n: u16| b'0' + (n % 10) as u8;
    [digit(status / 100), digit(status / 10), digit(status)]
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
