//! What the gateway knows of gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md): the deadline a client sends, the status
//! an answer ends with, and answers of its own.

pub mod message;
pub mod status;

use crate::head::{FieldList, Token};
use std::time::Duration;

/// Digits of a timeout's value.
const TIMEOUT_DIGITS_MAX: usize = 8;
/// Largest value of a timeout.
const TIMEOUT_VALUE_MAX: u128 = 99_999_999;

/// The value of `grpc-timeout`: one to eight digits and a unit. `None` when it is not one; the request is then
/// treated as if it had none.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.len() > TIMEOUT_DIGITS_MAX {
        return None;
    }
    let count = crate::head::facts::decimal(digits)?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// A `grpc-timeout` as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutText {
    bytes: [u8; TIMEOUT_DIGITS_MAX + 1],
    len: usize,
}

impl TimeoutText {
    /// In the finest unit that has room for it, cut to whole units: an endpoint never gets more time than is left.
    /// What is longer than 99,999,999 hours is that.
    pub fn new(timeout: Duration) -> Self {
        const UNITS: [(u128, u8); 6] = [
            (1, b'n'),
            (1_000, b'u'),
            (1_000_000, b'm'),
            (1_000_000_000, b'S'),
            (60_000_000_000, b'M'),
            (3_600_000_000_000, b'H'),
        ];
        let nanos = timeout.as_nanos();
        let fits = UNITS.into_iter().find(|(size, _)| nanos / size <= TIMEOUT_VALUE_MAX);
        let (value, unit) = fits.map_or((TIMEOUT_VALUE_MAX, b'H'), |(size, unit)| (nanos / size, unit));
        let mut text = Self {
            bytes: [0; TIMEOUT_DIGITS_MAX + 1],
            len: 0,
        };
        let digits = value.checked_ilog10().map_or(1, |log| log as usize + 1);
        let mut rest = value;
        for place in (0..digits).rev() {
            text.bytes[place] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        text.bytes[digits] = unit;
        text.len = digits + 1;
        text
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::ops::Deref for TimeoutText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The value of `grpc-timeout` for this much time.
pub fn format_timeout(timeout: Duration) -> TimeoutText {
    TimeoutText::new(timeout)
}

/// The status that trailers, or a response without any other body, end with.
pub fn status_of(trailers: &FieldList) -> Option<u32> {
    let digits = trailers.get(Token::GRPC_STATUS)?;
    u32::try_from(crate::head::facts::decimal(digits)?).ok()
}

/// An answer of the gateway's own: the head that is also the trailers ("Trailers-Only"). `into` must be clear; the
/// stream ends with it. `code`: 0 to 16 (grpc/doc/statuscodes.md).
pub fn reply(into: &mut FieldList, code: u8, message: &str) {
    debug_assert!(code <= 16, "no such gRPC status");
    into.push_status(200);
    into.push_known(Token::CONTENT_TYPE, b"application/grpc");
    put_status(into, code, message);
}

/// `grpc-status` and `grpc-message`. `code`: 0 to 16.
pub fn put_status(into: &mut FieldList, code: u8, message: &str) {
    let digits = [b'0' + code / 10 % 10, b'0' + code % 10];
    into.push_known(Token::GRPC_STATUS, if code < 10 { &digits[1..] } else { &digits });
    if !message.is_empty() {
        let (start, name) = (into.buffer().len(), Token::GRPC_MESSAGE.name());
        into.buffer().extend_from_slice(name);
        percent_encode(message, into.buffer());
        into.finish_literal(start, name.len(), None, false);
    }
}

/// Everything but printable ASCII without `%` as `%XX`; spaces too at the ends, where a field cannot have them.
fn percent_encode(message: &str, out: &mut Vec<u8>) {
    let last = message.len().saturating_sub(1);
    for (place, byte) in message.bytes().enumerate() {
        let end = place == 0 || place == last;
        if (b' '..=b'~').contains(&byte) && byte != b'%' && !(end && byte == b' ') {
            out.push(byte);
        } else {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_up_to_eight_digits_and_a_unit() {
        for (text, timeout) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("0S", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("123456789n", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("1.5S", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), timeout, "{text}");
        }
    }

    #[test]
    fn a_timeout_is_written_as_finely_as_it_fits() {
        let text = |timeout| String::from_utf8(TimeoutText::new(timeout).as_bytes().to_vec()).expect("ASCII");
        assert_eq!(text(Duration::ZERO), "0n");
        assert_eq!(text(Duration::from_nanos(99_999_999)), "99999999n");
        assert_eq!(text(Duration::from_nanos(100_000_999)), "100000u");
        assert_eq!(text(Duration::from_secs(3)), "3000000u");
        assert_eq!(text(Duration::from_secs(100_000)), "100000S");
        assert_eq!(text(Duration::MAX), "99999999H");
        for nanos in [1u64, 7, 12_345, 99_999_999, 1_234_567_890, 86_400_000_000_000, u64::MAX] {
            let timeout = Duration::from_nanos(nanos);
            let back = parse_timeout(TimeoutText::new(timeout).as_bytes()).expect("well formed");
            assert!(
                back <= timeout && timeout - back <= timeout / 1_000_000,
                "{timeout:?} -> {back:?}"
            );
        }
    }

    #[test]
    fn a_local_answer_is_trailers_only() {
        let mut list = FieldList::new();
        reply(&mut list, 14, "no endpoint: 100% gone\n");
        let fields: Vec<_> = list
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        let want: [(&[u8], &[u8]); 4] = [
            (b":status", b"200"),
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"14"),
            (b"grpc-message", b"no endpoint: 100%25 gone%0A"),
        ];
        assert_eq!(fields, want.map(|(name, value)| (name.to_vec(), value.to_vec())));
        assert_eq!(status_of(&list), Some(14));
        assert!(list.fields().iter().all(|field| !field.is_bad()));
    }

    #[test]
    fn messages_are_percent_encoded_as_the_protocol_says() {
        for (message, text) in [(" a ", "%20a%20"), ("\u{e9}", "%C3%A9"), ("a b", "a b"), (" ", "%20")] {
            let mut list = FieldList::new();
            reply(&mut list, 2, message);
            assert_eq!(list.get(Token::GRPC_MESSAGE), Some(text.as_bytes()));
            assert_eq!(list.get(Token::GRPC_STATUS), Some(&b"2"[..]));
        }
        let mut list = FieldList::new();
        reply(&mut list, 0, "");
        assert_eq!(list.len(), 3);
    }
}
