//! Certificates with their keys, parsed once, and the last good one of each name.
//!
//! A renewal that does not load, does not belong to its key or has expired does not take the place of one that serves:
//! the old one stays, and the problem is told.

use super::x509;
use gateway_core::ir::{Certificate, CertificateName};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What each certificate came to, from one revision to the next.
#[derive(Debug, Default)]
pub struct Keys {
    before: BTreeMap<CertificateName, Known>,
    now: BTreeMap<CertificateName, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    /// As configured.
    of: Arc<Certificate>,
    /// What serves.
    used: Option<Loaded>,
    problem: Option<String>,
}

#[derive(Clone, Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    not_after: i64,
}

impl Keys {
    /// A new revision begins.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// The key to use for a certificate, and what is wrong with the configured one. `now`: seconds since 1970.
    pub fn get(
        &mut self,
        name: &CertificateName,
        certificate: &Arc<Certificate>,
        provider: &CryptoProvider,
        now: i64,
    ) -> (Option<Arc<CertifiedKey>>, Option<String>) {
        if !self.now.contains_key(name) {
            let before = self.before.get(name);
            let known = match before.filter(|before| before.of == *certificate) {
                Some(same) => same.clone(),
                None => known(
                    certificate,
                    before.and_then(|before| before.used.as_ref()),
                    provider,
                    now,
                ),
            };
            self.now.insert(name.clone(), known);
        }
        let known = &self.now[name];
        (
            known.used.as_ref().map(|used| Arc::clone(&used.key)),
            known.problem.clone(),
        )
    }
}

/// Why a certificate cannot be shown with its key, if it cannot.
pub fn fault(certificate: &Certificate) -> Option<String> {
    load(certificate, &super::provider::provider()).err()
}

fn known(certificate: &Arc<Certificate>, before: Option<&Loaded>, provider: &CryptoProvider, now: i64) -> Known {
    let good_before = before.filter(|before| before.not_after > now);
    let (used, problem) = match (load(certificate, provider), good_before) {
        (Ok(loaded), _) if loaded.not_after > now => (Some(loaded), None),
        (Ok(_), Some(before)) => (
            Some(before.clone()),
            Some("it has expired; the one before stays in use".to_owned()),
        ),
        (Ok(loaded), None) => (
            Some(loaded),
            Some("it has expired; clients will not believe it".to_owned()),
        ),
        (Err(why), Some(before)) => (
            Some(before.clone()),
            Some(format!("{why}; the one before stays in use")),
        ),
        (Err(why), None) => (None, Some(why)),
    };
    Known {
        of: Arc::clone(certificate),
        used,
        problem,
    }
}

fn load(certificate: &Certificate, provider: &CryptoProvider) -> Result<Loaded, String> {
    let chain: Vec<_> = certificate
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    let Some(leaf) = certificate.chain.first() else {
        return Err("the chain is empty; put the certificate, leaf first, into tls.crt".to_owned());
    };
    let not_after = x509::facts(leaf).map_or(i64::MAX, |facts| facts.not_after);
    let key = PrivateKeyDer::try_from(certificate.key.expose())
        .map_err(|_| "the key is neither PKCS#8, PKCS#1 nor SEC1".to_owned())?
        .clone_key();
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(key) => Ok(Loaded {
            key: Arc::new(key),
            not_after,
        }),
        Err(rustls::Error::InconsistentKeys(_)) => Err("the key does not belong to the certificate".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
