//! Which cryptography is used.

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// aws-lc-rs with AES-128-GCM first: as strong as anyone needs, and a third cheaper than AES-256.
pub(super) fn provider() -> CryptoProvider {
    use rustls::CipherSuite as Suite;
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        Suite::TLS13_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        _ => 1,
    });
    provider
}
