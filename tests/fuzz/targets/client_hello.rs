//! The ClientHello reader over any bytes, in any two pieces.
//!
//! Laws: total; "incomplete" asks for more than there is and never for more than the bound; what was decided from a
//! front stays decided. Input: where the front ends (two bytes), then the connection's bytes.
#![no_main]

use gateway_core::detect::client_hello::{HELLO_BYTES_MAX, Hello, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [a, b, bytes @ ..] = input else { return };
    let front = &bytes[..usize::from(u16::from_be_bytes([*a, *b])).min(bytes.len())];
    let (early, late) = (parse(front), parse(bytes));
    for (bytes, hello) in [(front, &early), (bytes, &late)] {
        match hello {
            Hello::Incomplete { bytes_min } => assert!((bytes.len() + 1..=HELLO_BYTES_MAX).contains(bytes_min)),
            Hello::Complete {
                server_name: Some(name),
            } => {
                assert!((1..=253).contains(&name.len()) && !name.ends_with('.'));
                assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' '));
            }
            Hello::Complete { server_name: None } | Hello::Not(_) => {}
        }
    }
    if !matches!(early, Hello::Incomplete { .. }) {
        assert_eq!(early, late, "a decision stays");
    }
});
