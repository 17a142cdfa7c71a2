//! A reader of HTTP/1.1 requests as the strictest endpoint would read them (RFC 9112): no leniency that RFC 9112 allows
//! but does not ask for. What we send upstream must pass here; so no endpoint sees other than one request.

/// A request as an endpoint sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub host: Vec<u8>,
    pub body: Vec<u8>,
    /// Names in lower case.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub version: u8,
}

/// What the front of the bytes is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// A whole request, and its length.
    Whole(Box<Request>, usize),
    /// The head is whole, the body is not: so many bytes of it are here.
    Body(Box<Request>),
    /// The head is not whole.
    More,
    Broken(&'static str),
}

fn line(bytes: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let end = bytes[from..].windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[from..from + end], from + end + 2))
}

fn is_tchar(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn is_value_byte(byte: &u8) -> bool {
    *byte == b'\t' || *byte >= b' ' && *byte != 0x7f
}

/// Fields up to the empty line.
fn fields(bytes: &[u8], mut at: usize) -> Result<Option<(Vec<(Vec<u8>, Vec<u8>)>, usize)>, &'static str> {
    let mut fields = Vec::new();
    loop {
        let Some((text, next)) = line(bytes, at) else {
            return Ok(None);
        };
        at = next;
        if text.is_empty() {
            return Ok(Some((fields, at)));
        }
        let colon = text
            .iter()
            .position(|byte| *byte == b':')
            .ok_or("a line without colon")?;
        let (name, value) = (&text[..colon], text[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(is_tchar) {
            return Err("a field name");
        }
        if !value.iter().all(is_value_byte) {
            return Err("a field value");
        }
        fields.push((name.to_ascii_lowercase(), value.to_vec()));
    }
}

fn number(digits: &[u8], radix: u32) -> Option<usize> {
    let plain = !digits.is_empty() && digits.len() < 16 && digits.iter().all(|byte| char::from(*byte).is_digit(radix));
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    usize::from_str_radix(text, radix).ok()
}

/// Reads the request at the front.
pub fn read(bytes: &[u8]) -> Read {
    match head(bytes) {
        Ok(Some((request, at))) => body(bytes, request, at).unwrap_or_else(Read::Broken),
        Ok(None) => Read::More,
        Err(why) => Read::Broken(why),
    }
}

fn head(bytes: &[u8]) -> Result<Option<(Request, usize)>, &'static str> {
    let Some((start, at)) = line(bytes, 0) else {
        return Ok(None);
    };
    let mut parts = start.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("a request line");
    };
    if method.is_empty() || !method.iter().all(is_tchar) {
        return Err("a method");
    }
    if target.is_empty() || !target.iter().all(|byte| *byte > b' ' && *byte != 0x7f && *byte != b'#') {
        return Err("a target");
    }
    let version = match version {
        b"HTTP/1.1" => 11,
        b"HTTP/1.0" => 10,
        _ => return Err("a version"),
    };
    let Some((fields, at)) = fields(bytes, at)? else {
        return Ok(None);
    };
    let mut hosts = fields.iter().filter(|(name, _)| name == b"host");
    let host = hosts.next().map(|(_, value)| value.clone()).unwrap_or_default();
    if hosts.next().is_some() {
        return Err("several hosts");
    }
    let request = Request {
        method: method.to_vec(),
        target: target.to_vec(),
        host,
        body: Vec::new(),
        fields,
        version,
    };
    Ok(Some((request, at)))
}

fn body(bytes: &[u8], mut request: Request, at: usize) -> Result<Read, &'static str> {
    let values = |wanted: &[u8]| -> Vec<Vec<u8>> {
        let found = request.fields.iter().filter(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone()).collect()
    };
    let (lengths, codings) = (values(b"content-length"), values(b"transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Read::Whole(Box::new(request), at)),
        // The same length twice is one length (RFC 9112 6.3); we send it once.
        ([length, more @ ..], []) if more.iter().all(|other| other == length) => {
            let length = number(length, 10).ok_or("a length")?;
            let rest = &bytes[at..];
            request.body = rest[..length.min(rest.len())].to_vec();
            if rest.len() < length {
                return Ok(Read::Body(Box::new(request)));
            }
            Ok(Read::Whole(Box::new(request), at + length))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && request.version == 11 => {
            chunked(bytes, request, at)
        }
        _ => Err("an ambiguous length"),
    }
}

fn chunked(bytes: &[u8], mut request: Request, mut at: usize) -> Result<Read, &'static str> {
    loop {
        let Some((size, next)) = line(bytes, at) else {
            return Ok(Read::Body(Box::new(request)));
        };
        // Blanks behind a size are "bad whitespace" that some servers write (RFC 9112 7.1.1, RFC 9110 5.6.3).
        let digits = size.split(|byte| *byte == b';').next().unwrap_or_default();
        let len = number(digits.trim_ascii_end(), 16).ok_or("a chunk size")?;
        at = next;
        if len == 0 {
            return Ok(match fields(bytes, at)? {
                Some((trailers, end)) => {
                    let framing: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
                    if trailers.iter().any(|(name, _)| framing.contains(&&name[..])) {
                        return Err("a trailer that frames");
                    }
                    Read::Whole(Box::new(request), end)
                }
                None => Read::Body(Box::new(request)),
            });
        }
        let rest = &bytes[at..];
        request.body.extend_from_slice(&rest[..len.min(rest.len())]);
        match rest.get(len..) {
            Some(rest) if rest.starts_with(b"\r\n") => at += len + 2,
            Some([] | b"\r") | None => return Ok(Read::Body(Box::new(request))),
            Some(_) => return Err("a chunk's end"),
        }
    }
}

/// The requests that stand in `bytes` one behind the other, as far as they are whole. Empty lines before a request are
/// passed over (RFC 9112 2.2).
pub fn read_all(bytes: &[u8]) -> Vec<Request> {
    let (mut requests, mut rest) = (Vec::new(), bytes);
    loop {
        while let Some(more) = rest.strip_prefix(b"\r\n") {
            rest = more;
        }
        let Read::Whole(request, len) = read(rest) else {
            return requests;
        };
        requests.push(*request);
        rest = &rest[len..];
    }
}

/// Panics unless `bytes` are answers to these methods: any number of interim ones (RFC 9110 15.2) and at most one final
/// one each, in order, and then nothing; the last may be cut. Requests beyond the known ones were not understood: each
/// of them, if it is answered, has its answer read as one to GET.
pub fn check_responses(bytes: &[u8], methods: &[&str]) {
    let mut rest = bytes;
    let mut finals = 0;
    while !rest.is_empty() {
        let shown = || rest.escape_ascii().to_string();
        let Some((start, at)) = line(rest, 0) else { return };
        assert!(
            start.starts_with(b"HTTP/1.1 ") && start.len() > 12,
            "a status line: {}",
            shown()
        );
        let status = number(&start[9..12], 10).expect("three digits");
        assert!((100..600).contains(&status) && start[12] == b' ', "{}", shown());
        let fields = fields(rest, at).unwrap_or_else(|why| panic!("{why}: {}", shown()));
        let Some((fields, at)) = fields else { return };
        rest = &rest[at..];
        if status < 200 {
            assert!(status != 101, "nobody asked for an upgrade");
            continue;
        }
        finals += 1;
        assert!(finals <= methods.len() + 1, "more answers than requests");
        let bodiless = matches!(status, 204 | 304) || methods.get(finals - 1) == Some(&"HEAD");
        match body_len(rest, &fields, bodiless) {
            Some(len) => rest = &rest[len..],
            None => return,
        }
    }
}

/// Length of a response's body; `None`: the rest belongs to it.
fn body_len(rest: &[u8], fields: &[(Vec<u8>, Vec<u8>)], bodiless: bool) -> Option<usize> {
    let values = |wanted: &[u8]| -> Vec<&[u8]> {
        let found = fields.iter().filter(|(name, _)| name == wanted);
        found.map(|(_, value)| &value[..]).collect()
    };
    let (lengths, codings) = (values(b"content-length"), values(b"transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        _ if bodiless => Some(0),
        ([], []) => None,
        ([length], []) => {
            let length = number(length, 10).expect("a length");
            (length <= rest.len()).then_some(length)
        }
        ([], [b"chunked"]) => {
            let head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
            match read(&[&head[..], rest].concat()) {
                Read::Whole(_, len) => Some(len - head.len()),
                Read::Body(_) => None,
                Read::More | Read::Broken(_) => panic!("a chunked answer: {}", rest.escape_ascii()),
            }
        }
        _ => panic!("an ambiguous length: {fields:?}"),
    }
}
