//! certificateRefs to certificates.

use super::{Work, reference_grant};
use crate::objects::kinds::ObjectRef;
use crate::objects::{Key, Kind, Object, Subject, kinds};
use crate::status::reason;
use base64::Engine as _;
use gateway_core::ir::{Certificate, CertificateName, SecretBytes};
use rustls_pki_types::pem::{PemObject, SectionKind};

/// Most certificates of one chain.
const CHAIN_MAX: usize = 32;

/// Why a reference cannot be used.
pub(super) struct BadRef {
    pub reason: &'static str,
    pub problem: String,
    pub remedy: &'static str,
}

fn bad(reason: &'static str, problem: impl Into<String>, remedy: &'static str) -> BadRef {
    BadRef {
        reason,
        problem: problem.into(),
        remedy,
    }
}

/// Finds and reads what a listener's certificateRef names; it is then among `work.certificates`.
pub(super) fn resolve(work: &mut Work<'_>, gateway: Subject<'_>, to: &ObjectRef) -> Result<CertificateName, BadRef> {
    let kind = match (
        to.group.as_deref().unwrap_or(""),
        to.kind.as_deref().unwrap_or("Secret"),
    ) {
        ("", "Secret") => Kind::Secret,
        ("sluice.dev", "CertificateFile") => Kind::CertificateFile,
        (group, kind) => {
            let problem = format!("a certificate cannot be a {kind} of group {group:?}");
            return Err(bad(
                reason::INVALID_CERTIFICATE_REF,
                problem,
                "name a Secret, or a CertificateFile of sluice.dev",
            ));
        }
    };
    let namespace = to.namespace.as_deref().unwrap_or(&gateway.id.namespace);
    let from = (Kind::Gateway, gateway.id.namespace.as_str());
    if !reference_grant::allows(work.objects, from, (kind, namespace, &to.name)) {
        let problem = format!(
            "no ReferenceGrant in namespace {namespace} lets this Gateway use {kind} {}",
            to.name
        );
        return Err(bad(
            reason::REF_NOT_PERMITTED,
            problem,
            "add the ReferenceGrant there, or move the certificate",
        ));
    }
    let key = Key::new(namespace, &to.name);
    let name = match kind {
        Kind::CertificateFile => CertificateName::new(format!("CertificateFile/{key}")),
        _ => CertificateName::new(key.to_string()),
    };
    if work.certificates.contains_key(&name) {
        return Ok(name);
    }
    let objects = work.objects;
    // A CertificateFile may stand in for the Secret of the same name.
    let certificate = match (kind, objects.secrets.get(&key), objects.certificate_files.get(&key)) {
        (Kind::Secret, Some(secret), _) => from_secret(&secret.body),
        (_, _, Some(files)) => from_files(work, files),
        (_, _, None) => Err(bad(
            reason::INVALID_CERTIFICATE_REF,
            format!("there is no {kind} {key}"),
            "add it or correct the name",
        )),
    }?;
    work.certificates.insert(name.clone(), certificate);
    Ok(name)
}

fn from_secret(secret: &kinds::Secret) -> Result<Certificate, BadRef> {
    const REMEDY: &str = "give the Secret tls.crt and tls.key, both PEM";
    if let Some(kind) = secret.kind.as_deref().filter(|kind| *kind != "kubernetes.io/tls") {
        let problem = format!("the Secret is of type {kind}, not kubernetes.io/tls");
        return Err(bad(
            reason::INVALID_CERTIFICATE_REF,
            problem,
            "set type: kubernetes.io/tls",
        ));
    }
    let part = |name: &str| -> Result<Vec<u8>, BadRef> {
        if let Some(text) = secret.string_data.get(name) {
            return Ok(text.clone().into_bytes());
        }
        let Some(text) = secret.data.get(name) else {
            return Err(bad(
                reason::INVALID_CERTIFICATE_REF,
                format!("the Secret has no {name}"),
                REMEDY,
            ));
        };
        // A folded value may carry line breaks.
        let dense: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        base64::engine::general_purpose::STANDARD.decode(dense).map_err(|_| {
            bad(
                reason::INVALID_CERTIFICATE_REF,
                format!("{name} of the Secret is not base64"),
                "encode it, or use stringData",
            )
        })
    };
    from_pem(&part("tls.crt")?, &part("tls.key")?)
}

fn from_files(work: &Work<'_>, files: &Object<kinds::CertificateFile>) -> Result<Certificate, BadRef> {
    let part = |path: Option<&str>, field: &str| -> Result<Vec<u8>, BadRef> {
        let Some(path) = path else {
            let problem = format!("CertificateFile {} has no {field}", files.key());
            return Err(bad(reason::INVALID_CERTIFICATE_REF, problem, "name the file"));
        };
        let path = files.path(path);
        let problem = match work.objects.file(&path) {
            Some(Ok(bytes)) => return Ok(bytes.to_vec()),
            Some(Err(problem)) => format!("{path}: {problem}"),
            None => format!("{path} was not read"),
        };
        Err(bad(
            reason::INVALID_CERTIFICATE_REF,
            problem,
            "make the file readable, or correct its path",
        ))
    };
    from_pem(
        &part(files.body.cert_path(), "certFile")?,
        &part(files.body.key_path(), "keyFile")?,
    )
}

fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Certificate, BadRef> {
    const REMEDY: &str = "give a PEM certificate chain (leaf first) and its private key";
    let broken = |what: &str| bad(reason::INVALID_CERTIFICATE_REF, what.to_owned(), REMEDY);
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
    // DER: every certificate is a SEQUENCE (RFC 5280, 4.1).
    if chain.iter().any(|der| der.first() != Some(&0x30)) {
        return Err(broken("the certificate is no X.509"));
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
        let certificate = from_pem(chain.as_bytes(), KEY.as_bytes()).ok().unwrap();
        assert_eq!(certificate.chain, vec![vec![0x30, 0], vec![0x30, 0]]);
        assert_eq!(certificate.key.expose(), [0x30, 0]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let problem =
            |certificate: &str, key: &str| from_pem(certificate.as_bytes(), key.as_bytes()).err().unwrap().problem;
        assert!(problem("Hello world", KEY).contains("no PEM certificate"));
        assert!(problem(CERTIFICATE, CERTIFICATE).contains("no PEM private key"));
        assert!(
            problem("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", KEY).contains("not valid PEM")
        );
    }
}
