//! The kinds we read, the ones we know but do not serve, and the fields of their schemas that change nothing here.

use super::rules::nearest;
use std::fmt;

/// A kind we read. Closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    GatewayClass,
    GatewayClassConfig,
    Gateway,
    ListenerSet,
    HttpRoute,
    GrpcRoute,
    TcpRoute,
    TlsRoute,
    UdpRoute,
    ReferenceGrant,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    BackendTlsPolicy,
    Backend,
    ClusterTrustBundle,
    CertificateFile,
    Namespace,
    Node,
}

impl Kind {
    /// As written in `kind:`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::GatewayClass => "GatewayClass",
            Kind::GatewayClassConfig => "GatewayClassConfig",
            Kind::Gateway => "Gateway",
            Kind::ListenerSet => "ListenerSet",
            Kind::HttpRoute => "HTTPRoute",
            Kind::GrpcRoute => "GRPCRoute",
            Kind::TcpRoute => "TCPRoute",
            Kind::TlsRoute => "TLSRoute",
            Kind::UdpRoute => "UDPRoute",
            Kind::ReferenceGrant => "ReferenceGrant",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Secret => "Secret",
            Kind::ConfigMap => "ConfigMap",
            Kind::BackendTlsPolicy => "BackendTLSPolicy",
            Kind::Backend => "Backend",
            Kind::ClusterTrustBundle => "ClusterTrustBundle",
            Kind::CertificateFile => "CertificateFile",
            Kind::Namespace => "Namespace",
            Kind::Node => "Node",
        }
    }

    /// Every kind, each once.
    pub fn all() -> impl Iterator<Item = Kind> {
        KINDS.iter().map(|(_, kind, _)| *kind)
    }

    /// API group; empty for the kinds of Kubernetes' core.
    pub fn group(self) -> &'static str {
        KINDS.iter().find(|row| row.1 == self).map_or("", |row| row.0)
    }

    /// Versions that were ever served, newest first.
    pub fn versions(self) -> &'static [&'static str] {
        KINDS.iter().find(|row| row.1 == self).map_or(&[], |row| row.2)
    }

    /// Objects of this kind live in a namespace.
    pub const fn namespaced(self) -> bool {
        !matches!(
            self,
            Kind::GatewayClass | Kind::GatewayClassConfig | Kind::ClusterTrustBundle | Kind::Namespace | Kind::Node
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an `apiVersion` and `kind` are to us.
pub(super) enum Known {
    Read(Kind),
    /// A kind that its group does not have, and the one that is probably meant.
    Misspelled(Kind),
    /// A kind of this project's world that is not served yet.
    NotServed,
    /// A version of a kind we read that never existed or is gone.
    Version(Kind, &'static [&'static str]),
    /// None of our business.
    Foreign,
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io";

/// Group, kind, and the versions that were ever served, newest first.
const KINDS: [(&str, Kind, &[&str]); 20] = [
    (GATEWAY_API, Kind::GatewayClass, &["v1", "v1beta1", "v1alpha2"]),
    (GATEWAY_API, Kind::Gateway, &["v1", "v1beta1", "v1alpha2"]),
    (GATEWAY_API, Kind::ListenerSet, &["v1"]),
    (GATEWAY_API, Kind::HttpRoute, &["v1", "v1beta1", "v1alpha2"]),
    (GATEWAY_API, Kind::GrpcRoute, &["v1", "v1alpha2"]),
    (GATEWAY_API, Kind::TcpRoute, &["v1", "v1alpha2"]),
    (GATEWAY_API, Kind::TlsRoute, &["v1", "v1alpha3", "v1alpha2"]),
    (GATEWAY_API, Kind::UdpRoute, &["v1", "v1alpha2"]),
    (GATEWAY_API, Kind::ReferenceGrant, &["v1", "v1beta1", "v1alpha2"]),
    ("", Kind::Service, &["v1"]),
    ("discovery.k8s.io", Kind::EndpointSlice, &["v1", "v1beta1"]),
    ("", Kind::Secret, &["v1"]),
    ("", Kind::ConfigMap, &["v1"]),
    (GATEWAY_API, Kind::BackendTlsPolicy, &["v1", "v1alpha3"]),
    (ENVOY_GATEWAY, Kind::Backend, &["v1alpha1"]),
    (
        "certificates.k8s.io",
        Kind::ClusterTrustBundle,
        &["v1", "v1beta1", "v1alpha1"],
    ),
    ("sluice.dev", Kind::CertificateFile, &["v1alpha1"]),
    ("sluice.dev", Kind::GatewayClassConfig, &["v1alpha1"]),
    ("", Kind::Namespace, &["v1"]),
    ("", Kind::Node, &["v1"]),
];

/// Groups and kinds named in the project's surface that do nothing yet; `*` is every kind of the group.
const NOT_SERVED: [(&str, &str); 8] = [
    (GATEWAY_API, "*"),
    ("gateway.networking.x-k8s.io", "*"),
    (ENVOY_GATEWAY, "*"),
    ("networking.istio.io", "*"),
    ("security.istio.io", "*"),
    ("networking.k8s.io", "Ingress"),
    ("networking.k8s.io", "IngressClass"),
    ("sluice.dev", "*"),
];

/// Kinds that there are or were, and that look like another one.
const NOT_READ: [&str; 2] = ["BackendLBPolicy", "Pod"];
/// What a test suite writes: of the group, and for no gateway to read.
const NO_OBJECT: &str = "ConformanceReport";

fn of_group(group: &str) -> impl Iterator<Item = &'static str> {
    KINDS
        .iter()
        .filter(move |(g, ..)| *g == group)
        .map(|(_, kind, _)| kind.name())
}

pub(super) fn known(api_version: &str, kind: &str) -> Known {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some((_, kind, versions)) = KINDS.iter().find(|(g, k, _)| *g == group && k.name() == kind) {
        return match versions.contains(&version) {
            true => Known::Read(*kind),
            false => Known::Version(*kind, versions),
        };
    }
    let (ours, there) = (
        [GATEWAY_API, "sluice.dev", "discovery.k8s.io", ""].contains(&group),
        || of_group(group),
    );
    if let (true, Some(name)) = (ours && !NOT_READ.contains(&kind), nearest(kind, there())) {
        let found = KINDS.iter().find(|(g, k, _)| *g == group && k.name() == name);
        if let Some((_, kind, _)) = found {
            return Known::Misspelled(*kind);
        }
    }
    if kind == NO_OBJECT {
        return Known::Foreign;
    }
    match NOT_SERVED.iter().any(|(g, k)| *g == group && (*k == "*" || *k == kind)) {
        true => Known::NotServed,
        false => Known::Foreign,
    }
}

/// The version to write instead of an older one.
pub(super) fn newest(api_version: &str, kind: Kind) -> Option<String> {
    let (group, version) = api_version
        .rsplit_once('/')
        .filter(|(group, _)| *group == GATEWAY_API)?;
    let (.., versions) = KINDS.iter().find(|(g, k, _)| *g == group && *k == kind)?;
    let newest = versions.first().filter(|newest| **newest != version)?;
    Some(format!("{group}/{newest}"))
}

/// What a field is that our types do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Of the schema, and it changes nothing here.
    Harmless,
    /// Of the schema, and it would change something if it were served.
    NotServed,
    /// Of no schema: probably a misspelling.
    Unknown,
}

/// Judges a path without indexes, such as `spec.rules.sessionPersistence`.
pub(super) fn judge(kind: Kind, path: &str) -> Unread {
    let under = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let (harmless, not_served) = fields(kind);
    if HARMLESS.iter().chain(harmless).any(|prefix| under(prefix)) {
        Unread::Harmless
    } else if not_served.iter().any(|prefix| under(prefix)) {
        Unread::NotServed
    } else {
        Unread::Unknown
    }
}

/// What the API server or tools add to every object.
const HARMLESS: &[&str] = &[
    "status",
    "metadata.resourceVersion",
    "metadata.managedFields",
    "metadata.ownerReferences",
    "metadata.finalizers",
    "metadata.generateName",
    "metadata.selfLink",
    "metadata.deletionTimestamp",
    "metadata.deletionGracePeriodSeconds",
];

type Fields = (&'static [&'static str], &'static [&'static str]);

fn fields(kind: Kind) -> Fields {
    match kind {
        Kind::GatewayClass => (&["spec.description"], &[]),
        Kind::GatewayClassConfig => (&[], &[]),
        Kind::ListenerSet => (&[], &[]),
        Kind::Gateway => (
            &[],
            &[
                "spec.backendTLS",
                "spec.defaultScope",
                "spec.listeners.tls.frontendValidation",
            ],
        ),
        Kind::HttpRoute | Kind::GrpcRoute => (
            // A filter that is not served is refused by its type.
            &[
                "spec.rules.filters.externalAuth",
                "spec.rules.filters.extensionRef",
                "spec.rules.backendRefs.filters.externalAuth",
                "spec.rules.backendRefs.filters.extensionRef",
            ],
            &[
                "spec.useDefaultGateways",
                "spec.rules.retry",
                "spec.rules.sessionPersistence",
            ],
        ),
        Kind::TcpRoute | Kind::TlsRoute | Kind::UdpRoute => (&[], &["spec.useDefaultGateways"]),
        Kind::ReferenceGrant => (&[], &[]),
        Kind::Service => (
            // What kube-proxy and cloud controllers read; traffic goes to the endpoints, not through the Service.
            &[
                "spec.selector",
                // Its effect is in the hints of EndpointSlices.
                "spec.trafficDistribution",
                "spec.clusterIPs",
                "spec.internalTrafficPolicy",
                "spec.externalIPs",
                "spec.allocateLoadBalancerNodePorts",
                "spec.publishNotReadyAddresses",
                "spec.ports.nodePort",
                "spec.ports.targetPort",
            ],
            &[],
        ),
        Kind::EndpointSlice => (
            &[
                "ports.appProtocol",
                "endpoints.zone",
                "endpoints.deprecatedTopology",
                "endpoints.targetRef",
            ],
            &[],
        ),
        Kind::Secret | Kind::ConfigMap => (&["immutable"], &[]),
        Kind::BackendTlsPolicy => (&[], &[]),
        Kind::Backend => (
            &["spec.endpoints.hostname"],
            &["spec.endpoints.zone", "spec.fallback", "spec.tls"],
        ),
        // Who signs says nothing about who is believed here.
        Kind::ClusterTrustBundle => (&["spec.signerName"], &[]),
        Kind::CertificateFile => (&[], &[]),
        Kind::Namespace | Kind::Node => (&["spec"], &[]),
    }
}

/// A path without its indexes.
pub(super) fn without_indexes(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(open) = rest.find('[') {
        plain.push_str(&rest[..open]);
        let close = rest[open..].find(']').map_or(rest.len(), |at| open + at + 1);
        rest = &rest[close..];
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_served_versions_are_read_and_others_named() {
        assert!(matches!(
            known("gateway.networking.k8s.io/v1beta1", "Gateway"),
            Known::Read(Kind::Gateway)
        ));
        assert!(matches!(
            known("gateway.networking.k8s.io/v2", "Gateway"),
            Known::Version(Kind::Gateway, _)
        ));
        assert!(matches!(
            known("gateway.networking.k8s.io/v1", "XMesh"),
            Known::NotServed
        ));
        assert!(matches!(known("apps/v1", "Deployment"), Known::Foreign));
        assert!(matches!(known("v1", "Service"), Known::Read(Kind::Service)));
    }

    #[test]
    fn a_misspelling_is_told_from_a_field_that_is_not_served() {
        let judge = |path: &str| judge(Kind::HttpRoute, &without_indexes(path));
        assert_eq!(judge("spec.rules[1].retry"), Unread::NotServed);
        assert_eq!(judge("spec.rules[1].retries"), Unread::Unknown);
        assert_eq!(judge("metadata.resourceVersion"), Unread::Harmless);
        assert_eq!(judge("metadata.labels"), Unread::Unknown);
    }
}
