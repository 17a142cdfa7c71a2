//! Which addresses a Service of type LoadBalancer asks for, and of which families.

use super::super::Work;
use super::super::condition::Problem;
use crate::objects::{Object, kinds};
use crate::status::reason;
use ipnet::IpNet;
use std::net::IpAddr;

/// Addresses with a comma between them; `spec.loadBalancerIP` can hold one alone, and is on its way out.
const ANNOTATION: &str = "sluice.dev/load-balancer-ips";
const FIELD_ANNOTATION: &str = "metadata.annotations[sluice.dev/load-balancer-ips]";
const FIELD_IP: &str = "spec.loadBalancerIP";

/// What is asked for.
pub(super) struct Claim<'o> {
    /// Where.
    pub field: &'static str,
    pub asks: Vec<&'o str>,
    pub pools: Vec<IpNet>,
    /// Why there is nothing to be had; then nothing is asked for. With the field and the remedy.
    pub problem: Option<(Problem, &'static str, &'static str)>,
}

pub(super) fn claim<'o>(work: &Work<'_>, object: &'o Object<kinds::Service>) -> Claim<'o> {
    let (spec, all) = (&object.body.spec, &work.settings.address_pools);
    let single = spec.ip_family_policy.as_deref() == Some("SingleStack");
    let of_families = |ipv4: bool| match (&spec.ip_families[..], all.first()) {
        // In a cluster they are always named.
        ([], Some(first)) if single => first.network().is_ipv4() == ipv4,
        ([], _) => true,
        (families, _) => families.iter().any(|family| *family == name(ipv4)),
    };
    let listed = object.subject().annotation(ANNOTATION);
    let field = if listed.is_some() { FIELD_ANNOTATION } else { FIELD_IP };
    let texts = listed.or(spec.load_balancer_ip.as_deref()).unwrap_or_default();
    let asks: Vec<&str> = texts
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .collect();
    let pools: Vec<IpNet> = all
        .iter()
        .filter(|pool| of_families(pool.network().is_ipv4()))
        .copied()
        .collect();
    let addresses = asks.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    let stranger = addresses
        .map(|addr| addr.to_canonical())
        .find(|addr| !of_families(addr.is_ipv4()));
    let problem = match stranger {
        Some(addr) => {
            let message = format!("{addr} is of none of the Service's ipFamilies");
            let reason = reason::ADDRESS_NOT_USABLE;
            Some((Problem { reason, message }, field, "ask for an address of its families"))
        }
        // Whoever may write a Service would have any address there is.
        None if pools.is_empty() && (asks.is_empty() || !work.settings.any_address) => {
            let message = "there is no address pool of its families: the Service gets no load balancer".to_owned();
            let reason = reason::NO_ADDRESS_POOL;
            Some((Problem { reason, message }, "spec.ipFamilies", "give --address-pool"))
        }
        None => None,
    };
    let (asks, pools) = match problem {
        Some(_) => (Vec::new(), Vec::new()),
        None => (asks, pools),
    };
    Claim {
        field,
        asks,
        pools,
        problem,
    }
}

/// What `RequireDualStack` asks for and the Service has not got.
pub(super) fn lacks(object: &Object<kinds::Service>, addresses: &[IpAddr]) -> Option<Problem> {
    if object.body.spec.ip_family_policy.as_deref() != Some("RequireDualStack") || addresses.is_empty() {
        return None;
    }
    let missing = [true, false]
        .into_iter()
        .find(|ipv4| addresses.iter().all(|addr| addr.is_ipv4() != *ipv4))?;
    Some(Problem {
        reason: reason::PARTLY_SERVED,
        message: format!(
            "it requires both families, and no address pool has an {} address for it",
            name(missing)
        ),
    })
}

const fn name(ipv4: bool) -> &'static str {
    if ipv4 { "IPv4" } else { "IPv6" }
}
