//! What is made for a Gateway besides its listeners.

use super::gateway::Gateway;
use super::routability::{self, CLUSTER};
use crate::generated::{ClusterIp, GATEWAY_NAME_LABEL, GatewayService, PROXY, PROXY_NAME_LABEL, label};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The Services that stand for a Gateway: one with its addresses, and one for each address of routability `Cluster`.
pub(super) fn services(gateway: &Gateway<'_>) -> Vec<GatewayService> {
    let (id, spec) = (gateway.subject.id, &gateway.body.spec);
    let class = &spec.gateway_class_name;
    let none = BTreeMap::new();
    let infrastructure = spec.infrastructure.as_ref();
    let mut labels = infrastructure.map_or(&none, |it| &it.labels).clone();
    labels.insert(GATEWAY_NAME_LABEL.to_owned(), label(&id.name));
    let is_of_cluster = |addr: &IpAddr| gateway.routability.get(addr) == Some(&CLUSTER);
    let addresses = gateway.addresses.iter().copied().flatten();
    let first = GatewayService {
        gateway: id.clone(),
        name: label(&format!("{}-{class}", id.name)),
        labels,
        annotations: infrastructure.map_or(&none, |it| &it.annotations).clone(),
        ports: (gateway.listeners.iter())
            .filter_map(|it| Some((it.port, it.serves()?.transport())))
            .collect(),
        addresses: addresses.filter(|addr| !is_of_cluster(addr)).collect(),
        cluster_ip: ClusterIp::Headless,
    };
    // Whatever becomes of a listener, its Gateway keeps the address: so every port stays.
    let ports: BTreeSet<_> = (gateway.listeners.iter())
        .filter_map(|it| Some((it.port, it.protocol?.transport())))
        .filter(|(port, _)| *port != 0)
        .collect();
    let of_cluster = match ports.is_empty() || gateway.unassigned.is_none() {
        true => Vec::new(),
        false => routability::standing(id, class, &spec.addresses),
    };
    let of_cluster: Vec<_> = (of_cluster.into_iter())
        .map(|standing| {
            let mut labels = first.labels.clone();
            labels.insert(PROXY_NAME_LABEL.to_owned(), PROXY.to_owned());
            GatewayService {
                name: standing.name,
                labels,
                ports: ports.clone(),
                addresses: Vec::new(),
                cluster_ip: standing.asks,
                ..first.clone()
            }
        })
        .collect();
    std::iter::once(first).chain(of_cluster).collect()
}
