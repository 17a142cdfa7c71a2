//! Endpoints that no EndpointSlice lists: ExternalName Services and Backends, by address or by name.
//!
//! Names are resolved by the rim, which compiles anew when their addresses change. A name that does not resolve is a
//! service without endpoints, not a broken route: it may resolve the next second.

use super::Work;
use super::endpoints::{self, ENDPOINTS_MAX};
use crate::diagnostic::Severity;
use crate::objects::kinds::{self, ServicePort};
use crate::objects::{Key, Object, Subject};
use gateway_core::ir::{BackendTls, BalancePolicy, Endpoint, EndpointName, Readiness, ServiceName, UpstreamProtocol};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The port of an ExternalName Service; the Service need not list it.
pub(super) fn port(spec: &kinds::ServiceSpec, number: u16) -> ServicePort {
    let listed = spec.ports.iter().find(|port| port.port == number);
    listed.cloned().unwrap_or(ServicePort {
        port: number,
        ..ServicePort::default()
    })
}

/// `namespace/name:port` of an ExternalName Service.
pub(super) fn name(service: &Key, port: u16) -> ServiceName {
    ServiceName::new(format!("{service}:{port}"))
}

/// `Backend/namespace/name`.
pub(super) fn name_of_backend(backend: &Key) -> ServiceName {
    ServiceName::new(format!("Backend/{backend}"))
}

/// Puts the service of this [`name`] into the services: its endpoints are the addresses of `host`.
pub(super) fn service(
    work: &mut Work<'_>,
    object: &Object<kinds::Service>,
    host: &str,
    port: u16,
    tls: Option<Arc<BackendTls>>,
) {
    let mut found = Found::default();
    found.host(work, object.subject(), "spec.externalName", host, port);
    endpoints::store(work, name(&object.key(), port), found.0, BalancePolicy::default(), tls);
}

/// Puts the service of a Backend into the services.
pub(super) fn backend(work: &mut Work<'_>, object: &Object<kinds::Backend>) {
    let subject = object.subject();
    let mut found = Found::default();
    for (index, endpoint) in object.body.spec.endpoints.iter().enumerate() {
        let field = format!("spec.endpoints[{index}]");
        match (&endpoint.ip, &endpoint.fqdn, &endpoint.unix) {
            (Some(ip), None, None) => found.address(work, subject, &format!("{field}.ip"), ip),
            (None, Some(fqdn), None) => {
                let field = format!("{field}.fqdn.hostname");
                found.host(work, subject, &field, &fqdn.hostname, fqdn.port);
            }
            (None, None, Some(_)) => {
                let problem = "Unix sockets are not served: the endpoint is left out";
                let remedy = "name an ip or a fqdn";
                work.found
                    .push(subject.finding(Severity::Error, format!("{field}.unix"), problem, remedy));
            }
            _ => {
                let problem = "an endpoint is exactly one of ip, fqdn and unix: it is left out";
                work.found
                    .push(subject.finding(Severity::Error, field, problem, "write one of them"));
            }
        }
    }
    if found.0.is_empty() {
        let problem = "no endpoint of this Backend can be reached: requests to it are answered with 503";
        work.found
            .push(subject.finding(Severity::Warning, "spec.endpoints", problem, "name one that can"));
    }
    endpoints::store(
        work,
        name_of_backend(&object.key()),
        found.0,
        BalancePolicy::default(),
        None,
    );
}

/// What the first word that is understood asks to be spoken.
pub(super) fn protocol(words: &[String]) -> Option<UpstreamProtocol> {
    words.iter().find_map(|word| match word.as_str() {
        "gateway.envoyproxy.io/h2c" | "kubernetes.io/h2c" => Some(UpstreamProtocol::H2c),
        "gateway.envoyproxy.io/ws" | "kubernetes.io/ws" => Some(UpstreamProtocol::Http1),
        _ => None,
    })
}

#[derive(Default)]
struct Found(BTreeMap<SocketAddr, Endpoint>);

impl Found {
    fn address(&mut self, work: &mut Work<'_>, subject: Subject<'_>, field: &str, ip: &kinds::IpEndpoint) {
        let parsed: Result<IpAddr, String> =
            (ip.address.parse()).map_err(|_| format!("{:?} is no IP address", ip.address));
        match parsed.and_then(|addr| endpoints::reachable(addr.to_canonical(), work.settings.loopback_endpoints)) {
            Ok(addr) => self.add(SocketAddr::new(addr, ip.port), &addr.to_string()),
            Err(problem) => {
                let (field, remedy) = (format!("{field}.address"), "write an address that this host can reach");
                work.found
                    .push(subject.finding(Severity::Error, field, problem, remedy));
            }
        }
    }

    fn host(&mut self, work: &mut Work<'_>, subject: Subject<'_>, field: &str, host: &str, port: u16) {
        let objects = work.objects;
        let mut report = |problem: String| {
            let remedy = "correct the name, or see which resolver this host asks";
            work.found
                .push(subject.finding(Severity::Warning, field, problem, remedy));
        };
        match objects.addresses_of(host) {
            None => report(format!("{host} was not resolved yet")),
            Some(Err(why)) => report(format!("{host} does not resolve: {why}")),
            Some(Ok(addresses)) => {
                for addr in addresses {
                    match endpoints::reachable(addr.to_canonical(), work.settings.loopback_endpoints) {
                        // Each address of a name is an endpoint of its own: nothing says that two are the same host.
                        Ok(addr) => self.add(SocketAddr::new(addr, port), &format!("{host}/{addr}")),
                        Err(problem) => report(format!("{host}: {problem}")),
                    }
                }
            }
        }
    }

    fn add(&mut self, addr: SocketAddr, name: &str) {
        if self.0.len() < ENDPOINTS_MAX {
            let endpoint = Endpoint {
                name: EndpointName::new(name),
                addr,
                weight: 1,
                readiness: Readiness::Serving,
            };
            self.0.insert(addr, endpoint);
        }
    }
}
