//! Who a client is: its verified certificate, and what endpoints are told of it in `x-forwarded-client-cert`.

use super::session::Session;
use super::x509;
use crate::settings::tls::ForwardedClient;
use gateway_core::fault::Refusal;
use gateway_core::ir::ClientMode;
use gateway_http::engine::{ClientFacts, TlsFacts};
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use std::fmt::Write as _;
use std::sync::Arc;

/// How the clients of one listener are checked, and what endpoints are told of them.
#[derive(Clone, Debug)]
pub struct ClientCheck {
    pub mode: ClientMode,
    pub verifier: Arc<dyn ClientCertVerifier>,
    pub forwarded: ForwardedClient,
}

/// Longest field that is sent; a certificate whose names need more is told by its hash alone.
const FORWARDED_BYTES_MAX: usize = 8 * 1024;

/// What the handshake settled. A resumed client's certificate is looked at again: it may have expired, and the
/// authorities be others, since it was verified.
pub fn facts(session: &Session, check: Option<&ClientCheck>) -> Result<TlsFacts, Refusal> {
    let mut facts = session.facts();
    let Some(check) = check else {
        return Ok(facts);
    };
    let [leaf, rest @ ..] = session.peer_certificates() else {
        return match check.mode {
            ClientMode::Required => Err(Refusal::Handshake),
            ClientMode::Optional | ClientMode::Unchecked => Ok(facts),
        };
    };
    let fresh = !session.resumed() && check.mode != ClientMode::Unchecked;
    let holds = fresh || check.verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok();
    match (holds, check.mode) {
        (true, _) => facts.client = Some(client(leaf, check.forwarded)),
        (false, ClientMode::Unchecked) => {}
        (false, ClientMode::Required | ClientMode::Optional) => return Err(Refusal::Handshake),
    }
    Ok(facts)
}

fn client(der: &[u8], parts: ForwardedClient) -> ClientFacts {
    let x509::CertificateFacts { subject, dns, uris, .. } = x509::facts(der).unwrap_or_default();
    let identity = uris.first().or(dns.first()).unwrap_or(&subject).clone();
    if parts.is_nothing() {
        return ClientFacts {
            identity,
            forwarded: None,
        };
    }
    let mut elements = Vec::new();
    if parts.hash {
        elements.push(format!("Hash={}", fingerprint(der)));
    }
    if parts.subject {
        let clean: String = subject
            .chars()
            .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
            .collect();
        elements.push(format!("Subject={}", quoted(&clean)));
    }
    if parts.uri {
        elements.extend(uris.iter().map(|uri| format!("URI={}", value(uri))));
    }
    if parts.dns {
        elements.extend(dns.iter().map(|name| format!("DNS={}", value(name))));
    }
    let mut text = elements.join(";");
    if text.len() > FORWARDED_BYTES_MAX {
        text = format!("Hash={}", fingerprint(der));
    }
    ClientFacts {
        identity,
        forwarded: Some(text),
    }
}

/// Quoted where a character would end the value (Envoy, x-forwarded-client-cert).
fn value(text: &str) -> String {
    match text.contains([',', ';', '=', '"']) {
        true => quoted(text),
        false => text.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// SHA-256, hexadecimal, lower case.
fn fingerprint(der: &[u8]) -> String {
    let provider = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = match provider {
        rustls::SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider.hash(der),
        rustls::SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider.hash(der),
    };
    hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn made(common_name: &str, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn the_field_is_what_envoy_writes() {
        let der = made("a", vec![uri("spiffe://example.com/ns/a/sa/b"), dns("a.example.com")]);
        let told = client(&der, ForwardedClient::default());
        assert_eq!(told.identity, "spiffe://example.com/ns/a/sa/b");
        let rest = told.forwarded.unwrap();
        let (hash, rest) = rest.split_once(';').unwrap();
        assert_eq!(hash.len(), "Hash=".len() + 64);
        assert_eq!(
            rest,
            "Subject=\"CN=a\";URI=spiffe://example.com/ns/a/sa/b;DNS=a.example.com"
        );
    }

    #[test]
    fn a_name_cannot_forge_another_element() {
        let evil = vec![
            uri("x:a;Hash=00,By=you"),
            uri("x:b\"c"),
            uri("x:c\r\nhost: d"),
            dns("a\0.example.com"),
        ];
        let told = client(&made("a\";Hash=00", evil), ForwardedClient::default())
            .forwarded
            .unwrap();
        let (_, rest) = told.split_once(';').unwrap();
        assert!(rest.ends_with("URI=\"x:a;Hash=00,By=you\";URI=\"x:b\\\"c\""), "{rest}");
        assert!(rest.starts_with("Subject=\"CN=a"), "{rest}");
        assert!(!rest.contains(['\r', '\n', '\0']));
    }

    #[test]
    fn a_certificate_with_endless_names_is_told_by_its_hash() {
        let names = (0..60).map(|n| uri(&format!("x:{n}{}", "y".repeat(200)))).collect();
        let told = client(&made("a", names), ForwardedClient::default()).forwarded.unwrap();
        assert_eq!(told.len(), "Hash=".len() + 64);
    }
}
