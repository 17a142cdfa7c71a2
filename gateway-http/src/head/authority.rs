//! The authority of a request (RFC 3986 3.2, RFC 9110 4.2, 7.2): host and port, and the host as routing wants it.
//!
//! User information is not accepted: nobody sends it rightly (RFC 9110 4.2.4).

use std::fmt::Write;
use std::net::Ipv6Addr;

/// A split authority. Borrowed; nothing is changed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Authority<'a> {
    /// Registered name or address as sent; an IPv6 literal without its brackets.
    pub host: &'a str,
    pub port: Option<u16>,
}

/// Longest host, bytes: a DNS name has at most 253 (RFC 1035 2.3.4), with a trailing dot 254.
pub const HOST_BYTES_MAX: usize = 254;

/// Splits `authority`. `None` when it is not `host [ ":" port ]` of allowed characters.
pub fn parse(authority: &[u8]) -> Option<Authority<'_>> {
    let text = std::str::from_utf8(authority).ok()?;
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        (host, after)
    } else {
        let (host, port) = text.find(':').map_or((text, ""), |colon| text.split_at(colon));
        let allowed = !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(is_host_byte);
        // A name without its last dot is the same name; a label without letters is none (RFC 1035 2.3.1).
        if !allowed || host.starts_with('.') || host.contains("..") {
            return None;
        }
        (host, port)
    };
    Some(Authority {
        host,
        port: parse_port(port)?,
    })
}

/// `":" *DIGIT` or nothing. An empty port is none (RFC 3986 3.2.3).
fn parse_port(text: &str) -> Option<Option<u16>> {
    let Some(digits) = text.strip_prefix(':') else {
        return text.is_empty().then_some(None);
    };
    if digits.is_empty() {
        return Some(None);
    }
    if digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Some)
}

/// Unreserved and sub-delims without percent-encoding (RFC 3986 3.2.2): what real names use, and nothing that a log
/// or an endpoint could read differently.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'='
        )
}

/// Writes the host as routing compares it into `host` (lower case, no port, no trailing dot, no brackets) and the
/// authority as it is logged and sent on into `canonical` (that host, brackets where they belong, and the port if there
/// is one, in the fewest digits). `false`, and both empty, when the authority is malformed.
pub fn canonical(authority: &[u8], host: &mut String, canonical: &mut String) -> bool {
    host.clear();
    canonical.clear();
    let Some(parsed) = parse(authority) else { return false };
    if let Ok(address) = parsed.host.parse::<Ipv6Addr>() {
        let _ = write!(host, "{address}");
        let _ = write!(canonical, "[{address}]");
    } else {
        host.push_str(parsed.host.strip_suffix('.').unwrap_or(parsed.host));
        host.make_ascii_lowercase();
        canonical.push_str(host);
    }
    if let Some(port) = parsed.port {
        let _ = write!(canonical, ":{port}");
    }
    true
}

/// Whether two authorities name the same host and port, apart from case and a trailing dot (RFC 9113 8.3.1).
pub fn same(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let (Some(a), Some(b)) = (parse(a), parse(b)) else {
        return false;
    };
    let a_host = a.host.strip_suffix('.').unwrap_or(a.host);
    let b_host = b.host.strip_suffix('.').unwrap_or(b.host);
    a_host.eq_ignore_ascii_case(b_host) && a.port == b.port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(authority: &str) -> Option<String> {
        both(authority).map(|(host, _)| host)
    }

    fn both(authority: &str) -> Option<(String, String)> {
        let (mut host, mut whole) = ("left over".to_owned(), "too".to_owned());
        canonical(authority.as_bytes(), &mut host, &mut whole).then_some((host, whole))
    }

    #[test]
    fn what_is_sent_on_is_the_host_of_routing_with_its_port() {
        for (authority, want) in [
            ("example.com", "example.com"),
            ("Example.COM.:8080", "example.com:8080"),
            ("example.com:", "example.com"),
            ("example.com:0080", "example.com:80"),
            ("[2001:0002::0A]:443", "[2001:2::a]:443"),
            ("[::1]", "[::1]"),
        ] {
            let (_, whole) = both(authority).expect("well formed");
            assert_eq!(whole, want, "{authority}");
            assert_eq!(both(&whole).map(|(_, again)| again), Some(whole), "stable");
        }
    }

    #[test]
    fn hosts_are_lower_case_without_port_and_dot() {
        for (authority, want) in [
            ("example.com", "example.com"),
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:443", "example.com"),
            ("example.com:", "example.com"),
            ("198.18.0.10:50052", "198.18.0.10"),
            ("[2001:2::A]:50052", "2001:2::a"),
            ("[::1]", "::1"),
            ("my_service", "my_service"),
        ] {
            assert_eq!(host(authority).as_deref(), Some(want), "{authority}");
        }
    }

    #[test]
    fn malformed_authorities_are_refused() {
        for authority in [
            "",
            ".",
            "example.com..",
            ".example.com",
            "a..b",
            ":80",
            "a..",
            "a b",
            "a/b",
            "user@example.com",
            "example.com:http",
            "example.com:123456",
            "example.com:70000",
            "[::1",
            "[example.com]",
            "[::1]x",
            "2001:2::a",
            "a%20b",
            "a,b",
            "a?b",
            "a#b",
            "a\\b",
            "\u{e9}",
            "a\"b",
        ] {
            assert_eq!(host(authority), None, "{authority}");
        }
        assert_eq!(host(&"a".repeat(HOST_BYTES_MAX + 1)), None);
    }

    #[test]
    fn sameness_ignores_case_and_the_dot_but_not_the_port() {
        assert!(same(b"Example.com:80", b"example.com.:80"));
        assert!(!same(b"example.com", b"example.com:80"));
        assert!(!same(b"example.com", b"example.org"));
        assert!(!same(b"a b", b"A b"));
    }
}
