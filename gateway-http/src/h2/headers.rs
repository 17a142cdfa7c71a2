//! Which field sections are well formed in HTTP/2 (RFC 9113 8.1 to 8.3). A malformed one is a stream error of type
//! PROTOCOL_ERROR; for a request the engine may answer 400 first.
//!
//! After [`check_request`] the list has exactly one `:authority` and no `host`, so that everything behind it looks
//! at one place; and an extended CONNECT (RFC 8441) is the GET with `upgrade` that it would be in HTTP/1.1, so that
//! routes and filters know one form.

use crate::head::facts::{
    ContentLength, Malformed, Method, RequestFacts, ResponseFacts, is_grpc, is_target, may_be_tunnelled,
};
use crate::head::{FieldList, Token, authority, is_token};

/// Checks a request's head. `end_stream`: no body follows.
pub fn check_request(list: &mut FieldList, end_stream: bool) -> Result<RequestFacts, Malformed> {
    let mut seen = Pseudo::default();
    let mut method = Method::Other;
    let mut length = ContentLength::default();
    let (mut grpc, mut expects_continue, mut hosts, mut regular) = (false, false, 0u32, false);
    let mut claims = false;
    for field in list.fields() {
        if field.is_bad() {
            return Err(Malformed::Field);
        }
        let token = field.token();
        if token.is_pseudo() {
            if regular || seen.put(token).is_err() {
                return Err(Malformed::Pseudo);
            }
            if token == Token::METHOD {
                method = Method::of(list.value(field));
                if method == Method::Other && !is_token(list.value(field)) {
                    return Err(Malformed::Method);
                }
            }
            continue;
        }
        regular = true;
        claims |= field.is_claim();
        match token {
            Token::OTHER => {}
            Token::CONTENT_LENGTH => length.take(list.value(field))?,
            Token::CONTENT_TYPE => grpc = is_grpc(list.value(field)),
            Token::HOST => hosts += 1,
            Token::EXPECT => expects_continue |= list.value(field).eq_ignore_ascii_case(b"100-continue"),
            Token::TE if list.value(field) != b"trailers" => return Err(Malformed::ConnectionField),
            token if token.is_connection_specific() => return Err(Malformed::ConnectionField),
            _ => {}
        }
    }
    check_target(list, method, &seen)?;
    if end_stream && length.value.is_some_and(|bytes| bytes > 0) {
        return Err(Malformed::ContentLength);
    }
    settle_authority(list, seen.has(Token::AUTHORITY), hosts)?;
    length.tidy(list);
    if method == Method::Connect {
        return connect_facts(list, length, claims);
    }
    Ok(RequestFacts {
        method,
        upgrade: false,
        content_length: length.value,
        is_grpc: grpc,
        expects_continue,
        claims,
    })
}

/// CONNECT asks for a tunnel, an extended one for a protocol in it. It has no content (RFC 9110 9.3.6): what comes is
/// the tunnel's.
#[cold]
fn connect_facts(list: &mut FieldList, length: ContentLength, claims: bool) -> Result<RequestFacts, Malformed> {
    match length.value {
        None => {}
        Some(0) => list.remove(Token::CONTENT_LENGTH),
        Some(_) => return Err(Malformed::ContentLength),
    }
    let protocol = list.place_of(Token::PROTOCOL);
    if let Some(place) = protocol {
        list.rename(place, Token::UPGRADE);
        list.set_known(Token::METHOD, b"GET");
    }
    Ok(RequestFacts {
        method: if protocol.is_some() {
            Method::Get
        } else {
            Method::Connect
        },
        upgrade: protocol.is_some(),
        content_length: None,
        is_grpc: false,
        expects_continue: false,
        claims,
    })
}

/// Which pseudo-fields a request has (RFC 9113 8.3.1, 8.5, RFC 8441 4).
fn check_target(list: &FieldList, method: Method, seen: &Pseudo) -> Result<(), Malformed> {
    let protocol = if seen.has(Token::PROTOCOL) {
        list.get(Token::PROTOCOL)
    } else {
        None
    };
    if seen.has(Token::STATUS) || protocol.is_some_and(|name| method != Method::Connect || !may_be_tunnelled(name)) {
        return Err(Malformed::Pseudo);
    }
    if method == Method::Connect && protocol.is_none() {
        let plain = !seen.has(Token::PATH) && !seen.has(Token::SCHEME);
        let target = list.get(Token::AUTHORITY).and_then(authority::parse);
        let has_port = target.is_some_and(|target| target.port.is_some());
        return if plain && has_port {
            Ok(())
        } else {
            Err(Malformed::Target)
        };
    }
    let (Some(path), Some(scheme), true) = (list.get(Token::PATH), list.get(Token::SCHEME), seen.has(Token::METHOD))
    else {
        return Err(Malformed::Missing);
    };
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !is_target(path, method) || scheme.is_empty() || !scheme.iter().all(is_scheme) {
        return Err(Malformed::Target);
    }
    Ok(())
}

/// One authority: `:authority`, which an equal `host` may repeat, or `host` in its place (RFC 9113 8.3.1).
fn settle_authority(list: &mut FieldList, pseudo: bool, hosts: u32) -> Result<(), Malformed> {
    match (pseudo, hosts) {
        (true, 0) => Ok(()),
        (true, 1) => {
            let (control, host) = (list.get(Token::AUTHORITY), list.get(Token::HOST));
            if !authority::same(control.unwrap_or_default(), host.unwrap_or_default()) {
                return Err(Malformed::Authority);
            }
            list.remove(Token::HOST);
            Ok(())
        }
        (false, 1) => {
            if let Some(place) = list.position(Token::HOST.name()) {
                list.promote(place, Token::AUTHORITY);
            }
            Ok(())
        }
        (_, _) => Err(Malformed::Authority),
    }
}

/// Checks a response's head, interim or final (RFC 9113 8.3.2).
pub fn check_response(list: &mut FieldList) -> Result<ResponseFacts, Malformed> {
    let mut length = ContentLength::default();
    let mut status = None;
    for (place, field) in list.fields().iter().enumerate() {
        if field.is_bad() {
            return Err(Malformed::Field);
        }
        match field.token() {
            Token::OTHER => {}
            Token::STATUS if place == 0 => status = Some(parse_status(list.value(field))?),
            Token::CONTENT_LENGTH => length.take(list.value(field))?,
            token if token.is_pseudo() => return Err(Malformed::Pseudo),
            token if token.is_connection_specific() => return Err(Malformed::ConnectionField),
            _ => {}
        }
    }
    let status = status.ok_or(Malformed::Missing)?;
    // HTTP/2 has no 101 (RFC 9113 8.6).
    if status == 101 {
        return Err(Malformed::Status);
    }
    length.tidy(list);
    Ok(ResponseFacts {
        status,
        content_length: length.value,
    })
}

/// Checks a trailer section (RFC 9113 8.1): fields only.
pub fn check_trailers(list: &FieldList) -> Result<(), Malformed> {
    for field in list.fields() {
        if field.is_bad() {
            return Err(Malformed::Field);
        }
        if field.token().is_pseudo() {
            return Err(Malformed::Pseudo);
        }
        if field.token().is_connection_specific() {
            return Err(Malformed::ConnectionField);
        }
    }
    Ok(())
}

/// Three digits, 100 to 599 (RFC 9110 15).
pub(crate) fn parse_status(text: &[u8]) -> Result<u16, Malformed> {
    let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] = text else {
        return Err(Malformed::Status);
    };
    Ok(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
}

/// The pseudo-fields seen so far.
#[derive(Default)]
struct Pseudo(u8);

impl Pseudo {
    fn bit(token: Token) -> u8 {
        match token {
            Token::METHOD => 1,
            Token::SCHEME => 2,
            Token::PATH => 4,
            Token::AUTHORITY => 8,
            Token::STATUS => 16,
            _ => 32,
        }
    }

    /// `Err` when it was there already.
    fn put(&mut self, token: Token) -> Result<(), ()> {
        let bit = Self::bit(token);
        if self.0 & bit != 0 {
            return Err(());
        }
        self.0 |= bit;
        Ok(())
    }

    fn has(&self, token: Token) -> bool {
        self.0 & Self::bit(token) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/a"),
        (":authority", "example.com"),
    ];

    fn list(fields: &[(&str, &str)]) -> FieldList {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        list
    }

    fn request(fields: &[(&str, &str)]) -> Result<RequestFacts, Malformed> {
        check_request(&mut list(fields), false)
    }

    fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [&GET[..], more].concat()
    }

    #[test]
    fn a_plain_request_is_well_formed() {
        let facts = request(&with(&[
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("content-length", "7"),
        ]));
        let want = RequestFacts {
            method: Method::Get,
            upgrade: false,
            content_length: Some(7),
            is_grpc: true,
            expects_continue: false,
            claims: false,
        };
        assert_eq!(facts, Ok(want));
    }

    #[test]
    fn malformed_requests_are_refused_with_their_reason() {
        use Malformed::*;
        for (fields, reason) in [
            (with(&[("Upper", "x")]), Field),
            (with(&[("x", "a\nb")]), Field),
            (with(&[(":path", "/b")]), Pseudo),
            (with(&[("x", "1"), (":path", "/b")]), Pseudo),
            (with(&[(":status", "200")]), Pseudo),
            (with(&[(":protocol", "websocket")]), Pseudo),
            (with(&[(":other", "x")]), Field),
            (GET[1..].to_vec(), Missing),
            (vec![GET[0], GET[2], GET[3]], Missing),
            (vec![GET[0], GET[1], GET[3]], Missing),
            (GET[..3].to_vec(), Authority),
            (vec![(":method", "G T"), GET[1], GET[2], GET[3]], Method),
            (vec![(":method", ""), GET[1], GET[2], GET[3]], Method),
            (vec![GET[0], GET[1], (":path", ""), GET[3]], Target),
            (vec![GET[0], GET[1], (":path", "*"), GET[3]], Target),
            (vec![GET[0], GET[1], (":path", "/a b"), GET[3]], Target),
            (vec![GET[0], (":scheme", "ht tp"), GET[2], GET[3]], Target),
            (with(&[("host", "example.org")]), Authority),
            (with(&[("host", "example.com"), ("host", "example.com")]), Authority),
            (with(&[("connection", "close")]), ConnectionField),
            (with(&[("transfer-encoding", "chunked")]), ConnectionField),
            (with(&[("proxy-connection", "x")]), ConnectionField),
            (with(&[("keep-alive", "x")]), ConnectionField),
            (with(&[("upgrade", "x")]), ConnectionField),
            (with(&[("te", "gzip")]), ConnectionField),
            (with(&[("te", "trailers, deflate")]), ConnectionField),
            (with(&[("content-length", "1"), ("content-length", "2")]), ContentLength),
            (with(&[("content-length", "x")]), ContentLength),
            (vec![(":method", "CONNECT"), GET[2], GET[3]], Target),
        ] {
            assert_eq!(request(&fields), Err(reason), "{fields:?}");
        }
        assert_eq!(
            check_request(&mut list(&with(&[("content-length", "1")])), true),
            Err(ContentLength)
        );
    }

    #[test]
    fn the_authority_is_in_one_place_afterwards() {
        let mut repeated = list(&with(&[("host", "EXAMPLE.com"), ("x", "1")]));
        assert!(check_request(&mut repeated, true).is_ok());
        assert_eq!(
            (repeated.get(Token::AUTHORITY), repeated.get(Token::HOST)),
            (Some(&b"example.com"[..]), None)
        );

        let mut only_host = list(&[GET[0], GET[1], GET[2], ("host", "a.b"), ("x", "1")]);
        assert!(check_request(&mut only_host, true).is_ok());
        assert_eq!(
            (only_host.get(Token::AUTHORITY), only_host.get(Token::HOST)),
            (Some(&b"a.b"[..]), None)
        );
        assert!(
            only_host.fields()[0].token() == Token::AUTHORITY,
            "a pseudo-field stands before the others"
        );
    }

    #[test]
    fn equal_lengths_become_one() {
        let mut twice = list(&with(&[("content-length", "5"), ("content-length", "5")]));
        assert_eq!(
            check_request(&mut twice, false).map(|facts| facts.content_length),
            Ok(Some(5))
        );
        assert_eq!(
            twice
                .fields()
                .iter()
                .filter(|field| field.token() == Token::CONTENT_LENGTH)
                .count(),
            1
        );
    }

    #[test]
    fn connect_has_an_authority_only_and_options_may_have_an_asterisk() {
        let connect = request(&[(":method", "CONNECT"), (":authority", "a:1")]);
        assert_eq!(connect.map(|facts| facts.method), Ok(Method::Connect));
        for wrong in ["a", "a:", "a:x"] {
            let connect = request(&[(":method", "CONNECT"), (":authority", wrong)]);
            assert_eq!(connect, Err(Malformed::Target), "{wrong}");
        }
        assert!(request(&[(":method", "OPTIONS"), GET[1], (":path", "*"), GET[3]]).is_ok());
    }

    #[test]
    fn an_extended_connect_is_a_get_that_asks_for_a_protocol() {
        let mut fields = list(&[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", "/chat"),
            (":authority", "example.com"),
            ("sec-websocket-version", "13"),
        ]);
        let facts = check_request(&mut fields, false).expect("well formed");
        assert_eq!((facts.method, facts.upgrade), (Method::Get, true));
        assert_eq!(fields.get(Token::METHOD), Some(&b"GET"[..]));
        assert_eq!(fields.get(Token::UPGRADE), Some(&b"websocket"[..]));
        assert_eq!(fields.get(Token::PROTOCOL), None);
        let connect = |protocol: &str, rest: &[(&str, &str)]| {
            request(&[&[(":method", "CONNECT"), (":protocol", protocol)], rest].concat()).map(drop)
        };
        assert_eq!(connect("websocket", &GET[1..]), Ok(()));
        for (protocol, rest, reason) in [
            ("h2c", &GET[1..], Malformed::Pseudo),
            ("a, b", &GET[1..], Malformed::Pseudo),
            ("", &GET[1..], Malformed::Pseudo),
            ("websocket", &GET[2..], Malformed::Missing),
            ("websocket", &[GET[1], GET[3]], Malformed::Missing),
            ("websocket", &GET[1..3], Malformed::Authority),
        ] {
            assert_eq!(connect(protocol, rest), Err(reason), "{protocol} {rest:?}");
        }
        assert_eq!(
            connect("websocket", &with(&[("content-length", "1")])[1..]),
            Err(Malformed::ContentLength)
        );
    }

    #[test]
    fn responses_have_their_status_first_and_alone() {
        let check = |fields: &[(&str, &str)]| check_response(&mut list(fields));
        let ok = check(&[(":status", "200"), ("content-length", "3")]);
        assert_eq!(
            ok,
            Ok(ResponseFacts {
                status: 200,
                content_length: Some(3)
            })
        );
        for (fields, reason) in [
            (&[("a", "b"), (":status", "200")][..], Malformed::Pseudo),
            (&[(":status", "200"), (":status", "200")], Malformed::Pseudo),
            (&[(":status", "200"), (":path", "/")], Malformed::Pseudo),
            (&[("a", "b")], Malformed::Missing),
            (&[(":status", "99")], Malformed::Status),
            (&[(":status", "600")], Malformed::Status),
            (&[(":status", "101")], Malformed::Status),
            (&[(":status", "20x")], Malformed::Status),
            (
                &[(":status", "200"), ("connection", "close")],
                Malformed::ConnectionField,
            ),
            (&[(":status", "200"), ("a", "\r")], Malformed::Field),
        ] {
            assert_eq!(check(fields), Err(reason), "{fields:?}");
        }
    }

    #[test]
    fn trailers_have_no_pseudo_fields() {
        assert_eq!(check_trailers(&list(&[("grpc-status", "0")])), Ok(()));
        assert_eq!(check_trailers(&list(&[(":status", "200")])), Err(Malformed::Pseudo));
        assert_eq!(
            check_trailers(&list(&[("connection", "x")])),
            Err(Malformed::ConnectionField)
        );
        assert_eq!(check_trailers(&list(&[("a", "\0")])), Err(Malformed::Field));
    }
}
