//! Filters as pure functions of a request; the codec applies the edits while it encodes.

pub mod cors;

use crate::ir::{Cors, Filter, PathRewrite, Redirect};

/// The redirect among a rule's or a destination's filters.
pub fn redirect(filters: &[Filter]) -> Option<&Redirect> {
    filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) => Some(redirect),
        Filter::RequestHeaders(_)
        | Filter::ResponseHeaders(_)
        | Filter::Rewrite(_)
        | Filter::Cors(_)
        | Filter::Mirror(_)
        | Filter::ExternalAuth(_) => None,
    })
}

/// The CORS filter among them.
pub fn cors(filters: &[Filter]) -> Option<&Cors> {
    filters.iter().find_map(|filter| match filter {
        Filter::Cors(cors) => Some(cors),
        Filter::RequestHeaders(_)
        | Filter::ResponseHeaders(_)
        | Filter::Rewrite(_)
        | Filter::Redirect(_)
        | Filter::Mirror(_)
        | Filter::ExternalAuth(_) => None,
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
        location.push('[');
        push_uri(&mut location, host.as_bytes());
        location.push(']');
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(path: &str, prefix: &str, replacement: &str) -> String {
        let mut out = b"kept".to_vec();
        let prefix_len = prefix.trim_end_matches('/').len();
        rewrite_path(
            &PathRewrite::Prefix(replacement.to_owned()),
            path.as_bytes(),
            prefix_len,
            &mut out,
        );
        String::from_utf8(out).unwrap().strip_prefix("kept").unwrap().to_owned()
    }

    #[test]
    fn prefixes_are_replaced_as_the_table_of_the_gateway_api_says() {
        for (path, prefix, replacement, expected) in [
            // HTTPPathModifier.replacePrefixMatch, row by row.
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            // Ours: the prefix that matches all.
            ("/", "/", "/xyz", "/xyz/"),
            ("/foo", "/", "/xyz", "/xyz/foo"),
            ("/foo", "/", "/", "/foo"),
        ] {
            assert_eq!(
                rewritten(path, prefix, replacement),
                expected,
                "{path} {prefix} {replacement}"
            );
        }
    }

    #[test]
    fn a_full_rewrite_takes_the_place_of_the_whole_path() {
        let mut out = Vec::new();
        rewrite_path(&PathRewrite::Full("/one".to_owned()), b"/a/b", 2, &mut out);
        assert_eq!(out, b"/one");
    }

    fn to(scheme: Option<&str>, port: Option<u16>) -> Redirect {
        Redirect {
            scheme: scheme.map(str::to_owned),
            hostname: None,
            path: None,
            port,
            status: 302,
        }
    }

    #[test]
    fn the_port_of_a_redirect_follows_the_gateway_api() {
        for (listener, scheme, redirect, expected) in [
            // HTTPRouteRedirectPortAndScheme of the conformance suite: listener on 80.
            (80, "http", to(None, None), "http://example.org/x"),
            (80, "http", to(None, Some(80)), "http://example.org/x"),
            (80, "http", to(None, Some(8080)), "http://example.org:8080/x"),
            (80, "http", to(Some("https"), None), "https://example.org/x"),
            (80, "http", to(Some("https"), Some(443)), "https://example.org/x"),
            (80, "http", to(Some("https"), Some(8443)), "https://example.org:8443/x"),
            // Listener on 8080.
            (8080, "http", to(None, None), "http://example.org:8080/x"),
            (8080, "http", to(None, Some(80)), "http://example.org/x"),
            (8080, "http", to(Some("https"), None), "https://example.org/x"),
            // Listener on 443.
            (443, "https", to(None, None), "https://example.org/x"),
            (443, "https", to(None, Some(443)), "https://example.org/x"),
            (443, "https", to(None, Some(8443)), "https://example.org:8443/x"),
            (443, "https", to(Some("http"), None), "http://example.org/x"),
            (443, "https", to(Some("http"), Some(80)), "http://example.org/x"),
            (443, "https", to(Some("http"), Some(8080)), "http://example.org:8080/x"),
            // A scheme without a well-known port: the listener's.
            (8080, "http", to(Some("gopher"), None), "gopher://example.org:8080/x"),
        ] {
            let location = redirect_location(&redirect, scheme, "example.org", listener, b"/x", None, 0);
            assert_eq!(location, expected, "{listener} {redirect:?}");
        }
    }

    #[test]
    fn a_redirect_changes_host_and_path_and_keeps_the_query() {
        let redirect = Redirect {
            hostname: Some("other.example".to_owned()),
            path: Some(PathRewrite::Prefix("/new".to_owned())),
            ..to(None, None)
        };
        let location = redirect_location(&redirect, "http", "example.org", 80, b"/old/a", Some(b"q=1"), 4);
        assert_eq!(location, "http://other.example/new/a?q=1");
    }

    #[test]
    fn nothing_in_a_request_breaks_out_of_the_location() {
        let location = redirect_location(
            &to(None, None),
            "http",
            "a\r\nb",
            80,
            b"/\xff \r\n%41\"",
            Some(b"\n"),
            0,
        );
        assert_eq!(location, "http://a%0D%0Ab/%FF%20%0D%0A%41%22?%0A");
        let location = redirect_location(&to(None, None), "http", "::1", 8080, b"/", None, 0);
        assert_eq!(location, "http://[::1]:8080/");
        let location = redirect_location(&to(None, None), "http", "[::1]", 8080, b"/", None, 0);
        assert_eq!(location, "http://[::1]:8080/");
    }
}
