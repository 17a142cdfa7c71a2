//! Cross-origin requests (the Fetch standard's CORS protocol) as Gateway API's `CORS` filter asks for it.
//!
//! A preflight is answered here; an actual request is forwarded whatever its origin, and only the answer tells the
//! browser whether the page may read it. A wildcard is answered with what was asked for, so that it also holds for
//! requests with credentials, where browsers take `*` literally.

use crate::ir::{Cors, OriginPattern};

/// Fields for an answer: lower-case name, value.
pub type AnswerFields = Vec<(&'static str, String)>;

/// What a preflight asks (Fetch, "CORS-preflight request").
#[derive(Clone, Copy, Debug)]
pub struct Preflight<'a> {
    pub origin: &'a [u8],
    /// `access-control-request-method`.
    pub method: &'a [u8],
    /// `access-control-request-headers`.
    pub headers: Option<&'a [u8]>,
}

impl Cors {
    /// Whether pages of this origin may read answers.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|pattern| pattern.matches(origin))
    }

    /// The fields of the answer to a preflight; of an origin that is not allowed only `vary`.
    pub fn preflight(&self, asked: &Preflight<'_>) -> AnswerFields {
        let mut fields = self.answer(asked.origin);
        if !self.allows(asked.origin) {
            return fields;
        }
        let methods = match is_any(&self.methods) {
            true => text(asked.method),
            false => self.methods.join(", "),
        };
        put(&mut fields, "access-control-allow-methods", methods);
        let headers = match is_any(&self.headers) {
            true => asked.headers.map(text).unwrap_or_default(),
            false => self.headers.join(", "),
        };
        put(&mut fields, "access-control-allow-headers", headers);
        put(&mut fields, "access-control-max-age", self.max_age_s.to_string());
        fields
    }

    /// The fields of the answer to an actual request from `origin`.
    pub fn answer(&self, origin: &[u8]) -> AnswerFields {
        let mut fields = Vec::new();
        if self.allows(origin) {
            put(&mut fields, "access-control-allow-origin", text(origin));
            if self.credentials {
                put(&mut fields, "access-control-allow-credentials", "true".to_owned());
            }
            put(&mut fields, "access-control-expose-headers", self.readable());
        }
        // The answer depends on the origin: caches must not hand it to another one.
        put(&mut fields, "vary", "origin".to_owned());
        fields
    }
}

impl Cors {
    /// Fields that a page may read. With credentials browsers take `*` for a field's name, and the Gateway API forbids it.
    fn readable(&self) -> String {
        let named = |name: &&String| !self.credentials || *name != "*";
        let names: Vec<&str> = self.exposed.iter().filter(named).map(String::as_str).collect();
        names.join(", ")
    }
}

impl OriginPattern {
    /// From `scheme://host[:port]`, `scheme://*.host[:port]` or `*`; `None` when it is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(OriginPattern::Any);
        }
        let (scheme, authority) = text.split_once("://")?;
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        let host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
        if scheme.is_empty() || !scheme.bytes().all(word) {
            return None;
        }
        let (before, behind) = authority
            .split_once('*')
            .map_or((authority, None), |(a, b)| (a, Some(b)));
        let rest = behind.unwrap_or_default();
        let valid = !authority.is_empty() && before.bytes().all(host) && rest.bytes().all(host);
        // A wildcard stands for the first labels, never for a part behind them.
        if !valid || (behind.is_some() && !before.is_empty()) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        // Browsers do not write the port a scheme has anyway (RFC 6454 6.2).
        let port = match scheme.as_str() {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let plain = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
        Some(match behind {
            None => OriginPattern::Exact(format!("{scheme}://{}", plain(authority))),
            Some(suffix) => OriginPattern::Suffix {
                scheme: format!("{scheme}://"),
                suffix: plain(suffix),
            },
        })
    }

    /// Browsers send origins in lower case; anything else is another origin (RFC 6454 6.2).
    pub fn matches(&self, origin: &[u8]) -> bool {
        match self {
            OriginPattern::Any => true,
            OriginPattern::Exact(name) => origin == name.as_bytes(),
            OriginPattern::Suffix { scheme, suffix } => origin
                .strip_prefix(scheme.as_bytes())
                .and_then(|host| host.strip_suffix(suffix.as_bytes()))
                .is_some_and(|labels| !labels.is_empty() && !labels.contains(&b':')),
        }
    }
}

fn is_any(list: &[String]) -> bool {
    list.iter().any(|item| item == "*")
}

/// What a client sent, as far as it may stand in a field of ours.
fn text(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| char::from(*byte))
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .collect()
}

fn put(fields: &mut AnswerFields, name: &'static str, value: String) {
    if !value.is_empty() {
        fields.push((name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], methods: &[&str], headers: &[&str]) -> Cors {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Cors {
            origins: origins.iter().map(|text| OriginPattern::parse(text).unwrap()).collect(),
            methods: owned(methods),
            headers: owned(headers),
            exposed: owned(&["x-a", "x-b"]),
            credentials: false,
            max_age_s: 5,
        }
    }

    fn get<'a>(fields: &'a AnswerFields, name: &str) -> Option<&'a str> {
        fields
            .iter()
            .find(|field| field.0 == name)
            .map(|field| field.1.as_str())
    }

    #[test]
    fn origins_match_exactly_or_by_their_first_labels() {
        for (pattern, origin, allowed) in [
            ("https://a.example", "https://a.example", true),
            ("https://A.example", "https://a.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example:8443", "https://a.example:8443", true),
            ("https://a.example:443", "https://a.example", true),
            ("http://a.example:443", "http://a.example", false),
            ("http://*.a.example:80", "http://x.a.example", true),
            ("https://*.b.example", "https://x.b.example", true),
            ("https://*.b.example", "https://x.y.b.example", true),
            ("https://*.b.example", "https://b.example", false),
            ("https://*.b.example", "https://.b.example.evil", false),
            ("https://*.b.example", "https://evil:80.b.example", false),
            ("https://*", "https://anything", true),
            ("https://*", "http://anything", false),
            ("*", "null", true),
        ] {
            let pattern = OriginPattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(origin.as_bytes()), allowed, "{pattern:?} {origin}");
        }
        for wrong in [
            "",
            "a.example",
            "https://",
            "://a",
            "https://a.*",
            "https://a b",
            "https://*.*",
        ] {
            assert_eq!(OriginPattern::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_preflight_is_told_what_is_allowed() {
        let cors = cors(&["https://a.example"], &["GET", "PUT"], &["x-1", "x-2"]);
        let asked = Preflight {
            origin: b"https://a.example",
            method: b"DELETE",
            headers: Some(b"x-9"),
        };
        let fields = cors.preflight(&asked);
        assert_eq!(get(&fields, "access-control-allow-origin"), Some("https://a.example"));
        assert_eq!(get(&fields, "access-control-allow-methods"), Some("GET, PUT"));
        assert_eq!(get(&fields, "access-control-allow-headers"), Some("x-1, x-2"));
        assert_eq!(get(&fields, "access-control-expose-headers"), Some("x-a, x-b"));
        assert_eq!(get(&fields, "access-control-max-age"), Some("5"));
        assert_eq!(get(&fields, "access-control-allow-credentials"), None);
        let foreign = cors.preflight(&Preflight {
            origin: b"https://b.example",
            ..asked
        });
        assert_eq!(foreign, [("vary", "origin".to_owned())]);
    }

    #[test]
    fn wildcards_answer_what_was_asked_and_nothing_a_client_sends_breaks_out() {
        let mut cors = cors(&["*"], &["*"], &["*"]);
        cors.credentials = true;
        let fields = cors.preflight(&Preflight {
            origin: b"https://a.example\r\nx: y",
            method: b"PATCH",
            headers: Some(b"x-7, x-8"),
        });
        assert_eq!(get(&fields, "access-control-allow-methods"), Some("PATCH"));
        assert_eq!(get(&fields, "access-control-allow-headers"), Some("x-7, x-8"));
        assert_eq!(get(&fields, "access-control-allow-credentials"), Some("true"));
        cors.exposed = vec!["*".to_owned(), "x-a".to_owned()];
        let exposed =
            |cors: &Cors| get(&cors.answer(b"https://a.example"), "access-control-expose-headers").map(str::to_owned);
        assert_eq!(exposed(&cors).as_deref(), Some("x-a"), "with credentials * is a name");
        cors.credentials = false;
        assert_eq!(exposed(&cors).as_deref(), Some("*, x-a"));
        assert_eq!(
            get(&fields, "access-control-allow-origin"),
            Some("https://a.examplex: y")
        );
    }
}
