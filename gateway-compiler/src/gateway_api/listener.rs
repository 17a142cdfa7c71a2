//! One listener of a Gateway: what it speaks, whom it takes, and what is wrong with it.

use super::condition::Problem;
use super::frontend_tls::{self, Weight};
use super::listener_filters::{self, Guards, Place};
use super::route::Stream;
use super::{Work, certificate, hostname};
use crate::diagnostic::Severity;
use crate::objects::kinds::{self, LabelSelector};
use crate::objects::{Kind, Subject};
use crate::plane::{Protocol, Wish};
use crate::status::reason;
use gateway_core::ir::{CertificateName, HostPattern, ListenerName, ListenerTls};
use std::cmp::Reverse;
use std::collections::BTreeMap;

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// From which namespaces routes may attach.
#[derive(Clone, Copy)]
pub(super) enum Namespaces<'o> {
    All,
    Same,
    Selected(&'o LabelSelector),
    None,
}

/// A stream rule at a listener.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    /// What the route's hostname and the listener's have in common.
    pub hostname: HostPattern,
    /// The route's own: it decides where several meet the listener in the same one.
    pub own: HostPattern,
    pub stream: Stream,
}

/// What hostnames of a listener and of a route have in common, and how specific the route's own is: more comes first.
pub(super) type Met = (HostPattern, Reverse<(u8, usize)>);

/// A listener and what was attached to it; its HTTP rules are in its [`Table`](super::tables::Table).
pub(super) struct Listener<'o> {
    pub name: ListenerName,
    /// Who wrote it: the Gateway, or one of its sets.
    pub by: Subject<'o>,
    /// 0: the Gateway's own; else the place of its set among the Gateway's, which is its precedence.
    pub rank: usize,
    pub section: &'o str,
    /// `spec.listeners[0]`.
    pub field: String,
    pub port: u16,
    /// `None`: not served, `refused` says why.
    pub protocol: Option<Protocol>,
    pub hostname: HostPattern,
    /// Route kinds it takes.
    pub kinds: Vec<Kind>,
    pub namespaces: Namespaces<'o>,
    pub certificates: Vec<CertificateName>,
    pub tls: ListenerTls,
    /// Accepted does not hold.
    pub refused: Option<Problem>,
    /// Conflicted holds.
    pub conflict: Option<Problem>,
    /// ResolvedRefs does not hold.
    pub unresolved: Option<Problem>,
    /// How many routes that are served here are accepted.
    pub accepted: u32,
    /// In order of age.
    pub streams: Vec<Attached>,
    pub wishes: Vec<Wish>,
    /// Who is asked before a route is looked for.
    pub guards: Guards,
}

impl Listener<'_> {
    /// What it speaks, if traffic is served at all.
    pub fn serves(&self) -> Option<Protocol> {
        let without_certificate = self.terminates() && self.certificates.is_empty();
        match self.refused.is_none() && self.conflict.is_none() && !without_certificate {
            true => self.protocol,
            false => None,
        }
    }

    /// What it speaks, if it is not accepted for its filters alone: then nothing passes, and it falls to no other one.
    pub fn is_shut(&self) -> Option<Protocol> {
        let for_filters = self.guards.refused.is_some() && self.refused == self.guards.refused;
        let without_certificate = self.terminates() && self.certificates.is_empty();
        let http = matches!(self.protocol, Some(Protocol::Http | Protocol::Https));
        self.protocol
            .filter(|_| for_filters && http && self.conflict.is_none() && !without_certificate)
    }

    /// Whether TLS ends here.
    pub fn terminates(&self) -> bool {
        match self.protocol {
            Some(Protocol::Https | Protocol::TlsTerminate) => true,
            Some(Protocol::Http | Protocol::TlsPassthrough | Protocol::Tcp | Protocol::Udp) | None => false,
        }
    }
}

/// Reads the listener at `spec.listeners[index]` of `by`, which is the Gateway (rank 0) or its set of that rank.
pub(super) fn read<'o>(
    work: &mut Work<'o>,
    gateway: Subject<'o>,
    body: &'o kinds::Gateway,
    (by, rank): (Subject<'o>, usize),
    (index, spec): (usize, &'o kinds::Listener),
) -> Listener<'o> {
    let whose = match rank {
        0 => String::new(),
        _ => format!("/{}/{}", by.id.namespace, by.id.name),
    };
    let id = gateway.id;
    let mut listener = Listener {
        name: ListenerName::new(format!("{}/{}{whose}/{}", id.namespace, id.name, spec.name)),
        by,
        rank,
        section: &spec.name,
        field: format!("spec.listeners[{index}]"),
        port: spec.port,
        protocol: None,
        hostname: HostPattern::Any,
        kinds: Vec::new(),
        namespaces: Namespaces::Same,
        certificates: Vec::new(),
        tls: ListenerTls::default(),
        refused: None,
        conflict: None,
        unresolved: None,
        accepted: 0,
        streams: Vec::new(),
        wishes: Vec::new(),
        guards: Guards::default(),
    };
    let mut reading = Reading {
        work,
        gateway,
        spec,
        listener: &mut listener,
    };
    reading.port();
    reading.protocol();
    reading.filters();
    reading.hostname();
    reading.kinds();
    reading.namespaces();
    if reading.listener.terminates() {
        reading.certificates();
        reading.tls(body);
    }
    listener
}

struct Reading<'o, 'w> {
    work: &'w mut Work<'o>,
    gateway: Subject<'o>,
    spec: &'o kinds::Listener,
    listener: &'w mut Listener<'o>,
}

impl Reading<'_, '_> {
    fn report(&mut self, part: &str, problem: &str, remedy: &str) {
        let field = format!("{}{part}", self.listener.field);
        let by = self.listener.by;
        self.work
            .found
            .push(by.finding(Severity::Error, field, problem, remedy));
    }

    fn refuse(&mut self, reason: &'static str, part: &str, message: String, remedy: &str) {
        self.report(part, &message, remedy);
        self.listener.refused.get_or_insert(Problem { reason, message });
    }

    fn unresolve(&mut self, reason: &'static str, part: &str, message: String, remedy: &str) {
        self.report(part, &message, remedy);
        self.listener.unresolved.get_or_insert(Problem { reason, message });
    }

    fn port(&mut self) {
        if self.spec.port == 0 {
            self.refuse(
                reason::UNSUPPORTED_VALUE,
                ".port",
                "0 is no port".to_owned(),
                "write 1 to 65535",
            );
        }
    }

    fn filters(&mut self) {
        let place = Place {
            by: self.listener.by,
            section: self.listener.section,
            field: &self.listener.field,
            protocol: self.listener.protocol,
        };
        let guards = listener_filters::read(self.work, &place, &self.spec.filters);
        if self.listener.refused.is_none() {
            self.listener.refused = guards.refused.clone();
        }
        if self.listener.unresolved.is_none() {
            self.listener.unresolved = guards.unresolved.clone();
        }
        self.listener.guards = guards;
    }

    fn protocol(&mut self) {
        let mode = self
            .spec
            .tls
            .as_ref()
            .and_then(|tls| tls.mode.as_deref())
            .unwrap_or("Terminate");
        self.listener.protocol = match (self.spec.protocol.as_str(), mode) {
            ("HTTP", _) => Some(Protocol::Http),
            ("HTTPS", "Terminate") => Some(Protocol::Https),
            ("TLS", "Passthrough") => Some(Protocol::TlsPassthrough),
            ("TLS", "Terminate") => Some(Protocol::TlsTerminate),
            ("TCP", _) => Some(Protocol::Tcp),
            ("UDP", _) => Some(Protocol::Udp),
            ("HTTPS" | "TLS", mode) => {
                let message = format!("TLS mode {mode:?} does not go with protocol {}", self.spec.protocol);
                self.refuse(
                    reason::UNSUPPORTED_VALUE,
                    ".tls.mode",
                    message,
                    "HTTPS takes Terminate, TLS Terminate or Passthrough",
                );
                None
            }
            (protocol, _) => {
                let message = format!("protocol {protocol} is not served");
                let remedy = "use HTTP, HTTPS, TLS, TCP or UDP";
                self.refuse(reason::UNSUPPORTED_PROTOCOL, ".protocol", message, remedy);
                None
            }
        };
    }

    fn hostname(&mut self) {
        match hostname::pattern(self.spec.hostname.as_deref()) {
            // Neither a TCP connection nor a datagram names a host.
            Ok(_) if matches!(self.listener.protocol, Some(Protocol::Tcp | Protocol::Udp)) => {}
            Ok(pattern) => self.listener.hostname = pattern,
            Err(problem) => self.refuse(reason::UNSUPPORTED_VALUE, ".hostname", problem, "correct it"),
        }
    }

    fn kinds(&mut self) {
        let supported: &[Kind] = match self.listener.protocol {
            Some(Protocol::Http | Protocol::Https) => &[Kind::HttpRoute, Kind::GrpcRoute],
            Some(Protocol::TlsPassthrough) => &[Kind::TlsRoute],
            Some(Protocol::TlsTerminate) => &[Kind::TlsRoute, Kind::TcpRoute],
            Some(Protocol::Tcp) => &[Kind::TcpRoute],
            Some(Protocol::Udp) => &[Kind::UdpRoute],
            None => &[],
        };
        let asked = &self.spec.allowed_routes.kinds;
        if asked.is_empty() {
            self.listener.kinds = supported.to_vec();
            return;
        }
        for (index, ask) in asked.iter().enumerate() {
            let ours = ask.group.as_deref().unwrap_or(GATEWAY_API) == GATEWAY_API;
            match supported.iter().find(|kind| ours && kind.name() == ask.kind) {
                Some(kind) if !self.listener.kinds.contains(kind) => self.listener.kinds.push(*kind),
                Some(_) => {}
                None if self.listener.protocol.is_none() => {}
                None => {
                    let group = match (&ask.group, ours) {
                        (Some(group), false) => format!(" of group {group:?}"),
                        _ => String::new(),
                    };
                    let message = format!(
                        "a listener of protocol {} takes no {}{group}",
                        self.spec.protocol, ask.kind
                    );
                    let part = format!(".allowedRoutes.kinds[{index}].kind");
                    self.unresolve(
                        reason::INVALID_ROUTE_KINDS,
                        &part,
                        message,
                        "name a route kind of this protocol",
                    );
                }
            }
        }
    }

    fn namespaces(&mut self) {
        let spec = &self.spec.allowed_routes.namespaces;
        self.listener.namespaces = match (spec.from.as_deref().unwrap_or("Same"), &spec.selector) {
            ("All", _) => Namespaces::All,
            ("Same", _) => Namespaces::Same,
            ("None", _) => Namespaces::None,
            ("Selector", Some(selector)) => Namespaces::Selected(selector),
            ("Selector", None) => {
                self.report(
                    ".allowedRoutes.namespaces",
                    "from: Selector has no selector: no route attaches",
                    "add it",
                );
                Namespaces::None
            }
            (from, _) => {
                let message = format!("{from:?} names no namespaces");
                self.refuse(
                    reason::UNSUPPORTED_VALUE,
                    ".allowedRoutes.namespaces.from",
                    message,
                    "write All, Same or Selector",
                );
                Namespaces::None
            }
        };
    }

    fn certificates(&mut self) {
        let spec = self.spec;
        let refs = spec.tls.as_ref().map_or(&[][..], |tls| tls.certificate_refs.as_slice());
        if refs.is_empty() {
            let message = "the listener terminates TLS and names no certificate".to_owned();
            self.unresolve(
                reason::INVALID_CERTIFICATE_REF,
                ".tls",
                message,
                "add tls.certificateRefs",
            );
        }
        for (index, to) in refs.iter().enumerate().take(CERTIFICATES_MAX) {
            match certificate::resolve(self.work, self.listener.by, to) {
                Ok(name) if !self.listener.certificates.contains(&name) => self.listener.certificates.push(name),
                Ok(_) => {}
                Err(bad) => {
                    let part = format!(".tls.certificateRefs[{index}].name");
                    self.unresolve(bad.reason, &part, bad.problem, &bad.remedy);
                }
            }
        }
    }
}

impl Reading<'_, '_> {
    /// Client certificates, versions and suites.
    fn tls(&mut self, body: &kinds::Gateway) {
        let mut found = Vec::new();
        let mut clients = frontend_tls::of_port(body, self.listener.port)
            .and_then(|(spec, field)| frontend_tls::clients(self.work, self.gateway, &field, spec, &mut found));
        let none = BTreeMap::new();
        let options = self.spec.tls.as_ref().map_or(&none, |tls| &tls.options);
        let terms = frontend_tls::options(options, &mut clients, &mut found);
        self.listener.tls = ListenerTls { terms, clients };
        for finding in found {
            let (severity, field) = (
                match finding.weight {
                    Weight::Closes | Weight::Unresolved => Severity::Error,
                    Weight::Idle => Severity::Warning,
                },
                match finding.field.starts_with('.') {
                    true => format!("{}{}", self.listener.field, finding.field),
                    false => finding.field.clone(),
                },
            );
            let by = match finding.field.starts_with('.') {
                true => self.listener.by,
                false => self.gateway,
            };
            let at = by.finding(severity, field, finding.problem.as_str(), finding.remedy);
            self.work.found.push(at);
            let problem = Problem {
                reason: finding.reason,
                message: finding.problem,
            };
            match finding.weight {
                Weight::Closes => _ = self.listener.refused.get_or_insert(problem),
                Weight::Unresolved => _ = self.listener.unresolved.get_or_insert(problem),
                Weight::Idle => {}
            }
        }
    }
}

/// Most certificates of one listener (Gateway API).
const CERTIFICATES_MAX: usize = 64;
