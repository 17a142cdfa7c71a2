//! Kinds of Kubernetes itself, and `CertificateFile`.

use serde::Deserialize;
use std::collections::BTreeMap;

/// `v1` Namespace: only its labels count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Namespace {}

/// `v1` Node: only its labels count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Node {}

/// `v1` Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Service {
    #[serde(default)]
    pub spec: ServiceSpec,
    #[serde(default)]
    pub status: ServiceStatus,
}

/// Read only for the addresses that a load balancer has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    #[serde(default)]
    pub load_balancer: LoadBalancerStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LoadBalancerStatus {
    #[serde(default)]
    pub ingress: Vec<LoadBalancerIngress>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LoadBalancerIngress {
    #[serde(default)]
    pub ip: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub external_name: Option<String>,
    pub load_balancer_class: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Option<String>,
    #[serde(default)]
    pub load_balancer_source_ranges: Vec<String>,
    #[serde(default)]
    pub ip_families: Vec<String>,
    pub ip_family_policy: Option<String>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    pub external_traffic_policy: Option<String>,
    pub session_affinity: Option<String>,
    pub session_affinity_config: Option<SessionAffinityConfig>,
    pub health_check_node_port: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SessionAffinityConfig {
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientIpConfig {
    pub timeout_seconds: Option<u32>,
}

impl ServiceSpec {
    /// The name outside of the cluster that an ExternalName Service stands for.
    pub fn outside(&self) -> Option<&str> {
        let name = self.external_name.as_deref().filter(|name| !name.is_empty())?;
        matches!(self.kind.as_deref(), Some("ExternalName") | None).then_some(name)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// What EndpointSlices call this port too; empty for the only port of a Service.
    #[serde(default)]
    pub name: String,
    pub port: u16,
    pub protocol: Option<String>,
    pub app_protocol: Option<String>,
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    pub address_type: String,
    #[serde(default)]
    pub endpoints: Vec<SliceEndpoint>,
    #[serde(default)]
    pub ports: Vec<SlicePort>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceEndpoint {
    pub addresses: Vec<String>,
    #[serde(default)]
    pub conditions: EndpointConditions,
    pub hostname: Option<String>,
    pub target_ref: Option<TargetRef>,
    pub node_name: Option<String>,
    pub hints: Option<EndpointHints>,
}

/// For whom an endpoint is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointHints {
    #[serde(default)]
    pub for_zones: Vec<HintFor>,
    #[serde(default)]
    pub for_nodes: Vec<HintFor>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct HintFor {
    pub name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct TargetRef {
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlicePort {
    #[serde(default)]
    pub name: String,
    pub port: Option<u16>,
    pub protocol: Option<String>,
}

/// `gateway.envoyproxy.io/v1alpha1` Backend: endpoints that are no Kubernetes Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Backend {
    #[serde(default)]
    pub spec: BackendSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSpec {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub endpoints: Vec<BackendEndpoint>,
    #[serde(default)]
    pub app_protocols: Vec<String>,
}

/// Exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct BackendEndpoint {
    pub ip: Option<IpEndpoint>,
    pub fqdn: Option<NameEndpoint>,
    pub unix: Option<UnixEndpoint>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct IpEndpoint {
    pub address: String,
    pub port: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct NameEndpoint {
    pub hostname: String,
    pub port: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct UnixEndpoint {
    pub path: String,
}

/// `v1` Secret. Its contents never show in `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Base64.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    /// Plain text; wins over `data`.
    #[serde(default)]
    pub string_data: BTreeMap<String, String>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.data.keys().chain(self.string_data.keys()).collect();
        f.debug_struct("Secret")
            .field("kind", &self.kind)
            .field("keys", &keys)
            .finish()
    }
}

/// `sluice.dev/v1alpha1` CertificateFile: a certificate that stays in files. Paths are taken from the folder of the
/// file that names them. The fields may stand at the top, as in a Secret, or under `spec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFile {
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    #[serde(default)]
    pub spec: CertificateFileSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFileSpec {
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
}

impl CertificateFile {
    pub fn cert_path(&self) -> Option<&str> {
        self.spec.cert_file.as_deref().or(self.cert_file.as_deref())
    }

    pub fn key_path(&self) -> Option<&str> {
        self.spec.key_file.as_deref().or(self.key_file.as_deref())
    }
}
