//! What TLS is configured with: `spec.tls` of Gateways, BackendTLSPolicy, and the ConfigMaps that hold authorities.

use super::ObjectRef;
use serde::Deserialize;
use std::collections::BTreeMap;

/// `v1` ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMap {
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    /// Base64.
    #[serde(default)]
    pub binary_data: BTreeMap<String, String>,
}

/// `certificates.k8s.io` ClusterTrustBundle: authorities of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ClusterTrustBundle {
    pub spec: ClusterTrustBundleSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTrustBundleSpec {
    /// PEM.
    #[serde(default)]
    pub trust_bundle: String,
}

/// `spec.tls` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct GatewayTls {
    pub frontend: Option<FrontendTls>,
    pub backend: Option<GatewayBackendTls>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendTls {
    #[serde(default)]
    pub default: FrontendPort,
    #[serde(default)]
    pub per_port: Vec<PerPort>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct FrontendPort {
    pub validation: Option<FrontendValidation>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PerPort {
    pub port: u16,
    pub tls: FrontendPort,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct FrontendValidation {
    #[serde(rename = "caCertificateRefs", default)]
    pub authority_refs: Vec<ObjectRef>,
    pub mode: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayBackendTls {
    pub client_certificate_ref: Option<ObjectRef>,
}

/// `gateway.networking.k8s.io` BackendTLSPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct BackendTlsPolicy {
    pub spec: BackendTlsPolicySpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsPolicySpec {
    #[serde(default)]
    pub target_refs: Vec<PolicyTarget>,
    pub validation: BackendValidation,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTarget {
    #[serde(default)]
    pub group: String,
    pub kind: String,
    pub name: String,
    pub section_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendValidation {
    #[serde(rename = "caCertificateRefs", default)]
    pub authority_refs: Vec<ObjectRef>,
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known: Option<String>,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub subject_alt_names: Vec<SubjectAltName>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SubjectAltName {
    #[serde(rename = "type")]
    pub kind: String,
    pub hostname: Option<String>,
    pub uri: Option<String>,
}
