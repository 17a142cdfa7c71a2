//! Heads out (RFC 9112 3, 4): a field list in HTTP/2's vocabulary becomes a start line and fields.
//!
//! Pseudo-fields become the start line and `host`, cookies cut in pieces are joined (RFC 9113 8.2.3), fields of a
//! connection are written only here. A field marked bad is never written: it could end the line.

use super::{Framing, Persistence, Version};
use crate::head::facts::{Method, ResponseFacts};
use crate::head::{Field, FieldList, Token, decimal3};

/// How a request's body is sent to an endpoint. `ended`: none follows.
pub fn request_framing(content_length: Option<u64>, method: Method, ended: bool) -> Framing {
    match (content_length, ended) {
        (Some(length), _) => Framing::Length(length),
        (None, false) => Framing::Chunked,
        // Where content would mean something its absence is told (RFC 9110 8.6).
        (None, true) => match method {
            Method::Post | Method::Put => Framing::Length(0),
            Method::Get
            | Method::Head
            | Method::Delete
            | Method::Options
            | Method::Trace
            | Method::Connect
            | Method::Other => Framing::None,
        },
    }
}

/// How a response's body is sent to a client. `ended`: none follows.
pub fn response_framing(facts: &ResponseFacts, request: Method, client: Version, ended: bool) -> Framing {
    match (facts.is_bodiless(request), facts.content_length, ended, client) {
        (true, _, _, _) => Framing::None,
        (false, Some(length), _, _) => Framing::Length(length),
        (false, None, true, _) => Framing::Length(0),
        (false, None, false, Version::Http11) => Framing::Chunked,
        (false, None, false, Version::Http10) => Framing::UntilClose,
    }
}

/// Appends a request's head.
pub fn put_request(out: &mut Vec<u8>, list: &FieldList, framing: Framing) {
    put_start(out, list);
    put_fields(out, list);
    if list.find(Token::TE).is_some() {
        // RFC 9110 10.1.4: what is said of a connection is named in `connection`.
        out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    put_framing(out, list, framing);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a request for another protocol, the list's `upgrade`. `connection` says that alone: not every
/// endpoint reads further.
pub fn put_upgrade_request(out: &mut Vec<u8>, list: &FieldList, framing: Framing) {
    put_start(out, list);
    put_fields(out, list);
    put_upgrade(out, list);
    put_framing(out, list, framing);
    out.extend_from_slice(b"\r\n");
}

fn put_upgrade(out: &mut Vec<u8>, list: &FieldList) {
    if let Some(protocols) = list.get(Token::UPGRADE) {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
        out.extend_from_slice(protocols);
        out.extend_from_slice(b"\r\n");
    }
}

/// The start line and `host`; CONNECT has the authority alone (RFC 9112 3.2.3).
fn put_start(out: &mut Vec<u8>, list: &FieldList) {
    let part = |token| list.get(token).unwrap_or_default();
    out.extend_from_slice(part(Token::METHOD));
    out.push(b' ');
    out.extend_from_slice(list.get(Token::PATH).unwrap_or_else(|| part(Token::AUTHORITY)));
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(part(Token::AUTHORITY));
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer behind which a tunnel begins: 101 with its protocol, or 2xx to CONNECT. It has no length
/// (RFC 9110 8.6).
pub fn put_opening(out: &mut Vec<u8>, list: &FieldList, status: u16) {
    put_status(out, status);
    put_fields(out, list);
    put_upgrade(out, list);
    out.extend_from_slice(b"\r\n");
}

fn put_status(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&decimal3(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a response's head, interim or final.
pub fn put_response(
    out: &mut Vec<u8>,
    list: &FieldList,
    status: u16,
    framing: Framing,
    persistence: Persistence,
    client: Version,
) {
    put_status(out, status);
    put_fields(out, list);
    if status >= 200 {
        put_framing(out, list, framing);
        match (persistence, client) {
            (Persistence::Close, _) => out.extend_from_slice(b"connection: close\r\n"),
            (Persistence::KeepAlive, Version::Http10) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (Persistence::KeepAlive, Version::Http11) => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// `content-length` comes from the list where it has one.
fn put_framing(out: &mut Vec<u8>, list: &FieldList, framing: Framing) {
    match framing {
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Length(0) if list.find(Token::CONTENT_LENGTH).is_none() => {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        Framing::Length(_) | Framing::None | Framing::UntilClose => {}
    }
}

fn put_fields(out: &mut Vec<u8>, list: &FieldList) {
    let mut cookies = 0;
    for field in list.fields() {
        let token = field.token();
        match token {
            Token::OTHER => put_field(out, list, field),
            Token::COOKIE => cookies += 1,
            Token::TE | Token::HOST => {}
            _ if token.is_pseudo() || token.is_connection_specific() => {}
            _ => put_field(out, list, field),
        }
    }
    if cookies > 0 {
        put_cookies(out, list);
    }
}

fn put_cookies(out: &mut Vec<u8>, list: &FieldList) {
    let mut separator: &[u8] = b"cookie: ";
    for field in list
        .fields()
        .iter()
        .filter(|field| field.token() == Token::COOKIE && !field.is_bad())
    {
        out.extend_from_slice(separator);
        out.extend_from_slice(list.value(field));
        separator = b"; ";
    }
    if separator == b"; " {
        out.extend_from_slice(b"\r\n");
    }
}

/// One field line.
pub(super) fn put_field(out: &mut Vec<u8>, list: &FieldList, field: &Field) {
    if field.is_bad() {
        return;
    }
    out.extend_from_slice(list.name(field));
    out.extend_from_slice(b": ");
    out.extend_from_slice(list.value(field));
    out.extend_from_slice(b"\r\n");
}

/// The phrase registered for a status (RFC 9110 15); empty for others, which is allowed.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
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

    fn request(fields: &[(&str, &str)], framing: Framing) -> String {
        let mut out = Vec::new();
        put_request(&mut out, &list(fields), framing);
        String::from_utf8(out).expect("text")
    }

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/a?b"),
        (":authority", "example.com:8080"),
    ];

    #[test]
    fn a_request_has_its_start_line_and_host_first() {
        let fields = [
            &GET[..],
            &[("x", "1"), ("te", "trailers"), ("connection", "x"), ("host", "other")],
        ]
        .concat();
        assert_eq!(
            request(&fields, Framing::None),
            "GET /a?b HTTP/1.1\r\nhost: example.com:8080\r\nx: 1\r\nte: trailers\r\nconnection: te\r\n\r\n"
        );
    }

    #[test]
    fn cookies_are_joined() {
        let fields = [&GET[..], &[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2")]].concat();
        assert!(request(&fields, Framing::None).ends_with("\r\nx: 1\r\ncookie: a=1; b=2\r\n\r\n"));
    }

    #[test]
    fn a_bad_field_is_never_written() {
        let fields = [&GET[..], &[("x", "1\r\ny: 2"), ("cookie", "a\n"), ("Upper", "1")]].concat();
        assert_eq!(
            request(&fields, Framing::None),
            "GET /a?b HTTP/1.1\r\nhost: example.com:8080\r\n\r\n"
        );
    }

    #[test]
    fn the_body_of_a_request_has_a_length_or_chunks() {
        let with_length = [&GET[..], &[("content-length", "5")]].concat();
        assert!(request(&with_length, Framing::Length(5)).ends_with("content-length: 5\r\n\r\n"));
        assert!(request(&GET, Framing::Chunked).ends_with("transfer-encoding: chunked\r\n\r\n"));
        assert!(request(&GET, Framing::Length(0)).ends_with("content-length: 0\r\n\r\n"));
        assert_eq!(request_framing(Some(5), Method::Post, false), Framing::Length(5));
        assert_eq!(request_framing(None, Method::Get, false), Framing::Chunked);
        assert_eq!(request_framing(None, Method::Get, true), Framing::None);
        assert_eq!(request_framing(None, Method::Post, true), Framing::Length(0));
    }

    #[test]
    fn the_body_of_a_response_fits_the_client() {
        let facts = |status, content_length| ResponseFacts { status, content_length };
        let framing =
            |status, length, method, client, ended| response_framing(&facts(status, length), method, client, ended);
        use Version::{Http10, Http11};
        assert_eq!(framing(200, Some(5), Method::Get, Http11, false), Framing::Length(5));
        assert_eq!(framing(200, None, Method::Get, Http11, false), Framing::Chunked);
        assert_eq!(framing(200, None, Method::Get, Http10, false), Framing::UntilClose);
        assert_eq!(framing(200, None, Method::Get, Http11, true), Framing::Length(0));
        assert_eq!(framing(200, Some(5), Method::Head, Http11, true), Framing::None);
        assert_eq!(framing(304, Some(5), Method::Get, Http11, true), Framing::None);
    }

    #[test]
    fn a_response_tells_whether_the_connection_stays() {
        let put = |persistence, client| {
            let mut out = Vec::new();
            let fields = list(&[(":status", "200"), ("content-length", "2"), ("keep-alive", "x")]);
            put_response(&mut out, &fields, 200, Framing::Length(2), persistence, client);
            String::from_utf8(out).expect("text")
        };
        let start = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n";
        assert_eq!(put(Persistence::KeepAlive, Version::Http11), format!("{start}\r\n"));
        assert_eq!(
            put(Persistence::KeepAlive, Version::Http10),
            format!("{start}connection: keep-alive\r\n\r\n")
        );
        assert_eq!(
            put(Persistence::Close, Version::Http11),
            format!("{start}connection: close\r\n\r\n")
        );
    }

    #[test]
    fn an_interim_response_says_nothing_of_body_or_connection() {
        let mut out = Vec::new();
        let fields = list(&[(":status", "103"), ("link", "</a>")]);
        put_response(
            &mut out,
            &fields,
            103,
            Framing::None,
            Persistence::Close,
            Version::Http11,
        );
        assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    }
}
