//! Tests of the HTTP/1.1 head reader.

use super::scan::OPTIONS_MAX;
use super::*;

const LIMITS: SectionLimits = SectionLimits {
    size_max: 4096,
    fields_max: 20,
};

fn request(text: &str) -> Result<Option<(Request, FieldList)>, Rejected> {
    let mut list = FieldList::new();
    let read = read_request(text.as_bytes(), b"http", &mut list, LIMITS)?;
    Ok(read.map(|request| (request, list)))
}

fn whole_request(text: &str) -> (Request, Vec<(String, String)>) {
    let (request, list) = request(text).expect("well formed").expect("complete");
    (request, texts(&list))
}

type Texts = Vec<(String, String)>;

fn response(text: &str, method: Method) -> Result<Option<(Response, Texts)>, Rejected> {
    let mut list = FieldList::new();
    let read = read_response(text.as_bytes(), method, &mut list, LIMITS)?;
    Ok(read.map(|response| (response, texts(&list))))
}

fn whole_response(text: &str, method: Method) -> (Response, Vec<(String, String)>) {
    response(text, method).expect("well formed").expect("complete")
}

fn texts(list: &FieldList) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    list.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_request_becomes_pseudo_fields_and_lower_case_names() {
    let text = "POST /a?b HTTP/1.1\r\nHost: Example.com:80\r\nX-Route:  a \r\nContent-Length: 3\r\n\r\nabc";
    let (request, fields) = whole_request(text);
    assert_eq!(request.len, text.len() - 3);
    assert_eq!(request.framing, Framing::Length(3));
    assert_eq!(request.persistence, Persistence::KeepAlive);
    assert_eq!(request.facts.method, Method::Post);
    let want = [
        (":authority", "Example.com:80"),
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a?b"),
        ("x-route", "a"),
        ("content-length", "3"),
    ];
    assert_eq!(fields, pairs(&want));
}

#[test]
fn every_cut_of_a_head_is_incomplete() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(request(&text[..end]).map(|read| read.is_some()), Ok(false), "{end}");
    }
    assert!(request(text).is_ok_and(|read| read.is_some()));
    assert!(may_be_complete(text.as_bytes(), 0));
    assert!(may_be_complete(text.as_bytes(), text.len() - 1));
    assert!(!may_be_complete(&text.as_bytes()[..text.len() - 2], 0));
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for (text, why) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Malformed::Syntax),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Malformed::Syntax),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Malformed::Syntax),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Syntax),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", Malformed::Syntax),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", Malformed::Syntax),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Malformed::Syntax),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", Malformed::Syntax),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n", Malformed::Syntax),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Malformed::Syntax),
        ("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", Malformed::Syntax),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Syntax),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Syntax),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Malformed::Syntax),
        ("G\tT / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Syntax),
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
        ("GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
        ("GET / HTTP/1.1\r\n\r\n", Malformed::Authority),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Malformed::Authority),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Malformed::Authority),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Malformed::Authority),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Malformed::Authority),
        ("GET http://a/ HTTP/1.1\r\nHost: a/b\r\n\r\n", Malformed::Authority),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Malformed::Framing,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Malformed::Framing,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            Malformed::Framing,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            Malformed::Framing,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            Malformed::Framing,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            Malformed::Framing,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
            Malformed::Framing,
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            Malformed::Framing,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            Malformed::ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            Malformed::ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            Malformed::ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            Malformed::ContentLength,
        ),
    ] {
        assert_eq!(request(text).map(|_| ()), Err(Rejected::Malformed(why)), "{text:?}");
    }
}

#[test]
fn what_is_understood_and_not_done_is_501() {
    for text in [
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: br, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ] {
        assert_eq!(request(text).map(|_| ()), Err(Rejected::NotImplemented), "{text:?}");
    }
    assert_eq!(Rejected::NotImplemented.status(), 501);
}

#[test]
fn heads_are_bounded_in_bytes_and_fields() {
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(4096));
    assert_eq!(request(&long).map(|_| ()), Err(Rejected::TooLarge));
    let long = format!("{long}\r\n\r\n");
    assert_eq!(request(&long).map(|_| ()), Err(Rejected::TooLarge));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(21));
    assert_eq!(request(&many).map(|_| ()), Err(Rejected::TooMany));
    let more = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X:y\r\n".repeat(FIELDS_MAX));
    assert_eq!(request(&more).map(|_| ()), Err(Rejected::TooMany));
}

#[test]
fn an_absolute_target_wins_over_host() {
    for (target, path) in [
        ("http://b:8080/x?y", "/x?y"),
        ("HTTP://b:8080", "/"),
        ("https://b:8080?q", "/?q"),
    ] {
        let (_, fields) = whole_request(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let want = [
            (":authority", "b:8080"),
            (":method", "GET"),
            (":scheme", "http"),
            (":path", path),
        ];
        assert_eq!(fields, pairs(&want), "{target}");
    }
    let (_, fields) = whole_request("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(fields.contains(&(":path".to_owned(), "*".to_owned())));
}

#[test]
fn fields_of_the_connection_are_gone_and_so_is_what_they_name() {
    let (request, fields) = whole_request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop , upgrade, content-length, host\r\nX-Hop: 1\r\n\
         Keep-Alive: 5\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nProxy-Connection: x\r\nTE: trailers, gzip\r\n\
         Content-Length: 0\r\nx-end: 1\r\n\r\n",
    );
    assert_eq!(request.persistence, Persistence::Close);
    let want = [
        (":authority", "a"),
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        ("content-length", "0"),
        ("x-end", "1"),
        ("te", "trailers"),
    ];
    assert_eq!(fields, pairs(&want));
    let options = "x,".repeat(OPTIONS_MAX + 1);
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {options}\r\n\r\n");
    assert_eq!(
        super::tests::request(&text).map(|_| ()),
        Err(Rejected::Malformed(Malformed::ConnectionField))
    );
}

#[test]
fn protocols_asked_for_are_one_field_without_those_that_carry_requests() {
    for (lines, want) in [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
        (
            "Connection: keep-alive, upgrade\r\nUpgrade: a/1, b\r\nupgrade: c\r\n",
            Some("a/1, b, c"),
        ),
        ("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", Some("websocket")),
        (
            "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
            None,
        ),
        ("Connection: upgrade\r\nUpgrade: HTTP/2.0, TLS/1.0\r\n", None),
        ("Connection: upgrade\r\nUpgrade: a b\r\n", None),
        ("Connection: upgrade\r\n", None),
        ("Upgrade: websocket\r\n", None),
        ("Connection: upgrade\r\nUpgrade: 1,2,3,4,5,6,7,8,9\r\n", None),
    ] {
        let (request, fields) = whole_request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        let upgrade = fields.iter().find(|(name, _)| name == "upgrade");
        assert_eq!(upgrade.map(|(_, value)| value.as_str()), want, "{lines}");
        assert_eq!(request.facts.upgrade, want.is_some(), "{lines}");
        assert_eq!(fields.len(), 4 + usize::from(want.is_some()), "{fields:?}");
    }
    let old = "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(
        !whole_request(old).0.facts.upgrade,
        "HTTP/1.0 asks for nothing (RFC 9110 7.8)"
    );
}

#[test]
fn connect_names_a_host_and_a_port_and_has_no_body() {
    let (request, fields) = whole_request("CONNECT b:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        (request.facts.method, request.framing),
        (Method::Connect, Framing::Length(0))
    );
    assert_eq!(fields, pairs(&[(":authority", "b:443"), (":method", "CONNECT")]));
    for (target, more, why) in [
        ("b", "", Malformed::Target),
        ("b:", "", Malformed::Target),
        ("/b", "", Malformed::Target),
        ("http://b:443/", "", Malformed::Target),
        ("u@b:443", "", Malformed::Target),
        ("b:443", "Content-Length: 1\r\n", Malformed::Framing),
        ("b:443", "Transfer-Encoding: chunked\r\n", Malformed::Framing),
    ] {
        let text = format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        assert_eq!(
            super::tests::request(&text).map(|_| ()),
            Err(Rejected::Malformed(why)),
            "{target} {more}"
        );
    }
}

#[test]
fn a_switch_names_its_protocol_and_what_opens_a_tunnel_has_no_length() {
    let text = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nContent-Length: 5\r\n\r\n";
    let (response, fields) = whole_response(text, Method::Get);
    assert_eq!(response.framing, Framing::None);
    assert_eq!(fields, pairs(&[(":status", "101"), ("upgrade", "WebSocket")]));
    for lines in [
        "",
        "Upgrade: x\r\n",
        "Connection: upgrade\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\n",
    ] {
        let text = format!("HTTP/1.1 101 X\r\n{lines}\r\n");
        let read = super::tests::response(&text, Method::Get).map(|_| ());
        assert_eq!(read, Err(Rejected::Malformed(Malformed::Status)), "{lines}");
    }
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (response, fields) = whole_response(text, Method::Connect);
    assert_eq!((response.framing, fields.len()), (Framing::None, 1));
}

#[test]
fn persistence_follows_version_and_options() {
    for (version, option, stays) in [
        ("1.1", "", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
    ] {
        let (request, _) = whole_request(&format!("GET / HTTP/{version}\r\nHost: a\r\n{option}\r\n"));
        assert_eq!(
            request.persistence == Persistence::KeepAlive,
            stays,
            "{version} {option}"
        );
    }
}

#[test]
fn http_1_0_needs_no_host_and_waits_for_nothing() {
    let (request, fields) = whole_request("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n");
    assert!(!request.facts.expects_continue);
    assert!(fields.iter().all(|(name, _)| name != ":authority"));
    let (request, _) = whole_request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n");
    assert!(request.facts.expects_continue);
}

#[test]
fn one_empty_line_before_a_request_is_ignored() {
    let (request, _) = whole_request("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(request.len, "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".len());
}

#[test]
fn a_response_becomes_status_and_fields() {
    let (response, fields) = whole_response(
        "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
        Method::Get,
    );
    assert_eq!(
        response.facts,
        ResponseFacts {
            status: 200,
            content_length: Some(2)
        }
    );
    assert_eq!(
        (response.framing, response.persistence),
        (Framing::Length(2), Persistence::Close)
    );
    assert_eq!(fields, pairs(&[(":status", "200"), ("content-length", "2")]));
}

#[test]
fn the_end_of_a_response_body_is_known_as_the_rfc_says() {
    for (text, method, framing, stays) in [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
            Method::Get,
            Framing::Chunked,
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", Method::Get, Framing::UntilClose, false),
        ("HTTP/1.0 200 OK\r\n\r\n", Method::Get, Framing::UntilClose, false),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
            Method::Get,
            Framing::Length(1),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            Method::Head,
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Method::Head,
            Framing::None,
            true,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", Method::Get, Framing::None, true),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            Method::Get,
            Framing::None,
            true,
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", Method::Get, Framing::None, true),
        (
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            Method::Get,
            Framing::Length(0),
            true,
        ),
    ] {
        let (response, _) = whole_response(text, method);
        assert_eq!(
            (response.framing, response.persistence == Persistence::KeepAlive),
            (framing, stays),
            "{text:?}"
        );
    }
}

#[test]
fn responses_in_doubt_are_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 600 X\r\n\r\n",
        "HTTP/1.1 099 X\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        assert!(
            matches!(response(text, Method::Get), Err(Rejected::Malformed(_))),
            "{text:?}"
        );
    }
}

#[test]
fn a_length_that_cannot_be_is_not_passed_on() {
    let (_, fields) = whole_response("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Method::Get);
    assert_eq!(fields, pairs(&[(":status", "204")]));
}
