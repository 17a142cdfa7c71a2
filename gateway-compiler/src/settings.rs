//! What the operator decides outside of the objects.

use crate::objects::Objects;
use ipnet::IpNet;

/// Settings of a compilation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `spec.controllerName` of the GatewayClasses that are ours.
    pub controller: String,
    /// The class that is ours without a GatewayClass object.
    pub class: String,
    /// Where Gateways without addresses get theirs: one of each pool. Empty: every address of the host. Parameters of a
    /// class or of a Gateway go before it.
    pub address_pools: Vec<IpNet>,
    /// A Gateway may ask for any address, and several for the same one: from files yes. From a cluster no: where
    /// there is a pool it must be of it, and is one Gateway's alone.
    pub any_address: bool,
    /// Endpoints on loopback addresses are served: from files yes, from a cluster no (Kubernetes forbids them).
    pub loopback_endpoints: bool,
    /// Name of the node this runs on: endpoints that are meant for others are left to them. `None`: unknown.
    pub node: Option<String>,
    /// Its zone, likewise; `None`: as the label of its Node says, if that is there.
    pub zone: Option<String>,
    /// Version of the Gateway API that the cluster has, such as `v1.7.0`; `None`: there is no cluster.
    pub api_version: Option<String>,
}

impl Settings {
    /// With the zone of the node, where only its object says it.
    pub(crate) fn located(&self, objects: &Objects) -> Self {
        let mut located = self.clone();
        if let (None, Some(node)) = (&self.zone, &self.node) {
            located.zone = objects.zone_of(node).map(str::to_owned);
        }
        located
    }
}

impl Default for Settings {
    /// Settings for files.
    fn default() -> Self {
        Self {
            controller: "sluice.dev/gateway-controller".to_owned(),
            class: "sluice".to_owned(),
            address_pools: Vec::new(),
            any_address: true,
            loopback_endpoints: true,
            node: None,
            zone: None,
            api_version: None,
        }
    }
}
