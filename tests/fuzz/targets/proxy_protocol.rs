//! PROXY headers of both versions over any bytes, in any two pieces.
//!
//! Laws: total; "incomplete" asks for more than there is and never for more than the bound; what was decided from a front
//! stays decided; extensions lie inside the header. Input: where the front ends (two bytes), then the connection's bytes.
#![no_main]

use gateway_core::detect::proxy_protocol::{HEADER_BYTES_MAX, Proxied, TLVS_MAX, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [a, b, bytes @ ..] = input else { return };
    let front = &bytes[..usize::from(u16::from_be_bytes([*a, *b])).min(bytes.len())];
    let (early, late) = (parse(front), parse(bytes));
    for (bytes, proxied) in [(front, &early), (bytes, &late)] {
        match proxied {
            Proxied::Incomplete { bytes_min } => assert!((bytes.len() + 1..=HEADER_BYTES_MAX).contains(bytes_min)),
            Proxied::Complete(header) => {
                assert!(header.len <= bytes.len());
                let tlvs: Vec<_> = header.tlvs().collect();
                assert!(tlvs.len() <= TLVS_MAX);
                let inside: usize = tlvs.iter().map(|tlv| 3 + tlv.value.len()).sum();
                assert!(inside <= header.len);
            }
            Proxied::Not(_) => {}
        }
    }
    if !matches!(early, Proxied::Incomplete { .. }) {
        assert_eq!(early, late, "a decision stays");
    }
});
