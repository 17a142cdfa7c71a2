//! What is made for a Gateway besides its listeners.

use super::gateway::Gateway;
use crate::generated::{GATEWAY_NAME_LABEL, GatewayService, label};
use std::collections::BTreeMap;

/// The Service that stands for a Gateway.
pub(super) fn service(gateway: &Gateway<'_>) -> GatewayService {
    let (id, spec) = (gateway.subject.id, &gateway.body.spec);
    let none = BTreeMap::new();
    let infrastructure = spec.infrastructure.as_ref();
    let mut labels = infrastructure.map_or(&none, |it| &it.labels).clone();
    labels.insert(GATEWAY_NAME_LABEL.to_owned(), label(&id.name));
    let ports = gateway.listeners.iter();
    GatewayService {
        gateway: id.clone(),
        name: label(&format!("{}-{}", id.name, spec.gateway_class_name)),
        labels,
        annotations: infrastructure.map_or(&none, |it| &it.annotations).clone(),
        ports: ports
            .filter_map(|it| Some((it.port, it.serves()?.transport())))
            .collect(),
        addresses: gateway.addresses.iter().copied().flatten().collect(),
    }
}
