//! The server name of a TLS ClientHello (RFC 8446 4.1.2, RFC 6066 3), read without touching a byte.
//!
//! Total over arbitrary bytes, and bounded: a hello longer than [`HELLO_BYTES_MAX`] is refused. The hello may be spread
//! over any number of records and the bytes may come in any pieces: as long as something is missing the answer says how
//! many bytes are needed before it is worth asking again.

/// Longest beginning of a connection that is looked at, record headers included.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// What the first bytes of a connection are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hello {
    /// More is needed: at least so many bytes in all.
    Incomplete { bytes_min: usize },
    /// A whole ClientHello. The name is lower case, without a trailing dot.
    Complete { server_name: Option<String> },
    /// Something else.
    Not(NotHello),
}

/// Why it is no ClientHello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotHello {
    /// Not a TLS handshake record.
    NotTls,
    /// A handshake message of another type.
    OtherMessage,
    /// Longer than [`HELLO_BYTES_MAX`].
    TooLong,
    /// Its lengths contradict each other, or its name is no host name.
    Malformed,
}

/// Looks at everything that came so far.
pub fn parse(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Ok(message) => match body(&message) {
            Some(server_name) => Hello::Complete { server_name },
            None => Hello::Not(NotHello::Malformed),
        },
        Err(other) => other,
    }
}

const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const TYPE_HANDSHAKE: u8 = 22;
const TYPE_CLIENT_HELLO: u8 = 1;
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// The body of the handshake message that the records carry.
fn message(bytes: &[u8]) -> Result<Vec<u8>, Hello> {
    let mut message = Vec::new();
    let mut at = 0;
    loop {
        let rest = &bytes[at.min(bytes.len())..];
        let header_ok = [TYPE_HANDSHAKE, 3].iter().zip(rest).all(|(want, got)| want == got);
        if !header_ok {
            return Err(Hello::Not(NotHello::NotTls));
        }
        let [_, _, _, high, low, payload @ ..] = rest else {
            return incomplete(at + RECORD_HEADER);
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len == 0 || len > RECORD_BYTES_MAX {
            return Err(Hello::Not(NotHello::NotTls));
        }
        let whole = payload.len() >= len;
        message.extend_from_slice(&payload[..len.min(payload.len())]);
        at += RECORD_HEADER + len;

        if message.first().is_some_and(|kind| *kind != TYPE_CLIENT_HELLO) {
            return Err(Hello::Not(NotHello::OtherMessage));
        }
        let mut wanted = MESSAGE_HEADER;
        if let [_, a, b, c, ..] = message[..] {
            wanted = MESSAGE_HEADER + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            if wanted > HELLO_BYTES_MAX {
                return Err(Hello::Not(NotHello::TooLong));
            }
            if message.len() >= wanted {
                message.truncate(wanted);
                message.drain(..MESSAGE_HEADER);
                return Ok(message);
            }
        }
        if !whole {
            // The message may end before its record does: what is asked for must not depend on how the bytes came.
            return incomplete(at.min(bytes.len() + wanted - message.len()));
        }
    }
}

fn incomplete<T>(bytes_min: usize) -> Result<T, Hello> {
    Err(if bytes_min > HELLO_BYTES_MAX {
        Hello::Not(NotHello::TooLong)
    } else {
        Hello::Incomplete { bytes_min }
    })
}

/// `None`: malformed. `Some(None)`: no server name.
fn body(message: &[u8]) -> Option<Option<String>> {
    let mut rest = Cursor(message);
    let _version_and_random = rest.take(2 + 32)?;
    let _session_id = rest.vector8()?;
    let _cipher_suites = rest.vector16()?;
    let _compression = rest.vector8()?;
    if rest.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Cursor(rest.vector16()?);
    if !rest.0.is_empty() {
        return None;
    }
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        if kind == EXTENSION_SERVER_NAME {
            if name.is_some() {
                return None;
            }
            name = Some(server_name(data)?);
        }
    }
    Some(name)
}

const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_TYPE_HOST: u8 = 0;

fn server_name(extension: &[u8]) -> Option<String> {
    let mut rest = Cursor(extension);
    let mut list = Cursor(rest.vector16()?);
    // RFC 6066 3: one name of a type. Other types are not defined; a list without a host name is no list.
    let kind = list.u8()?;
    let name = list.vector16()?;
    let alone = list.0.is_empty() && rest.0.is_empty();
    (alone && kind == NAME_TYPE_HOST).then(|| host(name)).flatten()
}

/// A DNS name in the preferred syntax (RFC 1123 2.1), with the underscores that are seen in practice.
fn host(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let fits = (1..=253).contains(&name.len());
    let letters = name
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    let labels = !name.starts_with(b".") && !name.ends_with(b".") && !name.windows(2).any(|pair| pair == b"..");
    (fits && letters && labels).then(|| name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector16(bytes: &[u8]) -> Vec<u8> {
        let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        out.extend_from_slice(bytes);
        out
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        let mut entry = vec![0];
        entry.extend(vector16(name));
        let mut out = vec![0, 0];
        out.extend(vector16(&vector16(&entry)));
        out
    }

    /// A handshake message with these extensions.
    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(vector16(&[0x13, 0x01]));
        body.extend([1, 0]);
        body.extend(vector16(&extensions.concat()));
        let mut message = vec![1, 0];
        message.extend(vector16(&body));
        message
    }

    /// `message` in records of at most `len` bytes.
    fn records(message: &[u8], len: usize) -> Vec<u8> {
        let record = |piece: &[u8]| [&[22, 3, 1][..], &vector16(piece)].concat();
        message.chunks(len).flat_map(record).collect()
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Hello) {
        assert_eq!(parse(bytes), expected);
    }

    fn named(name: &str) -> Hello {
        Hello::Complete {
            server_name: Some(name.to_owned()),
        }
    }

    const OTHER: [u8; 6] = [0, 16, 0, 2, 0, 0];

    #[test]
    fn a_name_with_an_empty_label_is_malformed() {
        for name in ["a..", ".a", "a..b", "."] {
            check(
                &records(&hello(&[sni(name.as_bytes())]), 16_000),
                Hello::Not(NotHello::Malformed),
            );
        }
    }

    #[test]
    fn a_record_that_goes_on_behind_the_hello_is_not_waited_for() {
        // One record of the greatest length: the hello, and more that never comes.
        let message = hello(&[sni(b"a.b")]);
        let mut bytes = vec![22, 3, 1, 0x40, 0];
        bytes.extend(&message);
        for len in 5..bytes.len() {
            let whole = match parse(&bytes[..len]) {
                Hello::Incomplete { bytes_min } => bytes_min <= bytes.len(),
                Hello::Complete { .. } | Hello::Not(_) => false,
            };
            assert!(whole, "{len} bytes");
        }
        check(&bytes, named("a.b"));
    }

    #[test]
    fn the_name_is_found_among_other_extensions_in_lower_case() {
        check(
            &records(&hello(&[OTHER.to_vec(), sni(b"A.Example.COM")]), 16_000),
            named("a.example.com"),
        );
        check(&records(&hello(&[sni(b"example.com.")]), 16_000), named("example.com"));
    }

    #[test]
    fn a_hello_without_a_name_is_complete() {
        check(
            &records(&hello(&[OTHER.to_vec()]), 16_000),
            Hello::Complete { server_name: None },
        );
        check(&records(&hello(&[]), 16_000), Hello::Complete { server_name: None });
    }

    #[test]
    fn what_follows_the_hello_is_not_looked_at() {
        let mut bytes = records(&hello(&[sni(b"a.b")]), 16_000);
        bytes.extend(b"early data");
        check(&bytes, named("a.b"));
    }

    #[test]
    fn other_protocols_are_told_at_the_first_byte_that_differs() {
        check(b"G", Hello::Not(NotHello::NotTls));
        check(b"SSH-2.0-x\r\n", Hello::Not(NotHello::NotTls));
        check(&[22, 2], Hello::Not(NotHello::NotTls));
        check(&[22, 3, 1, 0, 0], Hello::Not(NotHello::NotTls));
        check(&[22, 3, 1, 0, 9, 2], Hello::Not(NotHello::OtherMessage));
        check(&[], Hello::Incomplete { bytes_min: 5 });
    }

    #[test]
    fn a_hello_that_says_it_is_too_long_is_refused_at_once() {
        check(&[22, 3, 1, 0x40, 0, 1, 1, 0, 0], Hello::Not(NotHello::TooLong));
        let endless = records(&[&[1, 0, 0x3f, 0xff][..], &[0; 16_000]].concat(), 1);
        assert!(matches!(
            parse(&endless[..HELLO_BYTES_MAX]),
            Hello::Not(NotHello::TooLong)
        ));
    }

    #[test]
    fn lengths_that_contradict_each_other_are_malformed() {
        let malformed = Hello::Not(NotHello::Malformed);
        let mut cut = hello(&[sni(b"a.b")]);
        let end = cut.len();
        cut[3] -= 1;
        check(&records(&cut[..end - 1], 16_000), malformed.clone());
        check(&records(&hello(&[sni(b"a.b"), sni(b"c.d")]), 16_000), malformed.clone());
        check(&records(&hello(&[vec![0, 0, 0, 1, 0]]), 16_000), malformed.clone());
        for name in [
            &b""[..],
            b".",
            b"a..b",
            b".a",
            b"a b",
            b"a/b",
            b"caf\xc3\xa9",
            &[b'a'; 254],
        ] {
            check(&records(&hello(&[sni(name)]), 16_000), malformed.clone());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
            let mut tls = vec![22, 3, 1];
            tls.extend(vector16(&[&[1, 0, 1, 0][..], &bytes].concat()));
            let _ = parse(&tls);
        }

        #[test]
        fn pieces_and_records_do_not_change_the_answer(record in 1usize..300, name in "[a-z]{1,20}(\\.[a-z]{1,20}){0,5}") {
            let bytes = records(&hello(&[OTHER.to_vec(), sni(name.as_bytes())]), record);
            let mut asked_at = 0;
            for len in 0..bytes.len() {
                match parse(&bytes[..len]) {
                    Hello::Incomplete { bytes_min } => {
                        prop_assert!(bytes_min > len && bytes_min <= bytes.len());
                        prop_assert!(bytes_min >= asked_at);
                        asked_at = bytes_min;
                    }
                    other => prop_assert!(false, "{other:?} at {len} of {}", bytes.len()),
                }
            }
            prop_assert_eq!(parse(&bytes), Hello::Complete { server_name: Some(name) });
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0usize..80, to in any::<u8>()) {
            let mut bytes = records(&hello(&[sni(b"a.example.com")]), 16_000);
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = parse(&bytes);
        }
    }
}
