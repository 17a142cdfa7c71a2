//! Which plane serves a listener, and why.
//!
//! A listener has one plane: what its protocol asks, moved by the annotation `sluice.dev/plane` on its Gateway, on a
//! route attached to it or on a Service behind it. Where these differ the strictest wins (http > splice > kernel) and
//! a diagnostic says so. A plane that cannot do what the rules ask is left for the next stricter one, with the reason.

use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::objects::{ObjectId, Subject};
use gateway_core::ir::{Destination, StreamRule, Transport};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// The annotation's name.
pub(crate) const ANNOTATION: &str = "sluice.dev/plane";
const FIELD: &str = "metadata.annotations[sluice.dev/plane]";

/// A plane by name, the strictest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PlaneName {
    Kernel,
    Splice,
    Http,
}

impl fmt::Display for PlaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PlaneName::Kernel => "kernel",
            PlaneName::Splice => "splice",
            PlaneName::Http => "http",
        })
    }
}

/// What a listener speaks, as far as it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Http,
    Https,
    TlsPassthrough,
    TlsTerminate,
    Tcp,
    Udp,
}

impl Protocol {
    /// What carries it: ports of different transports have nothing to do with each other.
    pub const fn transport(self) -> Transport {
        match self {
            Protocol::Http | Protocol::Https | Protocol::TlsPassthrough | Protocol::TlsTerminate | Protocol::Tcp => {
                Transport::Tcp
            }
            Protocol::Udp => Transport::Udp,
        }
    }
}

/// An annotation that asks for a plane.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub plane: PlaneName,
    pub by: ObjectId,
    position: Option<Position>,
}

impl Wish {
    fn lost(&self, problem: String, remedy: String) -> Diagnostic {
        Diagnostic {
            position: self.position.clone(),
            severity: Severity::Warning,
            object: Some(self.by.clone()),
            field: FIELD.to_owned(),
            problem,
            remedy,
        }
    }
}

/// Reads the annotation of an object.
pub(crate) fn wish(by: Subject<'_>, found: &mut Vec<Diagnostic>) -> Option<Wish> {
    let plane = match by.annotation(ANNOTATION)? {
        "kernel" => PlaneName::Kernel,
        "splice" => PlaneName::Splice,
        "http" => PlaneName::Http,
        other => {
            let problem = format!("{other:?} is no plane: the annotation has no effect");
            found.push(by.finding(Severity::Error, FIELD, problem, "write kernel, splice or http"));
            return None;
        }
    };
    Some(Wish {
        plane,
        by: by.id.clone(),
        position: by.position(FIELD),
    })
}

/// A plane and the sentence for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub plane: PlaneName,
    pub why: String,
}

/// The plane that the protocol and the wishes give; wishes that lose are reported.
pub(crate) fn choose(protocol: Protocol, wishes: &[Wish], found: &mut Vec<Diagnostic>) -> Choice {
    let (plane, why) = match protocol {
        Protocol::Http => (PlaneName::Http, "HTTP requests are parsed and routed".to_owned()),
        Protocol::Https => (
            PlaneName::Http,
            "TLS is terminated, then HTTP requests are routed".to_owned(),
        ),
        Protocol::TlsPassthrough => (
            PlaneName::Splice,
            "TLS is passed through by the name in its ClientHello".to_owned(),
        ),
        Protocol::TlsTerminate => (
            PlaneName::Splice,
            "TLS is terminated, then its bytes are relayed".to_owned(),
        ),
        Protocol::Tcp => match wishes.iter().max_by_key(|wish| wish.plane) {
            Some(wish) => (wish.plane, format!("{} asks", wish.by)),
            None => (PlaneName::Kernel, "TCP is forwarded by packets".to_owned()),
        },
        // Datagrams hold no requests: whoever asks for those gets the relay.
        Protocol::Udp => match wishes.iter().max_by_key(|wish| wish.plane) {
            Some(wish) => (wish.plane.min(PlaneName::Splice), format!("{} asks", wish.by)),
            None => (PlaneName::Kernel, "datagrams are forwarded by packets".to_owned()),
        },
    };
    for wish in wishes.iter().filter(|wish| wish.plane != plane) {
        let problem = match protocol {
            Protocol::Udp if wish.plane == PlaneName::Http => {
                "the annotation asks for http, but datagrams hold no requests: splice it is".to_owned()
            }
            Protocol::Tcp | Protocol::Udp => format!(
                "the annotation asks for {}, but {why}: {plane} is stricter and wins",
                wish.plane
            ),
            Protocol::Http | Protocol::Https | Protocol::TlsPassthrough | Protocol::TlsTerminate => {
                format!("the annotation asks for {}, but {why}: {plane} it is", wish.plane)
            }
        };
        found.push(wish.lost(problem, format!("remove it or write {plane}")));
    }
    let asked = matches!(protocol, Protocol::Tcp | Protocol::Udp) && !wishes.is_empty();
    Choice {
        plane,
        why: if asked { format!("{why} for it") } else { why },
    }
}

/// What listeners of several protocols on one port have in common, when there are several: the name in the ClientHello
/// says whose a connection is.
pub(crate) fn shared(protocols: &BTreeSet<Protocol>) -> Option<&'static str> {
    let https = protocols.contains(&Protocol::Https);
    match (protocols.len() > 1, https) {
        (false, _) => None,
        (true, true) => Some(
            "TLS is terminated, then HTTP requests are routed; by the name in its ClientHello a connection of a TLS \
             listener is relayed instead",
        ),
        (true, false) => Some("TLS is passed through, or terminated and relayed, by the name in its ClientHello"),
    }
}

/// Why the kernel plane cannot carry these rules to a VIP; `None` when it can.
pub(crate) fn kernel_obstacle(addr: Option<IpAddr>, rules: &[StreamRule]) -> Option<&'static str> {
    let Some(rule) = rules.first() else {
        return Some("no route is attached, connections are refused");
    };
    if addr.is_none() {
        return Some("packets are forwarded only for addresses of the gateway's own, and the Gateway has none");
    }
    let refuses = |destination: &Destination| match destination {
        Destination::Fail { .. } => true,
        Destination::Service(_) => false,
    };
    if rule
        .destinations
        .iter()
        .any(|share| share.weight > 0 && refuses(&share.to))
    {
        return Some("a share of the connections must be refused because its backend is missing");
    }
    if rule.destinations.iter().all(|share| share.weight == 0) {
        return Some("no backend has a weight, connections are refused");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Source, parse};

    fn service(plane: &str) -> crate::Objects {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, annotations: {{sluice.dev/plane: {plane}}}}}\n"
        );
        parse(&[Source::new("f.yaml", text)])
    }

    fn check(protocol: Protocol, planes: &[&str], expect: PlaneName, findings: usize) {
        let objects: Vec<_> = planes.iter().map(|plane| service(plane)).collect();
        let mut found = Vec::new();
        let wishes: Vec<_> = objects
            .iter()
            .filter_map(|o| wish(o.services.values().next().unwrap().subject(), &mut found))
            .collect();
        assert_eq!(choose(protocol, &wishes, &mut found).plane, expect);
        assert_eq!(found.len(), findings, "{found:?}");
    }

    #[test]
    fn the_protocol_decides_when_nobody_asks() {
        check(Protocol::Tcp, &[], PlaneName::Kernel, 0);
        check(Protocol::TlsPassthrough, &[], PlaneName::Splice, 0);
        check(Protocol::Https, &[], PlaneName::Http, 0);
    }

    #[test]
    fn the_strictest_wish_wins_and_the_others_are_reported() {
        check(Protocol::Tcp, &["kernel", "splice"], PlaneName::Splice, 1);
        check(Protocol::Tcp, &["splice", "http", "kernel"], PlaneName::Http, 2);
        check(Protocol::Tcp, &["http"], PlaneName::Http, 0);
    }

    #[test]
    fn a_wish_cannot_loosen_what_the_protocol_needs() {
        check(Protocol::Udp, &[], PlaneName::Kernel, 0);
        check(Protocol::Udp, &["http"], PlaneName::Splice, 1);
        check(Protocol::Udp, &["splice"], PlaneName::Splice, 0);
        check(Protocol::Http, &["kernel"], PlaneName::Http, 1);
        check(Protocol::TlsPassthrough, &["http"], PlaneName::Splice, 1);
        check(Protocol::Tcp, &["ebpf"], PlaneName::Kernel, 1);
    }
}
