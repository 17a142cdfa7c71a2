//! What a certificate says, as far as people and endpoints are told (RFC 5280). Whether it is believed is decided by
//! rustls; nothing here opens a door.

use gateway_core::ir::SubjectName;
use std::fmt::Write as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Most names of a certificate that are shown or told.
const NAMES_MAX: usize = 64;

/// What a certificate says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// RFC 4514.
    pub subject: String,
    pub issuer: String,
    /// Hexadecimal.
    pub serial: String,
    /// At most [`NAMES_MAX`]; a name with a control character is left out.
    pub dns: Vec<String>,
    pub uris: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

/// `None`: it is no certificate.
pub fn facts(der: &[u8]) -> Option<CertificateFacts> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut facts = CertificateFacts {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: certificate.raw_serial().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
        ..CertificateFacts::default()
    };
    for name in names(&certificate).take(NAMES_MAX) {
        match name {
            Name::Dns(name) if printable(name) => facts.dns.push(name.to_owned()),
            Name::Uri(uri) if printable(uri) => facts.uris.push(uri.to_owned()),
            Name::Dns(_) | Name::Uri(_) => {}
        }
    }
    Some(facts)
}

/// Whether the certificate has a URI, byte for byte, or a DNS name, letter for letter, wildcards included.
pub fn stands_in(subject: &SubjectName, der: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return false;
    };
    names(&certificate).any(|name| match (subject, name) {
        (SubjectName::Dns(wanted), Name::Dns(name)) => name.eq_ignore_ascii_case(wanted),
        (SubjectName::Uri(wanted), Name::Uri(uri)) => uri == wanted,
        (SubjectName::Dns(_), Name::Uri(_)) | (SubjectName::Uri(_), Name::Dns(_)) => false,
    })
}

enum Name<'a> {
    Dns(&'a str),
    Uri(&'a str),
}

fn names<'a>(certificate: &'a X509Certificate<'_>) -> impl Iterator<Item = Name<'a>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let all = extension.map_or(&[][..], |extension| extension.value.general_names.as_slice());
    all.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(Name::Dns(name)),
        GeneralName::URI(uri) => Some(Name::Uri(uri)),
        _ => None,
    })
}

/// Bytes that may stand in a field's value (RFC 9110 5.5).
fn printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..0x7f).contains(&byte))
}
