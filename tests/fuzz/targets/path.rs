//! The path normaliser over any target.
//!
//! Laws: n(n(x)) = n(x); nothing in the result climbs or hides; the query is what it was. Input: the target.
#![no_main]

use gateway_http::engine::path::{Normal, Rules, normalise, split};
use libfuzzer_sys::fuzz_target;

fn normal(target: &[u8]) -> Option<Vec<u8>> {
    let mut into = b"left over".to_vec();
    match normalise(target, Rules::default(), &mut into) {
        Normal::AsIs => Some(target.to_vec()),
        Normal::Rewritten => Some(into),
        Normal::Malformed => None,
    }
}

fuzz_target!(|target: &[u8]| {
    // What comes here passed `is_target`: it begins with a slash.
    let target = [b"/", target].concat();
    let Some(once) = normal(&target) else { return };
    assert_eq!(normal(&once).as_ref(), Some(&once), "once is enough");
    assert!(once.len() <= 3 * target.len(), "a byte is three at most");
    let ((path, query), (_, query_before)) = (split(&once), split(&target));
    assert_eq!(query, query_before);
    assert_eq!(path.first(), Some(&b'/'));
    assert!(path.is_ascii() && !path.windows(2).any(|pair| pair == b"//"));
    for segment in path.split(|byte| *byte == b'/') {
        let decoded = String::from_utf8_lossy(segment)
            .to_ascii_lowercase()
            .replace("%2e", ".");
        assert!(decoded != "." && decoded != "..", "{}", path.escape_ascii());
    }
    assert!(!path.windows(2).any(|pair| pair == b"//"));
    assert!(!path.iter().any(|byte| *byte == b'\\' || *byte <= b' ' || *byte >= 0x7f));
});
