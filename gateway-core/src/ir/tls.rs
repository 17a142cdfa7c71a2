//! TLS on both sides: what a listener asks of its clients, and how an endpoint is spoken to.

use super::CertificateName;
use std::fmt;

/// How one Gateway API listener terminates TLS, besides its certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerTls {
    pub terms: TlsTerms,
    /// `None`: clients are not asked for certificates.
    pub clients: Option<ClientValidation>,
}

/// What may be agreed on. `None` is the gateway's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlsTerms {
    pub version_min: Option<TlsVersion>,
    /// In order of preference; never empty, none twice. TLS 1.3 and 1.2 suites stand in one list.
    pub suites: Option<Vec<TlsSuite>>,
}

/// A protocol version we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246
    V12,
    /// RFC 8446
    V13,
}

impl TlsVersion {
    /// `1.2`, `1.3`, and the same with `TLS`, `TLSv` or `TLSV` before it and `_` for the dot.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase().replace('_', ".");
        let number = text.strip_prefix("tls").unwrap_or(&text);
        match number.strip_prefix('v').unwrap_or(number) {
            "1.2" => Some(TlsVersion::V12),
            "1.3" => Some(TlsVersion::V13),
            _ => None,
        }
    }
}

/// A cipher suite we speak: authenticated encryption with forward secrecy, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsSuite {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
    EcdheEcdsaAes128Gcm,
    EcdheEcdsaAes256Gcm,
    EcdheEcdsaChacha20Poly1305,
    EcdheRsaAes128Gcm,
    EcdheRsaAes256Gcm,
    EcdheRsaChacha20Poly1305,
}

impl TlsSuite {
    pub const ALL: [TlsSuite; 9] = [
        TlsSuite::Aes128Gcm,
        TlsSuite::Aes256Gcm,
        TlsSuite::Chacha20Poly1305,
        TlsSuite::EcdheEcdsaAes128Gcm,
        TlsSuite::EcdheEcdsaAes256Gcm,
        TlsSuite::EcdheEcdsaChacha20Poly1305,
        TlsSuite::EcdheRsaAes128Gcm,
        TlsSuite::EcdheRsaAes256Gcm,
        TlsSuite::EcdheRsaChacha20Poly1305,
    ];

    /// Number, IANA name and OpenSSL name (IANA TLS Cipher Suites registry).
    const fn names(self) -> (u16, &'static str, &'static str) {
        match self {
            TlsSuite::Aes128Gcm => (0x1301, "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
            TlsSuite::Aes256Gcm => (0x1302, "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
            TlsSuite::Chacha20Poly1305 => (0x1303, "TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
            TlsSuite::EcdheEcdsaAes128Gcm => (
                0xc02b,
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "ECDHE-ECDSA-AES128-GCM-SHA256",
            ),
            TlsSuite::EcdheEcdsaAes256Gcm => (
                0xc02c,
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
            ),
            TlsSuite::EcdheEcdsaChacha20Poly1305 => (
                0xcca9,
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
            ),
            TlsSuite::EcdheRsaAes128Gcm => (
                0xc02f,
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "ECDHE-RSA-AES128-GCM-SHA256",
            ),
            TlsSuite::EcdheRsaAes256Gcm => (
                0xc030,
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "ECDHE-RSA-AES256-GCM-SHA384",
            ),
            TlsSuite::EcdheRsaChacha20Poly1305 => (
                0xcca8,
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
                "ECDHE-RSA-CHACHA20-POLY1305",
            ),
        }
    }

    /// By its IANA or OpenSSL name.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        Self::ALL.into_iter().find(|suite| {
            let (_, iana, openssl) = suite.names();
            iana.eq_ignore_ascii_case(name) || openssl.eq_ignore_ascii_case(name)
        })
    }

    /// IANA name.
    pub const fn name(self) -> &'static str {
        self.names().1
    }

    /// Number on the wire.
    pub const fn number(self) -> u16 {
        self.names().0
    }

    /// Of which version it is.
    pub const fn version(self) -> TlsVersion {
        match self.number() >> 8 {
            0x13 => TlsVersion::V13,
            _ => TlsVersion::V12,
        }
    }
}

impl TlsTerms {
    /// Suites from a list of names, separated by commas, colons or blanks. `Err`: what is wrong with it.
    pub fn parse_suites(text: &str) -> Result<Vec<TlsSuite>, String> {
        let mut suites = Vec::new();
        for name in text.split([',', ':', ' ']).filter(|name| !name.is_empty()) {
            let suite = TlsSuite::parse(name).ok_or_else(|| format!("{name:?} is no cipher suite served here"))?;
            if !suites.contains(&suite) {
                suites.push(suite);
            }
        }
        if suites.is_empty() {
            return Err("it names no cipher suite".to_owned());
        }
        Ok(suites)
    }

    /// Why nothing could ever be agreed on under these terms.
    pub fn contradiction(&self) -> Option<&'static str> {
        let suites = self.suites.as_ref()?;
        let newest_only = self.version_min == Some(TlsVersion::V13);
        let usable = |suite: &TlsSuite| !newest_only || suite.version() == TlsVersion::V13;
        (!suites.iter().any(usable))
            .then_some("none of the cipher suites is one of TLS 1.3, which is the least version")
    }

    /// These terms, and where they say nothing those.
    pub fn or(&self, default: &TlsTerms) -> TlsTerms {
        TlsTerms {
            version_min: self.version_min.or(default.version_min),
            suites: self.suites.clone().or_else(|| default.suites.clone()),
        }
    }
}

/// How clients' certificates are checked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientValidation {
    /// DER certificates of the authorities that are trusted; never empty.
    pub authorities: Vec<Vec<u8>>,
    pub mode: ClientMode,
}

impl fmt::Debug for ClientValidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by {} authorities", self.mode, self.authorities.len())
    }
}

/// What becomes of a client without a good certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientMode {
    /// It is refused (Gateway API `AllowValidOnly`).
    Required,
    /// One that gives none is served, one that gives a bad one refused.
    Optional,
    /// It is served as one without identity (Gateway API `AllowInsecureFallback`).
    Unchecked,
}

/// TLS to the endpoints of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTls {
    /// Asked for in the handshake (RFC 6066 3). A host name, lower case.
    pub server_name: String,
    pub authorities: Authorities,
    /// The endpoint's certificate must be for one of them; never empty.
    pub subjects: Vec<SubjectName>,
    /// What we show to an endpoint that asks.
    pub certificate: Option<CertificateName>,
}

/// Whose certificates are believed.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorities {
    /// Those of the host.
    System,
    /// DER certificates; never empty.
    These(Vec<Vec<u8>>),
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Authorities::System => f.write_str("system"),
            Authorities::These(certificates) => write!(f, "{} certificates", certificates.len()),
        }
    }
}

/// A subject alternative name (RFC 5280 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// Lower case. `*.example.com` must stand in the certificate like that.
    Dns(String),
    /// Byte for byte.
    Uri(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_suites_are_read_as_users_write_them() {
        for text in ["1.3", "TLSv1.3", "TLSV1_3", "tls1.3", " 1.3 "] {
            assert_eq!(TlsVersion::parse(text), Some(TlsVersion::V13), "{text}");
        }
        for text in ["1.1", "TLSv1", "", "13", "ssl3"] {
            assert_eq!(TlsVersion::parse(text), None, "{text}");
        }
        let both = TlsTerms::parse_suites("ECDHE-RSA-AES128-GCM-SHA256:tls_aes_128_gcm_sha256,TLS_AES_128_GCM_SHA256");
        assert_eq!(both, Ok(vec![TlsSuite::EcdheRsaAes128Gcm, TlsSuite::Aes128Gcm]));
        assert!(TlsTerms::parse_suites("RC4-MD5").unwrap_err().contains("RC4-MD5"));
        assert!(TlsTerms::parse_suites(" ,").is_err());
    }

    #[test]
    fn every_suite_is_found_by_both_its_names() {
        for suite in TlsSuite::ALL {
            let (_, iana, openssl) = suite.names();
            assert_eq!(
                (TlsSuite::parse(iana), TlsSuite::parse(openssl)),
                (Some(suite), Some(suite))
            );
        }
    }

    #[test]
    fn terms_that_nobody_can_meet_are_told() {
        let terms = |version_min, suite| TlsTerms {
            version_min,
            suites: Some(vec![suite]),
        };
        assert!(
            terms(Some(TlsVersion::V13), TlsSuite::EcdheRsaAes128Gcm)
                .contradiction()
                .is_some()
        );
        assert!(
            terms(Some(TlsVersion::V13), TlsSuite::Aes128Gcm)
                .contradiction()
                .is_none()
        );
        assert!(terms(None, TlsSuite::EcdheRsaAes128Gcm).contradiction().is_none());
    }
}
