//! The authority parser and the host normaliser over any bytes.
//!
//! Laws: n(n(x)) = n(x) (an IPv6 address gets its brackets back first); a normal host is lower case and free of what a
//! log or an endpoint could read differently; `same` is reflexive and symmetric. Input: two authorities, a line each.
#![no_main]

use gateway_http::head::authority::{HOST_BYTES_MAX, canonical, parse, same};
use libfuzzer_sys::fuzz_target;

fn normal(authority: &[u8]) -> Option<String> {
    let mut into = "left over".to_owned();
    let mut whole = String::new();
    let fits = canonical(authority, &mut into, &mut whole);
    assert!(fits || (into.is_empty() && whole.is_empty()));
    fits.then_some(into)
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
    let Some(host) = normal(a) else {
        assert_eq!(parse(a), None);
        return;
    };
    let parsed = parse(a).expect("what is normalised was parsed");
    let again = if parsed.host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    assert_eq!(normal(again.as_bytes()), Some(host.clone()), "once is enough");
    assert!(!host.is_empty() && host.len() <= HOST_BYTES_MAX.max(39));
    assert!(
        !host
            .bytes()
            .any(|byte| byte.is_ascii_uppercase() || byte <= b' ' || b"/@\\?#%,\"[]".contains(&byte))
    );
});
