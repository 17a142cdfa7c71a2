//! What a worker reads: one revision, compiled, immutable, shared by `Arc`.
//!
//! Tables are indexed by id. An id that is not configured in this revision has `None`: a stream of an older revision
//! that still holds it finds what it needs in the snapshot it started with.

use crate::ids::{EndpointId, ListenerId, RuleId, ServiceId};
use crate::ir::{
    AuthSpeaks, BackendTls, BalancePolicy, Bind, Certificate, CertificateName, EndpointName, Exposure, Filter,
    HostPattern, HttpRule, ListenerName, ListenerTls, Readiness, Recognise, Retry, Revision, RouteKind, RuleName,
    ServiceName, Session, Termination, Timeouts, UpstreamProtocol,
};
use crate::route::{HostIndex, HostTable};
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// One revision as the workers see it.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub revision: Revision,
    pub listeners: Vec<Option<ListenerPlan>>,
    pub services: Vec<Option<ServicePlan>>,
    pub endpoints: Vec<Option<EndpointPlan>>,
    pub rules: Vec<Option<Arc<RulePlan>>>,
    pub certificates: BTreeMap<CertificateName, Arc<Certificate>>,
    /// Exact addresses.
    pub by_addr: HashMap<(IpAddr, u16), ListenerId, BuildHasherDefault<std::collections::hash_map::DefaultHasher>>,
    /// Listeners on every address.
    pub by_port: BTreeMap<u16, ListenerId>,
    /// UDP listeners, by the bind of the socket that a datagram came to.
    pub udp: BTreeMap<Bind, ListenerId>,
}

impl Snapshot {
    /// The listener that owns a connection's local address (TCP); IPv4-mapped addresses are IPv4.
    pub fn listener_at(&self, local: SocketAddr) -> Option<(ListenerId, &ListenerPlan)> {
        let addr = (local.ip().to_canonical(), local.port());
        let id = *self.by_addr.get(&addr).or_else(|| self.by_port.get(&local.port()))?;
        Some((id, self.listener(id)?))
    }

    /// The listener whose datagrams a socket with this bind takes.
    pub fn udp_listener(&self, bind: &Bind) -> Option<(ListenerId, &ListenerPlan)> {
        let id = *self.udp.get(bind)?;
        Some((id, self.listener(id)?))
    }

    pub fn listener(&self, id: ListenerId) -> Option<&ListenerPlan> {
        self.listeners.get(id.index())?.as_ref()
    }

    pub fn service(&self, id: ServiceId) -> Option<&ServicePlan> {
        self.services.get(id.index())?.as_ref()
    }

    pub fn endpoint(&self, id: EndpointId) -> Option<&EndpointPlan> {
        self.endpoints.get(id.index())?.as_ref()
    }

    /// How an endpoint is spoken to; `None` in plain text.
    pub fn endpoint_tls(&self, id: EndpointId) -> Option<&Arc<BackendTls>> {
        self.service(self.endpoint(id)?.service)?.tls.as_ref()
    }

    pub fn rule(&self, id: RuleId) -> Option<&RulePlan> {
        self.rules.get(id.index())?.as_deref()
    }
}

/// One bound port.
#[derive(Debug)]
pub struct ListenerPlan {
    pub bind: Bind,
    pub names: Vec<ListenerName>,
    pub why: String,
    pub serve: Serve,
    /// Who may connect.
    pub exposure: Exposure,
}

impl ListenerPlan {
    /// How its requests are routed, if it is an HTTP listener.
    pub fn http(&self) -> Option<&HttpPlan> {
        match &self.serve {
            Serve::Http(http) => Some(http),
            Serve::Splice(_) | Serve::KernelRelay(_) => None,
        }
    }

    /// Where connections go whose bytes are relayed: all of a stream listener's, and of an HTTPS port those for names of
    /// its TLS listeners.
    pub fn stream(&self) -> Option<&StreamPlan> {
        match &self.serve {
            Serve::Http(http) => http.streams.as_deref(),
            Serve::Splice(stream) | Serve::KernelRelay(stream) => Some(stream),
        }
    }
}

/// What a worker does with a connection to a listener.
#[derive(Debug)]
pub enum Serve {
    Http(HttpPlan),
    /// Relay bytes.
    Splice(StreamPlan),
    /// A kernel VIP: a connection that reaches a worker met no program of ours and is relayed.
    KernelRelay(StreamPlan),
}

/// An HTTP listener.
#[derive(Debug)]
pub struct HttpPlan {
    pub tls: bool,
    /// Most specific hostname first.
    pub scopes: Vec<ScopePlan>,
    /// The first scope of each hostname.
    by_host: HostIndex<Option<usize>>,
    /// Rules of TLS listeners on the same port.
    streams: Option<Box<StreamPlan>>,
}

impl HttpPlan {
    /// `scopes`: most specific hostname first.
    pub fn new(tls: bool, scopes: Vec<ScopePlan>) -> Self {
        let mut by_host = HostIndex::<Option<usize>>::default();
        for (index, scope) in scopes.iter().enumerate() {
            by_host.entry(&scope.hostname).get_or_insert(index);
        }
        Self {
            tls,
            scopes,
            by_host,
            streams: None,
        }
    }

    /// The same port with TLS listeners on it, which have these rules.
    pub fn beside(mut self, streams: StreamPlan) -> Self {
        self.streams = Some(Box::new(streams));
        self
    }

    /// Whether a connection may belong to a TLS listener.
    pub fn has_streams(&self) -> bool {
        self.streams.is_some()
    }

    /// Whether a server name (lower case; empty if the client gave none) belongs to a TLS listener of the port: whether
    /// the hostname that matches it is more specific than any scope's.
    pub fn is_relayed(&self, server_name: &str) -> bool {
        let Some(rule) = self.streams.as_ref().and_then(|streams| streams.rule(server_name)) else {
            return false;
        };
        let scope = self
            .scope_of(server_name)
            .map(|index| self.scopes[index].hostname.specificity());
        scope.is_none_or(|scope| rule.hostname.specificity() > scope)
    }

    /// The scope that owns a host (lower case, without port): of those whose hostname matches the most specific.
    pub fn scope_of(&self, host: &str) -> Option<usize> {
        self.by_host.ask(host, &mut (), |first, ()| *first)
    }

    /// The scope a connection belongs to by the name asked for in its handshake; without one (empty) to the scope for
    /// any host, else to the least specific one, whose certificate it got.
    pub fn scope_of_connection(&self, server_name: &str) -> Option<usize> {
        match server_name {
            "" => self.scope_of("").or(self.scopes.len().checked_sub(1)),
            name => self.scope_of(name),
        }
    }

    /// Whether a request for `host` came on a connection that was made for another scope (GEP-3567). A host that
    /// belongs to no scope is not misdirected: nobody serves it.
    pub fn misdirects(&self, server_name: &str, host: &str) -> bool {
        let elsewhere = |scope| self.scope_of_connection(server_name) != Some(scope);
        self.tls && (self.scope_of(host).is_some_and(elsewhere) || self.is_relayed(host))
    }
}

/// One Gateway API listener of an HTTP port.
#[derive(Debug)]
pub struct ScopePlan {
    pub listener: ListenerName,
    pub hostname: HostPattern,
    pub certificates: Vec<CertificateName>,
    pub tls: ListenerTls,
    pub hosts: HostTable,
    /// Who is asked before a route is looked for; see [`crate::ir::HttpScope`].
    pub guards: Vec<RuleId>,
}

/// A stream listener.
#[derive(Debug)]
pub struct StreamPlan {
    pub recognise: Recognise,
    /// Most specific hostname first.
    pub rules: Vec<StreamRulePlan>,
    /// The first rule of each hostname.
    pub by_name: HostIndex<Option<usize>>,
}

impl StreamPlan {
    /// The rule for a server name (lower case; empty if the client gave none): of the most specific hostname that
    /// matches, the first.
    pub fn rule(&self, server_name: &str) -> Option<&StreamRulePlan> {
        self.by_name
            .ask(server_name, &mut (), |first, _| self.rules.get((*first)?))
    }
}

#[derive(Debug)]
pub struct StreamRulePlan {
    pub id: RuleId,
    pub name: RuleName,
    pub listener: ListenerName,
    pub hostname: HostPattern,
    /// TLS ends here; `None`: bytes are passed on as they come.
    pub terminate: Option<Termination>,
    /// Empty: no route takes these names at the listener to which they belong.
    pub destinations: Vec<DestinationPlan>,
}

/// A rule of an HTTP route, its filters flattened.
#[derive(Debug)]
pub struct RulePlan {
    /// What it was made of.
    pub of: Arc<HttpRule>,
    pub id: RuleId,
    pub name: RuleName,
    pub kind: RouteKind,
    pub filters: Vec<Filter>,
    /// Where copies of its requests go.
    pub mirrors: Vec<MirrorPlan>,
    /// Who is asked before a request goes anywhere.
    pub auth: Option<AuthPlan>,
    pub destinations: Vec<DestinationPlan>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    pub session: Option<Session>,
}

/// A mirror that can be reached.
#[derive(Debug)]
pub struct MirrorPlan {
    pub to: ServiceId,
    pub protocol: UpstreamProtocol,
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
}

/// An authorization service and what it is told; see [`crate::ir::ExternalAuth`].
#[derive(Debug)]
pub struct AuthPlan {
    pub to: DestinationTo,
    pub protocol: UpstreamProtocol,
    pub speaks: AuthSpeaks,
    pub body_bytes_max: usize,
}

/// A share of a rule's traffic.
#[derive(Debug)]
pub struct DestinationPlan {
    pub weight: u32,
    pub to: DestinationTo,
    pub protocol: UpstreamProtocol,
    pub filters: Vec<Filter>,
}

#[derive(Debug)]
pub enum DestinationTo {
    Service(ServiceId),
    Fail { status: u16, why: String },
}

/// A service and the endpoints that take new work.
#[derive(Debug)]
pub struct ServicePlan {
    pub id: ServiceId,
    pub name: ServiceName,
    pub balance: BalancePolicy,
    /// Only `Readiness::Serving`; an endpoint of weight w stands w / gcd times, spread evenly.
    pub turns: Vec<EndpointId>,
    /// How its endpoints are spoken to; `None`: in plain text.
    pub tls: Option<Arc<BackendTls>>,
}

/// One endpoint.
#[derive(Debug)]
pub struct EndpointPlan {
    pub id: EndpointId,
    pub service: ServiceId,
    pub name: EndpointName,
    pub addr: SocketAddr,
    pub readiness: Readiness,
}
