//! On what terms a Service of type LoadBalancer lets its clients in: which endpoints, and how one is chosen.

use super::super::Work;
use super::super::condition::Problem;
use super::super::endpoints::Manner;
use crate::diagnostic::Severity;
use crate::objects::{Object, kinds};
use crate::status::reason;
use gateway_core::ir::BalancePolicy;
use ipnet::IpNet;

/// Most source ranges of a Service; each new connection is compared with all.
const RANGES_MAX: usize = 1024;
const FIELD_RANGES: &str = "spec.loadBalancerSourceRanges";
/// Where they were written before there was a field.
const RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// `timeoutSeconds` where none is written (Kubernetes, ClientIPConfig).
const TIMEOUT_DEFAULT: u32 = 10_800;

/// What counts for every port of the Service.
pub(super) struct Terms {
    pub manner: Manner,
    /// Else nobody, as who may is not known.
    pub clients: Result<Vec<IpNet>, Problem>,
}

/// Reads them; what cannot be had as it is written is said.
pub(super) fn terms(work: &mut Work<'_>, object: &Object<kinds::Service>) -> Terms {
    let manner = Manner {
        local: is_local(work, object),
        balance: balance(work, object),
    };
    let clients = clients(work, object);
    Terms { manner, clients }
}

/// `loadBalancerSourceRanges`; empty: every client.
fn clients(work: &mut Work<'_>, object: &Object<kinds::Service>) -> Result<Vec<IpNet>, Problem> {
    let (ranges, subject) = (&object.body.spec.load_balancer_source_ranges, object.subject());
    let mut refuse = |field: String, problem: String, remedy: &str| {
        // Serving everybody where some are meant would open what is closed.
        let message = format!("{problem}: the Service gets no load balancer");
        let finding = subject.finding(Severity::Error, field, message.as_str(), remedy);
        work.found.push(finding);
        let reason = reason::INVALID_SOURCE_RANGES;
        Err(Problem { reason, message })
    };
    let annotated = subject.annotation(RANGES_ANNOTATION).filter(|_| ranges.is_empty());
    let (field, ranges): (_, Vec<&str>) = match annotated {
        Some(list) => (
            format!("metadata.annotations[{RANGES_ANNOTATION}]"),
            list.split(',').collect(),
        ),
        None => (FIELD_RANGES.to_owned(), ranges.iter().map(String::as_str).collect()),
    };
    if ranges.len() > RANGES_MAX {
        let problem = format!("{} source ranges, of {RANGES_MAX} that can be had", ranges.len());
        return refuse(field, problem, "join ranges that lie side by side");
    }
    let mut clients = Vec::with_capacity(ranges.len());
    for (index, range) in ranges.into_iter().enumerate() {
        let text = range.trim();
        match text.parse::<IpNet>() {
            Ok(net) => clients.push(net.trunc()),
            Err(_) => {
                let field = match annotated {
                    Some(_) => field,
                    None => format!("{field}[{index}]"),
                };
                let problem = format!("{text:?} is no prefix of addresses");
                return refuse(field, problem, "write a prefix as 192.0.2.0/24 or 2001:db8::/64");
            }
        }
    }
    Ok(clients)
}

/// `sessionAffinity`. The endpoint follows from the client's address, so nothing is remembered that could be forgotten: a
/// time after which a client may be sent elsewhere changes nothing.
fn balance(work: &mut Work<'_>, object: &Object<kinds::Service>) -> BalancePolicy {
    let spec = &object.body.spec;
    match spec.session_affinity.as_deref() {
        Some("ClientIP") => {}
        Some("None") | None => return BalancePolicy::default(),
        Some(other) => {
            let problem = format!("session affinity {other:?} is not known: connections go round");
            let subject = object.subject();
            let finding = subject.finding(Severity::Error, "spec.sessionAffinity", problem, "use ClientIP or None");
            work.found.push(finding);
            return BalancePolicy::default();
        }
    }
    let config = spec.session_affinity_config.as_ref();
    let timeout = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    // What the API server fills in was not asked for.
    if let Some(seconds) = timeout.filter(|seconds| *seconds != TIMEOUT_DEFAULT) {
        let problem = format!("a client stays with its endpoint as long as that serves, and longer than {seconds} s");
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        let finding = object.subject().finding(Severity::Note, field, problem, "");
        work.found.push(finding);
    }
    BalancePolicy::ClientAddress
}

/// `externalTrafficPolicy: Local`, on a node that knows itself.
fn is_local(work: &mut Work<'_>, object: &Object<kinds::Service>) -> bool {
    let (spec, subject) = (&object.body.spec, object.subject());
    if spec.external_traffic_policy.as_deref() != Some("Local") {
        return false;
    }
    if work.settings.node.is_none() {
        let problem = "which endpoints are on this node is not known: traffic goes to all of them";
        let remedy = "give --node the name that EndpointSlices call this node by";
        let finding = subject.finding(Severity::Warning, "spec.externalTrafficPolicy", problem, remedy);
        work.found.push(finding);
        return false;
    }
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        // Both would bind it.
        let problem = format!("port {port} is answered by kube-proxy of each node, not by this gateway");
        let remedy = "where there is no kube-proxy, ask who has the address instead: only nodes with endpoints have it";
        let finding = subject.finding(Severity::Note, "spec.healthCheckNodePort", problem, remedy);
        work.found.push(finding);
    }
    true
}
