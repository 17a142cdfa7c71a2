//! `Ir` to [`Snapshot`]: names become ids, matches become tables, weights become turns.
//!
//! Total: whatever the configuration holds, there is a snapshot. What has no id (see [`Ids::assign`]) is left out, and
//! a destination that has none answers 500.

use super::Ids;
use crate::ids::{EndpointId, ListenerId, RuleId};
use crate::ir::{
    BalancePolicy, Destination, Filter, HttpRule, HttpRules, HttpScope, Ir, ListenerName, Plane, Readiness, Recognise,
    Revision, Service, ServiceName, StreamRule, StreamRules, Transport, UpstreamProtocol, Weighted,
};
use crate::route::{HostIndex, HostTable};
use crate::snapshot::{
    AuthPlan, DestinationPlan, DestinationTo, EndpointPlan, HttpPlan, ListenerPlan, MirrorPlan, RulePlan, ScopePlan,
    Serve, ServicePlan, Snapshot, StreamPlan, StreamRulePlan,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Longest list of turns of a service. Weights whose turns would not fit are scaled down, each to at least one.
pub const TURNS_MAX: u64 = 16_384;

/// Never configured.
const NO_RULE: RuleId = RuleId(u32::MAX);

/// What the workers need to know of `ir`. `ids` must have been assigned to it.
pub fn lower(ir: &Ir, revision: Revision, ids: &Ids) -> Snapshot {
    lower_from(ir, revision, ids, &Snapshot::default())
}

/// As [`lower`], and what is made of the very same rules and hosts is shared with `before`: the snapshot of the last
/// revision that `ids` was assigned to before this one.
pub fn lower_from(ir: &Ir, revision: Revision, ids: &Ids, before: &Snapshot) -> Snapshot {
    let mut snapshot = Snapshot {
        revision,
        ..Snapshot::default()
    };
    let before = Before::new(ir, ids, before);
    for service in ir.services.values() {
        put_service(&mut snapshot, service, ids);
    }
    for listener in ir.listeners.values() {
        let Some(id) = ids.listener(&listener.bind) else {
            continue;
        };
        let serve = match &listener.plane {
            Plane::Http(http) => Serve::Http(http_plan(&mut snapshot, http, ids, &before, before.hosts(id))),
            Plane::Splice(stream) => Serve::Splice(stream_plan(stream, ids)),
            Plane::Kernel(stream) => Serve::KernelRelay(stream_plan(stream, ids)),
        };
        match (listener.bind.transport, listener.bind.addr) {
            (Transport::Udp, _) => _ = snapshot.udp.insert(listener.bind, id),
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
                exposure: listener.exposure.clone(),
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
        // Each endpoint is asked once.
        BalancePolicy::LeastRequest | BalancePolicy::ClientAddress => {
            weighted.into_iter().map(|(endpoint, _)| endpoint).collect()
        }
    };
    let plan = ServicePlan {
        id,
        name: service.name.clone(),
        balance: service.balance,
        turns,
        tls: service.tls.clone(),
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

/// The revision before, as far as it can be shared. A name that is configured in both has the same id in both.
struct Before<'b> {
    snapshot: &'b Snapshot,
    /// Services that have an id in one of the two revisions only: what is said of them has to be said anew.
    moved: BTreeSet<ServiceName>,
}

impl<'b> Before<'b> {
    fn new(ir: &Ir, ids: &Ids, snapshot: &'b Snapshot) -> Self {
        let had = snapshot.services.iter().flatten();
        let had: BTreeSet<&ServiceName> = had.map(|service| &service.name).collect();
        let has: BTreeSet<&ServiceName> = ir.services.keys().filter(|name| ids.service(name).is_some()).collect();
        let moved = had.symmetric_difference(&has).map(|name| (*name).clone()).collect();
        Self { snapshot, moved }
    }

    fn rule(&self, id: RuleId, rule: &Arc<HttpRule>) -> Option<Arc<RulePlan>> {
        let plan = self.snapshot.rules.get(id.index())?.as_ref()?;
        let moved = || !self.moved.is_empty() && rule.services().any(|service| self.moved.contains(service));
        (Arc::ptr_eq(&plan.of, rule) && plan.id == id && !moved()).then(|| Arc::clone(plan))
    }

    /// The tables of a listener by the names of its scopes.
    fn hosts(&self, id: ListenerId) -> BTreeMap<&'b ListenerName, &'b HostTable> {
        let plan = self.snapshot.listener(id).and_then(ListenerPlan::http);
        let scopes = plan.map_or(&[][..], |http| &http.scopes);
        scopes.iter().map(|scope| (&scope.listener, &scope.hosts)).collect()
    }
}

fn http_plan(
    snapshot: &mut Snapshot,
    http: &HttpRules,
    ids: &Ids,
    before: &Before<'_>,
    tables: BTreeMap<&ListenerName, &HostTable>,
) -> HttpPlan {
    let mut scopes: Vec<&HttpScope> = http.scopes.iter().collect();
    scopes.sort_by_key(|scope| Reverse(scope.hostname.specificity()));
    let guards = scopes.iter().flat_map(|scope| &scope.guards);
    let routed = scopes.iter().flat_map(|scope| scope.hosts.iter());
    for rule in routed.flat_map(|host| &host.rules).chain(guards) {
        let Some(id) = ids.rule(&rule.name) else { continue };
        // The same rule stands under each of its hostnames.
        if snapshot.rule(id).is_none() {
            let plan = before
                .rule(id, rule)
                .unwrap_or_else(|| Arc::new(rule_plan(id, rule, ids)));
            put(&mut snapshot.rules, id.index(), plan);
        }
    }
    let scope_plan = |scope: &HttpScope| ScopePlan {
        listener: scope.listener.clone(),
        hostname: scope.hostname.clone(),
        certificates: scope.certificates.clone(),
        tls: scope.tls.clone(),
        hosts: HostTable::compile(
            &scope.hosts,
            |name| ids.rule(name),
            tables.get(&scope.listener).copied(),
        ),
        // Without an id nobody is asked, and so nothing passes.
        guards: (scope.guards.iter())
            .map(|rule| ids.rule(&rule.name).unwrap_or(NO_RULE))
            .collect(),
    };
    let plan = HttpPlan::new(http.tls, scopes.into_iter().map(scope_plan).collect());
    match http.streams.is_empty() {
        true => plan,
        false => plan.beside(rules_plan(Recognise::Sni, &http.streams, ids)),
    }
}

fn rule_plan(id: RuleId, rule: &Arc<HttpRule>, ids: &Ids) -> RulePlan {
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
        of: Arc::clone(rule),
        id,
        name: rule.name.clone(),
        kind: rule.kind,
        filters: rule.filters.clone(),
        mirrors: mirrors(&rule.filters, ids),
        auth: auth(&rule.filters, ids),
        destinations: rule.destinations.iter().map(destination).collect(),
        timeouts: rule.timeouts,
        retry: rule.retry.clone(),
        session: rule.session.clone(),
    }
}

/// A mirror whose service is not there is left out: its requests have an answer without it.
fn mirrors(filters: &[Filter], ids: &Ids) -> Vec<MirrorPlan> {
    let mirror = |filter: &Filter| match filter {
        Filter::Mirror(mirror) => match &mirror.to {
            Destination::Service(name) => Some(MirrorPlan {
                to: ids.service(name)?,
                protocol: mirror.protocol,
                numerator: mirror.numerator,
                denominator: mirror.denominator.max(1),
            }),
            Destination::Fail { .. } => None,
        },
        Filter::RequestHeaders(_)
        | Filter::ResponseHeaders(_)
        | Filter::Redirect(_)
        | Filter::Rewrite(_)
        | Filter::Cors(_)
        | Filter::ExternalAuth(_) => None,
    };
    filters.iter().filter_map(mirror).collect()
}

/// Kept when its service is broken: then its requests are refused.
fn auth(filters: &[Filter], ids: &Ids) -> Option<AuthPlan> {
    filters.iter().find_map(|filter| match filter {
        Filter::ExternalAuth(auth) => Some(AuthPlan {
            to: destination_to(&auth.to, ids),
            protocol: auth.protocol,
            speaks: auth.speaks.clone(),
            body_bytes_max: auth.body_bytes_max as usize,
        }),
        Filter::RequestHeaders(_)
        | Filter::ResponseHeaders(_)
        | Filter::Redirect(_)
        | Filter::Rewrite(_)
        | Filter::Cors(_)
        | Filter::Mirror(_) => None,
    })
}

fn stream_plan(stream: &StreamRules, ids: &Ids) -> StreamPlan {
    rules_plan(stream.recognise, &stream.rules, ids)
}

fn rules_plan(recognise: Recognise, rules: &[StreamRule], ids: &Ids) -> StreamPlan {
    let mut rules: Vec<&StreamRule> = rules.iter().collect();
    rules.sort_by_key(|rule| Reverse(rule.hostname.specificity()));
    let rule_plan = |rule: &StreamRule| {
        Some(StreamRulePlan {
            id: ids.rule(&rule.name)?,
            name: rule.name.clone(),
            listener: rule.listener.clone(),
            hostname: rule.hostname.clone(),
            terminate: rule.terminate.clone(),
            destinations: rule.destinations.iter().map(|of| stream_destination(of, ids)).collect(),
        })
    };
    let rules: Vec<StreamRulePlan> = rules.into_iter().filter_map(rule_plan).collect();
    let mut by_name = HostIndex::<Option<usize>>::default();
    for (index, rule) in rules.iter().enumerate() {
        by_name.entry(&rule.hostname).get_or_insert(index);
    }
    StreamPlan {
        recognise,
        rules,
        by_name,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Bind, Recognise, ServiceName};
    use crate::lower::sample::{http, ir, lowered, on_port, rule, scope, service, stream, to_service};
    use std::net::SocketAddr;

    fn order(weights: &[u16]) -> String {
        let weighted: Vec<_> = weights
            .iter()
            .zip(0..)
            .map(|(weight, id)| (EndpointId(id), *weight))
            .collect();
        turns(&weighted)
            .iter()
            .map(|id| char::from(b'a' + id.0 as u8))
            .collect()
    }

    #[test]
    fn turns_are_reduced_and_as_far_apart_as_can_be() {
        for (weights, expected) in [
            (&[][..], ""),
            (&[7], "a"),
            (&[1, 1, 1], "abc"),
            (&[10, 10], "ab"),
            (&[3, 1], "aaba"),
            (&[100, 200, 400], "cbcacbc"),
            (&[0, 1], "ab"),
        ] {
            assert_eq!(order(weights), expected, "{weights:?}");
        }
    }

    #[test]
    fn turns_that_do_not_fit_are_scaled_down_and_nobody_loses_his() {
        let weighted: Vec<_> = (0..100)
            .map(|id| (EndpointId(id), if id == 0 { 1 } else { 999 }))
            .collect();
        let turns = turns(&weighted);
        assert!(turns.len() as u64 <= TURNS_MAX + 100, "{}", turns.len());
        assert_eq!(turns.iter().filter(|id| id.0 == 0).count(), 1);
        assert_eq!(turns.iter().filter(|id| id.0 == 1).count(), 165);
    }

    #[test]
    fn draining_endpoints_are_known_and_have_no_turn() {
        let mut echo = service("default/echo:80", &[(11, 1), (12, 1)]);
        echo.endpoints[0].readiness = Readiness::Draining;
        let (snapshot, ids) = lowered(&ir(vec![], vec![echo.clone()]));
        let id = |index: usize| ids.endpoint(&echo.name, echo.endpoints[index].addr).unwrap();
        let plan = snapshot.service(ids.service(&echo.name).unwrap()).unwrap();
        assert_eq!(plan.turns, [id(1)]);
        assert_eq!(snapshot.endpoint(id(0)).unwrap().addr, echo.endpoints[0].addr);
    }

    #[test]
    fn least_request_asks_each_endpoint_once_whatever_its_weight() {
        let mut echo = service("default/echo:80", &[(11, 5), (12, 1)]);
        echo.balance = BalancePolicy::LeastRequest;
        let (snapshot, ids) = lowered(&ir(vec![], vec![echo.clone()]));
        assert_eq!(
            snapshot.service(ids.service(&echo.name).unwrap()).unwrap().turns.len(),
            2
        );
    }

    #[test]
    fn a_connection_belongs_to_its_address_before_its_port_and_never_to_a_udp_listener() {
        let at = |addr: &str| addr.parse::<SocketAddr>().unwrap();
        let udp = Bind {
            transport: Transport::Udp,
            ..Bind::tcp(at("198.18.0.10:53"))
        };
        let (snapshot, ids) = lowered(&ir(
            vec![
                (on_port(80), http(vec![])),
                (Bind::tcp(at("198.18.0.10:80")), http(vec![])),
                (Bind::tcp(at("[2001:2::a]:80")), http(vec![])),
                (udp, Plane::Kernel(stream(Recognise::Nothing, &[]))),
            ],
            vec![],
        ));
        let listener = |addr: &str| snapshot.listener_at(at(addr)).map(|(id, _)| id);
        let id = |bind: Bind| -> Option<ListenerId> { ids.listener(&bind) };
        assert_eq!(listener("198.18.0.10:80"), id(Bind::tcp(at("198.18.0.10:80"))));
        assert_eq!(listener("[::ffff:198.18.0.10]:80"), id(Bind::tcp(at("198.18.0.10:80"))));
        assert_eq!(listener("[2001:2::a]:80"), id(Bind::tcp(at("[2001:2::a]:80"))));
        assert_eq!(listener("198.18.0.11:80"), id(on_port(80)));
        assert_eq!(listener("198.18.0.10:81"), None);
        assert_eq!(listener("198.18.0.10:53"), None);
        assert_eq!(snapshot.udp_listener(&udp).map(|(id, _)| id), id(udp));
        assert!(snapshot.udp_listener(&Bind::tcp(at("198.18.0.10:80"))).is_none());
    }

    #[test]
    fn what_did_not_change_is_shared_with_the_revision_before_and_reads_as_if_made_anew() {
        let echo = || service("default/echo:80", &[(11, 1), (12, 1)]);
        let rules = |name: &str, to: &str| vec![rule(name, "/", &[(1, to_service(to))])];
        let stays = scope(Some("a.example.com"), rules("HTTPRoute/default/a/0", "default/echo:80"));
        let goes = scope(
            Some("b.example.com"),
            rules("HTTPRoute/default/b/0", "default/other:80"),
        );
        let mut ids = Ids::default();
        let mut before = Snapshot::default();
        let both = || http(vec![stays.clone(), goes.clone()]);
        let revisions = [
            ir(vec![(on_port(80), both())], vec![echo()]),
            // The other service is there now, and the rule that named it in vain before is the same one.
            ir(
                vec![(on_port(80), both())],
                vec![echo(), service("default/other:80", &[(13, 1)])],
            ),
            ir(vec![(on_port(80), http(vec![stays.clone()]))], vec![echo()]),
        ];
        let mut shared = Vec::new();
        for (revision, ir) in (1..).zip(revisions) {
            ids.assign(&ir);
            let after = lower_from(&ir, Revision(revision), &ids, &before);
            let anew = lower(&ir, Revision(revision), &ids);
            assert_eq!(format!("{after:?}"), format!("{anew:?}"));
            let both = after.rules.iter().zip(&before.rules);
            let same = |(a, b): (&Option<Arc<RulePlan>>, &Option<Arc<RulePlan>>)| match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (Some(_), None) | (None, _) => false,
            };
            shared.push(both.filter(|pair| same(*pair)).count());
            before = after;
        }
        assert_eq!(shared, [0, 1, 1]);
    }

    #[test]
    fn scopes_and_stream_rules_come_most_specific_first() {
        let scopes = [None, Some("a.example.com"), Some("*.example.com")].map(|name| scope(name, vec![]));
        let to = || to_service("default/echo:80");
        let rules = [
            (None, "any", to()),
            (Some("*.b.example.com"), "long", to()),
            (Some("*.example.com"), "short", to()),
        ];
        let (snapshot, ids) = lowered(&ir(
            vec![
                (on_port(80), http(scopes.to_vec())),
                (on_port(443), Plane::Splice(stream(Recognise::Sni, &rules))),
            ],
            vec![],
        ));
        let plan = |port| snapshot.listener(ids.listener(&on_port(port)).unwrap()).unwrap();
        let hostnames: Vec<String> = plan(80)
            .http()
            .unwrap()
            .scopes
            .iter()
            .map(|s| s.hostname.to_string())
            .collect();
        assert_eq!(hostnames, ["a.example.com", "*.example.com", "*"]);
        let names: Vec<&str> = plan(443)
            .stream()
            .unwrap()
            .rules
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        assert_eq!(names, ["long", "short", "any"]);
    }

    #[test]
    fn what_has_no_id_is_left_out_and_its_rule_says_so() {
        let rules = vec![rule(
            "HTTPRoute/default/a/0",
            "/",
            &[(1, to_service("default/echo:80"))],
        )];
        let ir = ir(
            vec![(on_port(80), http(vec![scope(None, rules)]))],
            vec![service("default/echo:80", &[(11, 1)])],
        );
        let nothing = lower(&ir, Revision(1), &Ids::default());
        assert!(nothing.listeners.is_empty() && nothing.services.is_empty() && nothing.rules.is_empty());

        let (mut ids, mut without) = (Ids::default(), ir.clone());
        without.services.remove(&ServiceName::from("default/echo:80"));
        ids.assign(&without);
        let snapshot = lower(&ir, Revision(1), &ids);
        let rule = snapshot.rules[0].as_ref().unwrap();
        assert!(
            matches!(&rule.destinations[0].to, DestinationTo::Fail { status: 500, why } if why.contains("default/echo:80"))
        );
    }
}
