//! TLS as the operator wants it everywhere: `--set tls.minVersion`, `tls.cipherSuites`, `tls.clientCertificate`.

use anyhow::{Result, anyhow, bail};
use gateway_core::ir::{TlsTerms, TlsVersion};
use serde_json::{Value, json};

/// What holds where neither a listener nor a policy says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    pub terms: TlsTerms,
    pub forwarded: ForwardedClient,
}

/// Which parts of a verified client certificate endpoints are told in `x-forwarded-client-cert`, as Envoy writes it.
/// What clients say there never passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardedClient {
    /// SHA-256 of the certificate.
    pub hash: bool,
    pub subject: bool,
    pub uri: bool,
    pub dns: bool,
}

impl Default for ForwardedClient {
    /// Envoy's `SANITIZE_SET` with the details most meshes ask for.
    fn default() -> Self {
        Self {
            hash: true,
            subject: true,
            uri: true,
            dns: true,
        }
    }
}

impl ForwardedClient {
    const NOTHING: Self = Self {
        hash: false,
        subject: false,
        uri: false,
        dns: false,
    };

    pub fn is_nothing(self) -> bool {
        self == Self::NOTHING
    }

    fn parse(text: &str) -> Result<Self> {
        let mut parts = Self::NOTHING;
        if text == "off" {
            return Ok(parts);
        }
        for part in text.split(',') {
            match part.trim() {
                "hash" => parts.hash = true,
                "subject" => parts.subject = true,
                "uri" => parts.uri = true,
                "dns" => parts.dns = true,
                other => bail!("`{other}` is no part of a certificate: write off, or some of hash,subject,uri,dns"),
            }
        }
        Ok(parts)
    }
}

impl TlsSettings {
    /// Whether `path` is one of these, and then whether `value` is good for it.
    pub fn set(&mut self, path: &str, value: &str) -> Result<bool> {
        let wrong = |why: String| anyhow!("--set {path}={value}: {why}");
        match path {
            "tls.minVersion" => {
                let version = TlsVersion::parse(value).ok_or_else(|| wrong("1.2 or 1.3".to_owned()))?;
                self.terms.version_min = Some(version);
            }
            "tls.cipherSuites" => self.terms.suites = Some(TlsTerms::parse_suites(value).map_err(wrong)?),
            "tls.clientCertificate" => {
                self.forwarded = ForwardedClient::parse(value).map_err(|error| wrong(error.to_string()))?;
            }
            _ => return Ok(false),
        }
        match self.terms.contradiction() {
            Some(why) => Err(wrong(why.to_owned())),
            None => Ok(true),
        }
    }

    /// For the config dump.
    pub fn values(&self) -> Value {
        let version = match self.terms.version_min {
            Some(TlsVersion::V13) => "1.3",
            Some(TlsVersion::V12) | None => "1.2",
        };
        let suites = self.terms.suites.as_ref();
        let parts = self.forwarded;
        let named = [
            (parts.hash, "hash"),
            (parts.subject, "subject"),
            (parts.uri, "uri"),
            (parts.dns, "dns"),
        ];
        json!({
            "minVersion": version,
            "cipherSuites": suites.map(|all| all.iter().map(|suite| suite.name()).collect::<Vec<_>>()),
            "clientCertificate": named.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_that_contradict_each_other_are_refused_whichever_comes_first() {
        let mut tls = TlsSettings::default();
        assert!(tls.set("tls.minVersion", "1.3").expect("a version"));
        assert!(tls.set("tls.cipherSuites", "ECDHE-RSA-AES128-GCM-SHA256").is_err());
        assert!(tls.set("tls.minVersion", "1.1").is_err());
        assert!(!tls.set("tls.other", "1").expect("another's"));
    }

    #[test]
    fn parts_of_the_certificate_are_chosen_by_name() {
        let mut tls = TlsSettings::default();
        tls.set("tls.clientCertificate", "hash, uri").expect("parts");
        assert_eq!(tls.values()["clientCertificate"], json!(["hash", "uri"]));
        tls.set("tls.clientCertificate", "off").expect("off");
        assert!(tls.forwarded.is_nothing());
        assert!(tls.set("tls.clientCertificate", "pem").is_err());
    }
}
