//! `CheckRequest`: what an authorization service is told of a request.

use super::wire::{field_len, put_length, put_message, put_number, put_text, put_varint};
use crate::grpc::message::PREFIX_LEN;
use crate::head::{Field, FieldList, Token};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What is known of a request.
pub struct About<'a> {
    pub client: SocketAddr,
    /// Who the client is by its certificate; empty: nobody checked.
    pub principal: &'a str,
    pub local: SocketAddr,
    /// Since 1970, seconds.
    pub came_s: u64,
    /// As the client asked: `http` or `https`.
    pub scheme: &'a [u8],
    pub protocol: &'a str,
    pub head: &'a FieldList,
    /// Fields that are shown, lower case; empty: all of them.
    pub shown: &'a [String],
    /// Octets of the body; -1: not known.
    pub size: i64,
    pub body: &'a [u8],
}

/// Appends the body of a call that asks about a request: one `CheckRequest` with its prefix. `None`: it is longer than
/// four bytes can say.
///
/// Text is what Protocol Buffers takes for it: octets of fields that are not UTF-8 are `!`, as Envoy writes them, and a
/// body that is not is in `raw_body`.
pub fn put(about: &About<'_>, out: &mut Vec<u8>) -> Option<()> {
    let http = http(about);
    let body = match std::str::from_utf8(about.body) {
        Ok(_) => 11,
        Err(_) => 12,
    };
    let body_len = match about.body.len() {
        0 => 0,
        len => field_len(body, len),
    };
    let mut time = Vec::new();
    put_number(1, about.came_s, &mut time);
    let source = peer(about.client, about.principal);
    let destination = peer(about.local, "");

    // From the inside out: each length is known before what it is the length of.
    let http_len = http.len() + body_len;
    let request_len = field_len(1, time.len()) + field_len(2, http_len);
    let attributes_len = field_len(1, source.len()) + field_len(2, destination.len()) + field_len(4, request_len);
    let len = u32::try_from(field_len(1, attributes_len)).ok()?;
    out.reserve(PREFIX_LEN + len as usize);
    out.push(0);
    out.extend_from_slice(&len.to_be_bytes());
    let start = out.len();
    put_length(1, attributes_len, out);
    put_message(1, &source, out);
    put_message(2, &destination, out);
    put_length(4, request_len, out);
    put_message(1, &time, out);
    put_length(2, http_len, out);
    out.extend_from_slice(&http);
    put_text(body, about.body, out);
    debug_assert_eq!(out.len() - start, len as usize, "lengths are of what was written");
    Some(())
}

/// `AttributeContext.Peer`: its address and who it is.
fn peer(addr: SocketAddr, principal: &str) -> Vec<u8> {
    let mut socket = Vec::new();
    put_text(2, addr.ip().to_canonical().to_string().as_bytes(), &mut socket);
    put_number(3, u64::from(addr.port()), &mut socket);
    let mut address = Vec::new();
    put_message(1, &socket, &mut address);
    let mut peer = Vec::new();
    put_message(1, &address, &mut peer);
    put_text(4, principal.as_bytes(), &mut peer);
    peer
}

/// `AttributeContext.HttpRequest` without the body.
fn http(about: &About<'_>) -> Vec<u8> {
    let head = about.head;
    let mut out = Vec::new();
    let text = |field, token, out: &mut Vec<u8>| put_text(field, &utf8(head.get(token).unwrap_or_default()), out);
    text(1, Token::X_REQUEST_ID, &mut out);
    text(2, Token::METHOD, &mut out);
    let mut entry = Vec::new();
    for (name, value) in &fields(about) {
        entry.clear();
        put_text(1, name, &mut entry);
        put_text(2, value, &mut entry);
        put_message(3, &entry, &mut out);
    }
    text(4, Token::PATH, &mut out);
    text(5, Token::AUTHORITY, &mut out);
    put_text(6, about.scheme, &mut out);
    if about.size != 0 {
        put_varint(9 << 3, &mut out);
        put_varint(about.size.cast_unsigned(), &mut out);
    }
    put_text(10, about.protocol.as_bytes(), &mut out);
    out
}

/// The fields that are shown, each name once: lines of one name are one value (RFC 9110 5.3, RFC 9113 8.2.3).
fn fields<'a>(about: &About<'a>) -> BTreeMap<&'a [u8], Vec<u8>> {
    let head = about.head;
    let is_shown = |name: &[u8]| about.shown.is_empty() || about.shown.iter().any(|shown| shown.as_bytes() == name);
    let shown = |field: &&Field| is_shown(head.name(field));
    let mut fields: BTreeMap<&[u8], Vec<u8>> = BTreeMap::new();
    for field in head.fields().iter().filter(shown) {
        let value = match field.token() {
            // The head says what goes upstream.
            Token::SCHEME => about.scheme.to_vec(),
            _ => utf8(head.value(field)),
        };
        let separator: &[u8] = if field.token() == Token::COOKIE { b"; " } else { b"," };
        fields
            .entry(head.name(field))
            .and_modify(|before| {
                before.extend_from_slice(separator);
                before.extend_from_slice(&value);
            })
            .or_insert(value);
    }
    fields
}

/// Text for a field of type string.
fn utf8(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        text.extend_from_slice(chunk.valid().as_bytes());
        text.extend(std::iter::repeat_n(b'!', chunk.invalid().len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext_authz::wire::{Fields, Value};

    fn all(message: &[u8], number: u32) -> Vec<Vec<u8>> {
        Fields(message)
            .map(Result::unwrap)
            .filter(|(field, _)| *field == number)
            .map(|(_, value)| value.bytes().unwrap().to_vec())
            .collect()
    }

    fn at(message: &[u8], path: &[u32]) -> Vec<u8> {
        path.iter().fold(message.to_vec(), |message, number| {
            all(&message, *number).pop().unwrap_or_default()
        })
    }

    fn ask(head: &FieldList, shown: &[String], body: &[u8]) -> Vec<u8> {
        let about = About {
            client: "[::ffff:192.0.2.1]:4000".parse().unwrap(),
            principal: "spiffe://a/b",
            local: "[2001:db8::1]:443".parse().unwrap(),
            came_s: 1_700_000_000,
            scheme: b"https",
            protocol: "HTTP/2",
            head,
            shown,
            size: body.len() as i64,
            body,
        };
        let mut out = Vec::new();
        put(&about, &mut out).unwrap();
        crate::ext_authz::message(&out).unwrap().to_vec()
    }

    fn head() -> FieldList {
        let mut head = FieldList::new();
        for (name, value) in [
            (":method", &b"POST"[..]),
            (":scheme", b"http"),
            (":path", b"/a?b=c"),
            (":authority", b"example.com"),
            ("x-request-id", b"id"),
            ("cookie", b"a=b"),
            ("x-more", b"1"),
            ("cookie", b"c=d"),
            ("x-more", b"2"),
            ("x-odd", b"a\xffb"),
        ] {
            head.push(name.as_bytes(), value);
        }
        head
    }

    #[test]
    fn a_request_is_told_as_it_came() {
        let question = ask(&head(), &[], b"body");
        assert_eq!(at(&question, &[1, 1, 1, 1, 2]), b"192.0.2.1");
        assert_eq!(at(&question, &[1, 1, 4]), b"spiffe://a/b");
        assert_eq!(at(&question, &[1, 2, 1, 1, 2]), b"2001:db8::1");
        let http = at(&question, &[1, 4, 2]);
        for (field, want) in [
            (1, "id"),
            (2, "POST"),
            (4, "/a?b=c"),
            (5, "example.com"),
            (6, "https"),
            (10, "HTTP/2"),
            (11, "body"),
        ] {
            assert_eq!(at(&http, &[field]), want.as_bytes(), "{field}");
        }
        assert!(Fields(&http).any(|field| field == Ok((9, Value::Number(4)))));
        let fields: Vec<_> = all(&http, 3)
            .iter()
            .map(|entry| (at(entry, &[1]), at(entry, &[2])))
            .collect();
        let of = |name: &str| {
            fields
                .iter()
                .find(|(key, _)| key == name.as_bytes())
                .map(|(_, value)| &value[..])
        };
        assert_eq!(of("cookie"), Some(&b"a=b; c=d"[..]));
        assert_eq!(of("x-more"), Some(&b"1,2"[..]));
        assert_eq!(of("x-odd"), Some(&b"a!b"[..]));
        assert_eq!(
            of(":scheme"),
            Some(&b"https"[..]),
            "what the client asked for, not what goes upstream"
        );
        assert_eq!(fields.len(), 8);
    }

    #[test]
    fn only_named_fields_are_shown_when_there_are_names() {
        let http = at(&ask(&head(), &["x-more".to_owned()], b"\xff"), &[1, 4, 2]);
        let entries = all(&http, 3);
        assert_eq!(entries.len(), 1);
        assert_eq!(
            (at(&entries[0], &[1]), at(&entries[0], &[2])),
            (b"x-more".to_vec(), b"1,2".to_vec())
        );
        assert_eq!(
            (at(&http, &[11]), at(&http, &[12])),
            (b"".to_vec(), b"\xff".to_vec()),
            "not text"
        );
    }

    #[test]
    fn a_size_that_is_not_known_is_minus_one() {
        let head = head();
        let about = About {
            client: "192.0.2.1:1".parse().unwrap(),
            principal: "",
            local: "192.0.2.2:2".parse().unwrap(),
            came_s: 0,
            scheme: b"http",
            protocol: "HTTP/1.1",
            head: &head,
            shown: &[],
            size: -1,
            body: b"",
        };
        let mut out = Vec::new();
        put(&about, &mut out).unwrap();
        let http = at(&out[5..], &[1, 4, 2]);
        assert!(Fields(&http).any(|field| field == Ok((9, Value::Number(u64::MAX)))));
        assert!(all(&http, 11).is_empty() && all(&http, 12).is_empty());
        assert!(at(&out[5..], &[1, 1, 4]).is_empty());
    }
}
