//! Properties of the HTTP/1.1 codec: what is read is what was written, however it is cut, and what is accepted means
//! the same to the next reader.

use gateway_http::h1::body::Reader;
use gateway_http::h1::chunked::{self, Piece, TrailerLimits};
use gateway_http::h1::head::{Request, may_be_complete, read_request, read_response};
use gateway_http::h1::{Framing, Persistence, Rejected, Version, write};
use gateway_http::h2::hpack::SectionLimits;
use gateway_http::head::facts::Method;
use gateway_http::head::{FieldList, Token};
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: SectionLimits = SectionLimits {
    size_max: 8192,
    fields_max: 100,
};
const TRAILER_LIMITS: TrailerLimits = TrailerLimits {
    bytes_max: 8192,
    fields_max: 50,
};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn fields(list: &FieldList) -> Fields {
    list.iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

fn read(bytes: &[u8]) -> Result<Option<(Request, FieldList)>, Rejected> {
    let mut list = FieldList::new();
    Ok(read_request(bytes, b"http", &mut list, LIMITS)?.map(|request| (request, list)))
}

/// Decodes a body that arrives in pieces of these sizes; what is not used is given again with more behind it.
fn read_body(framing: Framing, input: &[u8], sizes: &[usize]) -> Result<Option<(Vec<u8>, Fields, usize)>, Rejected> {
    let (mut reader, mut trailers, mut body) = (Reader::new(framing), FieldList::new(), Vec::new());
    let (mut used, mut end) = (0, 0);
    for size in sizes.iter().copied().chain([input.len()]) {
        end = (end + size).min(input.len());
        let window = &input[used..end];
        let mut at = 0;
        loop {
            match reader.next(window, &mut at, &mut trailers, TRAILER_LIMITS)? {
                Piece::Data(range) => body.extend_from_slice(&window[range]),
                Piece::More => break,
                Piece::End => return Ok(Some((body, fields(&trailers), used + at))),
            }
        }
        used += at;
    }
    Ok(None)
}

fn regular_field() -> impl Strategy<Value = (String, String)> {
    ("x-[a-z0-9]{1,10}", "([!-~]([ -~]{0,30}[!-~])?)?")
}

/// Lines that are right, wrong and nearly right.
fn line() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "Host: a\r\n",
        "Host: b:80\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 03\r\n",
        "Content-Length: 3, 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "transfer-encoding:\tchunked \r\n",
        "Connection: x-a, close\r\n",
        "Connection: keep-alive\r\n",
        "TE: trailers\r\n",
        "Cookie: a=1\r\n",
        "Cookie: b=2\r\n",
        "X-A: 1\r\n",
        "X-A : 1\r\n",
        " folded\r\n",
        "X: y\n",
        "X: \u{e9}\r\n",
        "Upgrade: websocket\r\n",
        "Expect: 100-continue\r\n",
    ]);
    prop_oneof![3 => known.prop_map(str::to_owned), 1 => "[ -~\r\n\t]{0,20}", 2 => regular_field().prop_map(|(n, v)| format!("{n}: {v}\r\n"))]
}

fn request_text() -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec!["GET", "POST", "HEAD", "OPTIONS", "PURGE", "CONNECT", ""]);
    let target = prop_oneof![
        prop::sample::select(vec![
            "/",
            "*",
            "/a?b=c",
            "http://a.b/c",
            "https://a?x",
            "a",
            "//",
            "/%zz"
        ])
        .prop_map(str::to_owned),
        "/[!-~]{0,20}",
    ];
    let version = prop::sample::select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0"]);
    let host = prop_oneof![3 => Just("Host: a\r\n"), 1 => Just("")];
    (method, target, version, host, vec(line(), 0..6)).prop_map(|(method, target, version, host, lines)| {
        format!("{method} {target} {version}\r\n{host}{}\r\n", lines.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn an_accepted_request_means_the_same_to_the_next_reader(text in request_text(), behind in vec(any::<u8>(), 0..20)) {
        let bytes = [text.as_bytes(), &behind].concat();
        let Ok(Some((request, mut list))) = read(&bytes) else { return Ok(()) };
        if list.get(Token::AUTHORITY).is_none() {
            list.push_front(b":authority", b"local");
        }
        let mut out = Vec::new();
        write::put_request(&mut out, &list, request.framing);
        let (again, second) = read(&out).expect("what we write is well formed").expect("and complete");
        prop_assert_eq!(again.len, out.len());
        prop_assert_eq!(again.framing, request.framing);
        prop_assert_eq!(again.facts.method, request.facts.method);
        let plain = |list: &FieldList| {
            let mut plain = fields(list);
            plain.retain(|(name, _)| name != b"cookie");
            plain.sort();
            plain
        };
        prop_assert_eq!(plain(&second), plain(&list));
    }

    #[test]
    fn a_head_is_the_same_however_it_is_cut(text in request_text()) {
        let whole = read(text.as_bytes());
        for end in 0..text.len() {
            match read(&text.as_bytes()[..end]) {
                Ok(None) => prop_assert!(end < text.len()),
                // Once decided, more bytes change nothing.
                decided => {
                    prop_assert_eq!(decided.map(|read| read.map(|(request, list)| (request, fields(&list)))),
                        whole.clone().map(|read| read.map(|(request, list)| (request, fields(&list)))));
                    break;
                }
            }
        }
        if let Ok(Some((request, _))) = whole {
            prop_assert!(may_be_complete(&text.as_bytes()[..request.len], request.len - 1));
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in vec(any::<u8>(), 0..300), method in any::<bool>()) {
        let _ = read(&bytes);
        let method = if method { Method::Get } else { Method::Head };
        let _ = read_response(&bytes, method, &mut FieldList::new(), LIMITS);
        let _ = read_body(Framing::Chunked, &bytes, &[1, 2, 3, 5, 8, 13]);
    }

    #[test]
    fn a_response_comes_back(
        status in 200u16..600,
        sent in vec(regular_field(), 0..10),
        length in prop::option::of(0u64..1_000_000),
        http11 in any::<bool>(),
        close in any::<bool>(),
    ) {
        let client = if http11 { Version::Http11 } else { Version::Http10 };
        let mut list = FieldList::new();
        list.push_status(status);
        for (name, value) in &sent {
            list.push(name.as_bytes(), value.as_bytes());
        }
        if let Some(length) = length {
            list.push(b"content-length", length.to_string().as_bytes());
        }
        let facts = gateway_http::head::facts::ResponseFacts { status, content_length: length };
        let framing = write::response_framing(&facts, Method::Get, client, false);
        let close = close || framing == Framing::UntilClose;
        let persistence = if close { Persistence::Close } else { Persistence::KeepAlive };
        let mut out = Vec::new();
        write::put_response(&mut out, &list, status, framing, persistence, client);
        let mut got = FieldList::new();
        let response = read_response(&out, Method::Get, &mut got, LIMITS).expect("well formed").expect("complete");
        prop_assert_eq!(response.len, out.len());
        prop_assert_eq!(response.facts.status, status);
        prop_assert_eq!(response.framing, framing);
        prop_assert_eq!(response.persistence, persistence);
        if status == 204 {
            list.remove(Token::CONTENT_LENGTH);
        }
        prop_assert_eq!(fields(&got), fields(&list));
    }

    #[test]
    fn a_chunked_body_comes_back_however_it_is_cut(
        chunks in vec(vec(any::<u8>(), 1..400), 0..8),
        trailers in vec(regular_field(), 0..4),
        sizes in vec(1usize..300, 0..30),
        behind in vec(any::<u8>(), 0..10),
    ) {
        let mut list = FieldList::new();
        for (name, value) in &trailers {
            list.push(name.as_bytes(), value.as_bytes());
        }
        let mut out = Vec::new();
        for chunk in &chunks {
            chunked::put_chunk_header(&mut out, chunk.len());
            out.extend_from_slice(chunk);
            chunked::put_chunk_end(&mut out);
        }
        chunked::put_last_chunk(&mut out, Some(&list));
        let len = out.len();
        out.extend_from_slice(&behind);
        let (body, got, used) = read_body(Framing::Chunked, &out, &sizes).expect("well formed").expect("complete");
        prop_assert_eq!(body, chunks.concat());
        prop_assert_eq!(got, fields(&list));
        prop_assert_eq!(used, len);
    }
}
