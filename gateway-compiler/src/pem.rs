//! Certificates and keys out of PEM (RFC 7468) and out of `kubernetes.io/tls` Secrets.
//!
//! Says whether a certificate can be taken at all; whether key and certificate belong together is the TLS library's to
//! say.

use crate::objects::kinds::Secret;
use base64::Engine as _;
use gateway_core::ir::{Certificate, SecretBytes};
use rustls_pki_types::pem::{PemObject, SectionKind};

/// Most certificates of one chain.
const CHAIN_MAX: usize = 32;

/// Why there is no certificate to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    pub problem: String,
    pub remedy: &'static str,
}

fn unusable(problem: impl Into<String>, remedy: &'static str) -> Unusable {
    Unusable {
        problem: problem.into(),
        remedy,
    }
}

/// The certificate and key of a Secret.
pub(crate) fn of_secret(secret: &Secret) -> Result<Certificate, Unusable> {
    if let Some(kind) = secret.kind.as_deref().filter(|kind| *kind != "kubernetes.io/tls") {
        let problem = format!("the Secret is of type {kind}, not kubernetes.io/tls");
        return Err(unusable(problem, "set type: kubernetes.io/tls"));
    }
    of_parts(&part(secret, "tls.crt")?, &part(secret, "tls.key")?)
}

pub(crate) fn part(secret: &Secret, name: &str) -> Result<Vec<u8>, Unusable> {
    if let Some(text) = secret.string_data.get(name) {
        return Ok(text.clone().into_bytes());
    }
    let Some(text) = secret.data.get(name) else {
        return Err(unusable(
            format!("the Secret has no {name}"),
            "give it tls.crt and tls.key, both PEM",
        ));
    };
    // A folded value may carry line breaks.
    let dense: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(dense);
    decoded.map_err(|_| {
        unusable(
            format!("{name} of the Secret is not base64"),
            "encode it, or use stringData",
        )
    })
}

/// Most certificates of one bundle of authorities.
const AUTHORITIES_MAX: usize = 4096;

/// The certificates of a bundle of authorities, none twice.
pub(crate) fn authorities(bundle: &[u8]) -> Result<Vec<Vec<u8>>, Unusable> {
    const REMEDY: &str = "give PEM certificates of authorities";
    let mut found: Vec<Vec<u8>> = Vec::new();
    for section in Section::pem_slice_iter(bundle) {
        let section = section.map_err(|_| unusable("it is not valid PEM", REMEDY))?;
        if section.kind != SectionKind::Certificate {
            continue;
        }
        if !is_sequence(&section.der) {
            return Err(unusable("a certificate in it is no X.509", REMEDY));
        }
        found.push(section.der);
        if found.len() > AUTHORITIES_MAX {
            return Err(unusable("it has more than 4096 certificates", "split it"));
        }
    }
    found.sort_unstable();
    found.dedup();
    match found.is_empty() {
        true => Err(unusable("there is no PEM certificate in it", REMEDY)),
        false => Ok(found),
    }
}

/// A PEM chain, leaf first, and its PEM key.
pub(crate) fn of_parts(certificate: &[u8], key: &[u8]) -> Result<Certificate, Unusable> {
    const REMEDY: &str = "give a PEM certificate chain (leaf first) and its private key";
    let broken = |what: &str| unusable(what, REMEDY);
    let mut chain = Vec::new();
    for section in Section::pem_slice_iter(certificate) {
        let section = section.map_err(|_| broken("the certificate is not valid PEM"))?;
        if section.kind == SectionKind::Certificate {
            chain.push(section.der);
        }
    }
    if chain.is_empty() {
        return Err(broken("there is no PEM certificate in it"));
    }
    if chain.len() > CHAIN_MAX {
        return Err(broken("the chain has more than 32 certificates"));
    }
    if !chain.iter().all(|der| is_sequence(der)) {
        return Err(broken("the certificate is no X.509"));
    }
    // RFC 5958 section 3, and the older way of RFC 1421.
    if key.windows(9).any(|word| word == b"ENCRYPTED") {
        let remedy = "decrypt it (openssl pkey): nobody is asked for a passphrase";
        return Err(unusable("the private key is encrypted", remedy));
    }
    for section in Section::pem_slice_iter(key) {
        let section = section.map_err(|_| broken("the private key is not valid PEM"))?;
        if matches!(
            section.kind,
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey
        ) {
            return Ok(Certificate {
                chain,
                key: SecretBytes::new(section.der),
            });
        }
    }
    Err(broken("there is no PEM private key in it"))
}

/// DER: every certificate is one SEQUENCE and nothing after it (RFC 5280 4.1, X.690 8.1.3).
fn is_sequence(der: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = der else { return false };
    let (length, body) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            // Four bytes of length are more than any source has.
            let count = usize::from(long & 0x7f);
            let Some((digits, body)) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count)) else {
                return false;
            };
            let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
            (length, body)
        }
    };
    body.len() == length
}

/// Any section of a PEM file.
struct Section {
    kind: SectionKind,
    der: Vec<u8>,
}

impl PemObject for Section {
    fn from_pem(kind: SectionKind, der: Vec<u8>) -> Option<Self> {
        Some(Self { kind, der })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";

    #[test]
    fn a_chain_and_a_key_are_taken_out_of_pem() {
        let chain = [CERTIFICATE, CERTIFICATE].concat();
        let certificate = of_parts(chain.as_bytes(), KEY.as_bytes()).unwrap();
        assert_eq!(certificate.chain, vec![vec![0x30, 0], vec![0x30, 0]]);
        assert_eq!(certificate.key.expose(), [0x30, 0]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let problem =
            |certificate: &str, key: &str| of_parts(certificate.as_bytes(), key.as_bytes()).unwrap_err().problem;
        assert!(problem("Hello world", KEY).contains("no PEM certificate"));
        assert!(problem(CERTIFICATE, CERTIFICATE).contains("no PEM private key"));
        assert!(
            problem("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", KEY).contains("not valid PEM")
        );
    }
}
