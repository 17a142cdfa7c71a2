//! Listeners that want the same address and port.
//!
//! Within one Gateway, or one ListenerSet, listeners that cannot be told apart all lose: none is picked (Gateway API,
//! Gateway.listeners). A set gives way to its Gateway and to older sets, and a Gateway to older Gateways: who comes first
//! keeps what it has. HTTP shares a port by hostname; HTTPS and TLS share one among them likewise, because the name in
//! the ClientHello says whose a connection is. Nothing else shares one. UDP ports are others than TCP ports.

use super::condition::Problem;
use super::gateway::Gateway;
use super::listener::Listener;
use crate::diagnostic::{Diagnostic, Severity};
use crate::plane::Protocol;
use crate::status::reason;
use gateway_core::ir::HostPattern;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a listener has of a port, and its name.
type Taken = (Protocol, HostPattern, String);

/// Sets [`Listener::conflict`] where it is due. Gateways must be in order of age, their listeners in order of rank.
pub(super) fn settle(gateways: &mut [Gateway<'_>], found: &mut Vec<Diagnostic>) {
    let mut elsewhere: BTreeMap<(Option<IpAddr>, u16), Vec<Taken>> = BTreeMap::new();
    for gateway in gateways.iter_mut() {
        let mut here: BTreeMap<u16, Vec<Taken>> = BTreeMap::new();
        let ranks: BTreeSet<usize> = gateway.listeners.iter().map(|it| it.rank).collect();
        for rank in ranks {
            let indexes = gateway.listeners.iter().enumerate().filter(|(_, it)| it.rank == rank);
            let indexes: Vec<usize> = indexes.map(|(index, _)| index).collect();
            against_earlier(gateway, &indexes, &here, &elsewhere, found);
            // What two of one rank want, none of a later rank gets in their stead.
            for listener in indexes.iter().map(|index| &gateway.listeners[*index]) {
                here.entry(listener.port).or_default().extend(taken(listener));
            }
            let problems = indexes
                .iter()
                .filter_map(|index| Some((*index, within(&gateway.listeners, *index)?)));
            for (index, problem) in problems.collect::<Vec<_>>() {
                lose(&mut gateway.listeners[index], problem, found);
            }
        }
        for addr in &gateway.addresses {
            for listener in &gateway.listeners {
                let all = elsewhere.entry((*addr, listener.port)).or_default();
                all.extend(taken(listener));
            }
        }
    }
}

/// A listener that may have what it wants.
fn stands<'l, 'o>(listener: &'l Listener<'o>) -> Option<(&'l Listener<'o>, Protocol)> {
    let protocol = listener.protocol?;
    (listener.refused.is_none() && listener.conflict.is_none()).then_some((listener, protocol))
}

/// What a listener that stands takes.
fn taken(listener: &Listener<'_>) -> Option<Taken> {
    let (listener, protocol) = stands(listener)?;
    Some((protocol, listener.hostname.clone(), listener.name.to_string()))
}

/// Those of one rank against all that came before.
fn against_earlier(
    gateway: &mut Gateway<'_>,
    indexes: &[usize],
    here: &BTreeMap<u16, Vec<Taken>>,
    elsewhere: &BTreeMap<(Option<IpAddr>, u16), Vec<Taken>>,
    found: &mut Vec<Diagnostic>,
) {
    for index in indexes {
        let Some((listener, protocol)) = stands(&gateway.listeners[*index]) else {
            continue;
        };
        let binds = gateway.addresses.iter().map(|addr| (*addr, listener.port));
        let earlier = binds
            .filter_map(|bind| elsewhere.get(&bind))
            .chain(here.get(&listener.port));
        let problem = earlier
            .flatten()
            .find_map(|(p, host, other)| clash(protocol, &listener.hostname, *p, host, other));
        if let Some(problem) = problem {
            lose(&mut gateway.listeners[*index], problem, found);
        }
    }
}

fn lose(listener: &mut Listener<'_>, problem: Problem, found: &mut Vec<Diagnostic>) {
    let field = match problem.reason {
        reason::PROTOCOL_CONFLICT => format!("{}.protocol", listener.field),
        _ => format!("{}.hostname", listener.field),
    };
    let remedy = "give it another port, or another hostname where the protocol names one";
    found.push(
        listener
            .by
            .finding(Severity::Error, field, problem.message.as_str(), remedy),
    );
    listener.conflict = Some(problem);
}

/// Another one of the same rank that cannot be told from this.
fn within(listeners: &[Listener<'_>], index: usize) -> Option<Problem> {
    let (one, protocol) = stands(&listeners[index])?;
    let others = listeners.iter().enumerate();
    others
        .filter(|(at, other)| *at != index && other.rank == one.rank && other.port == one.port)
        .filter_map(|(_, other)| stands(other))
        .find_map(|(other, p)| clash(protocol, &one.hostname, p, &other.hostname, other.name.as_str()))
}

fn clash(a: Protocol, a_host: &HostPattern, b: Protocol, b_host: &HostPattern, other: &str) -> Option<Problem> {
    if a.transport() != b.transport() {
        return None;
    }
    let problem = |reason, message| Some(Problem { reason, message });
    let same_word = word(a) == word(b);
    match (a, b) {
        (Protocol::Tcp, Protocol::Tcp) => problem(
            reason::PROTOCOL_CONFLICT,
            format!("listener {other} takes every connection of the same port"),
        ),
        (Protocol::Udp, _) | (_, Protocol::Udp) => problem(
            reason::PROTOCOL_CONFLICT,
            format!("listener {other} takes every datagram of the same port"),
        ),
        _ if !(same_word || by_client_hello(a) && by_client_hello(b)) => problem(
            reason::PROTOCOL_CONFLICT,
            format!("listener {other} speaks another protocol on the same port"),
        ),
        _ if a_host != b_host => None,
        _ if same_word => problem(
            reason::HOSTNAME_CONFLICT,
            format!("listener {other} has the same port and hostname"),
        ),
        _ => problem(
            reason::PROTOCOL_CONFLICT,
            format!("listener {other} speaks another protocol on the same port for the same hostname"),
        ),
    }
}

/// `protocol` of a listener.
fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Https => "HTTPS",
        Protocol::TlsPassthrough | Protocol::TlsTerminate => "TLS",
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

/// Whether a ClientHello says whose a connection is.
fn by_client_hello(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Https | Protocol::TlsPassthrough | Protocol::TlsTerminate => true,
        Protocol::Http | Protocol::Tcp | Protocol::Udp => false,
    }
}
