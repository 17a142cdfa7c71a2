//! What bytes on an HTTP/1.1 connection mean, as the strictest endpoint would read them (RFC 9112): heads by `httparse`,
//! lengths and chunks counted here. Knows nothing of the engine's codec.

/// A request as an endpoint saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub authority: String,
    /// Lower-case names.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Its end came.
    pub whole: bool,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Why the bytes are no requests.
pub type Wrong = String;

/// All requests on one connection; the last may lack its end. Anything else is wrong.
pub fn requests(mut bytes: &[u8]) -> Result<Vec<Seen>, Wrong> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        match request(bytes)? {
            (seen, Some(used)) => {
                all.push(seen);
                bytes = &bytes[used..];
            }
            (seen, None) => {
                all.push(seen);
                break;
            }
        }
    }
    Ok(all)
}

/// The request at the front, and its length if it is whole.
pub fn request(bytes: &[u8]) -> Result<(Seen, Option<usize>), Wrong> {
    let mut storage = [httparse::EMPTY_HEADER; 300];
    let mut parsed = httparse::Request::new(&mut storage);
    let len = match parsed.parse(bytes).map_err(|error| format!("head: {error}"))? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok((Seen::default(), None)),
    };
    if bytes[..len]
        .split(|byte| *byte == b'\n')
        .any(|line| !line.is_empty() && !line.ends_with(b"\r"))
    {
        return Err("a line feed of its own".to_owned());
    }
    let mut seen = Seen {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        fields: texts(parsed.headers),
        ..Seen::default()
    };
    let all = |name: &str| -> Vec<String> {
        let named = seen.fields.iter().filter(|(field, _)| field == name);
        named.map(|(_, value)| value.clone()).collect()
    };
    let hosts = all("host");
    // HTTP/1.0 knows requests without.
    if hosts.len() > 1 || (hosts.is_empty() && parsed.version == Some(1)) {
        return Err(format!("hosts: {hosts:?}"));
    }
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    let rest = &bytes[len..];
    let end = match (&lengths[..], &codings[..]) {
        ([], []) => Some(0),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| format!("length {length}"))?;
            seen.body = rest[..length.min(rest.len())].to_vec();
            (rest.len() >= length).then_some(length)
        }
        ([], [coding]) if coding == "chunked" && parsed.version == Some(1) => chunks(rest, &mut seen)?,
        _ => return Err(format!("lengths {lengths:?}, codings {codings:?}")),
    };
    seen.authority = hosts.first().cloned().unwrap_or_default();
    seen.whole = end.is_some();
    Ok((seen, end.map(|end| len + end)))
}

fn chunks(bytes: &[u8], seen: &mut Seen) -> Result<Option<usize>, Wrong> {
    let mut at = 0;
    loop {
        let Some(line) = bytes[at..].windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(None);
        };
        let digits = &bytes[at..at + line];
        if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("chunk size {:?}", String::from_utf8_lossy(digits)));
        }
        let size = usize::from_str_radix(&String::from_utf8_lossy(digits), 16).map_err(|error| error.to_string())?;
        at += line + 2;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at + size + 2) else {
            seen.body.extend_from_slice(&bytes[at..bytes.len().min(at + size)]);
            return Ok(None);
        };
        if !data.ends_with(b"\r\n") {
            return Err("a chunk longer than its size".to_owned());
        }
        seen.body.extend_from_slice(&data[..size]);
        at += size + 2;
    }
    let mut storage = [httparse::EMPTY_HEADER; 100];
    match httparse::parse_headers(&bytes[at..], &mut storage).map_err(|error| format!("trailers: {error}"))? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete((len, fields)) => {
            seen.trailers = texts(fields);
            Ok(Some(at + len))
        }
    }
}

fn texts(fields: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    let text = |field: &httparse::Header<'_>| {
        let value = String::from_utf8_lossy(field.value).into_owned();
        (field.name.to_ascii_lowercase(), value)
    };
    fields.iter().map(text).collect()
}

/// Status and body length of each response; `head_only` says which answer to HEAD. `None` at the end: one lacks its end.
pub fn responses(mut bytes: &[u8], closed: bool) -> Result<Vec<Option<(u16, usize)>>, Wrong> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let mut storage = [httparse::EMPTY_HEADER; 300];
        let mut parsed = httparse::Response::new(&mut storage);
        let len = match parsed.parse(bytes).map_err(|error| format!("head: {error}"))? {
            httparse::Status::Complete(len) => len,
            httparse::Status::Partial => {
                all.push(None);
                return Ok(all);
            }
        };
        let status = parsed.code.unwrap_or(0);
        let mut seen = Seen {
            fields: texts(parsed.headers),
            ..Seen::default()
        };
        let rest = &bytes[len..];
        if status < 200 {
            bytes = rest;
            continue;
        }
        let end = if matches!(status, 204 | 304) {
            Some(0)
        } else if seen.field("transfer-encoding").is_some() {
            chunks(rest, &mut seen)?
        } else if let Some(length) = seen.field("content-length") {
            let length: usize = length.parse().map_err(|_| format!("length {length}"))?;
            seen.body = rest[..length.min(rest.len())].to_vec();
            (rest.len() >= length).then_some(length)
        } else {
            seen.body = rest.to_vec();
            closed.then_some(rest.len())
        };
        let Some(end) = end else {
            all.push(None);
            return Ok(all);
        };
        all.push(Some((status, seen.body.len())));
        bytes = &rest[end..];
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_judge_tells_one_request_from_two_and_whole_from_cut() {
        let one = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n";
        let two = [&one[..], &chunked[..]].concat();
        let seen = requests(&two).expect("well formed");
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|seen| seen.whole && seen.body == b"abc"));
        assert_eq!(seen[1].trailers, [("x".to_owned(), "y".to_owned())]);
        assert!(!requests(&two[..two.len() - 1]).expect("well formed")[1].whole);
        for wrong in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        ] {
            assert!(requests(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
