//! What the operator decides outside of the objects.

use ipnet::IpNet;

/// Settings of a compilation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `spec.controllerName` of the GatewayClasses that are ours.
    pub controller: String,
    /// The class that is ours without a GatewayClass object.
    pub class: String,
    /// Where Gateways without addresses get theirs: one of each pool. Empty: every address of the host.
    pub address_pools: Vec<IpNet>,
    /// Endpoints on loopback addresses are served: from files yes, from a cluster no (Kubernetes forbids them).
    pub loopback_endpoints: bool,
}

impl Default for Settings {
    /// Settings for files.
    fn default() -> Self {
        Self {
            controller: "sluice.dev/gateway-controller".to_owned(),
            class: "sluice".to_owned(),
            address_pools: Vec::new(),
            loopback_endpoints: true,
        }
    }
}
