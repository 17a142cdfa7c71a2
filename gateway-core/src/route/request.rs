//! What routing looks at.

/// The fields of a request, however the codec holds them.
pub trait Fields {
    /// The first value of a field; `name` is lower case.
    fn field(&self, name: &[u8]) -> Option<&[u8]>;

    /// The value of a cookie; HTTP/2 clients may send each in a field of its own.
    fn cookie(&self, name: &[u8]) -> Option<&[u8]> {
        cookie_in(self.field(b"cookie")?, name)
    }
}

/// What routing looks at. Borrowed from the codec's scratch buffer.
pub struct RequestHead<'a, F> {
    pub method: &'a [u8],
    /// Host of the authority: lower case, without port.
    pub host: &'a str,
    /// Normalised path, without query, starting with `/` (or `*`).
    pub path: &'a [u8],
    /// Without `?`; `None` when there is none.
    pub query: Option<&'a [u8]>,
    pub fields: &'a F,
}

/// The value of a cookie in one `cookie` field (RFC 6265 4.2.1).
pub fn cookie_in<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    field.split(|byte| *byte == b';').find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        Some(
            value
                .strip_prefix(b"\"")
                .and_then(|value| value.strip_suffix(b"\""))
                .unwrap_or(value),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_names() {
        for (field, expected) in [
            ("s=1", Some("1")),
            ("ss=2; s=1", Some("1")),
            ("xs=2;s=\"1\"; s=3", Some("1")),
            ("s", None),
            ("S=1", None),
            ("", None),
        ] {
            assert_eq!(
                cookie_in(field.as_bytes(), b"s"),
                expected.map(str::as_bytes),
                "{field}"
            );
        }
    }
}
