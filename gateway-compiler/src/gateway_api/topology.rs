//! Which of a Service's endpoints traffic goes to, by where they are and how they fare, as kube-proxy chooses.
//!
//! Hints count only when every ready endpoint of the family has some and one of them is for here: a half-written set
//! must not pile all traffic on a few. Without any ready endpoint those that terminate and still serve are taken
//! (KEP-1669).

use crate::Settings;
use crate::objects::kinds::{EndpointHints, HintFor};
use gateway_core::ir::{Endpoint, Readiness};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// An endpoint, and for whom it is meant.
pub(super) type Hinted<'s> = (Endpoint, Option<&'s EndpointHints>);

/// The endpoints that get traffic from here.
pub(super) fn chosen(all: BTreeMap<SocketAddr, Hinted<'_>>, settings: &Settings) -> BTreeMap<SocketAddr, Endpoint> {
    let mut chosen = BTreeMap::new();
    for ipv4 in [true, false] {
        let family: Vec<Hinted<'_>> = all
            .values()
            .filter(|(endpoint, _)| endpoint.addr.is_ipv4() == ipv4)
            .cloned()
            .collect();
        chosen.extend(of_family(family, settings).into_iter().map(|it| (it.addr, it)));
    }
    chosen
}

fn of_family(mut family: Vec<Hinted<'_>>, settings: &Settings) -> Vec<Endpoint> {
    if family
        .iter()
        .all(|(endpoint, _)| endpoint.readiness == Readiness::Draining)
    {
        family
            .iter_mut()
            .for_each(|(endpoint, _)| endpoint.readiness = Readiness::Serving);
    }
    let node = here(&family, settings.node.as_deref(), |hints| &hints.for_nodes);
    let zone = here(&family, settings.zone.as_deref(), |hints| &hints.for_zones);
    let meant = |hints: Option<&EndpointHints>| match (node, zone) {
        (Some(node), _) => is_for(hints, node, |hints| &hints.for_nodes),
        (None, Some(zone)) => is_for(hints, zone, |hints| &hints.for_zones),
        (None, None) => true,
    };
    // What drains keeps what it has, wherever it is.
    let keeps = |(endpoint, hints): &&Hinted<'_>| endpoint.readiness == Readiness::Draining || meant(*hints);
    family
        .iter()
        .filter(keeps)
        .map(|(endpoint, _)| endpoint.clone())
        .collect()
}

type Of = fn(&EndpointHints) -> &[HintFor];

/// The name, if hints of this kind count.
fn here<'n>(family: &[Hinted<'_>], name: Option<&'n str>, of: Of) -> Option<&'n str> {
    let name = name?;
    let ready = || {
        family
            .iter()
            .filter(|(endpoint, _)| endpoint.readiness == Readiness::Serving)
    };
    let hinted = ready().all(|(_, hints)| hints.is_some_and(|hints| !of(hints).is_empty()));
    (hinted && ready().any(|(_, hints)| is_for(*hints, name, of))).then_some(name)
}

fn is_for(hints: Option<&EndpointHints>, name: &str, of: Of) -> bool {
    hints.is_some_and(|hints| of(hints).iter().any(|one| one.name == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::ir::EndpointName;

    fn choose(settings: &Settings, endpoints: &[(u8, Readiness, Option<EndpointHints>)]) -> Vec<u8> {
        let all = endpoints.iter().map(|(last, readiness, hints)| {
            let addr = SocketAddr::from(([10, 0, 0, *last], 80));
            let endpoint = Endpoint {
                name: EndpointName::new(addr.to_string()),
                addr,
                weight: 1,
                readiness: *readiness,
            };
            (addr, (endpoint, hints.as_ref()))
        });
        let chosen = chosen(all.collect(), settings);
        let serving = chosen.values().filter(|it| it.readiness == Readiness::Serving);
        serving
            .map(|it| match it.addr {
                SocketAddr::V4(addr) => addr.ip().octets()[3],
                SocketAddr::V6(_) => 0,
            })
            .collect()
    }

    fn hints(zones: &[&str], nodes: &[&str]) -> Option<EndpointHints> {
        let of = |names: &[&str]| {
            names
                .iter()
                .map(|name| HintFor {
                    name: (*name).to_owned(),
                })
                .collect()
        };
        Some(EndpointHints {
            for_zones: of(zones),
            for_nodes: of(nodes),
        })
    }

    fn at(zone: Option<&str>, node: Option<&str>) -> Settings {
        Settings {
            zone: zone.map(str::to_owned),
            node: node.map(str::to_owned),
            ..Settings::default()
        }
    }

    const UP: Readiness = Readiness::Serving;
    const GOING: Readiness = Readiness::Draining;

    #[test]
    fn hints_count_when_all_have_them_and_one_is_for_here() {
        let all = [
            (1, UP, hints(&["a"], &[])),
            (2, UP, hints(&["b"], &[])),
            (3, UP, hints(&["a", "b"], &[])),
        ];
        assert_eq!(choose(&at(Some("a"), None), &all), [1, 3]);
        assert_eq!(choose(&at(Some("c"), None), &all), [1, 2, 3]);
        assert_eq!(choose(&at(None, None), &all), [1, 2, 3]);
        let half = [(1, UP, hints(&["a"], &[])), (2, UP, None)];
        assert_eq!(choose(&at(Some("a"), None), &half), [1, 2]);
    }

    #[test]
    fn a_node_goes_before_a_zone() {
        let all = [(1, UP, hints(&["a"], &["n1"])), (2, UP, hints(&["a"], &["n2"]))];
        assert_eq!(choose(&at(Some("a"), Some("n2")), &all), [2]);
        assert_eq!(choose(&at(Some("a"), Some("n9")), &all), [1, 2]);
    }

    #[test]
    fn what_terminates_serves_while_nothing_else_does() {
        assert_eq!(choose(&at(None, None), &[(1, GOING, None), (2, GOING, None)]), [1, 2]);
        assert_eq!(choose(&at(None, None), &[(1, GOING, None), (2, UP, None)]), [2]);
    }
}
