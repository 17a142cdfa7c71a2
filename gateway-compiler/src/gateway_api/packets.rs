//! Whether packets can carry a stream listener to its endpoints, or its bytes have to be relayed.

use super::{Work, endpoints};
use crate::plane;
use gateway_core::ir::{Bind, Destination, Plane, StreamRules};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The kernel plane, or the splice plane and why packets cannot be it.
pub(super) fn carry(work: &Work<'_>, bind: Bind, rules: StreamRules) -> (Plane, Option<String>) {
    let obstacle = plane::kernel_obstacle(bind.addr, &rules.rules).map(str::to_owned);
    match obstacle.or_else(|| unreachable(work, bind.addr, &rules)) {
        Some(obstacle) => (Plane::Splice(rules), Some(format!("not by packets: {obstacle}"))),
        None => (Plane::Kernel(of_family(work, rules, bind.addr)), None),
    }
}

/// Packets cannot change their family or what they carry: each endpoint needs an address of the VIP's, and no TLS of ours.
fn unreachable(work: &Work<'_>, addr: Option<IpAddr>, rules: &StreamRules) -> Option<String> {
    let ipv4 = addr?.is_ipv4();
    let shares = rules
        .rules
        .iter()
        .flat_map(|rule| &rule.destinations)
        .filter(|share| share.weight > 0);
    for share in shares {
        let Destination::Service(name) = &share.to else {
            continue;
        };
        if work.service(name).is_some_and(|service| service.tls.is_some()) {
            return Some(format!("the endpoints of {name} are spoken to over TLS"));
        }
        let (Some(all), Some(family)) = (work.service(name), work.service(&endpoints::of_family(name, ipv4))) else {
            continue;
        };
        let reached: BTreeSet<_> = family.endpoints.iter().map(|e| &e.name).collect();
        if let Some(endpoint) = all.endpoints.iter().find(|e| !reached.contains(&e.name)) {
            let version = if ipv4 { "IPv4" } else { "IPv6" };
            return Some(format!("endpoint {} of {name} has no {version} address", endpoint.name));
        }
    }
    None
}

/// Kernel rules name services whose endpoints are all of the VIP's family.
fn of_family(work: &Work<'_>, mut rules: StreamRules, addr: Option<IpAddr>) -> StreamRules {
    let Some(addr) = addr else { return rules };
    for share in rules.rules.iter_mut().flat_map(|rule| &mut rule.destinations) {
        let Destination::Service(name) = &mut share.to else {
            continue;
        };
        let Some(service) = work.service(name) else {
            continue;
        };
        if service.endpoints.iter().any(|e| e.addr.is_ipv4() != addr.is_ipv4()) {
            *name = endpoints::of_family(name, addr.is_ipv4());
        }
    }
    rules
}
