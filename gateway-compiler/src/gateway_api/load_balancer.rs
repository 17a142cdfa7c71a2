//! Services of type LoadBalancer whose `loadBalancerClass` is ours: an address of a pool, and every port of theirs
//! forwarded by packets where packets can.

mod terms;

use super::address::{Placed, Wanting};
use super::memo::{self, Want};
use super::{Work, packets};
use crate::diagnostic::Severity;
use crate::objects::{Object, kinds};
use crate::plane::{self, PlaneName};
use crate::status::{ObjectStatus, Status};
use gateway_core::ir::{
    Bind, Destination, Exposure, HostPattern, Ir, Listener, ListenerName, Plane, Readiness, Recognise, RuleName,
    ServiceName, StreamRule, StreamRules, Transport, Weighted,
};
use ipnet::IpNet;
use std::borrow::Cow;
use std::net::IpAddr;
use terms::Terms;

/// `spec.loadBalancerClass` of Services that are ours.
const CLASS: &str = "sluice.dev/lb";

/// A Service of ours.
pub(super) struct Balancer<'o> {
    object: &'o Object<kinds::Service>,
}

/// Every Service that asks for a load balancer of our class, in order of name.
pub(super) fn all<'o>(work: &Work<'o>) -> Vec<Balancer<'o>> {
    let ours = |object: &&Object<kinds::Service>| {
        let spec = &object.body.spec;
        spec.kind.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.as_deref() == Some(CLASS)
    };
    let services = work.objects.services.values().filter(ours);
    services.map(|object| Balancer { object }).collect()
}

impl<'o> Balancer<'o> {
    /// One address of each pool of its families, or the one it names.
    pub fn wanting(&self, work: &Work<'o>) -> Wanting<'o> {
        let spec = &self.object.body.spec;
        let address = |value: &str| kinds::Address {
            kind: None,
            routability: None,
            value: value.to_owned(),
        };
        let families = &spec.ip_families;
        let of_family = |pool: &&IpNet| {
            let family = if pool.network().is_ipv4() { "IPv4" } else { "IPv6" };
            families.is_empty() || families.iter().any(|wanted| wanted == family)
        };
        let has = self.object.body.status.load_balancer.ingress.iter();
        Wanting {
            subject: self.object.subject(),
            asks: Cow::Owned(spec.load_balancer_ip.iter().map(|value| address(value)).collect()),
            has: Cow::Owned(has.map(|ingress| address(&ingress.ip)).collect()),
            pools: work.settings.address_pools.iter().filter(of_family).copied().collect(),
        }
    }

    /// Adds a listener for each port and address; what the Service is told.
    pub fn serve(&self, work: &mut Work<'o>, placed: Placed, ir: &mut Ir) -> ObjectStatus {
        let subject = self.object.subject();
        let mut addresses: Vec<IpAddr> = placed.addresses.into_iter().flatten().collect();
        let terms = terms::terms(work, self.object);
        if terms.clients.is_none() {
            addresses.clear();
        }
        if addresses.is_empty() && self.wanting(work).pools.is_empty() {
            let problem = "there is no address pool of its families: the Service gets no load balancer";
            let (field, remedy) = ("spec.ipFamilies", "give --address-pool");
            work.found
                .push(subject.finding(Severity::Error, field, problem, remedy));
        }
        for (index, port) in self.object.body.spec.ports.iter().enumerate() {
            let Some(transport) = self.transport(work, index, port) else {
                continue;
            };
            for addr in &addresses {
                let bind = Bind {
                    addr: Some(*addr),
                    port: port.port,
                    transport,
                };
                self.port(work, (index, port), bind, &terms, ir);
            }
        }
        ObjectStatus {
            object: self.object.id.clone(),
            status: Status::Balancer { addresses },
        }
    }

    fn transport(&self, work: &mut Work<'_>, index: usize, port: &kinds::ServicePort) -> Option<Transport> {
        match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Some(Transport::Tcp),
            "UDP" => Some(Transport::Udp),
            other => {
                let problem = format!("protocol {other} is not served: the port is left out");
                let field = format!("spec.ports[{index}].protocol");
                let finding = self
                    .object
                    .subject()
                    .finding(Severity::Error, field, problem, "use TCP or UDP");
                work.found.push(finding);
                None
            }
        }
    }

    fn port(
        &self,
        work: &mut Work<'o>,
        (index, port): (usize, &kinds::ServicePort),
        bind: Bind,
        terms: &Terms,
        ir: &mut Ir,
    ) {
        let subject = self.object.subject();
        if let Some(taken) = ir.listeners.get(&bind) {
            let names: Vec<&str> = taken.names.iter().map(ListenerName::as_str).collect();
            let problem = format!("{bind} is that of {}: the port is left out", names.join(", "));
            let field = format!("spec.ports[{index}].port");
            let remedy = "let it have another address or port";
            work.found
                .push(subject.finding(Severity::Error, field, problem, remedy));
            return;
        }
        let key = self.object.key();
        let name = ListenerName::new(format!("Service/{key}/{}", port.port));
        let want = Want::Service(self.object.key(), port.clone(), terms.manner, None);
        let service = memo::want(work, want);
        let exposure = Exposure {
            elsewhere: terms.manner.local && !serves(work, &service),
            clients: terms.clients.clone().unwrap_or_default(),
        };
        let rule = StreamRule {
            listener: name.clone(),
            name: RuleName::new(format!("Service/{key}/{bind}")),
            hostname: HostPattern::Any,
            terminate: None,
            destinations: vec![Weighted {
                weight: 1,
                to: Destination::Service(service),
            }],
        };
        let rules = StreamRules {
            recognise: Recognise::Nothing,
            rules: vec![rule],
        };
        let wish = plane::wish(subject, &mut work.found).map(|wish| wish.plane);
        let (plane, why) = match wish {
            Some(PlaneName::Splice | PlaneName::Http) => {
                (Plane::Splice(rules), Some("its annotation asks for it".to_owned()))
            }
            Some(PlaneName::Kernel) | None if !exposure.clients.is_empty() => {
                let why = "not by packets: each connection is asked whether it is of the loadBalancerSourceRanges";
                (Plane::Splice(rules), Some(why.to_owned()))
            }
            Some(PlaneName::Kernel) | None => packets::carry(work, bind, rules),
        };
        let why = match why {
            _ if exposure.elsewhere => {
                "none of its endpoints is on this node, and it is served where they are".to_owned()
            }
            Some(why) => why,
            None => "a load balancer forwards packets".to_owned(),
        };
        let listener = Listener {
            bind,
            names: vec![name],
            plane,
            why,
            exposure,
        };
        ir.listeners.insert(bind, listener);
    }
}

/// Whether the service has an endpoint for new work.
fn serves(work: &Work<'_>, service: &ServiceName) -> bool {
    let service = work.services.get(service);
    let mut endpoints = service.into_iter().flat_map(|service| &service.endpoints);
    endpoints.any(|endpoint| endpoint.readiness == Readiness::Serving)
}
