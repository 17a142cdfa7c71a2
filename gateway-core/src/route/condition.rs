//! Conditions besides the path: method, headers, query parameters.

use super::{Fields, Pattern, RequestHead};
use crate::ids::RuleId;
use crate::ir::{FieldMatch, HttpMatch, ValueMatch};
use std::cmp::Reverse;

/// A rule that may serve requests for a path.
#[derive(Debug)]
pub struct Candidate {
    pub rule: RuleId,
    method: Option<Box<[u8]>>,
    headers: Box<[Condition]>,
    query: Box<[Condition]>,
}

impl Candidate {
    pub fn compile(rule: RuleId, matches: &HttpMatch) -> Self {
        let method = matches.method.as_ref().map(|method| method.as_bytes().into());
        let conditions = |fields: &[FieldMatch]| fields.iter().map(Condition::compile).collect();
        Self {
            rule,
            method,
            headers: conditions(&matches.headers),
            query: conditions(&matches.query),
        }
    }

    /// Sorts who is asked first to the front: a method, then more headers, then more query parameters.
    pub fn precedence(&self) -> impl Ord + use<> {
        Reverse((self.method.is_some(), self.headers.len(), self.query.len()))
    }

    pub fn accepts<F: Fields>(&self, head: &RequestHead<'_, F>) -> bool {
        // CONNECT asks for a tunnel to anywhere: only who names the method takes it.
        self.method
            .as_deref()
            .map_or(head.method != b"CONNECT", |method| method == head.method)
            && self
                .headers
                .iter()
                .all(|header| header.holds(head.fields.field(&header.name)))
            && self
                .query
                .iter()
                .all(|parameter| parameter.holds(query_value(head.query, &parameter.name)))
    }
}

/// A field or parameter and what its value has to be.
#[derive(Debug)]
struct Condition {
    name: Box<[u8]>,
    value: Expected,
}

#[derive(Debug)]
enum Expected {
    Exact(Box<[u8]>),
    Regex(Box<Pattern>),
    /// A pattern that could not be compiled. The compiler refuses those, so this is never met.
    Never,
}

impl Condition {
    fn compile(field: &FieldMatch) -> Self {
        let value = match &field.value {
            ValueMatch::Exact(value) => Expected::Exact(value.as_bytes().into()),
            ValueMatch::Regex(pattern) => {
                Pattern::new(pattern).map_or(Expected::Never, |pattern| Expected::Regex(Box::new(pattern)))
            }
        };
        Self {
            name: field.name.as_bytes().into(),
            value,
        }
    }

    fn holds(&self, value: Option<&[u8]>) -> bool {
        match (&self.value, value) {
            (_, None) | (Expected::Never, _) => false,
            (Expected::Exact(expected), Some(value)) => **expected == *value,
            (Expected::Regex(pattern), Some(value)) => pattern.matches(value),
        }
    }
}

/// The first value of a query parameter. Names and values are compared as they were sent, without percent-decoding
/// (as Envoy does); a parameter without `=` has the empty value.
fn query_value<'a>(query: Option<&'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    query?
        .split(|byte| *byte == b'&')
        .find_map(|parameter| match parameter.strip_prefix(name)? {
            [] => Some(&[][..]),
            [b'=', value @ ..] => Some(value),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_parameter_of_a_name_counts_undecoded() {
        for (query, name, expected) in [
            ("a=1&b=2&a=3", "a", Some("1")),
            ("a=1&b=2", "b", Some("2")),
            ("ab=1", "a", None),
            ("xa=1&a=2", "a", Some("2")),
            ("a", "a", Some("")),
            ("a=", "a", Some("")),
            ("a=b=c", "a", Some("b=c")),
            ("a=%41", "a", Some("%41")),
            ("A=1", "a", None),
            ("", "a", None),
        ] {
            let value = query_value(Some(query.as_bytes()), name.as_bytes());
            assert_eq!(value, expected.map(str::as_bytes), "{query}");
        }
        assert_eq!(query_value(None, b"a"), None);
    }
}
