//! Query parameters that an authorization service sets in a request's target, or removes from it.
//!
//! # Laws
//! * A removed parameter is gone however the client wrote its name: names are compared decoded, as endpoints read them.
//! * Whatever is set, the target stays one: octets that have no place in a query are escaped.

/// Appends `target` to `out`, without the parameters named in `removed` and `set`, and with those of `set` at its end.
pub fn edit(target: &[u8], set: &[(Vec<u8>, Vec<u8>)], removed: &[Vec<u8>], out: &mut Vec<u8>) {
    let (path, query) = match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &b""[..]),
    };
    out.extend_from_slice(path);
    let mut separator = b'?';
    let mut next = |out: &mut Vec<u8>| out.push(std::mem::replace(&mut separator, b'&'));
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let decoded = decoded(name);
        let is_named = |named: &[u8]| named == decoded || named == name;
        if !removed.iter().any(|named| is_named(named)) && !set.iter().any(|(named, _)| is_named(named)) {
            next(out);
            out.extend_from_slice(pair);
        }
    }
    for (index, (name, value)) in set.iter().enumerate() {
        let later = |named: &Vec<u8>| named == name;
        // Of one name the last value counts, and what is removed is not set.
        if set[index + 1..].iter().any(|(named, _)| later(named)) || removed.iter().any(later) {
            continue;
        }
        next(out);
        escape(name, b"&#=", out);
        out.push(b'=');
        escape(value, b"&#", out);
    }
}

/// A name without its escapes; `+` is a space in forms.
fn decoded(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut at = 0;
    while let Some(byte) = name.get(at) {
        let hex = |place: usize| name.get(place).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(*byte),
        }
        at += 1;
    }
    out
}

/// Text with its own escapes left alone.
fn escape(text: &[u8], also: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(byte) && !also.contains(byte) {
            out.push(*byte);
        } else {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::edit;

    fn edited(target: &str, set: &[(&str, &str)], removed: &[&str]) -> String {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let set: Vec<_> = set.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
        let removed: Vec<_> = removed.iter().map(|name| bytes(name)).collect();
        let mut out = Vec::new();
        edit(target.as_bytes(), &set, &removed, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parameters_are_set_and_removed_and_others_stay_as_they_are() {
        for (target, set, removed, want) in [
            ("/a", &[("k", "v")][..], &[][..], "/a?k=v"),
            ("/a?k=1&x=%20&k=2&y", &[("k", "v")], &[], "/a?x=%20&y&k=v"),
            ("/a?k=1&x=2", &[], &["k"], "/a?x=2"),
            ("/a?k=1", &[], &["k"], "/a"),
            ("/a?%6b=1&k%3d=2&x+y=3", &[], &["k", "x y"], "/a?k%3d=2"),
            ("/a?k", &[("k", "1"), ("k", "2")], &[], "/a?k=2"),
            ("/a?k", &[("k", "1")], &["k"], "/a"),
            ("/a?&&b", &[], &[], "/a?b"),
            ("/a?%zz=1&%=2", &[], &["%zz"], "/a?%=2"),
        ] {
            assert_eq!(edited(target, set, removed), want, "{target}");
        }
    }

    #[test]
    fn what_has_no_place_in_a_query_is_escaped() {
        assert_eq!(
            edited("/a", &[("a=b&c", "d&e=f #\r\n\u{e9}%20")], &[]),
            "/a?a%3Db%26c=d%26e=f%20%23%0D%0A%C3%A9%20"
        );
    }
}
