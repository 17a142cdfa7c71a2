//! Which certificate, and which settings, a server name gets on one listener.

use gateway_core::ir::HostPattern;
use gateway_core::route::HostIndex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// The scopes of one listener by server name: exact, then the longest wildcard, then any; each one hash away, however
/// many there are. A client that sends no name belongs to the scope for any name, else to the least specific one.
#[derive(Debug, Default)]
pub struct Names {
    scopes: Vec<Scope>,
    by_host: HostIndex<Option<usize>>,
}

#[derive(Debug)]
struct Scope {
    hostname: HostPattern,
    /// Empty: nothing can be shown, and nobody else answers for it.
    certificates: Vec<Arc<CertifiedKey>>,
    /// Scopes of one class ask the same of their clients.
    class: usize,
}

impl Names {
    /// Most specific hostname first; the first scope of a hostname counts.
    pub fn push(&mut self, hostname: &HostPattern, certificates: Vec<Arc<CertifiedKey>>, class: usize) {
        let index = self.scopes.len();
        self.scopes.push(Scope {
            hostname: hostname.clone(),
            certificates,
            class,
        });
        self.by_host.entry(hostname).get_or_insert(index);
    }

    pub fn is_empty(&self) -> bool {
        self.scopes.iter().all(|scope| scope.certificates.is_empty())
    }

    fn scope(&self, server_name: Option<&str>) -> Option<&Scope> {
        let of = |name: &str| self.by_host.ask(name, &mut (), |first, ()| *first);
        let index = match server_name {
            Some(name) => of(name),
            None => of("").or(self.scopes.len().checked_sub(1)),
        };
        self.scopes.get(index?)
    }

    /// The class of a server name (lower case); `None`: nobody has that name.
    pub fn class_of(&self, server_name: Option<&str>) -> Option<usize> {
        self.scope(server_name).map(|scope| scope.class)
    }

    /// Of the certificates of a name the first that a client can verify.
    pub fn certificate(
        &self,
        server_name: Option<&str>,
        class: usize,
        hello: &ClientHello<'_>,
    ) -> Option<Arc<CertifiedKey>> {
        let candidates = &self
            .scope(server_name)
            .filter(|scope| scope.class == class)?
            .certificates;
        let schemes = hello.signature_schemes();
        let fits = candidates.iter().find(|key| key.key.choose_scheme(schemes).is_some());
        fits.or(candidates.first()).cloned()
    }

    #[cfg(test)]
    pub fn of(&self, server_name: Option<&str>) -> Option<&Vec<Arc<CertifiedKey>>> {
        self.scope(server_name).map(|scope| &scope.certificates)
    }

    /// Whether both answer alike, with the same keys.
    pub fn same(&self, other: &Names) -> bool {
        let same_keys = |a: &[Arc<CertifiedKey>], b: &[Arc<CertifiedKey>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        self.scopes.len() == other.scopes.len()
            && self.scopes.iter().zip(&other.scopes).all(|(a, b)| {
                a.hostname == b.hostname && a.class == b.class && same_keys(&a.certificates, &b.certificates)
            })
    }
}

/// The certificates of one class alone: whatever name a hello is read to ask for, it never gets past the checks of the
/// listener it belongs to.
#[derive(Debug)]
pub struct OfClass {
    pub names: Arc<Names>,
    pub class: usize,
}

impl ResolvesServerCert for OfClass {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.names.certificate(name.as_deref(), self.class, &hello)
    }
}
