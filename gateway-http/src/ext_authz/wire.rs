//! The wire format of Protocol Buffers: tags, varints and lengths. Groups, which no message of ours has, are malformed.

use super::Unread;

/// Bytes of the longest varint.
const VARINT_BYTES_MAX: usize = 10;

/// What a field holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no field here has.
    Fixed,
}

impl<'a> Value<'a> {
    /// Text, bytes or a message.
    pub fn bytes(self) -> Result<&'a [u8], Unread> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) | Value::Fixed => Err(Unread::Malformed),
        }
    }

    /// Text as its type promises it.
    pub fn text(self) -> Result<&'a [u8], Unread> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| Unread::Malformed)?;
        Ok(bytes)
    }

    pub fn number(self) -> Result<u64, Unread> {
        match self {
            Value::Number(number) => Ok(number),
            Value::Bytes(_) | Value::Fixed => Err(Unread::Malformed),
        }
    }
}

/// The fields of a message in their order, each with its number. It ends after the first error.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn next_field(&mut self) -> Result<(u32, Value<'a>), Unread> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Unread::Malformed)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Unread::Malformed)?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Unread::Malformed),
        };
        if number == 0 {
            return Err(Unread::Malformed);
        }
        Ok((number, value))
    }

    fn varint(&mut self) -> Result<u64, Unread> {
        let mut value = 0;
        for place in 0..VARINT_BYTES_MAX {
            let byte = *self.take(1)?.first().ok_or(Unread::Malformed)?;
            // Of the tenth byte one bit has a place; the others are cut off, as every reader does.
            value |= u64::from(byte & 0x7f).checked_shl(7 * place as u32).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Unread::Malformed)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Unread> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Unread::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Unread>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.next_field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Appends a varint.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a varint.
fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a number; 0 is left out, as its absence says it.
pub fn put_number(field: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        put_varint(u64::from(field) << 3, out);
        put_varint(value, out);
    }
}

/// Appends what stands before `len` bytes of text or of a message.
pub fn put_length(field: u32, len: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3 | 2, out);
    put_varint(len as u64, out);
}

/// Appends a message.
pub fn put_message(field: u32, message: &[u8], out: &mut Vec<u8>) {
    put_length(field, message.len(), out);
    out.extend_from_slice(message);
}

/// Appends text; empty text is left out, as its absence says it.
pub fn put_text(field: u32, text: &[u8], out: &mut Vec<u8>) {
    if !text.is_empty() {
        put_message(field, text, out);
    }
}

/// Bytes that a field of `len` bytes takes with what stands before it.
pub fn field_len(field: u32, len: usize) -> usize {
    varint_len(u64::from(field) << 3) + varint_len(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(number in 1..u32::MAX >> 3, value in 1..u64::MAX, text in prop::collection::vec(any::<u8>(), 1..300)) {
            let mut out = Vec::new();
            put_number(number, value, &mut out);
            let before = out.len();
            put_text(number, &text, &mut out);
            prop_assert_eq!(out.len() - before, field_len(number, text.len()));
            let fields: Vec<_> = Fields(&out).collect();
            prop_assert_eq!(fields, vec![Ok((number, Value::Number(value))), Ok((number, Value::Bytes(&text)))]);
        }

        #[test]
        fn any_bytes_come_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let fields: Vec<_> = Fields(&bytes).collect();
            prop_assert!(fields.len() <= bytes.len());
            prop_assert!(fields.iter().rev().skip(1).all(Result::is_ok));
        }
    }

    #[test]
    fn what_is_cut_off_or_has_no_meaning_is_malformed() {
        for bytes in [
            &b"\x08"[..],                                     // no value
            b"\x0a\x05abcd",                                  // longer than the message
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a", // longer than memory
            b"\x0b\x0c",                                      // a group
            b"\x02\x00",                                      // field 0
            b"\x09\x00\x00",                                  // eight bytes that are two
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(Fields(bytes).last(), Some(Err(Unread::Malformed)), "{bytes:?}");
        }
        let unknown = b"\x09\x01\x02\x03\x04\x05\x06\x07\x08\x0d\x01\x02\x03\x04";
        let fields: Vec<_> = Fields(unknown).collect();
        assert_eq!(fields, [Ok((1, Value::Fixed)), Ok((1, Value::Fixed))]);
    }
}
