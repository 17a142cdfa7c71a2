//! GatewayClasses and Gateways: which are ours, where they are reached, and what they are told.

use super::listener::{self, Listener};
use super::{Work, certificate, frontend_tls};
use crate::diagnostic::Severity;
use crate::objects::{Object, Subject, kinds};
use crate::plane;
use crate::status::{Condition, ConditionKind, ListenerStatus, ObjectStatus, Status, reason};
use gateway_core::ir::CertificateName;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Most listeners and addresses of one Gateway (Gateway API).
const LISTENERS_MAX: usize = 64;
const ADDRESSES_MAX: usize = 16;

/// A Gateway of ours.
pub(super) struct Gateway<'o> {
    pub subject: Subject<'o>,
    /// Where it is reached; `None` is every address of the host. Empty: nowhere.
    pub addresses: Vec<Option<IpAddr>>,
    /// Why there is no address.
    pub unplaced: Option<listener::Problem>,
    pub listeners: Vec<Listener<'o>>,
    /// What endpoints that ask are shown; `Err`: why it cannot be had. `None`: nothing was asked for.
    pub certificate: Option<Result<CertificateName, listener::Problem>>,
    /// Clients are let in whose certificates do not hold.
    pub insecure: bool,
}

/// The classes that are ours, and the statuses of their objects.
pub(super) fn classes<'o>(work: &mut Work<'o>) -> (BTreeSet<&'o str>, Vec<ObjectStatus>) {
    let (objects, settings) = (work.objects, work.settings);
    let mut ours = BTreeSet::new();
    let mut statuses = Vec::new();
    // Without an object of its name the default class exists by itself.
    if !objects
        .gateway_classes
        .values()
        .any(|class| class.id.name == settings.class)
    {
        ours.insert(settings.class.as_str());
    }
    for class in objects
        .gateway_classes
        .values()
        .filter(|c| c.body.spec.controller_name == settings.controller)
    {
        ours.insert(class.id.name.as_str());
        let accepted = Condition {
            kind: ConditionKind::Accepted,
            holds: true,
            reason: reason::ACCEPTED,
            message: String::new(),
            observed_generation: class.meta.generation,
        };
        statuses.push(ObjectStatus {
            object: class.id.clone(),
            status: Status::Class {
                conditions: vec![accepted],
            },
        });
    }
    (ours, statuses)
}

/// Our Gateways with their listeners, oldest first.
pub(super) fn gateways<'o>(work: &mut Work<'o>, classes: &BTreeSet<&str>) -> Vec<Gateway<'o>> {
    let objects = work.objects;
    let mut ours: Vec<&'o Object<kinds::Gateway>> = Vec::new();
    for gateway in objects.gateways.values() {
        let class = gateway.body.spec.gateway_class_name.as_str();
        if classes.contains(class) {
            ours.push(gateway);
        } else if !objects.gateway_classes.values().any(|known| known.id.name == class) {
            let problem = format!("there is no GatewayClass {class}: the Gateway is not served");
            let remedy = format!("write gatewayClassName: {}", work.settings.class);
            work.found.push(
                gateway
                    .subject()
                    .finding(Severity::Warning, "spec.gatewayClassName", problem, remedy),
            );
        }
    }
    let taken: BTreeSet<IpAddr> = ours
        .iter()
        .flat_map(|gateway| &gateway.body.spec.addresses)
        .filter_map(|address| address.value.parse::<IpAddr>().ok())
        .collect();
    let mut pools = Pools {
        pools: &work.settings.address_pools,
        taken,
    };
    // Addresses of a pool go by name, not by age: a Gateway keeps its address when an older one goes.
    let mut gateways: Vec<Gateway<'o>> = ours
        .into_iter()
        .map(|gateway| read(work, gateway, &mut pools))
        .collect();
    gateways.sort_by(|a, b| a.subject.age().cmp(&b.subject.age()));
    gateways
}

fn read<'o>(work: &mut Work<'o>, object: &'o Object<kinds::Gateway>, pools: &mut Pools<'_>) -> Gateway<'o> {
    let subject = object.subject();
    let spec = &object.body.spec;
    let (addresses, unplaced) = addresses(work, subject, &spec.addresses, pools);
    if spec.listeners.len() > LISTENERS_MAX {
        let problem = format!("more than {LISTENERS_MAX} listeners: the rest is left out");
        work.found
            .push(subject.finding(Severity::Error, "spec.listeners", problem, "split the Gateway"));
    }
    if spec.listeners.is_empty() {
        let problem = "the Gateway has no listener: it serves nothing";
        work.found
            .push(subject.finding(Severity::Error, "spec.listeners", problem, "add a listener"));
    }
    let wish = plane::wish(subject, &mut work.found);
    let mut listeners: Vec<Listener<'o>> = Vec::new();
    for (index, spec) in spec.listeners.iter().enumerate().take(LISTENERS_MAX) {
        if listeners.iter().any(|listener| listener.section == spec.name) {
            let field = format!("spec.listeners[{index}].name");
            let problem = format!("there is a listener {:?} already: this one is left out", spec.name);
            work.found
                .push(subject.finding(Severity::Error, field, problem, "give it another name"));
            continue;
        }
        let mut listener = listener::read(work, subject, &object.body, index, spec);
        listener.wishes.extend(wish);
        listeners.push(listener);
    }
    Gateway {
        subject,
        addresses,
        unplaced,
        listeners,
        certificate: client_certificate(work, subject, &object.body),
        insecure: frontend_tls::is_insecure(&object.body),
    }
}

/// What this Gateway shows to endpoints that ask who it is.
fn client_certificate(
    work: &mut Work<'_>,
    subject: Subject<'_>,
    body: &kinds::Gateway,
) -> Option<Result<CertificateName, listener::Problem>> {
    let to = body
        .spec
        .tls
        .as_ref()?
        .backend
        .as_ref()?
        .client_certificate_ref
        .as_ref()?;
    Some(certificate::resolve(work, subject, to).map_err(|bad| {
        let reason = match bad.reason {
            reason::REF_NOT_PERMITTED => reason::REF_NOT_PERMITTED,
            _ => reason::INVALID_CLIENT_CERTIFICATE_REF,
        };
        let field = "spec.tls.backend.clientCertificateRef";
        work.found
            .push(subject.finding(Severity::Error, field, bad.problem.as_str(), bad.remedy));
        listener::Problem {
            reason,
            message: bad.problem,
        }
    }))
}

type Placed = (Vec<Option<IpAddr>>, Option<listener::Problem>);

fn addresses(work: &mut Work<'_>, subject: Subject<'_>, specs: &[kinds::Address], pools: &mut Pools<'_>) -> Placed {
    let key = format!("{}/{}", subject.id.namespace, subject.id.name);
    let mut found = BTreeSet::new();
    let mut problem = None;
    for (index, spec) in specs.iter().enumerate().take(ADDRESSES_MAX) {
        match address(spec, &key, pools) {
            Ok(addresses) => found.extend(addresses),
            Err((part, reason, message, remedy)) => {
                let field = format!("spec.addresses[{index}]{part}");
                work.found
                    .push(subject.finding(Severity::Error, field, message.as_str(), remedy));
                problem.get_or_insert(listener::Problem { reason, message });
            }
        }
    }
    if !specs.is_empty() {
        return (found.into_iter().map(Some).collect(), problem);
    }
    if pools.pools.is_empty() {
        return (vec![None], None);
    }
    let assigned = pools.assign(&key);
    if assigned.is_empty() {
        let message = "the address pool is used up".to_owned();
        work.found.push(subject.finding(
            Severity::Error,
            "spec",
            message.as_str(),
            "give a larger --address-pool",
        ));
        return (
            Vec::new(),
            Some(listener::Problem {
                reason: reason::ADDRESS_NOT_ASSIGNED,
                message,
            }),
        );
    }
    (assigned.into_iter().map(Some).collect(), None)
}

type BadAddress = (&'static str, &'static str, String, &'static str);

fn address(spec: &kinds::Address, key: &str, pools: &mut Pools<'_>) -> Result<Vec<IpAddr>, BadAddress> {
    let kind = spec.kind.as_deref().unwrap_or("IPAddress");
    if kind != "IPAddress" {
        let message = format!("an address of type {kind} is not served");
        return Err((".type", reason::UNSUPPORTED_ADDRESS, message, "use type IPAddress"));
    }
    if spec.value.is_empty() {
        let assigned = pools.assign(key);
        if assigned.is_empty() {
            let message = "there is no address to assign".to_owned();
            return Err((
                ".value",
                reason::ADDRESS_NOT_ASSIGNED,
                message,
                "write one, or give --address-pool",
            ));
        }
        return Ok(assigned);
    }
    match spec.value.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
            let message = format!("{ip} cannot be an address of a Gateway");
            Err((
                ".value",
                reason::UNSUPPORTED_ADDRESS,
                message,
                "name one address, or none for all of the host",
            ))
        }
        Ok(ip) => Ok(vec![ip]),
        Err(_) => {
            let message = format!("{:?} is no IP address", spec.value);
            Err((
                ".value",
                reason::UNSUPPORTED_ADDRESS,
                message,
                "write an IPv4 or IPv6 address",
            ))
        }
    }
}

/// Hands out one address of each pool to a Gateway, by a hash of its name, so that it stays when others come and go.
struct Pools<'s> {
    pools: &'s [IpNet],
    taken: BTreeSet<IpAddr>,
}

/// Most addresses of a pool that are tried before it counts as used up.
const POOL_PROBES_MAX: u64 = 65_536;

impl Pools<'_> {
    fn assign(&mut self, key: &str) -> Vec<IpAddr> {
        let mut assigned = Vec::new();
        for pool in self.pools {
            let usable = usable(pool);
            let start = fnv(key.as_bytes());
            let candidates = (0..usable.min(POOL_PROBES_MAX)).map(|probe| nth(pool, (start % usable + probe) % usable));
            let free = candidates.into_iter().find(|address| !self.taken.contains(address));
            if let Some(address) = free {
                self.taken.insert(address);
                assigned.push(address);
            }
        }
        assigned
    }
}

/// How many addresses of a pool can be a VIP: not the network's own and not IPv4 broadcast.
fn usable(pool: &IpNet) -> u64 {
    let bits = u32::from(pool.max_prefix_len() - pool.prefix_len());
    match (pool, bits) {
        (_, 0) => 1,
        (IpNet::V4(_), 1) => 2,
        (IpNet::V4(_), bits) => (1 << bits) - 2,
        (IpNet::V6(_), bits) => (1 << bits.min(62)) - 1,
    }
}

fn nth(pool: &IpNet, index: u64) -> IpAddr {
    let first = u128::from(pool.max_prefix_len() - pool.prefix_len() > u8::from(matches!(pool, IpNet::V4(_))));
    match pool.network() {
        IpAddr::V4(network) => {
            let offset = u32::try_from(u128::from(index) + first).unwrap_or(0);
            IpAddr::V4(u32::from(network).wrapping_add(offset).into())
        }
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).wrapping_add(u128::from(index) + first).into()),
    }
}

/// FNV-1a, 64 bits: the same on every machine and in every build.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What a Gateway is told.
pub(super) fn status(gateway: &Gateway<'_>) -> ObjectStatus {
    let listeners: Vec<ListenerStatus> = gateway.listeners.iter().map(|l| listener_status(gateway, l)).collect();
    let good = gateway
        .listeners
        .iter()
        .filter(|l| l.serves().is_some() && l.unresolved.is_none())
        .count();
    let serving = gateway.listeners.iter().any(|l| l.serves().is_some());
    let placed = !gateway.addresses.is_empty();
    let unplaced = gateway.unplaced.clone();
    let accepted = match &unplaced {
        Some(problem) if problem.reason == reason::UNSUPPORTED_ADDRESS => {
            (false, problem.reason, problem.message.clone())
        }
        _ if !serving => (
            false,
            reason::LISTENERS_NOT_VALID,
            "no listener can be served".to_owned(),
        ),
        _ if good < gateway.listeners.len() => (
            true,
            reason::LISTENERS_NOT_VALID,
            "some listeners cannot be served as written".to_owned(),
        ),
        _ => (true, reason::ACCEPTED, String::new()),
    };
    let programmed = match unplaced {
        Some(problem) if !placed => (false, reason::ADDRESS_NOT_ASSIGNED, problem.message),
        _ if !serving => (false, reason::INVALID, "no listener can be served".to_owned()),
        _ => (true, reason::PROGRAMMED, String::new()),
    };
    let generation = gateway.subject.meta.generation;
    let mut conditions = vec![
        condition(ConditionKind::Accepted, accepted, generation),
        condition(ConditionKind::Programmed, programmed, generation),
    ];
    if let Some(certificate) = &gateway.certificate {
        let told = match certificate {
            Ok(_) => (true, reason::RESOLVED_REFS, String::new()),
            Err(problem) => (false, problem.reason, problem.message.clone()),
        };
        conditions.push(condition(ConditionKind::ResolvedRefs, told, generation));
    }
    if gateway.insecure {
        let told = "clients are let in whose certificates do not hold".to_owned();
        conditions.push(condition(
            ConditionKind::InsecureFrontendValidationMode,
            (true, reason::CONFIGURATION_CHANGED, told),
            generation,
        ));
    }
    let addresses = gateway.addresses.iter().copied().flatten().collect();
    ObjectStatus {
        object: gateway.subject.id.clone(),
        status: Status::Gateway {
            conditions,
            addresses,
            listeners,
        },
    }
}

fn listener_status(gateway: &Gateway<'_>, listener: &Listener<'_>) -> ListenerStatus {
    let generation = gateway.subject.meta.generation;
    let told = |problem: &listener::Problem| (problem.reason, problem.message.clone());
    let bad = listener.refused.as_ref().or(listener.conflict.as_ref()).map(told);
    let unserved = bad.clone().or_else(|| match listener.serves() {
        Some(_) if gateway.addresses.is_empty() => Some((reason::INVALID, "the Gateway has no address".to_owned())),
        Some(_) => None,
        None => Some((
            reason::INVALID,
            listener
                .unresolved
                .as_ref()
                .map_or(String::new(), |p| p.message.clone()),
        )),
    });
    let holds = |problem: Option<(&'static str, String)>, good: &'static str| match problem {
        Some((reason, message)) => (false, reason, message),
        None => (true, good, String::new()),
    };
    let conflicted = match &listener.conflict {
        Some(problem) => (true, problem.reason, problem.message.clone()),
        None => (false, reason::NO_CONFLICTS, String::new()),
    };
    let resolved = listener.unresolved.as_ref().map(told);
    let mut conditions = vec![
        condition(ConditionKind::Accepted, holds(bad, reason::ACCEPTED), generation),
        condition(ConditionKind::Conflicted, conflicted, generation),
        condition(
            ConditionKind::ResolvedRefs,
            holds(resolved, reason::RESOLVED_REFS),
            generation,
        ),
        condition(
            ConditionKind::Programmed,
            holds(unserved, reason::PROGRAMMED),
            generation,
        ),
    ];
    if let Some(other) = overlapping(gateway, listener) {
        let told = format!("its hostname overlaps with that of listener {other}; requests between them get 421");
        conditions.push(condition(
            ConditionKind::OverlappingTlsConfig,
            (true, reason::OVERLAPPING_HOSTNAMES, told),
            generation,
        ));
    }
    ListenerStatus {
        name: listener.section.to_owned(),
        supported_kinds: listener.kinds.iter().map(|kind| kind.name()).collect(),
        attached_routes: u32::try_from(listener.attached.len()).unwrap_or(u32::MAX),
        conditions,
    }
}

/// Another HTTPS listener of the same port whose hostname matches some of the same names (GEP-3567).
fn overlapping<'g>(gateway: &'g Gateway<'_>, listener: &Listener<'_>) -> Option<&'g str> {
    let https = |listener: &Listener<'_>| listener.serves() == Some(plane::Protocol::Https);
    let other = gateway.listeners.iter().find(|other| {
        other.section != listener.section
            && other.port == listener.port
            && https(other)
            && other.hostname.intersect(&listener.hostname).is_some()
    });
    other.filter(|_| https(listener)).map(|other| other.section)
}

/// A condition from whether it holds, its reason and its message.
pub(super) fn condition(kind: ConditionKind, told: (bool, &'static str, String), generation: i64) -> Condition {
    let (holds, reason, message) = told;
    Condition {
        kind,
        holds,
        reason,
        message,
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(pool: &str, keys: &[&str]) -> Vec<String> {
        let pools = [pool.parse().unwrap()];
        let mut pools = Pools {
            pools: &pools,
            taken: BTreeSet::new(),
        };
        keys.iter()
            .flat_map(|key| pools.assign(key))
            .map(|ip| ip.to_string())
            .collect()
    }

    #[test]
    fn a_pool_gives_every_usable_address_once() {
        let keys: Vec<String> = (0..10).map(|n| format!("default/g{n}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut got = assign("192.0.2.0/29", &keys);
        got.sort();
        assert_eq!(got, (1..=6).map(|n| format!("192.0.2.{n}")).collect::<Vec<_>>());
        assert_eq!(assign("192.0.2.7/32", &["a", "b"]), ["192.0.2.7"]);
        assert_eq!(assign("2001:db8::/64", &["a"]).len(), 1);
        assert!(!assign("2001:db8::/126", &["a", "b", "c", "d"]).contains(&"2001:db8::".to_owned()));
    }

    #[test]
    fn an_address_does_not_depend_on_who_else_is_there() {
        assert_eq!(
            assign("10.0.0.0/8", &["x/a", "x/b"])[1],
            assign("10.0.0.0/8", &["x/b"])[0]
        );
    }
}
