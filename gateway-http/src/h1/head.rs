//! Heads of requests and responses (RFC 9112 3 to 6).

mod scan;

use self::scan::Scan;
pub(crate) use self::scan::options;
use super::{Framing, Persistence, Rejected, Version, has_bare_lf};
use crate::h2::hpack::SectionLimits;
use crate::head::facts::{Malformed, Method, RequestFacts, ResponseFacts, is_target};
use crate::head::{FieldList, Token, authority};
use httparse::{Header, ParserConfig, Status};
use std::mem::MaybeUninit;

/// 101 (RFC 9110 15.2.2).
const SWITCHING: u16 = 101;
/// Most fields of a head, whatever the configured limit.
pub const FIELDS_MAX: usize = 256;

/// A request's head was read into the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Bytes of the head, the empty line included.
    pub len: usize,
    pub version: Version,
    pub facts: RequestFacts,
    pub framing: Framing,
    pub persistence: Persistence,
}

/// A response's head was read into the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Response {
    /// Bytes of the head, the empty line included.
    pub len: usize,
    pub version: Version,
    pub facts: ResponseFacts,
    pub framing: Framing,
    pub persistence: Persistence,
}

/// Where the head at the front of `bytes` ends, when `searched` bytes were looked through before: a cheap question
/// before a head that was incomplete is parsed again.
pub fn may_be_complete(bytes: &[u8], searched: usize) -> bool {
    let start = searched.saturating_sub(3);
    // A bare LF is an error that the parser shall see at once.
    bytes[start.min(bytes.len())..]
        .windows(2)
        .any(|pair| pair == b"\n\r" || pair == b"\n\n")
}

/// Reads the request at the front of `bytes` into `list`, which must be clear. `Ok(None)`: incomplete.
/// `scheme` is the connection's, `http` or `https`.
///
/// Afterwards the list has `:method`, `:scheme`, `:path` and `:authority`; only a request of HTTP/1.0 without `host`
/// has no `:authority`. CONNECT has `:method` and `:authority` alone. Fields that speak of the connection are gone but
/// for `upgrade`, which is there when another protocol is asked for that may be tunnelled.
pub fn read_request(
    bytes: &[u8],
    scheme: &[u8],
    list: &mut FieldList,
    limits: SectionLimits,
) -> Result<Option<Request>, Rejected> {
    let mut storage = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let status = ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, bytes, &mut storage);
    let Some(len) = complete(status, bytes, limits)? else {
        return Ok(None);
    };
    let (Some(method_name), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Malformed::Syntax.into());
    };
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let method = Method::of(method_name.as_bytes());
    let target = Target::parse(target.as_bytes(), method)?;
    list.push_known(Token::METHOD, method_name.as_bytes());
    if method != Method::Connect {
        list.push_known(Token::SCHEME, scheme);
        target.push_path(list);
    }

    let mut scan = Scan::default();
    scan.take_all(parsed.headers, list, limits)?;
    settle_host(&scan, target, version, list)?;
    scan.fits(len, list, limits)?;
    let framing = scan.request_framing(version)?;
    scan.length.tidy(list);
    scan.finish_fields(parsed.headers, list)?;
    let upgrade = scan.may_upgrade()
        && version == Version::Http11
        && method != Method::Connect
        && scan.push_upgrade(parsed.headers, list);
    if method == Method::Connect {
        settle_connect(framing, list)?;
    }
    let facts = RequestFacts {
        method,
        upgrade,
        content_length: scan.length.value.filter(|_| method != Method::Connect),
        is_grpc: scan.is_grpc,
        expects_continue: scan.expects_continue && version == Version::Http11,
        claims: scan.claims,
    };
    Ok(Some(Request {
        len,
        version,
        facts,
        framing,
        persistence: scan.persistence(version),
    }))
}

/// Reads the response at the front of `bytes` into `list`, which must be clear. `Ok(None)`: incomplete.
/// `request` is the method that was sent: the answer to HEAD has no body. A 101 has the protocol it switches to as
/// `upgrade`; whether one was asked for is the caller's to check.
pub fn read_response(
    bytes: &[u8],
    request: Method,
    list: &mut FieldList,
    limits: SectionLimits,
) -> Result<Option<Response>, Rejected> {
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(Malformed::Syntax.into());
    }
    let mut storage = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut storage);
    let Some(len) = complete(status, bytes, limits)? else {
        return Ok(None);
    };
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err(Malformed::Syntax.into());
    };
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    if !(100..600).contains(&status) {
        return Err(Malformed::Status.into());
    }
    list.push_status(status);

    let mut scan = Scan::default();
    scan.take_all(parsed.headers, list, limits)?;
    let facts = ResponseFacts {
        status,
        content_length: scan.length.value,
    };
    scan.fits(len, list, limits)?;
    let opens_tunnel = facts.opens_tunnel(request);
    // Length and coding are ignored where a tunnel begins (RFC 9112 6.3).
    let framing = if opens_tunnel {
        Framing::None
    } else {
        scan.response_framing(version, facts, request)?
    };
    scan.length.tidy(list);
    scan.finish_fields(parsed.headers, list)?;
    if status == SWITCHING && !(scan.may_upgrade() && scan.push_upgrade(parsed.headers, list)) {
        return Err(Malformed::Status.into());
    }
    if facts.is_interim() || status == 204 || opens_tunnel {
        list.remove(Token::CONTENT_LENGTH);
    }
    let persistence = if framing == Framing::UntilClose {
        Persistence::Close
    } else {
        scan.persistence(version)
    };
    Ok(Some(Response {
        len,
        version,
        facts,
        framing,
        persistence,
    }))
}

/// The length of a complete head; `None` when more must come.
fn complete(status: httparse::Result<usize>, bytes: &[u8], limits: SectionLimits) -> Result<Option<usize>, Rejected> {
    match status {
        Ok(Status::Complete(len)) if len > limits.size_max => Err(Rejected::TooLarge),
        Ok(Status::Complete(len)) if has_bare_lf(&bytes[..len]) => Err(Malformed::Syntax.into()),
        Ok(Status::Complete(len)) => Ok(Some(len)),
        Ok(Status::Partial) if bytes.len() >= limits.size_max => Err(Rejected::TooLarge),
        Ok(Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Rejected::TooMany),
        Err(_) => Err(Malformed::Syntax.into()),
    }
}

/// A request's target (RFC 9112 3.2).
#[derive(Clone, Copy)]
struct Target<'a> {
    /// Path and query; empty for an absolute form without a path.
    path: &'a [u8],
    /// Of the absolute form.
    authority: Option<&'a [u8]>,
    /// What an absolute form without a path means: `/`, or `*` for OPTIONS (RFC 9112 3.2.4).
    without_path: &'static [u8],
}

impl<'a> Target<'a> {
    fn parse(target: &'a [u8], method: Method) -> Result<Self, Malformed> {
        if method == Method::Connect {
            return Self::parse_authority(target);
        }
        let without_path: &'static [u8] = if method == Method::Options { b"*" } else { b"/" };
        let absolute = ["http://", "https://"].into_iter().find_map(|scheme| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
        });
        let Some(rest) = absolute else {
            let parsed = Target {
                path: target,
                authority: None,
                without_path,
            };
            return if is_target(target, method) {
                Ok(parsed)
            } else {
                Err(Malformed::Target)
            };
        };
        let (authority, path) = rest.split_at(rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len()));
        // A query alone stands for `/` and that query.
        let allowed = path.is_empty() || path[0] == b'?' || is_target(path, method);
        if !allowed || path.contains(&b'#') || authority::parse(authority).is_none() {
            return Err(Malformed::Target);
        }
        Ok(Target {
            path,
            authority: Some(authority),
            without_path,
        })
    }

    /// The authority form of CONNECT: host and port, both needed (RFC 9112 3.2.3).
    fn parse_authority(target: &'a [u8]) -> Result<Self, Malformed> {
        match authority::parse(target) {
            Some(parsed) if parsed.port.is_some() => Ok(Target {
                path: b"",
                authority: Some(target),
                without_path: b"",
            }),
            Some(_) | None => Err(Malformed::Target),
        }
    }

    fn push_path(&self, list: &mut FieldList) {
        match self.path.first() {
            None => list.push_known(Token::PATH, self.without_path),
            Some(b'?') => list.push_parts(Token::PATH, &[b"/", self.path]),
            Some(_) => list.push_known(Token::PATH, self.path),
        }
    }
}

/// `:authority` from the absolute form, else from `host`, of which HTTP/1.1 must have exactly one
/// (RFC 9112 3.2, 3.2.2).
fn settle_host(scan: &Scan, target: Target<'_>, version: Version, list: &mut FieldList) -> Result<(), Malformed> {
    if scan.hosts > 1 || (scan.hosts == 0 && version == Version::Http11) {
        return Err(Malformed::Authority);
    }
    if let Some(host) = list.get(Token::HOST)
        && authority::parse(host).is_none()
    {
        return Err(Malformed::Authority);
    }
    match (target.authority, list.position(Token::HOST.name())) {
        (Some(authority), host) => {
            if host.is_some() {
                list.remove(Token::HOST);
            }
            list.push_front(Token::AUTHORITY.name(), authority);
        }
        (None, Some(host)) => list.promote(host, Token::AUTHORITY),
        (None, None) => {}
    }
    Ok(())
}

/// CONNECT has no content (RFC 9110 9.3.6); what follows its head belongs to the tunnel, if it becomes one.
fn settle_connect(framing: Framing, list: &mut FieldList) -> Result<(), Malformed> {
    match framing {
        Framing::None => Ok(()),
        Framing::Length(0) => {
            list.remove(Token::CONTENT_LENGTH);
            Ok(())
        }
        Framing::Length(_) | Framing::Chunked | Framing::UntilClose => Err(Malformed::Framing),
    }
}

#[cfg(test)]
mod tests;
