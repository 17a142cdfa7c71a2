//! Trees to typed values through serde, with the place of every error and every field nobody read.
//!
//! `null` is absence, as the Kubernetes API reads it. Scalars are strict: a number is no string and a string no number,
//! because the same text would be refused in a cluster.

use super::{Key, Mark, Node, Scalar, Value};
use serde::de::{self, Deserialize, DeserializeSeed, IntoDeserializer, Visitor};
use std::cell::RefCell;
use std::fmt;

/// What a decoding found besides the value.
#[derive(Debug, Default)]
pub struct Report {
    /// Paths of fields that the type does not have, with their places.
    pub unknown: Vec<(String, Mark)>,
}

/// Why a tree is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    pub mark: Mark,
    pub path: String,
    pub problem: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            mark: Mark::default(),
            path: String::new(),
            problem: message.to_string(),
        }
    }

    fn invalid_value(found: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        let whole = match wanted.to_string().as_str() {
            "u8" => Some("0 to 255"),
            "u16" => Some("0 to 65535"),
            "u32" => Some("0 to 4294967295"),
            "i32" => Some("-2147483648 to 2147483647"),
            _ => None,
        };
        match (whole, found) {
            (Some(range), de::Unexpected::Unsigned(number)) => Self::custom(format_args!("{number} is not {range}")),
            (Some(range), de::Unexpected::Signed(number)) => Self::custom(format_args!("{number} is not {range}")),
            (_, found) => Self::custom(format_args!("invalid value: {found}, expected {wanted}")),
        }
    }
}

/// Decodes `node`, which stands at `path` of its document.
pub fn decode<'a, T: Deserialize<'a>>(node: &'a Node, path: &str, report: &mut Report) -> Result<T, DecodeError> {
    let unknown = RefCell::new(std::mem::take(&mut report.unknown));
    let root = Path {
        parent: None,
        segment: Segment::Key(path),
    };
    let decoded = T::deserialize(Decoder {
        node,
        path: &root,
        unknown: &unknown,
    });
    report.unknown = unknown.into_inner();
    decoded
}

/// The way to a node, built on the stack and printed only for errors.
struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    segment: Segment<'p>,
}

#[derive(Clone, Copy)]
enum Segment<'p> {
    Key(&'p str),
    Index(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut begun = false;
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            begun = parent.parent.is_some() || !matches!(parent.segment, Segment::Key(""));
        }
        match self.segment {
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) if key.contains(['.', '/']) && self.parent.is_some() => write!(f, "[{key}]"),
            Segment::Key(key) if begun => write!(f, ".{key}"),
            Segment::Key(key) => f.write_str(key),
        }
    }
}

type Unknown = RefCell<Vec<(String, Mark)>>;

struct Decoder<'a, 'p> {
    node: &'a Node,
    path: &'p Path<'p>,
    unknown: &'p Unknown,
}

impl<'a> Decoder<'a, '_> {
    /// Adds the place to an error that has none yet.
    fn placed<T>(&self, result: Result<T, DecodeError>) -> Result<T, DecodeError> {
        result.map_err(|mut error| {
            if error.mark == Mark::default() {
                (error.mark, error.path) = (self.node.mark, self.path.to_string());
            }
            error
        })
    }

    fn wrong<T>(&self, wanted: &str) -> Result<T, DecodeError> {
        let got = match &self.node.value {
            Value::Scalar(scalar) if scalar.is_null() => "nothing".to_owned(),
            Value::Scalar(scalar) if scalar.plain && number(&scalar.text) => format!("the number {}", scalar.text),
            Value::Scalar(scalar) if scalar.plain && boolean(scalar).is_some() => {
                format!("the boolean {}", scalar.text)
            }
            Value::Scalar(scalar) => format!("the text {:?}", shorten(&scalar.text)),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        };
        self.placed(Err(de::Error::custom(format!("expected {wanted}, found {got}"))))
    }

    fn integer<V: Visitor<'a>>(&self, visitor: V) -> Result<V::Value, DecodeError> {
        let Value::Scalar(scalar) = &self.node.value else {
            return self.wrong("a whole number");
        };
        if !scalar.plain {
            return self.wrong("a whole number (without quotes)");
        }
        if let Ok(value) = scalar.text.parse::<u64>() {
            return self.placed(visitor.visit_u64(value));
        }
        match scalar.text.parse::<i64>() {
            Ok(value) => self.placed(visitor.visit_i64(value)),
            Err(_) => self.wrong("a whole number"),
        }
    }

    fn string<V: Visitor<'a>>(&self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Scalar(scalar) if !scalar.plain => self.placed(visitor.visit_borrowed_str(&scalar.text)),
            Value::Scalar(scalar) if boolean(scalar).is_some() || number(&scalar.text) => {
                self.wrong("a text (in quotes)")
            }
            Value::Scalar(scalar) if !scalar.is_null() => self.placed(visitor.visit_borrowed_str(&scalar.text)),
            Value::Scalar(_) | Value::Sequence(_) | Value::Mapping(_) => self.wrong("a text"),
        }
    }
}

macro_rules! integers {
    ($($method:ident)+) => {$(
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.integer(visitor)
        }
    )+};
}

macro_rules! unsupported {
    ($($method:ident($($arg:ident: $type:ty),*))+) => {$(
        fn $method<V: Visitor<'a>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, DecodeError> {
            $(let _ = $arg;)*
            self.deserialize_any(visitor)
        }
    )+};
}

impl<'a> de::Deserializer<'a> for Decoder<'a, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Mapping(_) => self.deserialize_map(visitor),
            Value::Sequence(_) => self.deserialize_seq(visitor),
            Value::Scalar(scalar) if scalar.is_null() => self.placed(visitor.visit_unit()),
            Value::Scalar(scalar) => match boolean(scalar) {
                Some(value) => self.placed(visitor.visit_bool(value)),
                None if scalar.plain && scalar.text.parse::<i64>().is_ok() => self.integer(visitor),
                None => self.placed(visitor.visit_borrowed_str(&scalar.text)),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Scalar(scalar) => match boolean(scalar) {
                Some(value) => self.placed(visitor.visit_bool(value)),
                None => self.wrong("true or false"),
            },
            Value::Sequence(_) | Value::Mapping(_) => self.wrong("true or false"),
        }
    }

    integers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
              deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64);

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.string(visitor)
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.string(visitor)
    }

    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.string(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.is_null() => visitor.visit_none(),
            Value::Scalar(_) | Value::Sequence(_) | Value::Mapping(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Value::Sequence(items) = &self.node.value else {
            return self.wrong("a list");
        };
        let access = Items {
            items: items.iter().enumerate(),
            path: self.path,
            unknown: self.unknown,
        };
        self.placed(visitor.visit_seq(access))
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Value::Mapping(entries) = &self.node.value else {
            return self.wrong("a mapping");
        };
        let access = Entries {
            entries: entries.iter(),
            value: None,
            path: self.path,
            unknown: self.unknown,
        };
        self.placed(visitor.visit_map(access))
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.node.text() {
            Some(text) => self.placed(visitor.visit_enum(text.into_deserializer())),
            None => self.wrong("a word"),
        }
    }

    /// Called for fields a struct does not have.
    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.unknown.borrow_mut().push((self.path.to_string(), self.node.mark));
        visitor.visit_unit()
    }

    unsupported! {
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_bytes() deserialize_byte_buf()
        deserialize_unit() deserialize_unit_struct(name: &'static str) deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
    }
}

struct Items<'a, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    path: &'p Path<'p>,
    unknown: &'p Unknown,
}

impl<'a> de::SeqAccess<'a> for Items<'a, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let path = Path {
            parent: Some(self.path),
            segment: Segment::Index(index),
        };
        seed.deserialize(Decoder {
            node,
            path: &path,
            unknown: self.unknown,
        })
        .map(Some)
    }
}

struct Entries<'a, 'p> {
    entries: std::slice::Iter<'a, (Key, Node)>,
    value: Option<(&'a Key, &'a Node)>,
    path: &'p Path<'p>,
    unknown: &'p Unknown,
}

impl<'a> de::MapAccess<'a> for Entries<'a, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let present = |node: &Node| !matches!(&node.value, Value::Scalar(scalar) if scalar.is_null());
        let Some((key, node)) = self.entries.by_ref().find(|(_, node)| present(node)) else {
            return Ok(None);
        };
        self.value = Some((key, node));
        let word: de::value::BorrowedStrDeserializer<'a, DecodeError> =
            de::value::BorrowedStrDeserializer::new(&key.text);
        seed.deserialize(word).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let (key, node) = self
            .value
            .take()
            .ok_or_else(|| de::Error::custom("a value without a key"))?;
        let path = Path {
            parent: Some(self.path),
            segment: Segment::Key(&key.text),
        };
        seed.deserialize(Decoder {
            node,
            path: &path,
            unknown: self.unknown,
        })
    }
}

fn boolean(scalar: &Scalar) -> Option<bool> {
    match &*scalar.text {
        "true" | "True" | "TRUE" if scalar.plain => Some(true),
        "false" | "False" | "FALSE" if scalar.plain => Some(false),
        _ => None,
    }
}

/// A number in the core schema, as far as a text could be mistaken for one.
fn number(text: &str) -> bool {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    body.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && body.bytes().any(|b| b.is_ascii_digit())
        && (body.parse::<f64>().is_ok() || body.starts_with("0x") || body.starts_with("0o"))
}

/// The beginning of a text, for messages.
fn shorten(text: &str) -> &str {
    match text.char_indices().nth(40) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(serde::Deserialize, Debug, PartialEq)]
    struct Sample {
        name: String,
        #[serde(default)]
        ports: Vec<u16>,
        #[serde(default)]
        labels: BTreeMap<String, String>,
        ready: Option<bool>,
    }

    fn read(text: &str) -> (Result<Sample, DecodeError>, Report) {
        let node = super::super::documents(text).remove(0).unwrap();
        let mut report = Report::default();
        (decode(&node, "", &mut report), report)
    }

    #[test]
    fn null_is_absence() {
        let (sample, _) = read("name: x\nports:\nlabels: null\nready: ~\n");
        assert_eq!(
            sample.unwrap(),
            Sample {
                name: "x".into(),
                ports: vec![],
                labels: BTreeMap::new(),
                ready: None
            }
        );
    }

    #[test]
    fn an_error_tells_its_place_and_path() {
        let (sample, _) = read("name: x\nports:\n- 80\n- http\n");
        let error = sample.unwrap_err();
        assert_eq!(
            (error.mark.line, error.mark.column, error.path.as_str()),
            (4, 3, "ports[1]")
        );
        let (sample, _) = read("name: x\nports: [80, 70000]\n");
        assert_eq!(sample.unwrap_err().path, "ports[1]");
        let (sample, _) = read("name: 12\n");
        assert!(
            sample
                .unwrap_err()
                .problem
                .contains("expected a text (in quotes), found the number 12")
        );
        let (sample, _) = read("name: x\nlabels: {a.b/c: 1}\n");
        assert_eq!(sample.unwrap_err().path, "labels[a.b/c]");
    }

    #[test]
    fn a_field_nobody_reads_is_reported_and_does_no_harm() {
        let (sample, report) = read("name: x\nport: [80]\n");
        assert!(sample.is_ok());
        assert_eq!(report.unknown, vec![("port".to_owned(), Mark { line: 2, column: 7 })]);
    }
}
