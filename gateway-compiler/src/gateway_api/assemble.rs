//! Listeners with their routes to the IR: what stands on one address and port becomes one listener with one plane.

mod streams;

use super::address::Placed;
use super::gateway::Gateway;
use super::listener::Listener;
use super::load_balancer::Balancer;
use super::route::StreamShare;
use super::tables::{At, Hosts};
use super::{Work, client_certificate, matches, packets};
use crate::objects::Subject;
use crate::plane::{self, Choice, PlaneName, Protocol};
use crate::status::ObjectStatus;
use gateway_core::ir::{
    Bind, CertificateName, Destination, Exposure, HostPattern, HttpDestination, HttpRule, HttpRules, HttpScope, Ir,
    Plane, Recognise, RouteKind, StreamRules, Timeouts, UpstreamProtocol, VirtualHost, Weighted,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A listener that serves, and whose it is.
struct Served<'l, 'o> {
    gateway: Subject<'o>,
    /// What the Gateway shows to endpoints that ask who it is.
    certificate: Option<&'l CertificateName>,
    listener: &'l Listener<'o>,
    at: At,
    protocol: Protocol,
}

/// Everything that is served, and what the Services that ask for a load balancer are told.
pub(super) fn assemble<'o>(
    work: &mut Work<'o>,
    gateways: &[Gateway<'o>],
    balancers: impl Iterator<Item = (Balancer<'o>, Placed)>,
) -> (Ir, Vec<ObjectStatus>) {
    let mut by_bind: BTreeMap<Bind, Vec<Served<'_, '_>>> = BTreeMap::new();
    for (place, gateway) in gateways.iter().enumerate() {
        for (index, listener) in gateway.listeners.iter().enumerate() {
            let Some(protocol) = listener.serves().or(listener.is_shut()) else {
                continue;
            };
            for addr in &gateway.addresses {
                let bind = Bind {
                    addr: *addr,
                    port: listener.port,
                    transport: protocol.transport(),
                };
                by_bind.entry(bind).or_default().push(Served {
                    gateway: gateway.subject,
                    certificate: gateway.certificate.as_ref().and_then(|it| it.as_ref().ok()),
                    listener,
                    at: (place, index),
                    protocol,
                });
            }
        }
    }
    let mut ir = Ir::default();
    for (bind, mut served) in by_bind {
        served.sort_by(|a, b| a.listener.name.cmp(&b.listener.name));
        keep_open(&mut served);
        let listener = one(work, bind, &served);
        ir.listeners.insert(bind, listener);
    }
    let statuses = balancers
        .map(|(balancer, placed)| balancer.serve(work, placed, &mut ir))
        .collect();
    work.memo.hosts.clear();
    keep_what_is_named(&mut ir, work);
    (ir, statuses)
}

/// One that is shut keeps requests from listeners for more hosts, and takes nothing that another one serves.
fn keep_open(served: &mut Vec<Served<'_, '_>>) {
    let is_open = |one: &Served<'_, '_>| one.listener.serves().is_some();
    let open = served.iter().filter(|one| is_open(one));
    let open: Vec<_> = open.map(|one| (one.protocol, one.listener.hostname.clone())).collect();
    served.retain(|one| {
        let gives_way = |(protocol, hostname): &(Protocol, HostPattern)| {
            *protocol != one.protocol || *hostname == one.listener.hostname
        };
        is_open(one) || !open.iter().any(gives_way)
    });
}

fn one(work: &mut Work<'_>, bind: Bind, served: &[Served<'_, '_>]) -> gateway_core::ir::Listener {
    let protocols: BTreeSet<Protocol> = served.iter().map(|s| s.protocol).collect();
    let protocol = protocols.first().copied().unwrap_or(Protocol::Tcp);
    let mut wishes: Vec<_> = served.iter().flat_map(|s| s.listener.wishes.iter().cloned()).collect();
    wishes.sort_by(|a: &plane::Wish, b| a.by.cmp(&b.by));
    wishes.dedup_by(|a, b| a.by == b.by);
    let Choice { plane, mut why } = plane::choose(protocol, &wishes, &mut work.found);
    let plane = match (protocol, plane) {
        (Protocol::Http | Protocol::Https, _) => Plane::Http(http(work, protocol, served)),
        (Protocol::TlsPassthrough | Protocol::TlsTerminate, _) => Plane::Splice(StreamRules {
            recognise: Recognise::Sni,
            rules: streams::by_name(work, served),
        }),
        (Protocol::Tcp, PlaneName::Http) => Plane::Http(requests_of_a_stream(work, served)),
        (Protocol::Tcp, PlaneName::Splice) | (Protocol::Udp, PlaneName::Splice | PlaneName::Http) => {
            Plane::Splice(streams::all(work, served))
        }
        (Protocol::Tcp | Protocol::Udp, PlaneName::Kernel) => {
            let rules = streams::all(work, served);
            let (plane, obstacle) = packets::carry(work, bind, rules);
            why = obstacle.unwrap_or(why);
            plane
        }
    };
    if let Some(shared) = plane::shared(&protocols) {
        why = shared.to_owned();
    }
    let names = served.iter().map(|s| s.listener.name.clone()).collect();
    gateway_core::ir::Listener {
        bind,
        names,
        plane,
        why,
        exposure: Exposure::default(),
    }
}

fn http(work: &mut Work<'_>, protocol: Protocol, served: &[Served<'_, '_>]) -> HttpRules {
    let mut scopes: Vec<HttpScope> = served
        .iter()
        .filter(|s| s.protocol == protocol)
        .map(|s| HttpScope {
            listener: s.listener.name.clone(),
            hostname: s.listener.hostname.clone(),
            certificates: s.listener.certificates.clone(),
            tls: s.listener.tls.clone(),
            hosts: hosts(work, s),
            guards: guards(work, s),
        })
        .collect();
    scopes.sort_by(|a, b| {
        b.hostname
            .specificity()
            .cmp(&a.hostname.specificity())
            .then(a.listener.cmp(&b.listener))
    });
    HttpRules {
        tls: protocol == Protocol::Https,
        scopes,
        streams: streams::by_name(work, served),
    }
}

fn hosts(work: &mut Work<'_>, served: &Served<'_, '_>) -> Hosts {
    let (gateway, listener) = served.at;
    let table = &mut work.memo.tables[gateway][listener];
    let made = table.make(work.objects, &work.memo.hosts);
    work.found.extend(made.found.iter().cloned());
    let hosts = Arc::clone(&made.hosts);
    if served.certificate.is_none() {
        for name in table.named() {
            if !work.named.contains(name) {
                work.named.insert(name.clone());
            }
        }
        return hosts;
    }
    let shown = hosts.iter().map(|host| {
        let rules = host.rules.iter().map(|rule| shown(work, served, rule)).collect();
        let hostname = host.hostname.clone();
        Arc::new(VirtualHost { hostname, rules })
    });
    let shown: Hosts = Arc::new(shown.collect());
    let rules = shown.iter().flat_map(|host| &host.rules);
    work.named.extend(rules.flat_map(|rule| rule.services()).cloned());
    shown
}

/// Who is asked before a route is looked for.
fn guards(work: &mut Work<'_>, served: &Served<'_, '_>) -> Vec<Arc<HttpRule>> {
    let guards = &served.listener.guards.rules;
    let guards: Vec<_> = guards.iter().map(|rule| shown(work, served, rule)).collect();
    work.named
        .extend(guards.iter().flat_map(|rule| rule.services()).cloned());
    guards
}

/// The rule as this Gateway has it: with what it shows to endpoints that ask.
fn shown(work: &mut Work<'_>, served: &Served<'_, '_>, rule: &Arc<HttpRule>) -> Arc<HttpRule> {
    match served.certificate {
        Some(certificate) => client_certificate::present(work, served.gateway, certificate, rule).into(),
        None => Arc::clone(rule),
    }
}

/// A TCPRoute whose listener is served request by request: one rule takes them all.
fn requests_of_a_stream(work: &mut Work<'_>, served: &[Served<'_, '_>]) -> HttpRules {
    let first = streams::first(work, served);
    let rule = first.map(|(_, stream)| HttpRule {
        name: stream.name.clone(),
        kind: RouteKind::Http,
        matches: vec![matches::everything()],
        filters: Vec::new(),
        destinations: stream.shares.iter().map(http_destination).collect(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    });
    work.named.extend(rule.iter().flat_map(|rule| rule.services()).cloned());
    let hosts = Arc::new(vec![VirtualHost::new(HostPattern::Any, rule)]);
    let scopes = served.iter().take(1).map(|s| HttpScope {
        listener: s.listener.name.clone(),
        hostname: HostPattern::Any,
        certificates: Vec::new(),
        tls: Default::default(),
        hosts: hosts.clone(),
        guards: Vec::new(),
    });
    HttpRules {
        tls: false,
        scopes: scopes.collect(),
        streams: Vec::new(),
    }
}

fn http_destination(share: &StreamShare) -> Weighted<HttpDestination> {
    let protocol = share.protocol.unwrap_or(UpstreamProtocol::Http1);
    Weighted {
        weight: share.weight,
        to: HttpDestination {
            to: share.to.clone(),
            protocol,
            filters: Vec::new(),
        },
    }
}

/// The IR holds the services and certificates that some listener names, and no others.
fn keep_what_is_named(ir: &mut Ir, work: &mut Work<'_>) {
    for listener in ir.listeners.values() {
        let shares = listener.plane.stream_rules().iter().flat_map(|rule| &rule.destinations);
        for share in shares {
            match &share.to {
                Destination::Service(name) => _ = work.named.insert(name.clone()),
                Destination::Fail { .. } => {}
            }
        }
    }
    let named = std::mem::take(&mut work.named).into_iter();
    let services = named.filter_map(|name| Some((name.clone(), Arc::clone(work.service(&name)?))));
    ir.services = services.collect();
    let named = |plane: &Plane| -> Vec<CertificateName> {
        let scopes = match plane {
            Plane::Http(rules) => &rules.scopes[..],
            Plane::Kernel(_) | Plane::Splice(_) => &[],
        };
        let ended = plane.stream_rules().iter().filter_map(|rule| rule.terminate.as_ref());
        let of_scopes = scopes.iter().flat_map(|scope| &scope.certificates);
        let all = of_scopes.chain(ended.flat_map(|end| &end.certificates));
        all.cloned().collect()
    };
    let shown = ir
        .services
        .values()
        .filter_map(|service| service.tls.as_ref()?.certificate.clone());
    let certificates: BTreeSet<_> = ir
        .listeners
        .values()
        .flat_map(|l| named(&l.plane))
        .chain(shown)
        .collect();
    ir.certificates = std::mem::take(&mut work.certificates);
    ir.certificates.retain(|name, _| certificates.contains(name));
}
