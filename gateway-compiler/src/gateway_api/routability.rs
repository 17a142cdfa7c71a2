//! From where addresses of Gateways are reached (GEP-5093).
//!
//! `Cluster` is the ClusterIP of a Service that stands for the Gateway and that no kube-proxy serves: the API server gives
//! it out, and what it gave is read from the Service itself, so a status says nothing that is not so. All else is of a
//! pool, about which nothing is promised.

use crate::generated::{ClusterIp, GATEWAY_NAME_LABEL, PROXY, PROXY_NAME_LABEL, label};
use crate::objects::{Key, ObjectId, Objects, kinds};
use std::net::IpAddr;

/// An address of a Service, reached in the cluster.
pub(super) const CLUSTER: &str = "Cluster";
/// What the conformance suite asks for; it promises nothing.
const SENTINEL: &str = "testing.x-k8s.io/sentinel";

/// An address, or why it is not to be had.
pub(super) type Asked = Result<IpAddr, String>;

/// What is asked of an address that comes from a pool; `None`: nothing like that is to be had.
pub(super) fn of_pool(asked: Option<&str>) -> Option<&'static str> {
    match asked {
        None | Some("") => Some(""),
        Some(SENTINEL) => Some(SENTINEL),
        Some(_) => None,
    }
}

/// A Service whose ClusterIP is an address of a Gateway.
pub(super) struct Standing {
    /// Index of the entry in `spec.addresses`.
    pub entry: usize,
    pub name: String,
    pub asks: ClusterIp,
}

/// The Services for all addresses of routability `Cluster` that `asks` has and that one can ask an API server for.
pub(super) fn standing(gateway: &ObjectId, class: &str, asks: &[kinds::Address]) -> Vec<Standing> {
    let mut all: Vec<Standing> = Vec::new();
    let mut unnamed = 0;
    for (entry, spec) in asks.iter().enumerate() {
        let kind = spec.kind.as_deref().unwrap_or("IPAddress");
        if kind != "IPAddress" || spec.routability.as_deref() != Some(CLUSTER) {
            continue;
        }
        let (suffix, asks) = match (spec.value.as_str(), spec.value.parse::<IpAddr>()) {
            ("", _) => {
                unnamed += 1;
                let count = if unnamed == 1 {
                    String::new()
                } else {
                    format!("-{unnamed}")
                };
                (format!("cluster{count}"), ClusterIp::Any)
            }
            (_, Ok(addr)) => {
                let addr = addr.to_canonical();
                (addr.to_string().replace(['.', ':'], "-"), ClusterIp::This(addr))
            }
            (_, Err(_)) => continue,
        };
        let name = label(&format!("{}-{class}-{suffix}", gateway.name));
        // An address that is named twice is had once.
        if !all.iter().any(|one| one.name == name) {
            all.push(Standing { entry, name, asks });
        }
    }
    all
}

/// What each of them has; or why not.
pub(super) fn had(objects: &Objects, gateway: &ObjectId, standing: &[Standing]) -> Vec<(usize, Asked)> {
    let one = |standing: &Standing| {
        let key = Key::new(&gateway.namespace, &standing.name);
        let there = objects.services.get(&key).filter(|service| {
            let labels = &service.meta.labels;
            labels.get(PROXY_NAME_LABEL).is_some_and(|name| name == PROXY)
                && labels.get(GATEWAY_NAME_LABEL) == Some(&label(&gateway.name))
        });
        let addr = there.and_then(|service| service.body.spec.cluster_ip.as_deref()?.parse::<IpAddr>().ok());
        let addr = addr.map(|addr| addr.to_canonical()).filter(|addr| match standing.asks {
            ClusterIp::This(asked) => asked == *addr,
            ClusterIp::Any => true,
            ClusterIp::Headless => false,
        });
        let asked = addr.ok_or_else(|| match standing.asks {
            ClusterIp::This(asked) => {
                format!("no API server gave {asked} to Service {key}: it has to be free and in the ServiceCIDR")
            }
            ClusterIp::Any | ClusterIp::Headless => format!("no API server gave a ClusterIP to Service {key} yet"),
        });
        (standing.entry, asked)
    };
    standing.iter().map(one).collect()
}
