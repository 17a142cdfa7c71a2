//! From a [`Snapshot`] to one `rustls::ServerConfig` for each TLS listener and class of clients, and to one
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
use super::provider::provider;
use super::upstream::{Upstream, UpstreamTls};
use crate::settings::tls::TlsSettings;
use gateway_core::ids::{EndpointId, ListenerId};
use gateway_core::ir::{
    BackendTls, Bind, CertificateName, ClientMode, HostPattern, ListenerName, ListenerTls, ServiceName, TlsVersion,
};
use gateway_core::snapshot::{ListenerPlan, ScopePlan, Serve, Snapshot, StreamRulePlan};
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
    /// By `ListenerId`: for requests, and for what is relayed.
    listeners: Vec<Option<Arc<Downstream>>>,
    relayed: Vec<Option<Arc<Downstream>>>,
    /// By `EndpointId`; endpoints that left are spoken to as they were last.
    upstreams: Vec<Upstream>,
    pub problems: Vec<TlsProblem>,
}

/// What could not be had as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsProblem {
    /// A bind, or a service.
    pub at: String,
    /// What is wrong with a certificate is said of it.
    pub certificate: Option<CertificateName>,
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

    /// `None`: no TLS ends here to be relayed, or no certificate could be used.
    pub fn relayed(&self, listener: ListenerId) -> Option<&Arc<Downstream>> {
        self.relayed.get(listener.index())?.as_ref()
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
    /// Connections of others come to the same port.
    beside: bool,
}

/// Listeners of a port that ask the same of their clients.
#[derive(Debug)]
pub struct Class {
    pub config: Arc<ServerConfig>,
    /// `None`: clients are not asked who they are.
    pub check: Option<Arc<ClientCheck>>,
}

impl Downstream {
    /// The only class, if there is one and every connection is its: then nothing of the hello needs to be known before it
    /// is answered.
    pub fn only(&self) -> Option<&Class> {
        match &self.classes[..] {
            [only] if !self.beside => Some(only),
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
    tickets: BTreeMap<(Place, ListenerTls), Arc<dyn ProducesTickets>>,
    listeners: BTreeMap<Place, (Vec<ListenerTls>, Arc<Downstream>)>,
    services: BTreeMap<ServiceName, Service>,
    upstreams: Vec<Upstream>,
    /// Authorities of the host; read when somebody first asks.
    system: Option<Arc<RootCertStore>>,
}

/// A port, and what becomes of connections to it after their TLS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    bind: Bind,
    ends: Ends,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Ends {
    Requests,
    Relay,
}

/// Whose certificates a name gets and on what terms: a listener, or a route at it.
struct Scope<'s> {
    listener: &'s ListenerName,
    hostname: &'s HostPattern,
    certificates: &'s [CertificateName],
    tls: &'s ListenerTls,
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
        let (mut listeners, mut relayed) = (Vec::new(), Vec::new());
        let mut kept = Kept::default();
        for listener in &snapshot.listeners {
            let mut made = |ends| {
                let plan = listener.as_ref()?;
                let (scopes, beside) = scopes(plan, ends)?;
                self.place(
                    Place { bind: plan.bind, ends },
                    &scopes,
                    beside,
                    snapshot,
                    &mut kept,
                    &mut problems,
                )
            };
            listeners.push(made(Ends::Requests));
            relayed.push(made(Ends::Relay));
        }
        self.listeners = kept.listeners;
        self.tickets = kept.tickets;
        self.upstreams(snapshot, &mut problems);
        TlsPlans {
            listeners,
            relayed,
            upstreams: self.upstreams.clone(),
            problems,
        }
    }

    /// What answers the hellos of these scopes; the same as before where nothing changed.
    fn place(
        &mut self,
        place: Place,
        scopes: &[Scope<'_>],
        beside: bool,
        snapshot: &Snapshot,
        kept: &mut Kept,
        problems: &mut Vec<TlsProblem>,
    ) -> Option<Arc<Downstream>> {
        let at = place.bind.to_string();
        let mut report = |certificate: Option<&CertificateName>, why| {
            problems.push(TlsProblem {
                at: at.clone(),
                certificate: certificate.cloned(),
                why,
            });
        };
        let (classes, names) = self.names(scopes, snapshot, &mut report);
        if names.is_empty() && !beside {
            return None;
        }
        let same = self
            .listeners
            .get(&place)
            .filter(|(of, it)| *of == classes && it.beside == beside && it.names.same(&names))
            .cloned();
        let made = match same {
            Some((_, same)) => same,
            None => match self.downstream(place, &classes, names, beside) {
                Ok(made) => Arc::new(made),
                Err(why) => {
                    report(None, why);
                    return None;
                }
            },
        };
        for class in &classes {
            let known = self.tickets.get_key_value(&(place, class.clone()));
            kept.tickets
                .extend(known.map(|(key, it)| (key.clone(), Arc::clone(it))));
        }
        kept.listeners.insert(place, (classes, Arc::clone(&made)));
        Some(made)
    }

    /// Who may ask for which certificate, and what each class of scopes asks of its clients.
    fn names(
        &mut self,
        scopes: &[Scope<'_>],
        snapshot: &Snapshot,
        report: &mut impl FnMut(Option<&CertificateName>, String),
    ) -> (Vec<ListenerTls>, Names) {
        let (mut classes, mut names) = (Vec::<ListenerTls>::new(), Names::default());
        // A listener's rules all show the same; what is wrong with it is told once.
        let mut known: BTreeMap<&ListenerName, Vec<Arc<CertifiedKey>>> = BTreeMap::new();
        for scope in scopes {
            let usable = match known.get(scope.listener) {
                Some(known) => known.clone(),
                None => {
                    let usable = self.usable(scope, snapshot, report);
                    known.insert(scope.listener, usable.clone());
                    usable
                }
            };
            let tls = ListenerTls {
                terms: scope.tls.terms.or(&self.settings.terms),
                clients: scope.tls.clients.clone(),
            };
            let class = classes.iter().position(|class| *class == tls).unwrap_or_else(|| {
                classes.push(tls);
                classes.len() - 1
            });
            names.push(scope.hostname, usable, class);
        }
        (classes, names)
    }

    fn usable(
        &mut self,
        scope: &Scope<'_>,
        snapshot: &Snapshot,
        report: &mut impl FnMut(Option<&CertificateName>, String),
    ) -> Vec<Arc<CertifiedKey>> {
        let mut usable = Vec::new();
        for name in scope.certificates {
            let Some(certificate) = snapshot.certificates.get(name) else {
                let why = format!("listener {}: certificate {name} is not there", scope.listener);
                report(Some(name), why);
                continue;
            };
            let (key, problem) = self.keys.get(name, certificate, &self.provider, seconds());
            usable.extend(key);
            if let Some(why) = problem {
                let why = format!("listener {}: certificate {name}: {why}", scope.listener);
                report(Some(name), why);
            }
        }
        if usable.is_empty() {
            let why = format!(
                "listener {}: no usable certificate; its TLS connections are refused",
                scope.listener
            );
            report(None, why);
        }
        usable
    }

    fn downstream(
        &mut self,
        place: Place,
        asked: &[ListenerTls],
        names: Names,
        beside: bool,
    ) -> Result<Downstream, String> {
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
            let tickets = match self.tickets.get(&(place, tls.clone())) {
                Some(tickets) => Arc::clone(tickets),
                None => {
                    let tickets = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
                    self.tickets.insert((place, tls.clone()), Arc::clone(&tickets));
                    tickets
                }
            };
            let resolver = OfClass {
                names: Arc::clone(&names),
                class,
            };
            let config = self
                .config(tls, check.as_deref(), resolver, tickets, place.ends)
                .map_err(|error| error.to_string())?;
            classes.push(Class {
                config: Arc::new(config),
                check,
            });
        }
        Ok(Downstream { names, classes, beside })
    }

    fn config(
        &self,
        tls: &ListenerTls,
        check: Option<&ClientCheck>,
        resolver: OfClass,
        tickets: Arc<dyn ProducesTickets>,
        ends: Ends,
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
        config.alpn_protocols = match ends {
            Ends::Requests => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            // Nobody here knows what is spoken inside.
            Ends::Relay => Vec::new(),
        };
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
                let mut report = |certificate: Option<&CertificateName>, why| {
                    problems.push(TlsProblem {
                        at: format!("service {}", service.name),
                        certificate: certificate.cloned(),
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
        report: &mut impl FnMut(Option<&CertificateName>, String),
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
                let why = format!("client certificate {certificate}: {why}");
                report(Some(certificate), why);
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
                report(None, why);
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

/// What stays of the revision before.
#[derive(Default)]
struct Kept {
    tickets: BTreeMap<(Place, ListenerTls), Arc<dyn ProducesTickets>>,
    listeners: BTreeMap<Place, (Vec<ListenerTls>, Arc<Downstream>)>,
}

/// Who shows what at a listener, most specific hostname first, and whether others share its port; `None` where no TLS
/// ends.
fn scopes<'s>(plan: &'s ListenerPlan, ends: Ends) -> Option<(Vec<Scope<'s>>, bool)> {
    match (ends, &plan.serve) {
        (Ends::Requests, Serve::Http(http)) if http.tls => {
            let scope = |scope: &'s ScopePlan| Scope {
                listener: &scope.listener,
                hostname: &scope.hostname,
                certificates: &scope.certificates,
                tls: &scope.tls,
            };
            Some((http.scopes.iter().map(scope).collect(), http.has_streams()))
        }
        (Ends::Requests, _) => None,
        (Ends::Relay, _) => {
            let scope = |rule: &'s StreamRulePlan| {
                let terminate = rule.terminate.as_ref()?;
                Some(Scope {
                    listener: &rule.listener,
                    hostname: &rule.hostname,
                    certificates: &terminate.certificates,
                    tls: &terminate.tls,
                })
            };
            let scopes: Vec<_> = plan.stream()?.rules.iter().filter_map(scope).collect();
            (!scopes.is_empty()).then_some((scopes, false))
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

#[cfg(test)]
mod tests;
