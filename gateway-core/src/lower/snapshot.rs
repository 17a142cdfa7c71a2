//! `Ir` to [`Snapshot`]: names become ids, matches become tables, weights become turns.
//!
//! Total: whatever the configuration holds, there is a snapshot. What has no id (see [`Ids::assign`]) is left out, and
//! a destination that has none answers 500.

use super::Ids;
use crate::ids::{EndpointId, RuleId};
use crate::ir::{
    BalancePolicy, Destination, HttpRule, HttpRules, HttpScope, Ir, Plane, Readiness, Revision, Service, StreamRule,
    StreamRules, Transport, UpstreamProtocol, Weighted,
};
use crate::route::HostTable;
use crate::snapshot::{
    DestinationPlan, DestinationTo, EndpointPlan, HttpPlan, ListenerPlan, RulePlan, ScopePlan, Serve, ServicePlan,
    Snapshot, StreamPlan, StreamRulePlan,
};
use std::cmp::Reverse;
use std::sync::Arc;

/// Longest list of turns of a service. Weights whose turns would not fit are scaled down, each to at least one.
pub const TURNS_MAX: u64 = 16_384;

/// What the workers need to know of `ir`. `ids` must have been assigned to it.
pub fn lower(ir: &Ir, revision: Revision, ids: &Ids) -> Snapshot {
    let mut snapshot = Snapshot {
        revision,
        ..Snapshot::default()
    };
    for service in ir.services.values() {
        put_service(&mut snapshot, service, ids);
    }
    for listener in ir.listeners.values() {
        let Some(id) = ids.listener(&listener.bind) else {
            continue;
        };
        let serve = match &listener.plane {
            Plane::Http(http) => Serve::Http(http_plan(&mut snapshot, http, ids)),
            Plane::Splice(stream) => Serve::Splice(stream_plan(stream, ids)),
            Plane::Kernel(stream) => Serve::KernelRelay(stream_plan(stream, ids)),
        };
        match (listener.bind.transport, listener.bind.addr) {
            (Transport::Udp, _) => {}
            (Transport::Tcp, None) => {
                snapshot.by_port.insert(listener.bind.port, id);
            }
            (Transport::Tcp, Some(addr)) => {
                snapshot.by_addr.insert((addr.to_canonical(), listener.bind.port), id);
            }
        }
        let (bind, names, why) = (listener.bind, listener.names.clone(), listener.why.clone());
        put(
            &mut snapshot.listeners,
            id.index(),
            ListenerPlan {
                bind,
                names,
                why,
                serve,
            },
        );
    }
    snapshot.certificates = ir
        .certificates
        .iter()
        .map(|(name, certificate)| (name.clone(), Arc::new(certificate.clone())))
        .collect();
    snapshot
}

/// Puts `value` at `index`, making room.
fn put<T>(table: &mut Vec<Option<T>>, index: usize, value: T) {
    if table.len() <= index {
        table.resize_with(index + 1, || None);
    }
    table[index] = Some(value);
}

fn put_service(snapshot: &mut Snapshot, service: &Service, ids: &Ids) {
    let Some(id) = ids.service(&service.name) else { return };
    let mut weighted = Vec::new();
    for endpoint in &service.endpoints {
        let Some(endpoint_id) = ids.endpoint(&service.name, endpoint.addr) else {
            continue;
        };
        if endpoint.readiness == Readiness::Serving {
            weighted.push((endpoint_id, endpoint.weight));
        }
        let plan = EndpointPlan {
            id: endpoint_id,
            service: id,
            name: endpoint.name.clone(),
            addr: endpoint.addr,
            readiness: endpoint.readiness,
        };
        put(&mut snapshot.endpoints, endpoint_id.index(), plan);
    }
    let turns = match service.balance {
        BalancePolicy::RoundRobin => turns(&weighted),
        // Who has the fewest streams is asked of each endpoint once.
        BalancePolicy::LeastRequest => weighted.into_iter().map(|(endpoint, _)| endpoint).collect(),
    };
    let plan = ServicePlan {
        id,
        name: service.name.clone(),
        balance: service.balance,
        turns,
    };
    put(&mut snapshot.services, id.index(), plan);
}

/// Each endpoint as many times as its share, as far apart as can be: its turn `k` of `n` is due at `(k + 1/2) / n` of
/// the round.
fn turns(weighted: &[(EndpointId, u16)]) -> Vec<EndpointId> {
    let weight = |weight: u16| u64::from(weight.max(1));
    let divisor = weighted
        .iter()
        .fold(0, |divisor, (_, w)| gcd(divisor, weight(*w)))
        .max(1);
    let total: u64 = weighted.iter().map(|(_, w)| weight(*w) / divisor).sum();
    let mut due: Vec<(u64, usize, EndpointId)> = Vec::new();
    for (index, (endpoint, w)) in weighted.iter().enumerate() {
        let share = weight(*w) / divisor;
        let count = if total <= TURNS_MAX {
            share
        } else {
            (share * TURNS_MAX / total).max(1)
        };
        due.extend((0..count).map(|turn| (((2 * turn + 1) << 32) / count, index, *endpoint)));
    }
    due.sort_unstable();
    due.into_iter().map(|(_, _, endpoint)| endpoint).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn http_plan(snapshot: &mut Snapshot, http: &HttpRules, ids: &Ids) -> HttpPlan {
    let mut scopes: Vec<&HttpScope> = http.scopes.iter().collect();
    scopes.sort_by_key(|scope| Reverse(scope.hostname.specificity()));
    for rule in scopes
        .iter()
        .flat_map(|scope| &scope.hosts)
        .flat_map(|host| &host.rules)
    {
        let Some(id) = ids.rule(&rule.name) else { continue };
        // The same rule stands under each of its hostnames.
        if snapshot.rule(id).is_none() {
            put(&mut snapshot.rules, id.index(), rule_plan(id, rule, ids));
        }
    }
    let scope_plan = |scope: &HttpScope| ScopePlan {
        listener: scope.listener.clone(),
        hostname: scope.hostname.clone(),
        certificates: scope.certificates.clone(),
        hosts: HostTable::compile(&scope.hosts, |name| ids.rule(name)),
    };
    HttpPlan {
        tls: http.tls,
        scopes: scopes.into_iter().map(scope_plan).collect(),
    }
}

fn rule_plan(id: RuleId, rule: &HttpRule, ids: &Ids) -> RulePlan {
    let destination = |of: &Weighted<_>| {
        let crate::ir::HttpDestination { to, protocol, filters } = &of.to;
        DestinationPlan {
            weight: of.weight,
            to: destination_to(to, ids),
            protocol: *protocol,
            filters: filters.clone(),
        }
    };
    RulePlan {
        id,
        name: rule.name.clone(),
        kind: rule.kind,
        filters: rule.filters.clone(),
        destinations: rule.destinations.iter().map(destination).collect(),
        timeouts: rule.timeouts,
    }
}

fn stream_plan(stream: &StreamRules, ids: &Ids) -> StreamPlan {
    let mut rules: Vec<&StreamRule> = stream.rules.iter().collect();
    rules.sort_by_key(|rule| Reverse(rule.hostname.specificity()));
    let rule_plan = |rule: &StreamRule| {
        Some(StreamRulePlan {
            id: ids.rule(&rule.name)?,
            name: rule.name.clone(),
            hostname: rule.hostname.clone(),
            destinations: rule.destinations.iter().map(|of| stream_destination(of, ids)).collect(),
        })
    };
    StreamPlan {
        recognise: stream.recognise,
        rules: rules.into_iter().filter_map(rule_plan).collect(),
    }
}

fn stream_destination(of: &Weighted<Destination>, ids: &Ids) -> DestinationPlan {
    DestinationPlan {
        weight: of.weight,
        to: destination_to(&of.to, ids),
        // Bytes are relayed: nobody asks.
        protocol: UpstreamProtocol::Http1,
        filters: Vec::new(),
    }
}

fn destination_to(to: &Destination, ids: &Ids) -> DestinationTo {
    match to {
        Destination::Fail { status, why } => DestinationTo::Fail {
            status: *status,
            why: why.clone(),
        },
        Destination::Service(name) => match ids.service(name) {
            Some(id) => DestinationTo::Service(id),
            None => DestinationTo::Fail {
                status: 500,
                why: format!("service {name} is not part of this revision"),
            },
        },
    }
}
