//! The authority parser and the host normaliser over any bytes.
//!
//! Laws: n(n(x)) = n(x) (host and whole); a normal host is lower case and free of what a
//! log or an endpoint could read differently; `same` is reflexive and symmetric. Input: two authorities, a line each.
#![no_main]

use gateway_http::head::authority::{HOST_BYTES_MAX, canonical, parse, same};
use libfuzzer_sys::fuzz_target;

/// The host as it is routed, and the authority as it is sent on.
fn normal(authority: &[u8]) -> Option<(String, String)> {
    let (mut host, mut whole) = ("left over".to_owned(), "too".to_owned());
    let fits = canonical(authority, &mut host, &mut whole);
    assert!(fits || host.is_empty() && whole.is_empty());
    fits.then_some((host, whole))
}

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let (a, b) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    assert!(same(a, a));
    assert_eq!(same(a, b), same(b, a));
    if let (Some(one), Some(other)) = (normal(a), normal(b))
        && same(a, b)
    {
        assert_eq!(one, other, "the same authority is routed the same");
    }
    let Some((host, whole)) = normal(a) else {
        assert_eq!(parse(a), None);
        return;
    };
    assert_eq!(normal(whole.as_bytes()), Some((host.clone(), whole)), "once is enough");
    assert!(!host.is_empty() && host.len() <= HOST_BYTES_MAX);
    let odd = |byte: u8| byte.is_ascii_uppercase() || byte <= b' ' || b"/@\\?#%,\"[]".contains(&byte);
    assert!(!host.bytes().any(odd));
});
