//! From a [`Snapshot`] to one `rustls::ServerConfig` for each HTTPS listener.
//!
//! Total: a certificate that does not load leaves its scope without one and says why; the listener's other scopes, and
//! every other listener, are served. A listener without any certificate has no configuration and closes what it
//! accepts.

use gateway_core::ids::ListenerId;
use gateway_core::ir::{Bind, Certificate, CertificateName, HostPattern};
use gateway_core::snapshot::{HttpPlan, ScopePlan, Serve, Snapshot};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

/// The TLS configurations of one revision, by `ListenerId`.
#[derive(Debug, Default)]
pub struct TlsPlans {
    configs: Vec<Option<Arc<ServerConfig>>>,
    pub problems: Vec<TlsProblem>,
}

/// Why some name of a listener has no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsProblem {
    pub listener: ListenerId,
    pub bind: Bind,
    pub why: String,
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.bind, self.why)
    }
}

impl TlsPlans {
    /// `None`: not HTTPS, or no certificate could be used.
    pub fn config(&self, listener: ListenerId) -> Option<&Arc<ServerConfig>> {
        self.configs.get(listener.index())?.as_ref()
    }
}

/// Makes plans, and remembers what can be kept from one revision to the next: parsed keys, and whole configurations of
/// listeners that did not change.
#[derive(Debug)]
pub struct TlsCompiler {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    keys: Keys,
    configs: BTreeMap<Bind, (Arc<Names>, Arc<ServerConfig>)>,
}

/// What each certificate came to.
type Keys = BTreeMap<CertificateName, (Arc<Certificate>, Result<Arc<CertifiedKey>, String>)>;

impl TlsCompiler {
    /// Fails only if the system has no random numbers for ticket keys.
    pub fn new() -> Result<Self, rustls::Error> {
        Ok(Self {
            provider: Arc::new(provider()),
            tickets: aws_lc_rs::Ticketer::new()?,
            keys: BTreeMap::new(),
            configs: BTreeMap::new(),
        })
    }

    pub fn compile(&mut self, snapshot: &Snapshot) -> TlsPlans {
        let mut plans = TlsPlans::default();
        let mut keys = Keys::new();
        let mut configs = BTreeMap::new();
        for (index, listener) in snapshot.listeners.iter().enumerate() {
            let config = listener.as_ref().and_then(|listener| {
                let (Serve::Http(http), bind) = (&listener.serve, listener.bind) else {
                    return None;
                };
                let id = ListenerId(index as u32);
                let mut report = |why| {
                    plans.problems.push(TlsProblem {
                        listener: id,
                        bind,
                        why,
                    });
                };
                let names = self.names(http, snapshot, &mut keys, &mut report)?;
                let kept = self.configs.get(&bind).filter(|(old, _)| old.same(&names)).cloned();
                let (names, config) = match kept {
                    Some(kept) => kept,
                    None => {
                        let names = Arc::new(names);
                        let config = self
                            .config(names.clone())
                            .map_err(|error| report(error.to_string()))
                            .ok()?;
                        (names, Arc::new(config))
                    }
                };
                configs.insert(bind, (names, config.clone()));
                Some(config)
            });
            plans.configs.push(config);
        }
        self.keys = keys;
        self.configs = configs;
        plans
    }

    /// Who may ask for which certificate; `None` without TLS or without any certificate.
    fn names(
        &self,
        http: &HttpPlan,
        snapshot: &Snapshot,
        keys: &mut Keys,
        report: &mut impl FnMut(String),
    ) -> Option<Names> {
        if !http.tls {
            return None;
        }
        if http.scopes.iter().any(|scope| scope.tls != Default::default()) {
            report("what it asks of clients is not served yet".to_owned());
            return None;
        }
        let mut names = Names::default();
        for scope in &http.scopes {
            let usable = self.usable(scope, snapshot, keys, report);
            if !usable.is_empty() {
                names.insert(&scope.hostname, usable);
            }
        }
        (!names.certificates.is_empty()).then_some(names)
    }

    fn usable(
        &self,
        scope: &ScopePlan,
        snapshot: &Snapshot,
        keys: &mut Keys,
        report: &mut impl FnMut(String),
    ) -> Vec<Arc<CertifiedKey>> {
        let mut usable = Vec::new();
        for name in &scope.certificates {
            let Some(certificate) = snapshot.certificates.get(name) else {
                report(format!("listener {}: certificate {name} is not there", scope.listener));
                continue;
            };
            if !keys.contains_key(name) {
                let kept = self
                    .keys
                    .get(name)
                    .filter(|(old, _)| old == certificate)
                    .map(|(_, key)| key.clone());
                let key = kept.unwrap_or_else(|| self.load(certificate));
                keys.insert(name.clone(), (certificate.clone(), key));
            }
            match &keys[name].1 {
                Ok(key) => usable.push(key.clone()),
                Err(why) => report(format!("listener {}: certificate {name}: {why}", scope.listener)),
            }
        }
        if usable.is_empty() {
            report(format!(
                "listener {}: no usable certificate; its TLS connections are refused",
                scope.listener
            ));
        }
        usable
    }

    fn load(&self, certificate: &Certificate) -> Result<Arc<CertifiedKey>, String> {
        let chain: Vec<_> = certificate
            .chain
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        if chain.is_empty() {
            return Err("the chain is empty; put the certificate, leaf first, into tls.crt".to_owned());
        }
        let key = PrivateKeyDer::try_from(certificate.key.expose())
            .map_err(|_| "the key is neither PKCS#8, PKCS#1 nor SEC1".to_owned())?
            .clone_key();
        CertifiedKey::from_der(chain, key, &self.provider)
            .map(Arc::new)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
                error => error.to_string(),
            })
    }

    fn config(&self, names: Arc<Names>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(names);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = self.tickets.clone();
        config.ignore_client_order = true;
        Ok(config)
    }
}

/// aws-lc-rs with AES-128-GCM first: as strong as anyone needs, and a third cheaper than AES-256.
fn provider() -> CryptoProvider {
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

/// Certificates by server name: exact, then the longest wildcard, then any. A client that sends no name gets the
/// certificate for any name, else that of the least specific scope.
#[derive(Debug, Default)]
struct Names {
    certificates: Vec<Vec<Arc<CertifiedKey>>>,
    exact: HashMap<String, usize>,
    /// By suffix with its leading dot.
    suffixes: HashMap<String, usize>,
    any: Option<usize>,
}

impl Names {
    /// The first scope of a hostname wins.
    fn insert(&mut self, hostname: &HostPattern, certificates: Vec<Arc<CertifiedKey>>) {
        let index = self.certificates.len();
        self.certificates.push(certificates);
        match hostname {
            HostPattern::Exact(name) => _ = self.exact.entry(name.clone()).or_insert(index),
            HostPattern::Suffix(suffix) => _ = self.suffixes.entry(suffix.clone()).or_insert(index),
            HostPattern::Any => _ = self.any.get_or_insert(index),
        }
    }

    fn of(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let wildcard = || {
            name.match_indices('.')
                .find_map(|(dot, _)| self.suffixes.get(&name[dot..]))
        };
        let index = self.exact.get(name).or_else(wildcard).copied().or(self.any)?;
        self.certificates.get(index)
    }

    fn nameless(&self) -> Option<&Vec<Arc<CertifiedKey>>> {
        match self.any {
            Some(index) => self.certificates.get(index),
            None => self.certificates.last(),
        }
    }

    fn same(&self, other: &Names) -> bool {
        let same_keys = |a: &Vec<Arc<CertifiedKey>>, b: &Vec<Arc<CertifiedKey>>| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        self.exact == other.exact
            && self.suffixes == other.suffixes
            && self.any == other.any
            && self.certificates.len() == other.certificates.len()
            && self
                .certificates
                .iter()
                .zip(&other.certificates)
                .all(|(a, b)| same_keys(a, b))
    }
}

impl ResolvesServerCert for Names {
    /// Of several certificates the first that the client can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = match hello.server_name() {
            Some(name) => self.of(&name.to_ascii_lowercase())?,
            None => self.nameless()?,
        };
        let schemes = hello.signature_schemes();
        let fits = candidates.iter().find(|key| key.key.choose_scheme(schemes).is_some());
        fits.or(candidates.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::ir::{Bind, SecretBytes};
    use gateway_core::snapshot::ListenerPlan;

    fn certificate(name: &str) -> Arc<Certificate> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = SecretBytes::new(made.signing_key.serialize_der());
        Arc::new(Certificate {
            chain: vec![made.cert.der().to_vec()],
            key,
        })
    }

    fn snapshot(scopes: &[(&str, &str)], certificates: &[(&str, &Arc<Certificate>)]) -> Snapshot {
        let scope = |(host, certificate): &(&str, &str)| ScopePlan {
            listener: (*host).into(),
            hostname: HostPattern::parse(Some(host)),
            certificates: vec![(*certificate).into()],
            tls: Default::default(),
            hosts: Default::default(),
        };
        let listener = ListenerPlan {
            bind: Bind::tcp("192.0.2.1:443".parse().unwrap()),
            names: vec![],
            why: String::new(),
            serve: Serve::Http(HttpPlan::new(true, scopes.iter().map(scope).collect())),
        };
        Snapshot {
            listeners: vec![Some(listener)],
            certificates: certificates
                .iter()
                .map(|(name, it)| ((*name).into(), (*it).clone()))
                .collect(),
            ..Snapshot::default()
        }
    }

    fn names(compiler: &TlsCompiler) -> &Names {
        &compiler.configs.values().next().unwrap().0
    }

    #[test]
    fn a_name_finds_its_exact_scope_then_the_longest_wildcard_then_any() {
        let (exact, long, short, any) = (certificate("a"), certificate("b"), certificate("c"), certificate("d"));
        let scopes = [
            ("a.b.example.com", "exact"),
            ("*.b.example.com", "long"),
            ("*.example.com", "short"),
            ("*", "any"),
        ];
        let all = [("exact", &exact), ("long", &long), ("short", &short), ("any", &any)];
        let mut compiler = TlsCompiler::new().unwrap();
        assert_eq!(compiler.compile(&snapshot(&scopes, &all)).problems, []);
        let leaf = |name: &str| names(&compiler).of(name).unwrap()[0].cert[0].to_vec();
        assert_eq!(leaf("a.b.example.com"), exact.chain[0]);
        assert_eq!(leaf("x.b.example.com"), long.chain[0]);
        assert_eq!(leaf("y.x.b.example.com"), long.chain[0]);
        assert_eq!(leaf("b.example.com"), short.chain[0]);
        assert_eq!(leaf("example.com"), any.chain[0]);
    }

    #[test]
    fn a_name_of_no_scope_gets_nothing_and_no_name_gets_the_default() {
        let one = certificate("a");
        let mut compiler = TlsCompiler::new().unwrap();
        compiler.compile(&snapshot(&[("a.example.com", "one")], &[("one", &one)]));
        assert!(names(&compiler).of("b.example.com").is_none());
        assert!(names(&compiler).nameless().is_some());
    }

    #[test]
    fn an_unchanged_listener_keeps_its_configuration_and_a_changed_one_does_not() {
        let (one, two) = (certificate("a"), certificate("a"));
        let mut compiler = TlsCompiler::new().unwrap();
        let mut config = |certificate| {
            let plans = compiler.compile(&snapshot(&[("a.example.com", "it")], &[("it", certificate)]));
            plans.config(ListenerId(0)).unwrap().clone()
        };
        let first = config(&one);
        let copy = Arc::new((*one).clone());
        assert!(Arc::ptr_eq(&first, &config(&copy)));
        assert!(!Arc::ptr_eq(&first, &config(&two)));
    }

    #[test]
    fn a_broken_certificate_costs_its_scope_and_says_why() {
        let good = certificate("a");
        let key = SecretBytes::new(vec![1, 2, 3]);
        let bad = Arc::new(Certificate {
            chain: good.chain.clone(),
            key,
        });
        let foreign = Arc::new(Certificate {
            chain: good.chain.clone(),
            key: certificate("b").key.clone(),
        });
        let scopes = [
            ("a.example.com", "good"),
            ("b.example.com", "bad"),
            ("c.example.com", "foreign"),
        ];
        let all = [("good", &good), ("bad", &bad), ("foreign", &foreign)];
        let mut compiler = TlsCompiler::new().unwrap();
        let plans = compiler.compile(&snapshot(&scopes, &all));
        assert!(plans.config(ListenerId(0)).is_some());
        let whys: Vec<_> = plans.problems.iter().map(|problem| problem.why.as_str()).collect();
        assert_eq!(whys.len(), 4, "{whys:?}");
        assert!(whys[0].contains("neither PKCS#8"), "{whys:?}");
        assert!(whys[2].contains("does not belong"), "{whys:?}");
    }
}
