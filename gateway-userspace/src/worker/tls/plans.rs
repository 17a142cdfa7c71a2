//! From a [`Snapshot`] to one `rustls::ServerConfig` for each HTTPS listener and class of clients, and to one
//! `rustls::ClientConfig` for each service that is spoken to over TLS.
//!
//! Total: a certificate that does not load leaves its scope without one and says why; the listener's other scopes, and
//! every other listener, are served. A listener without any certificate has no configuration and closes what it
//! accepts; so does one whose clients cannot be checked as it asks.
//!
//! Session tickets are sealed with keys of their listener and its settings alone, made anew every six hours and good
//! for twelve: what a client got where nobody asked for its certificate opens nothing where somebody does, and one
//! authority less makes all tickets of its listener worthless.

use super::clients::{self, Unchecked};
use super::identity::ClientCheck;
use super::keys::Keys;
use super::names::{Names, OfClass};
use super::upstream::{Upstream, UpstreamTls};
use crate::settings::tls::TlsSettings;
use gateway_core::ids::{EndpointId, ListenerId};
use gateway_core::ir::{BackendTls, Bind, ClientMode, ListenerTls, ServiceName, TlsVersion};
use gateway_core::snapshot::{HttpPlan, ScopePlan, Serve, Snapshot};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The TLS configurations of one revision.
#[derive(Debug, Default)]
pub struct TlsPlans {
    /// By `ListenerId`.
    listeners: Vec<Option<Arc<Downstream>>>,
    /// By `EndpointId`; endpoints that left are spoken to as they were last.
    upstreams: Vec<Upstream>,
    pub problems: Vec<TlsProblem>,
}

/// What could not be had as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsProblem {
    /// A bind, or a service.
    pub at: String,
    pub why: String,
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.why)
    }
}

impl TlsPlans {
    /// `None`: not HTTPS, or no certificate could be used.
    pub fn listener(&self, listener: ListenerId) -> Option<&Arc<Downstream>> {
        self.listeners.get(listener.index())?.as_ref()
    }

    pub fn upstream(&self, endpoint: EndpointId) -> &Upstream {
        self.upstreams.get(endpoint.index()).unwrap_or(&Upstream::Broken)
    }
}

/// TLS of one bound port.
#[derive(Debug)]
pub struct Downstream {
    names: Arc<Names>,
    classes: Vec<Class>,
}

/// Listeners of a port that ask the same of their clients.
#[derive(Debug)]
pub struct Class {
    pub config: Arc<ServerConfig>,
    /// `None`: clients are not asked who they are.
    pub check: Option<Arc<ClientCheck>>,
}

impl Downstream {
    /// The only class, if there is one: then nothing of the hello needs to be known before it is answered.
    pub fn only(&self) -> Option<&Class> {
        match &self.classes[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// By the server name of the hello, lower case.
    pub fn of(&self, server_name: Option<&str>) -> Option<&Class> {
        self.classes.get(self.names.class_of(server_name)?)
    }
}

/// Makes plans, and remembers what can be kept from one revision to the next: parsed keys, ticket keys, and whole
/// configurations of what did not change.
#[derive(Debug)]
pub struct TlsCompiler {
    provider: Arc<CryptoProvider>,
    settings: TlsSettings,
    keys: Keys,
    tickets: BTreeMap<(Bind, ListenerTls), Arc<dyn ProducesTickets>>,
    listeners: BTreeMap<Bind, (Vec<ListenerTls>, Arc<Downstream>)>,
    services: BTreeMap<ServiceName, Service>,
    upstreams: Vec<Upstream>,
    /// Authorities of the host; read when somebody first asks.
    system: Option<Arc<RootCertStore>>,
}

/// A service's TLS and what it was made from.
#[derive(Clone, Debug)]
struct Service {
    of: Arc<BackendTls>,
    key: Option<Arc<CertifiedKey>>,
    made: Upstream,
}

impl TlsCompiler {
    pub fn new(settings: TlsSettings) -> Self {
        Self {
            provider: Arc::new(provider()),
            settings,
            keys: Keys::default(),
            tickets: BTreeMap::new(),
            listeners: BTreeMap::new(),
            services: BTreeMap::new(),
            upstreams: Vec::new(),
            system: None,
        }
    }

    pub fn compile(&mut self, snapshot: &Snapshot) -> TlsPlans {
        let mut problems = Vec::new();
        self.keys.begin();
        let (mut listeners, mut kept, mut tickets) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for listener in &snapshot.listeners {
            let downstream = listener.as_ref().and_then(|listener| {
                let (Serve::Http(http), bind) = (&listener.serve, listener.bind) else {
                    return None;
                };
                let at = bind.to_string();
                let mut report = |why| problems.push(TlsProblem { at: at.clone(), why });
                let (classes, names) = self.names(http, snapshot, &mut report)?;
                let before = self.listeners.get(&bind);
                let same = before
                    .filter(|(of, it)| *of == classes && it.names.same(&names))
                    .cloned();
                let made = match same {
                    Some((_, same)) => same,
                    None => match self.downstream(bind, &classes, names) {
                        Ok(made) => Arc::new(made),
                        Err(why) => {
                            report(why);
                            return None;
                        }
                    },
                };
                for class in &classes {
                    let key = (bind, class.clone());
                    tickets.extend(
                        self.tickets
                            .get_key_value(&key)
                            .map(|(key, it)| (key.clone(), Arc::clone(it))),
                    );
                }
                kept.insert(bind, (classes, Arc::clone(&made)));
                Some(made)
            });
            listeners.push(downstream);
        }
        self.listeners = kept;
        self.tickets = tickets;
        self.upstreams(snapshot, &mut problems);
        TlsPlans {
            listeners,
            upstreams: self.upstreams.clone(),
            problems,
        }
    }

    /// Who may ask for which certificate, and what each class of scopes asks of its clients; `None` without TLS or
    /// without any certificate.
    fn names(
        &mut self,
        http: &HttpPlan,
        snapshot: &Snapshot,
        report: &mut impl FnMut(String),
    ) -> Option<(Vec<ListenerTls>, Names)> {
        if !http.tls {
            return None;
        }
        let (mut classes, mut names) = (Vec::<ListenerTls>::new(), Names::default());
        for scope in &http.scopes {
            let usable = self.usable(scope, snapshot, report);
            let tls = ListenerTls {
                terms: scope.tls.terms.or(&self.settings.terms),
                clients: scope.tls.clients.clone(),
            };
            let class = classes.iter().position(|class| *class == tls).unwrap_or_else(|| {
                classes.push(tls);
                classes.len() - 1
            });
            names.push(&scope.hostname, usable, class);
        }
        (!names.is_empty()).then_some((classes, names))
    }

    fn usable(
        &mut self,
        scope: &ScopePlan,
        snapshot: &Snapshot,
        report: &mut impl FnMut(String),
    ) -> Vec<Arc<CertifiedKey>> {
        let mut usable = Vec::new();
        for name in &scope.certificates {
            let Some(certificate) = snapshot.certificates.get(name) else {
                report(format!("listener {}: certificate {name} is not there", scope.listener));
                continue;
            };
            let (key, problem) = self.keys.get(name, certificate, &self.provider, seconds());
            usable.extend(key);
            if let Some(why) = problem {
                report(format!("listener {}: certificate {name}: {why}", scope.listener));
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

    fn downstream(&mut self, bind: Bind, asked: &[ListenerTls], names: Names) -> Result<Downstream, String> {
        let names = Arc::new(names);
        let mut classes = Vec::new();
        for (class, tls) in asked.iter().enumerate() {
            let check = match &tls.clients {
                None => None,
                Some(clients) => Some(Arc::new(ClientCheck {
                    mode: clients.mode,
                    verifier: clients::verifier(clients, &self.provider)?,
                    forwarded: self.settings.forwarded,
                })),
            };
            let tickets = match self.tickets.get(&(bind, tls.clone())) {
                Some(tickets) => Arc::clone(tickets),
                None => {
                    let tickets = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
                    self.tickets.insert((bind, tls.clone()), Arc::clone(&tickets));
                    tickets
                }
            };
            let resolver = OfClass {
                names: Arc::clone(&names),
                class,
            };
            let config = self
                .config(tls, check.as_deref(), resolver, tickets)
                .map_err(|error| error.to_string())?;
            classes.push(Class {
                config: Arc::new(config),
                check,
            });
        }
        Ok(Downstream { names, classes })
    }

    fn config(
        &self,
        tls: &ListenerTls,
        check: Option<&ClientCheck>,
        resolver: OfClass,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<ServerConfig, rustls::Error> {
        let mut provider = Arc::clone(&self.provider);
        if let Some(suites) = &tls.terms.suites {
            let all = &self.provider.cipher_suites;
            let of = |number: u16| all.iter().find(|suite| u16::from(suite.suite()) == number).copied();
            Arc::make_mut(&mut provider).cipher_suites = suites.iter().filter_map(|suite| of(suite.number())).collect();
        }
        let newest = [&rustls::version::TLS13];
        let both = [&rustls::version::TLS13, &rustls::version::TLS12];
        let builder =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(match tls.terms.version_min {
                Some(TlsVersion::V13) => &newest[..],
                Some(TlsVersion::V12) | None => &both[..],
            })?;
        let builder = match check {
            None => builder.with_no_client_auth(),
            Some(check) => builder.with_client_cert_verifier(match check.mode {
                ClientMode::Required | ClientMode::Optional => Arc::clone(&check.verifier),
                ClientMode::Unchecked => Arc::new(Unchecked(Arc::clone(&check.verifier))),
            }),
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = tickets;
        // Tickets carry what a session is resumed from: nothing is remembered here, no lock is taken for it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // No early data (RFC 8446 8): what is replayed could be a request.
        config.max_early_data_size = 0;
        config.ignore_client_order = true;
        Ok(config)
    }

    /// What each endpoint is spoken to with; kept for endpoints that left, whose ids are not given again so soon.
    fn upstreams(&mut self, snapshot: &Snapshot, problems: &mut Vec<TlsProblem>) {
        let mut services = BTreeMap::new();
        for service in snapshot.services.iter().flatten() {
            if let Some(tls) = &service.tls {
                let mut report = |why| {
                    problems.push(TlsProblem {
                        at: format!("service {}", service.name),
                        why,
                    });
                };
                let made = self.service(&service.name, tls, snapshot, &mut report);
                services.insert(service.name.clone(), made);
            }
        }
        self.services = services;
        for endpoint in snapshot.endpoints.iter().flatten() {
            let upstream = match snapshot.service(endpoint.service) {
                None => Upstream::Broken,
                Some(service) if service.tls.is_none() => Upstream::Plain,
                Some(service) => self
                    .services
                    .get(&service.name)
                    .map_or(Upstream::Broken, |service| service.made.clone()),
            };
            let index = endpoint.id.index();
            if self.upstreams.len() <= index {
                self.upstreams.resize_with(index + 1, Upstream::default);
            }
            self.upstreams[index] = upstream;
        }
    }

    fn service(
        &mut self,
        name: &ServiceName,
        tls: &Arc<BackendTls>,
        snapshot: &Snapshot,
        report: &mut impl FnMut(String),
    ) -> Service {
        let mut key = None;
        if let Some(certificate) = &tls.certificate {
            let problem = match snapshot.certificates.get(certificate) {
                None => Some("it is not there".to_owned()),
                Some(of) => {
                    let (found, problem) = self.keys.get(certificate, of, &self.provider, seconds());
                    key = found;
                    problem
                }
            };
            if let Some(why) = problem {
                report(format!("client certificate {certificate}: {why}"));
            }
        }
        let same_key = |before: &Option<Arc<CertifiedKey>>| match (before, &key) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (Some(_), None) | (None, Some(_)) => false,
        };
        if let Some(before) = self.services.get(name)
            && before.of == *tls
            && same_key(&before.key)
            && !matches!(before.made, Upstream::Broken)
        {
            return before.clone();
        }
        let system = Arc::clone(self.system.get_or_insert_with(|| match tls.authorities {
            gateway_core::ir::Authorities::System => Arc::new(system_roots()),
            gateway_core::ir::Authorities::These(_) => Arc::new(RootCertStore::empty()),
        }));
        if system.is_empty() {
            self.system = None;
        }
        let made = match UpstreamTls::new(tls, key.clone(), &system, &self.provider) {
            Ok(made) => Upstream::Tls(Arc::new(made)),
            Err(why) => {
                report(why);
                Upstream::Broken
            }
        };
        Service {
            of: Arc::clone(tls),
            key,
            made,
        }
    }
}

/// Seconds since 1970.
fn seconds() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)
}

/// The authorities of the host, from where OpenSSL has them: `SSL_CERT_FILE`, `SSL_CERT_DIR`, else the distribution's.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
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

#[cfg(test)]
mod tests;
