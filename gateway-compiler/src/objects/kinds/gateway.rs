//! GatewayClass with its parameters, Gateway, ListenerSet and ReferenceGrant.

use super::{ExternalAuthSpec, GatewayTls};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// `gateway.networking.k8s.io` GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct GatewayClass {
    pub spec: GatewayClassSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    pub controller_name: String,
    pub parameters_ref: Option<ObjectRef>,
}

/// `sluice.dev/v1alpha1` GatewayClassConfig: what the `parametersRef` of a GatewayClass or Gateway may name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct GatewayClassConfig {
    #[serde(default)]
    pub spec: GatewayClassConfigSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassConfigSpec {
    /// Blocks of addresses, such as `192.0.2.0/24`. Absent: what is said further out stands.
    pub address_pools: Option<Vec<String>>,
}

/// `gateway.networking.k8s.io` Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Gateway {
    pub spec: GatewaySpec,
    /// What was said about it last: its addresses stay.
    #[serde(default)]
    pub status: GatewayStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct GatewayStatus {
    #[serde(default)]
    pub addresses: Vec<Address>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    pub gateway_class_name: String,
    #[serde(default)]
    pub listeners: Vec<Listener>,
    #[serde(default)]
    pub addresses: Vec<Address>,
    pub tls: Option<GatewayTls>,
    pub infrastructure: Option<Infrastructure>,
    #[serde(default)]
    pub allowed_listeners: AllowedListeners,
}

/// What is said of everything that is made for a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Infrastructure {
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// In the Gateway's own namespace.
    pub parameters_ref: Option<ObjectRef>,
}

/// Whose ListenerSets may attach; nobody's when nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AllowedListeners {
    #[serde(default)]
    pub namespaces: RouteNamespaces,
}

/// `gateway.networking.k8s.io` ListenerSet: more listeners for a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ListenerSet {
    pub spec: ListenerSetSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetSpec {
    pub parent_ref: ObjectRef,
    #[serde(default)]
    pub listeners: Vec<Listener>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Address {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub value: String,
    /// From where it should be reached; experimental.
    pub routability: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    pub name: String,
    pub hostname: Option<String>,
    pub port: u16,
    pub protocol: String,
    pub tls: Option<ListenerTls>,
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
    /// Experimental.
    #[serde(default)]
    pub filters: ListenerFilters,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ListenerFilters {
    #[serde(default)]
    pub requests: Vec<ListenerFilter>,
    /// Lists of other phases, which nobody here knows.
    #[serde(flatten)]
    pub others: BTreeMap<String, Present>,
}

/// Something is there, whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present;

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Present)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerFilter {
    #[serde(rename = "type")]
    pub kind: String,
    pub external_auth: Option<ExternalAuthSpec>,
    pub extension_ref: Option<ObjectRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    pub mode: Option<String>,
    #[serde(default)]
    pub certificate_refs: Vec<ObjectRef>,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// A reference to another object; who refers fills in the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ObjectRef {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    pub namespace: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AllowedRoutes {
    #[serde(default)]
    pub namespaces: RouteNamespaces,
    #[serde(default)]
    pub kinds: Vec<RouteGroupKind>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RouteNamespaces {
    pub from: Option<String>,
    pub selector: Option<LabelSelector>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub match_expressions: Vec<LabelExpression>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LabelExpression {
    pub key: String,
    pub operator: String,
    #[serde(default)]
    pub values: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RouteGroupKind {
    pub group: Option<String>,
    pub kind: String,
}

/// `gateway.networking.k8s.io` ReferenceGrant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ReferenceGrant {
    pub spec: ReferenceGrantSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ReferenceGrantSpec {
    #[serde(default)]
    pub from: Vec<GrantFrom>,
    #[serde(default)]
    pub to: Vec<GrantTo>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct GrantFrom {
    #[serde(default)]
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct GrantTo {
    #[serde(default)]
    pub group: String,
    pub kind: String,
    pub name: Option<String>,
}
