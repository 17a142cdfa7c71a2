//! What the engine wants to know of a head, and what can be wrong with one; the same for both protocols.

use super::octets::any_below_or_of;
use super::{FieldList, Token, is_token};

/// The methods that something depends on (RFC 9110 9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Get,
    /// Its response has no body (RFC 9110 9.3.2).
    Head,
    Post,
    Put,
    Delete,
    /// The only one whose target may be `*` (RFC 9110 7.1).
    Options,
    Trace,
    /// Asks for a tunnel (RFC 9110 9.3.6).
    Connect,
    Other,
}

impl Method {
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    /// Whether sending it twice means the same as sending it once (RFC 9110 9.2.2).
    pub const fn is_idempotent(self) -> bool {
        match self {
            Method::Get | Method::Head | Method::Put | Method::Delete | Method::Options | Method::Trace => true,
            Method::Post | Method::Connect | Method::Other => false,
        }
    }
}

/// A checked request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestFacts {
    pub method: Method,
    /// The list has an `upgrade` field: the client asks for another protocol (RFC 9110 7.8, RFC 8441).
    pub upgrade: bool,
    pub content_length: Option<u64>,
    /// `content-type: application/grpc` with anything that may follow it: local replies are gRPC statuses.
    pub is_grpc: bool,
    /// The client waits for 100 (RFC 9110 10.1.1).
    pub expects_continue: bool,
    /// A field name has an underscore or speaks of whom the client forwards for ([`super::Field::is_claim`]).
    pub claims: bool,
}

/// A checked response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResponseFacts {
    /// 100 to 599.
    pub status: u16,
    pub content_length: Option<u64>,
}

impl ResponseFacts {
    /// 1xx: another head follows (RFC 9110 15.2).
    pub const fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// Whether what follows is a tunnel and no body: 2xx to CONNECT (RFC 9110 9.3.6).
    pub fn opens_tunnel(&self, request: Method) -> bool {
        request == Method::Connect && matches!(self.status, 200..=299)
    }

    /// Whether no body can follow whatever the fields say (RFC 9110 6.4.1).
    pub fn is_bodiless(&self, request: Method) -> bool {
        self.is_interim() || request == Method::Head || matches!(self.status, 204 | 304)
    }

    /// The body bytes that must come; `None` when only the end tells.
    pub fn body_length(&self, request: Method) -> Option<u64> {
        if self.is_bodiless(request) {
            Some(0)
        } else {
            self.content_length
        }
    }
}

/// What is wrong with a field section (RFC 9113 8.1.1, RFC 9112 3, 5, 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// A byte that no name or value may have.
    Field,
    /// A pseudo-field that is unknown, repeated, behind a regular field or in the wrong kind of section.
    Pseudo,
    /// `:method`, `:scheme` or `:path` (or `:status`) is missing.
    Missing,
    /// Not a method.
    Method,
    /// Not a target that this method may have.
    Target,
    /// No authority, several, contradicting ones, or no host name in it.
    Authority,
    /// A field of an HTTP/1.1 connection inside HTTP/2.
    ConnectionField,
    /// Not a number, several numbers, or not what follows.
    ContentLength,
    /// Not three digits from 100 to 599.
    Status,
    /// Length and coding of the body contradict each other or are not understood.
    Framing,
    /// The start line, the line ends or the syntax of HTTP/1.1.
    Syntax,
}

impl Malformed {
    /// For logs.
    pub const fn name(self) -> &'static str {
        match self {
            Malformed::Field => "malformed field",
            Malformed::Pseudo => "misplaced pseudo-field",
            Malformed::Missing => "missing pseudo-field",
            Malformed::Method => "malformed method",
            Malformed::Target => "malformed target",
            Malformed::Authority => "malformed authority",
            Malformed::ConnectionField => "connection-specific field",
            Malformed::ContentLength => "malformed content-length",
            Malformed::Status => "malformed status",
            Malformed::Framing => "contradicting body length",
            Malformed::Syntax => "malformed syntax",
        }
    }
}

/// Gathers `content-length` over a section: equal repetitions are one (RFC 9110 8.6), anything else is malformed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContentLength {
    pub value: Option<u64>,
    pub repeated: bool,
}

impl ContentLength {
    pub fn take(&mut self, value: &[u8]) -> Result<(), Malformed> {
        // Zeros in front are octal to some.
        let plain = value.len() == 1 || value.first() != Some(&b'0');
        let number = decimal(value).filter(|_| plain).ok_or(Malformed::ContentLength)?;
        match self.value {
            None => self.value = Some(number),
            Some(before) if before == number => self.repeated = true,
            Some(_) => return Err(Malformed::ContentLength),
        }
        Ok(())
    }

    /// Leaves one field where there were several equal ones.
    pub fn tidy(self, list: &mut FieldList) {
        if self.repeated {
            let mut first = true;
            list.retain(|token, _, _| token != Token::CONTENT_LENGTH || std::mem::replace(&mut first, false));
        }
    }
}

/// `1*DIGIT`, at most 18 of them.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0'))
    })
}

/// Whether a target may be sent on for this method: origin form, or `*` for OPTIONS (RFC 9112 3.2). No control
/// character, no space (it would end the target in HTTP/1.1), no fragment.
pub fn is_target(path: &[u8], method: Method) -> bool {
    match path.first() {
        Some(b'/') => !any_below_or_of(path, b'!', [0x7f, b'#']),
        Some(b'*') => path.len() == 1 && method == Method::Options,
        Some(_) | None => false,
    }
}

/// Whether a protocol a client asks for may be spoken through a tunnel: a name and perhaps a version (RFC 9110 7.8),
/// and none that carries requests, which have to be routed one by one.
pub fn may_be_tunnelled(protocol: &[u8]) -> bool {
    const NEVER: [&[u8]; 5] = [b"http", b"h2c", b"h2", b"h3", b"tls"];
    let mut parts = protocol.splitn(2, |byte| *byte == b'/');
    let name = parts.next().unwrap_or_default();
    protocol.len() <= PROTOCOL_BYTES_MAX
        && is_token(name)
        && parts.next().is_none_or(is_token)
        && !NEVER.iter().any(|never| name.eq_ignore_ascii_case(never))
}

/// Longest name of a protocol that is passed on.
const PROTOCOL_BYTES_MAX: usize = 64;

/// `application/grpc`, then the end, `+` or `;` (gRPC over HTTP/2, Requests). Case does not matter (RFC 9110 8.3.1).
pub fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    content_type.split_at_checked(GRPC.len()).is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_is_one_number() {
        let take = |values: &[&[u8]]| {
            let mut length = ContentLength::default();
            values
                .iter()
                .try_for_each(|value| length.take(value))
                .map(|()| (length.value, length.repeated))
        };
        assert_eq!(take(&[b"42"]), Ok((Some(42), false)));
        assert_eq!(take(&[b"42", b"42"]), Ok((Some(42), true)));
        for wrong in [
            &b""[..],
            b"+1",
            b"-1",
            b"1, 1",
            b"1 ",
            b"0x1",
            b"01",
            b"1e3",
            b"1234567890123456789",
        ] {
            assert_eq!(take(&[wrong]), Err(Malformed::ContentLength));
        }
        assert_eq!(take(&[b"1", b"2"]), Err(Malformed::ContentLength));
    }

    #[test]
    fn targets_are_origin_form_or_the_asterisk_of_options() {
        for (path, method, allowed) in [
            (&b"/"[..], Method::Get, true),
            (b"/a?b=c#d", Method::Get, false),
            (b"/a b", Method::Get, false),
            (b"/a\x7f", Method::Get, false),
            (b"/\xc3\xa9", Method::Get, true),
            (b"*", Method::Options, true),
            (b"*", Method::Get, false),
            (b"**", Method::Options, false),
            (b"", Method::Get, false),
            (b"a", Method::Get, false),
            (b"http://a/", Method::Get, false),
        ] {
            assert_eq!(is_target(path, method), allowed, "{path:?}");
        }
    }

    #[test]
    fn protocols_that_carry_requests_are_not_tunnelled() {
        for (protocol, allowed) in [
            (&b"websocket"[..], true),
            (b"WebSocket", true),
            (b"SPDY/3.1", true),
            (b"connect-udp", true),
            (b"h2c", false),
            (b"H2C", false),
            (b"HTTP/2.0", false),
            (b"http/1.1", false),
            (b"TLS/1.0", false),
            (b"", false),
            (b"a b", false),
            (b"a/", false),
            (b"a/1/2", false),
            (b"a\r\nb", false),
        ] {
            assert_eq!(may_be_tunnelled(protocol), allowed, "{protocol:?}");
        }
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (text, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC; x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(text.as_bytes()), grpc, "{text}");
        }
    }

    #[test]
    fn a_response_without_body_is_known_by_method_and_status() {
        let response = |status| ResponseFacts {
            status,
            content_length: Some(9),
        };
        assert_eq!(response(200).body_length(Method::Get), Some(9));
        assert_eq!(response(200).body_length(Method::Head), Some(0));
        assert_eq!(response(304).body_length(Method::Get), Some(0));
        assert_eq!(response(204).body_length(Method::Get), Some(0));
        assert_eq!(response(103).body_length(Method::Get), Some(0));
    }
}
