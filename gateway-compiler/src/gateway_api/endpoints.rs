//! A Service's port and its EndpointSlices to endpoints.
//!
//! An endpoint is known by its name: its target's, else its hostname, else its address and port. A pod with an IPv4
//! and an IPv6 address stands in two slices under one name and counts once: `namespace/name:port` holds one address
//! of each name, IPv4 before IPv6, so that balancing by request is fair over endpoints and not over addresses. The
//! kernel plane cannot translate between families: there `namespace/name:port/ipv4` and `.../ipv6` hold every address
//! of one family, and a VIP takes the one of its own.

use super::Work;
use super::topology::{self, Hinted};
use crate::diagnostic::Severity;
use crate::objects::kinds::{EndpointConditions, ServicePort, SliceEndpoint};
use crate::objects::{EndpointSlices, Key, Object, kinds};
use gateway_core::ir::{BackendTls, BalancePolicy, Endpoint, EndpointName, Readiness, Service, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Most endpoints of one service; the kernel plane's indexes are 16 bits wide.
pub(super) const ENDPOINTS_MAX: usize = 60_000;

/// The service with the addresses of one family.
pub(super) fn of_family(service: &ServiceName, ipv4: bool) -> ServiceName {
    ServiceName::new(format!("{service}/{}", if ipv4 { "ipv4" } else { "ipv6" }))
}

/// `namespace/name:port`, of a UDP port with `/udp` behind it.
pub(super) fn name(service: &Key, port: &ServicePort) -> ServiceName {
    let transport = match port.protocol.as_deref() {
        Some("UDP") => "/udp",
        _ => "",
    };
    ServiceName::new(format!("{service}:{}{transport}", port.port))
}

/// Which endpoints of a Service's port are meant, and how one is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// Those of this node alone (`externalTrafficPolicy: Local`).
    pub local: bool,
    pub balance: BalancePolicy,
}

impl Manner {
    /// The name of the service that is used in this manner.
    pub fn of(self, name: ServiceName) -> ServiceName {
        let local = if self.local { "/local" } else { "" };
        let chosen = match self.balance {
            BalancePolicy::RoundRobin => "",
            BalancePolicy::LeastRequest => "/least-request",
            BalancePolicy::ClientAddress => "/by-client",
        };
        match (local, chosen) {
            ("", "") => name,
            _ => ServiceName::new(format!("{name}{local}{chosen}")),
        }
    }
}

/// Puts the service of this [`name`] into the services, with one service for each family.
/// `tls`: how its endpoints are spoken to; depends on the Service and the port alone. The kernel plane's twins are in
/// plain text: what packets carry is not ours.
pub(super) fn service(
    work: &mut Work<'_>,
    object: &Object<kinds::Service>,
    port: &ServicePort,
    manner: Manner,
    tls: Option<Arc<BackendTls>>,
) {
    let (all, matched) = collect(work, object, port, manner.local);
    // A node that has none is no fault.
    if all.is_empty() && !(manner.local && matched) {
        let key = (object.id.namespace.as_str(), object.id.name.as_str());
        report_empty(work, object, port, matched, work.slices().contains_key(&key));
    }
    store(work, manner.of(name(&object.key(), port)), all, manner.balance, tls);
}

/// Puts a service with these endpoints into the services, and one for each family beside it.
pub(super) fn store(
    work: &mut Work<'_>,
    name: ServiceName,
    all: BTreeMap<SocketAddr, Endpoint>,
    balance: BalancePolicy,
    tls: Option<Arc<BackendTls>>,
) {
    for ipv4 in [true, false] {
        let endpoints = all.values().filter(|e| e.addr.is_ipv4() == ipv4).cloned().collect();
        let twin = of_family(&name, ipv4);
        let service = Service {
            name: twin.clone(),
            endpoints,
            balance,
            tls: None,
        };
        work.memo.made.services.insert(twin, Arc::new(service));
    }
    let mut taken = BTreeSet::new();
    // IPv4 addresses sort before IPv6 ones.
    let endpoints = all.into_values().filter(|e| taken.insert(e.name.clone())).collect();
    let service = Service {
        name: name.clone(),
        endpoints,
        balance,
        tls,
    };
    work.memo.made.services.insert(name, Arc::new(service));
}

fn report_empty(work: &mut Work<'_>, object: &Object<kinds::Service>, port: &ServicePort, matched: bool, slices: bool) {
    let subject = object.subject();
    let (problem, remedy) = match (slices, matched) {
        (false, _) => (
            "no EndpointSlice belongs to this Service: requests to it are answered with 503".to_owned(),
            "add an EndpointSlice with the label kubernetes.io/service-name",
        ),
        (true, false) => (
            format!("no EndpointSlice of this Service has a port named {:?}", port.name),
            "name the ports of the slices as the Service does",
        ),
        (true, true) => (
            "no endpoint of this Service is ready".to_owned(),
            "see why: its EndpointSlices say which of them are",
        ),
    };
    work.found
        .push(subject.finding(Severity::Warning, "spec.ports", problem, remedy));
}

/// Every usable address, `local`: of this node, and whether any slice has the port at all.
fn collect(
    work: &mut Work<'_>,
    service: &Object<kinds::Service>,
    port: &ServicePort,
    local: bool,
) -> (BTreeMap<SocketAddr, Endpoint>, bool) {
    let mut all: BTreeMap<SocketAddr, Hinted<'_>> = BTreeMap::new();
    let mut matched = false;
    let slices: &EndpointSlices<'_> = work.slices();
    let found = slices
        .get(&(service.id.namespace.as_str(), service.id.name.as_str()))
        .cloned()
        .unwrap_or_default();
    for slice in found {
        let subject = slice.subject();
        if !matches!(slice.body.address_type.as_str(), "IPv4" | "IPv6") {
            let problem = format!(
                "addressType {} is not served: its endpoints are left out",
                slice.body.address_type
            );
            work.found
                .push(subject.finding(Severity::Warning, "addressType", problem, "use IPv4 or IPv6"));
            continue;
        }
        let Some(number) = slice.body.ports.iter().find_map(|p| fits(p, port)) else {
            continue;
        };
        matched = true;
        for (index, endpoint) in slice.body.endpoints.iter().enumerate() {
            if local && endpoint.node_name != work.settings.node {
                continue;
            }
            let Some(readiness) = readiness(endpoint.conditions) else {
                continue;
            };
            // The addresses of one endpoint are interchangeable; the first is taken (Kubernetes, EndpointSlice).
            let Some(text) = endpoint.addresses.first() else {
                continue;
            };
            let addr = match usable(text, &slice.body.address_type, work.settings.loopback_endpoints) {
                Ok(ip) => SocketAddr::new(ip, number),
                Err(problem) => {
                    let field = format!("endpoints[{index}].addresses[0]");
                    let remedy = "write an address that packets of this gateway can reach";
                    work.found
                        .push(subject.finding(Severity::Error, field, problem, remedy));
                    continue;
                }
            };
            if all.len() >= ENDPOINTS_MAX {
                let problem = format!("more than {ENDPOINTS_MAX} endpoints: the rest is left out");
                work.found
                    .push(subject.finding(Severity::Error, "endpoints", problem, "split the Service"));
                break;
            }
            let new = Endpoint {
                name: name_of(endpoint, addr),
                addr,
                weight: 1,
                readiness,
            };
            // What is meant for others is theirs; what is here is ours whatever was hinted (kube-proxy).
            let hints = endpoint.hints.as_ref().filter(|_| !local);
            let known = all.entry(addr).or_insert_with(|| (new.clone(), hints));
            // One address in two slices while it moves: serving wins, then the smaller name.
            if (rank(new.readiness), &new.name) < (rank(known.0.readiness), &known.0.name) {
                *known = (new, hints);
            }
        }
    }
    (topology::chosen(all, work.settings), matched)
}

fn rank(readiness: Readiness) -> u8 {
    match readiness {
        Readiness::Serving => 0,
        Readiness::Draining => 1,
    }
}

/// The slice's port number if it is the Service's port: they agree in name and protocol.
fn fits(slice: &kinds::SlicePort, port: &ServicePort) -> Option<u16> {
    let protocol = |p: &Option<String>| p.as_deref().unwrap_or("TCP").to_owned();
    (slice.name == port.name && protocol(&slice.protocol) == protocol(&port.protocol))
        .then_some(slice.port.unwrap_or(port.port))
        .filter(|number| *number != 0)
}

/// `None`: not for traffic. Absent conditions mean yes, yes, no (Kubernetes, EndpointConditions).
fn readiness(conditions: EndpointConditions) -> Option<Readiness> {
    let ready = conditions.ready.unwrap_or(true);
    let terminating = conditions.terminating.unwrap_or(false);
    match (terminating, ready, conditions.serving.unwrap_or(ready)) {
        (false, true, _) => Some(Readiness::Serving),
        (true, _, true) => Some(Readiness::Draining),
        (false, false, _) | (true, _, false) => None,
    }
}

fn name_of(endpoint: &SliceEndpoint, addr: SocketAddr) -> EndpointName {
    let target = endpoint.target_ref.as_ref().map(|target| target.name.as_str());
    match [target, endpoint.hostname.as_deref()]
        .into_iter()
        .flatten()
        .find(|name| !name.is_empty())
    {
        Some(name) => EndpointName::new(name),
        None => EndpointName::new(addr.to_string()),
    }
}

fn usable(text: &str, family: &str, loopback: bool) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| format!("{text:?} is no IP address"))?;
    if ip.is_ipv4() != (family == "IPv4") {
        return Err(format!("{ip} is not of the slice's addressType {family}"));
    }
    reachable(ip, loopback)
}

/// Addresses that no endpoint may have: nobody's, everybody's, and those that mean something else on every host.
pub(super) fn reachable(ip: IpAddr, loopback: bool) -> Result<IpAddr, String> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    if ip.is_unspecified() || ip.is_multicast() || link_local || (ip.is_loopback() && !loopback) {
        return Err(format!("{ip} cannot be an endpoint's address"));
    }
    Ok(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_mean_what_kubernetes_says() {
        let c = |ready, serving, terminating| {
            readiness(EndpointConditions {
                ready,
                serving,
                terminating,
            })
        };
        assert_eq!(c(None, None, None), Some(Readiness::Serving));
        assert_eq!(c(Some(false), None, None), None);
        assert_eq!(c(Some(false), Some(true), Some(true)), Some(Readiness::Draining));
        assert_eq!(c(Some(false), Some(false), Some(true)), None);
        assert_eq!(c(Some(true), None, Some(true)), Some(Readiness::Draining));
    }

    #[test]
    fn an_address_must_be_of_its_family_and_reachable() {
        assert!(usable("10.0.0.1", "IPv4", false).is_ok());
        assert!(usable("127.0.0.1", "IPv4", true).is_ok());
        for (text, family) in [
            ("127.0.0.1", "IPv4"),
            ("::1", "IPv6"),
            ("10.0.0.1", "IPv6"),
            ("fe80::1", "IPv6"),
            ("0.0.0.0", "IPv4"),
            ("224.0.0.1", "IPv4"),
            ("::ffff:10.0.0.1", "IPv6"),
            ("x", "IPv4"),
        ] {
            assert!(usable(text, family, false).is_err(), "{text}");
        }
    }
}
