//! Filters as pure functions of a request; the codec applies the edits while it encodes.

use crate::ir::{Filter, PathRewrite, Redirect};

/// The redirect among a rule's or a destination's filters.
pub fn redirect(filters: &[Filter]) -> Option<&Redirect> {
    filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) => Some(redirect),
        Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) | Filter::Rewrite(_) => None,
    })
}

/// The `Location` of a redirect (Gateway API HTTPRequestRedirectFilter).
///
/// `scheme` and `host` are the request's; `host` has no port, `prefix_len` is [`crate::route::Matched::prefix_len`].
/// The port is the redirect's, else the well-known one of the redirect's scheme, else the listener's; a port that
/// is well-known for the scheme is not written. The query is kept.
pub fn redirect_location(
    redirect: &Redirect,
    scheme: &str,
    host: &str,
    listener_port: u16,
    path: &[u8],
    query: Option<&[u8]>,
    prefix_len: usize,
) -> String {
    let host = redirect.hostname.as_deref().unwrap_or(host);
    let port = redirect
        .port
        .or_else(|| well_known_port(redirect.scheme.as_deref()?))
        .unwrap_or(listener_port);
    let scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let mut location = format!("{scheme}://");
    // An IPv6 literal stands in brackets (RFC 3986 3.2.2).
    if host.contains(':') && !host.starts_with('[') {
        location.extend(["[", host, "]"]);
    } else {
        push_uri(&mut location, host.as_bytes());
    }
    if well_known_port(scheme) != Some(port) {
        location.push_str(&format!(":{port}"));
    }
    match &redirect.path {
        None => push_uri(&mut location, path),
        Some(rewrite) => {
            let mut rewritten = Vec::new();
            rewrite_path(rewrite, path, prefix_len, &mut rewritten);
            push_uri(&mut location, &rewritten);
        }
    }
    if let Some(query) = query {
        location.push('?');
        push_uri(&mut location, query);
    }
    location
}

/// The path after a rewrite, appended to `out`. `path` has no query, and neither has the result.
///
/// A replaced prefix keeps exactly one `/` between itself and what follows, whether or not the replacement ends with
/// one (the table of Gateway API HTTPPathModifier).
pub fn rewrite_path(rewrite: &PathRewrite, path: &[u8], prefix_len: usize, out: &mut Vec<u8>) {
    match rewrite {
        PathRewrite::Full(full) => out.extend_from_slice(full.as_bytes()),
        PathRewrite::Prefix(prefix) => {
            let before = out.len();
            out.extend_from_slice(prefix.trim_end_matches('/').as_bytes());
            out.extend_from_slice(path.get(prefix_len..).unwrap_or_default());
            if out.len() == before {
                out.push(b'/');
            }
        }
    }
}

/// RFC 9110 4.2.1, 4.2.2.
fn well_known_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Appends bytes to a URI; what may not stand in one is percent-encoded, so that no request can break out of the
/// field (RFC 3986 2.1).
fn push_uri(uri: &mut String, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
}
