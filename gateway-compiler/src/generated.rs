//! Objects that stand for a Gateway in its cluster, as values: whoever speaks with the API server writes them.

use crate::objects::ObjectId;
use gateway_core::ir::Transport;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The label that every object made for a Gateway has: the Gateway's name (Gateway API, GEP-1762).
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// The label of a Service that kube-proxy, and whoever stands in its place, leaves to the proxy of this name (Kubernetes).
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// The name of ours.
pub const PROXY: &str = "sluice.dev";
/// Most bytes of a Service's name and of a label's value (Kubernetes: RFC 1035 and 1123 labels).
const LABEL_BYTES_MAX: usize = 63;

/// A Service without a selector. With [`ClusterIp::Headless`] it has one EndpointSlice an address family with
/// `kubernetes.io/service-name`: a Gateway's addresses under a name of the cluster's DNS, and the object that carries the
/// labels and annotations of `spec.infrastructure`; nothing is served through it, and it asks for no load balancer. Else
/// its ClusterIP is an address of the Gateway, served by each node's own gateway: its [`PROXY_NAME_LABEL`] keeps
/// kube-proxy from it, and it has no EndpointSlices.
///
/// It belongs to its Gateway (an owner reference with `controller: true`) and goes with it. A Service of this name that
/// does not belong to the Gateway is somebody else's and must be left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayService {
    /// Whose it is; in the same namespace.
    pub gateway: ObjectId,
    /// At most 63 bytes, an RFC 1035 label.
    pub name: String,
    /// Of `spec.infrastructure`, and [`GATEWAY_NAME_LABEL`].
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// What is listened on, ascending. Named `<tcp or udp>-<port>`.
    pub ports: BTreeSet<(u16, Transport)>,
    /// Where the Gateway is reached; ascending, may be empty.
    pub addresses: Vec<IpAddr>,
    /// `spec.clusterIP`.
    pub cluster_ip: ClusterIp,
}

/// What a Service asks of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterIp {
    /// `None`.
    Headless,
    /// Whichever it gives.
    Any,
    This(IpAddr),
}

/// `text` as a label of at most 63 bytes: unchanged where it is one, else with a hash of the whole at its end.
pub(crate) fn label(text: &str) -> String {
    let plain: String = text
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => char::from(byte),
            _ => '-',
        })
        .collect();
    let starts = plain.starts_with(|first: char| first.is_ascii_lowercase());
    if starts && plain == text && text.len() <= LABEL_BYTES_MAX {
        return plain;
    }
    let hash = format!("-{:08x}", crate::hash::fnv(text.as_bytes()) & 0xffff_ffff);
    let before = if starts { "" } else { "g" };
    let room = LABEL_BYTES_MAX - hash.len() - before.len();
    format!("{before}{}{hash}", &plain[..plain.len().min(room)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_too_long_for_a_label_is_cut_and_stays_its_own() {
        let long = |last: char| format!("{}{last}", "a".repeat(252));
        let (x, y) = (label(&long('x')), label(&long('y')));
        assert!(x.len() == 63 && y.len() == 63 && x != y, "{x} {y}");
        assert_eq!(label("edge"), "edge");
        assert_ne!(label("a.b"), label("a-b"));
        assert!(label("1st").starts_with("g1st-"));
    }
}
