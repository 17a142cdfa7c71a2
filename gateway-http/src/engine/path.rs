//! The one form of a path that is matched, logged and sent on (RFC 3986 6.2.2, 5.2.4): no dot segments, unreserved
//! characters not percent-encoded, percent-encodings in upper case.
//!
//! An encoded slash (`%2F`) stays what it is: not a separator. What cannot be a path (a backslash, an encoded NUL, a
//! broken percent-encoding) is malformed, so that no endpoint reads it differently.

use crate::head::octets::any_below_or_of;

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
pub fn normalise(target: &[u8], into: &mut Vec<u8>) -> Normal {
    let (path, query) = split(target);
    if !any_below_or_of(path, b'!', [b'%', b'\\', b'#', 0x7f]) && !has_dot_segment(path) {
        return Normal::AsIs;
    }
    into.clear();
    if !decode(path, into) {
        return Normal::Malformed;
    }
    remove_dot_segments(into);
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

/// Whether a segment is `.` or `..`.
fn has_dot_segment(path: &[u8]) -> bool {
    memchr::memchr_iter(b'.', path).any(|at| {
        let begins = at > 0 && path[at - 1] == b'/';
        begins && {
            let rest = path[at + 1..].strip_prefix(b".").unwrap_or(&path[at + 1..]);
            rest.is_empty() || rest[0] == b'/'
        }
    })
}

/// Decodes what needs no encoding; `false` when the path is malformed.
fn decode(path: &[u8], into: &mut Vec<u8>) -> bool {
    let mut at = 0;
    while at < path.len() {
        match path[at] {
            b'%' => {
                let (Some(high), Some(low)) = (
                    path.get(at + 1).copied().and_then(hex),
                    path.get(at + 2).copied().and_then(hex),
                ) else {
                    return false;
                };
                match high << 4 | low {
                    0 | b'\\' => return false,
                    byte if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') => {
                        into.push(byte);
                    }
                    _ => into.extend([
                        b'%',
                        path[at + 1].to_ascii_uppercase(),
                        path[at + 2].to_ascii_uppercase(),
                    ]),
                }
                at += 3;
            }
            b'\\' | b'#' | 0..=b' ' | 0x7f => return false,
            byte => {
                into.push(byte);
                at += 1;
            }
        }
    }
    true
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

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(target: &str) -> Option<String> {
        let mut into = Vec::new();
        match normalise(target.as_bytes(), &mut into) {
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
            ("/a/b?c=/../d", "/a/b?c=/../d"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../x", "/x"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/a/%2e%2e/admin", "/admin"),
            ("/a/%2E/b?x=%2e", "/a/b?x=%2e"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%252fb", "/a%252fb"),
            ("/...", "/..."),
            ("/.a/..b", "/.a/..b"),
            ("/sluice.demo.v1.Echo/Unary", "/sluice.demo.v1.Echo/Unary"),
        ] {
            let got = normal(target);
            assert_eq!(got.as_deref(), Some(wanted), "{target}");
            assert_eq!(normal(wanted).as_deref(), Some(wanted), "stable: {wanted}");
        }
    }

    #[test]
    fn what_endpoints_could_read_differently_is_refused() {
        for target in [
            "/a\\b", "/a%5cb", "/a%00", "/a%", "/a%2", "/a%zz", "/a#b", "/a b", "/a\u{1}",
        ] {
            assert_eq!(normal(target), None, "{target}");
        }
    }
}
