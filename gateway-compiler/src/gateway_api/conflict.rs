//! Listeners that want the same address and port.
//!
//! Within one Gateway, listeners that cannot be told apart all lose: none is picked (Gateway API, Gateway.listeners).
//! Between Gateways the older one keeps what it has. HTTP shares a port by hostname, HTTPS likewise, TLS passthrough
//! likewise; a port speaks one of them. UDP ports are others than TCP ports.

use super::condition::Problem;
use super::gateway::Gateway;
use super::listener::Listener;
use crate::diagnostic::{Diagnostic, Severity};
use crate::plane::Protocol;
use crate::status::reason;
use gateway_core::ir::HostPattern;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a listener has of a port, and its name.
type Taken = (Protocol, HostPattern, String);

/// Sets [`Listener::conflict`] where it is due. Gateways must be in order of age.
pub(super) fn settle(gateways: &mut [Gateway<'_>], found: &mut Vec<Diagnostic>) {
    for gateway in gateways.iter_mut() {
        let problems: Vec<_> = (0..gateway.listeners.len())
            .map(|index| within(&gateway.listeners, index))
            .collect();
        for (index, problem) in problems.into_iter().enumerate() {
            if let Some(problem) = problem {
                settle_one(gateway, index, problem, found);
            }
        }
    }
    let mut taken: BTreeMap<(Option<IpAddr>, u16), Vec<Taken>> = BTreeMap::new();
    for gateway in gateways.iter_mut() {
        for index in 0..gateway.listeners.len() {
            let listener = &gateway.listeners[index];
            let Some(protocol) = listener
                .protocol
                .filter(|_| listener.refused.is_none() && listener.conflict.is_none())
            else {
                continue;
            };
            let binds: Vec<_> = gateway.addresses.iter().map(|addr| (*addr, listener.port)).collect();
            let (hostname, name) = (listener.hostname.clone(), listener.name.to_string());
            let here = |(p, h, other): &Taken| clash(protocol, &hostname, *p, h, other);
            // Those of the same Gateway were settled above.
            let own = format!("{}/{}/", gateway.subject.id.namespace, gateway.subject.id.name);
            let problem = binds
                .iter()
                .filter_map(|bind| taken.get(bind))
                .flatten()
                .filter(|(_, _, other)| !other.starts_with(&own))
                .find_map(here);
            match problem {
                Some(problem) => settle_one(gateway, index, problem, found),
                None => {
                    for bind in binds {
                        taken
                            .entry(bind)
                            .or_default()
                            .push((protocol, hostname.clone(), name.clone()));
                    }
                }
            }
        }
    }
}

fn settle_one(gateway: &mut Gateway<'_>, index: usize, problem: Problem, found: &mut Vec<Diagnostic>) {
    let listener = &mut gateway.listeners[index];
    let field = match problem.reason {
        reason::PROTOCOL_CONFLICT => format!("{}.protocol", listener.field),
        _ => format!("{}.hostname", listener.field),
    };
    let remedy = "give it another port, or another hostname where the protocol names one";
    found.push(
        gateway
            .subject
            .finding(Severity::Error, field, problem.message.as_str(), remedy),
    );
    listener.conflict = Some(problem);
}

fn within(listeners: &[Listener<'_>], index: usize) -> Option<Problem> {
    let one = &listeners[index];
    let protocol = one.protocol.filter(|_| one.refused.is_none())?;
    let others = listeners
        .iter()
        .enumerate()
        .filter(|(at, other)| *at != index && other.port == one.port);
    others
        .filter(|(_, other)| other.refused.is_none())
        .filter_map(|(_, other)| Some((other.protocol?, other)))
        .find_map(|(p, other)| clash(protocol, &one.hostname, p, &other.hostname, other.name.as_str()))
}

fn clash(a: Protocol, a_host: &HostPattern, b: Protocol, b_host: &HostPattern, other: &str) -> Option<Problem> {
    if a.transport() != b.transport() {
        return None;
    }
    if a != b {
        let message = format!("listener {other} speaks another protocol on the same port");
        return Some(Problem {
            reason: reason::PROTOCOL_CONFLICT,
            message,
        });
    }
    match a {
        Protocol::Tcp => {
            let message = format!("listener {other} takes every connection of the same port");
            Some(Problem {
                reason: reason::PROTOCOL_CONFLICT,
                message,
            })
        }
        Protocol::Udp => {
            let message = format!("listener {other} takes every datagram of the same port");
            Some(Problem {
                reason: reason::PROTOCOL_CONFLICT,
                message,
            })
        }
        Protocol::Http | Protocol::Https | Protocol::TlsPassthrough => (a_host == b_host).then(|| Problem {
            reason: reason::HOSTNAME_CONFLICT,
            message: format!("listener {other} has the same port and hostname"),
        }),
    }
}
