//! The one form of a path that is matched, logged and sent on (RFC 3986 6.2.2, 5.2.4): no dot segments, no empty
//! segments, unreserved characters not percent-encoded, all that is not ASCII percent-encoded, in upper case.
//!
//! What endpoints read in different ways is malformed, so that nothing behind a route can be reached past it:
//! backslashes, encoded slashes, encoded control characters, overlong UTF-8, dot segments with a parameter (`/..;/`).
//! `docs/paths.md` has the whole list and the settings.

use crate::head::octets::any_below_or_of;
use crate::limits::{EscapedSlashes, Slashes};

/// What a deployment may choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    pub slashes: Slashes,
    pub escaped: EscapedSlashes,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            slashes: Slashes::Merge,
            escaped: EscapedSlashes::Reject,
        }
    }
}

/// What became of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Normal {
    /// It is in normal form already.
    AsIs,
    /// The normal form, with its query, is in the buffer.
    Rewritten,
    Malformed,
}

/// Path and query of a target (RFC 9110 4.2); the query is without its `?`.
#[inline]
pub fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(mark) => (&target[..mark], Some(&target[mark + 1..])),
        None => (target, None),
    }
}

/// Brings the path of `target` into normal form, in `into` if it is not there already.
pub fn normalise(target: &[u8], rules: Rules, into: &mut Vec<u8>) -> Normal {
    let (path, query) = split(target);
    if !any_below_or_of(path, b'!', [b'%', b'\\', b'#', 0x7f]) && path.is_ascii() && !has_odd_segment(path) {
        return Normal::AsIs;
    }
    into.clear();
    if !decode(path, rules.escaped, into) || into.split(|byte| *byte == b'/').any(is_doubtful) {
        return Normal::Malformed;
    }
    remove_dot_segments(into);
    if rules.slashes == Slashes::Merge {
        merge_slashes(into);
    }
    if let Some(query) = query {
        into.push(b'?');
        into.extend_from_slice(query);
    }
    if into == target {
        Normal::AsIs
    } else {
        Normal::Rewritten
    }
}

/// Whether a segment is empty or begins with a dot.
fn has_odd_segment(path: &[u8]) -> bool {
    memchr::memchr_iter(b'/', path).any(|at| matches!(path.get(at + 1), Some(b'.' | b'/')))
}

/// Decodes what needs no encoding and encodes what does; `false` when the path is malformed.
fn decode(path: &[u8], escaped: EscapedSlashes, into: &mut Vec<u8>) -> bool {
    let mut at = 0;
    // The byte before, when both are above ASCII.
    let mut before = 0;
    while at < path.len() {
        let encoded = path[at] == b'%';
        let byte = if encoded {
            let digits = (path.get(at + 1), path.get(at + 2));
            let (Some(high), Some(low)) = (digits.0.copied().and_then(hex), digits.1.copied().and_then(hex)) else {
                return false;
            };
            high << 4 | low
        } else {
            path[at]
        };
        at += if encoded { 3 } else { 1 };
        match byte {
            0..b' ' | 0x7f | b'\\' => return false,
            b' ' | b'#' if !encoded => return false,
            b'/' if encoded => match escaped {
                EscapedSlashes::Reject => return false,
                EscapedSlashes::Keep => put_encoded(into, byte),
                EscapedSlashes::Unescape => into.push(b'/'),
            },
            0x80.. if is_overlong(before, byte) => return false,
            0x80.. => put_encoded(into, byte),
            _ if !encoded || byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') => {
                into.push(byte);
            }
            _ => put_encoded(into, byte),
        }
        before = byte;
    }
    true
}

/// Whether two bytes begin a character of UTF-8 in more bytes than it needs (RFC 3629 3): `%C0%AF` is a slash for
/// decoders that do not look.
fn is_overlong(before: u8, byte: u8) -> bool {
    matches!(
        (before, byte),
        (0xc0 | 0xc1, 0x80..=0xbf) | (0xe0, 0x80..=0x9f) | (0xf0, 0x80..=0x8f)
    )
}

fn put_encoded(into: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    into.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Whether a decoded segment is a dot segment to some endpoints and none to others: with a parameter (`..;x`), or with
/// encoded slashes around it.
fn is_doubtful(segment: &[u8]) -> bool {
    let is_dots = |piece: &[u8]| matches!(piece, b"." | b"..");
    if segment.first() == Some(&b'.') {
        let dots = segment.iter().take_while(|byte| **byte == b'.').count();
        let rest = &segment[dots..];
        if dots <= 2 && (rest.starts_with(b";") || rest.starts_with(b"%3B")) {
            return true;
        }
    }
    let mut rest = segment;
    let mut pieces = 0;
    while let Some(at) = rest.windows(3).position(|three| three == b"%2F") {
        if is_dots(&rest[..at]) {
            return true;
        }
        rest = &rest[at + 3..];
        pieces += 1;
    }
    pieces > 0 && is_dots(rest)
}

fn hex(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

/// RFC 3986 5.2.4, in place; `..` at the root stays at the root.
fn remove_dot_segments(path: &mut Vec<u8>) {
    if path.first() != Some(&b'/') {
        return;
    }
    let (mut read, mut write) = (0, 0);
    while read < path.len() {
        // At a slash: the segment behind it.
        let end = path[read + 1..]
            .iter()
            .position(|byte| *byte == b'/')
            .map_or(path.len(), |at| read + 1 + at);
        let last = end == path.len();
        match &path[read + 1..end] {
            b"." | b".." => {
                if end - read == 3 {
                    write = path[..write].iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                }
                if last {
                    path[write] = b'/';
                    write += 1;
                }
            }
            _ => {
                path.copy_within(read..end, write);
                write += end - read;
            }
        }
        read = end;
    }
    path.truncate(write);
}

/// Several slashes become one, in place.
fn merge_slashes(path: &mut Vec<u8>) {
    let mut slash = false;
    path.retain(|byte| {
        let again = slash && *byte == b'/';
        slash = *byte == b'/';
        !again
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(target: &str, rules: Rules) -> Option<String> {
        let mut into = Vec::new();
        match normalise(target.as_bytes(), rules, &mut into) {
            Normal::AsIs => Some(target.to_owned()),
            Normal::Rewritten => Some(String::from_utf8(into).unwrap()),
            Normal::Malformed => None,
        }
    }

    #[test]
    fn paths_have_one_form_and_it_is_stable() {
        for (target, wanted) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b?c=/../d//e", "/a/b?c=/../d//e"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../x", "/x"),
            ("/a//b", "/a/b"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/a/b"),
            ("/a/..//b", "/b"),
            ("/%61dmin", "/admin"),
            ("/a/%2e%2e/admin", "/admin"),
            ("/a/%2E/b?x=%2e", "/a/b?x=%2e"),
            ("/a%252fb", "/a%252fb"),
            ("/%2561", "/%2561"),
            ("/a%3fb%23%20c", "/a%3Fb%23%20c"),
            ("/\u{e9}", "/%C3%A9"),
            ("/%c3%a9", "/%C3%A9"),
            ("/%C0x%e9", "/%C0x%E9"),
            ("/...", "/..."),
            ("/.a/..b", "/.a/..b"),
            ("/a;b/c;d=e", "/a;b/c;d=e"),
            ("/sluice.demo.v1.Echo/Unary", "/sluice.demo.v1.Echo/Unary"),
        ] {
            let got = normal(target, Rules::default());
            assert_eq!(got.as_deref(), Some(wanted), "{target}");
            assert_eq!(
                normal(wanted, Rules::default()).as_deref(),
                Some(wanted),
                "stable: {wanted}"
            );
        }
    }

    #[test]
    fn what_endpoints_could_read_differently_is_refused() {
        for target in [
            "/a\\b",
            "/a%5cb",
            "/a%00",
            "/a%0d",
            "/a%7F",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a#b",
            "/a b",
            "/a\u{1}",
            "/a%2fb",
            "/%c0%af",
            "/%c0%ae%c0%ae/",
            "/%e0%80%af",
            "/%F0%80%80%AF",
            "/a/..;/b",
            "/a/.;x/b",
            "/a/..%3b/b",
            "/..;",
        ] {
            assert_eq!(normal(target, Rules::default()), None, "{target}");
        }
    }

    #[test]
    fn slashes_are_kept_or_unescaped_where_one_wants_it() {
        let keep = Rules {
            slashes: Slashes::Keep,
            escaped: EscapedSlashes::Keep,
        };
        let unescape = Rules {
            escaped: EscapedSlashes::Unescape,
            ..Rules::default()
        };
        for (target, kept, unescaped) in [
            ("/a%2fb", Some("/a%2Fb"), Some("/a/b")),
            ("/a//b", Some("/a//b"), Some("/a/b")),
            ("/a//../b", Some("/a/b"), Some("/a/b")),
            ("/a%2f/b", Some("/a%2F/b"), Some("/a/b")),
            ("/a/..%2fb", None, Some("/b")),
            ("/a%2f..", None, Some("/")),
            ("/a%2f.%2fb", None, Some("/a/b")),
            ("/a%5cb", None, None),
        ] {
            assert_eq!(normal(target, keep).as_deref(), kept, "{target}");
            assert_eq!(normal(target, unescape).as_deref(), unescaped, "{target}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_of_a_normal_form_is_itself(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "/", "/", ".", "..", "a", "admin", "%2e", "%2E", "%2f", "%61", "%25", "%", "%5c", ";", "\u{e9}", "%c3",
                    "%a9", "%c0", "%af", "//", "?", "%3b", "%00", "*",
                ]),
                0..12,
            ),
            keeps_slashes: bool,
            escaped in 0..3usize,
        ) {
            let rules = Rules {
                slashes: if keeps_slashes { Slashes::Keep } else { Slashes::Merge },
                escaped: [EscapedSlashes::Reject, EscapedSlashes::Keep, EscapedSlashes::Unescape][escaped],
            };
            let target = format!("/{}", pieces.concat());
            if let Some(once) = normal(&target, rules) {
                prop_assert_eq!(normal(&once, rules), Some(once.clone()), "{}", target);
                let path = once.split('?').next().unwrap_or_default();
                prop_assert!(path.starts_with('/') && path.is_ascii());
                prop_assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{}", once);
                prop_assert!(keeps_slashes || !path.contains("//"), "{}", once);
            }
        }
    }
}
