//! Services of type LoadBalancer whose `loadBalancerClass` is ours: an address of a pool, and every port of theirs
//! forwarded by packets where packets can.

mod claim;
mod terms;

use super::address::{Field, Placed, Wanting};
use super::condition::{Problem, Told, condition};
use super::wanted::{self, Want};
use super::{Work, packets};
use crate::diagnostic::Severity;
use crate::objects::{Object, kinds};
use crate::plane::{self, PlaneName};
use crate::status::{ConditionKind, ObjectStatus, Status, reason};
use gateway_core::ir::{
    Bind, Destination, Exposure, HostPattern, Ir, Listener, ListenerName, Plane, Readiness, Recognise, RuleName,
    ServiceName, StreamRule, StreamRules, Transport, Weighted,
};
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
        let address = |value: &str| kinds::Address {
            kind: None,
            routability: None,
            value: value.to_owned(),
        };
        let claim = claim::claim(work, self.object);
        let has = self.object.body.status.load_balancer.ingress.iter();
        Wanting {
            subject: self.object.subject(),
            field: Field::One(claim.field),
            asks: Cow::Owned(claim.asks.into_iter().map(address).collect()),
            has: Cow::Owned(has.map(|ingress| address(&ingress.ip)).collect()),
            pools: claim.pools,
            cluster: Vec::new(),
        }
    }

    /// Adds a listener for each port and address; what the Service is told.
    pub fn serve(&self, work: &mut Work<'o>, placed: Placed, ir: &mut Ir) -> ObjectStatus {
        let mut addresses: Vec<IpAddr> = placed.addresses.into_iter().flatten().collect();
        let terms = terms::terms(work, self.object);
        let mut problems: Vec<Problem> = terms.clients.as_ref().err().cloned().into_iter().collect();
        if !problems.is_empty() {
            addresses.clear();
        }
        problems.extend(self.unclaimed(work, &addresses));
        problems.extend(placed.unplaced);
        let mut served = false;
        for (index, port) in self.object.body.spec.ports.iter().enumerate() {
            let transport = match self.transport(work, index, port) {
                Ok(transport) => transport,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            for addr in &addresses {
                let bind = Bind {
                    addr: Some(*addr),
                    port: port.port,
                    transport,
                };
                match self.port(work, (index, port), bind, &terms, ir) {
                    Ok(()) => served = true,
                    Err(problem) => problems.push(problem),
                }
            }
        }
        let conditions = vec![condition(
            ConditionKind::Served,
            told(served, &problems),
            self.object.meta.generation,
        )];
        ObjectStatus {
            object: self.object.id.clone(),
            status: Status::Balancer { addresses, conditions },
        }
    }

    /// What is wrong with the addresses it asks for, or has not got.
    fn unclaimed(&self, work: &mut Work<'o>, addresses: &[IpAddr]) -> Vec<Problem> {
        let claimed = claim::claim(work, self.object).problem;
        let mut problems = Vec::new();
        let mut found = |severity, problem: Problem, field: &str, remedy: &str| {
            let subject = self.object.subject();
            let finding = subject.finding(severity, field, problem.message.as_str(), remedy);
            work.found.push(finding);
            problems.push(problem);
        };
        if let Some((problem, field, remedy)) = claimed {
            found(Severity::Error, problem, field, remedy);
        }
        if let Some(problem) = claim::lacks(self.object, addresses) {
            let remedy = "give an --address-pool of each family, or let it be PreferDualStack";
            found(Severity::Warning, problem, "spec.ipFamilyPolicy", remedy);
        }
        problems
    }

    /// Says that a port is left out.
    fn leave_out(&self, work: &mut Work<'_>, field: String, problem: String, remedy: &str) -> Problem {
        let message = format!("{problem}: the port is left out");
        let subject = self.object.subject();
        let finding = subject.finding(Severity::Error, field, message.as_str(), remedy);
        work.found.push(finding);
        let reason = reason::PARTLY_SERVED;
        Problem { reason, message }
    }

    fn transport(&self, work: &mut Work<'_>, index: usize, port: &kinds::ServicePort) -> Result<Transport, Problem> {
        match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Ok(Transport::Tcp),
            "UDP" => Ok(Transport::Udp),
            other => {
                let field = format!("spec.ports[{index}].protocol");
                let problem = format!("protocol {other} is not served");
                Err(self.leave_out(work, field, problem, "use TCP or UDP"))
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
    ) -> Result<(), Problem> {
        let subject = self.object.subject();
        if let Some(taken) = ir.listeners.get(&bind) {
            let names: Vec<&str> = taken.names.iter().map(ListenerName::as_str).collect();
            let problem = format!("{bind} is that of {}", names.join(", "));
            let field = format!("spec.ports[{index}].port");
            return Err(self.leave_out(work, field, problem, "let it have another address or port"));
        }
        let key = self.object.key();
        let name = ListenerName::new(format!("Service/{key}/{}", port.port));
        let want = Want::Service(self.object.key(), port.clone(), terms.manner, None);
        let service = wanted::want_besides(work, want);
        let exposure = Exposure {
            elsewhere: terms.manner.local && !serves(work, &service),
            clients: terms.clients.as_ref().cloned().unwrap_or_default(),
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
        Ok(())
    }
}

/// Whether a Service has what it asks for.
fn told(served: bool, problems: &[Problem]) -> Told {
    let mut messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    messages.dedup();
    match (served, problems.first()) {
        (true, None) => (true, reason::SERVED, String::new()),
        (true, Some(_)) => (true, reason::PARTLY_SERVED, messages.join("; ")),
        (false, Some(first)) => (false, first.reason, messages.join("; ")),
        (false, None) => (false, reason::PENDING, "it has no address or no port".to_owned()),
    }
}

/// Whether the service has an endpoint for new work.
fn serves(work: &Work<'_>, service: &ServiceName) -> bool {
    let service = work.service(service);
    let mut endpoints = service.into_iter().flat_map(|service| &service.endpoints);
    endpoints.any(|endpoint| endpoint.readiness == Readiness::Serving)
}
