//! Stream rules of one port: which of the routes behind its listeners takes a connection.
//!
//! A connection belongs to the listener with the most specific hostname that matches its server name, and is never seen
//! by another one (listener isolation). Hostnames are nested or apart, never across each other: so a flat table, most
//! specific first, says the same, once what a listener has under names of another one is left out of it and a listener
//! without a route for all of its names has a rule that refuses the rest.

use super::Served;
use crate::diagnostic::{Diagnostic, Severity};
use crate::gateway_api::Work;
use crate::gateway_api::client_certificate;
use crate::gateway_api::listener::{Attached, Listener};
use crate::gateway_api::route::Stream;
use crate::plane::Protocol;
use gateway_core::ir::{Destination, HostPattern, Recognise, RuleName, StreamRule, StreamRules, Termination, Weighted};
use std::cmp::Reverse;

/// Rules of the TLS listeners among `served`, most specific hostname first.
pub(super) fn by_name(work: &mut Work<'_>, served: &[Served<'_, '_>]) -> Vec<StreamRule> {
    let mut rules = Vec::new();
    for s in served {
        let terminate = match s.protocol {
            Protocol::TlsPassthrough => None,
            Protocol::TlsTerminate => Some(Termination {
                certificates: s.listener.certificates.clone(),
                tls: s.listener.tls.clone(),
            }),
            Protocol::Http | Protocol::Https | Protocol::Tcp | Protocol::Udp => continue,
        };
        of_listener(work, s, served, terminate.as_ref(), &mut rules);
    }
    rules.sort_by(|a: &StreamRule, b| {
        let specificity = b.hostname.specificity().cmp(&a.hostname.specificity());
        specificity.then_with(|| a.name.cmp(&b.name))
    });
    rules
}

fn of_listener(
    work: &mut Work<'_>,
    s: &Served<'_, '_>,
    served: &[Served<'_, '_>],
    terminate: Option<&Termination>,
    rules: &mut Vec<StreamRule>,
) {
    let mut mine: Vec<StreamRule> = Vec::new();
    for attached in in_order(s.listener) {
        let (hostname, stream) = (&attached.hostname, &attached.stream);
        if let Some(owner) = owner(s, served, hostname) {
            if !owner.streams.iter().any(|theirs| theirs.stream.name == stream.name) {
                report_foreign(s, attached, owner, &mut work.found);
            }
            continue;
        }
        match mine.iter().find(|rule| rule.hostname == *hostname) {
            Some(earlier) => report_late(s, stream, earlier, &mut work.found),
            None => mine.push(rule(work, s, hostname, stream, terminate)),
        }
    }
    let hostname = &s.listener.hostname;
    let within_another = |other: &Served<'_, '_>| other.listener.name != s.listener.name && covers(other, hostname);
    if served.iter().any(within_another) && !mine.iter().any(|rule| rule.hostname == *hostname) {
        mine.push(StreamRule {
            listener: s.listener.name.clone(),
            name: RuleName::new(format!("Gateway/{}", s.listener.name)),
            hostname: hostname.clone(),
            terminate: None,
            destinations: Vec::new(),
        });
    }
    rules.extend(mine);
}

/// Routes that take precedence first: by their own hostname, then by age.
fn in_order<'l>(listener: &'l Listener<'_>) -> Vec<&'l Attached> {
    let mut all: Vec<&Attached> = listener.streams.iter().collect();
    all.sort_by_key(|attached| Reverse(attached.own.specificity()));
    all
}

/// The listener to which all connections of `hostname` belong, if it is not `s`.
fn owner<'s, 'o>(s: &Served<'_, 'o>, served: &'s [Served<'_, 'o>], hostname: &HostPattern) -> Option<&'s Listener<'o>> {
    let mine = s.listener.hostname.specificity();
    let others = served.iter().filter(|other| covers(other, hostname));
    let best = others.max_by_key(|other| other.listener.hostname.specificity())?;
    (best.listener.hostname.specificity() > mine).then_some(best.listener)
}

fn covers(served: &Served<'_, '_>, hostname: &HostPattern) -> bool {
    served.listener.hostname.intersect(hostname).as_ref() == Some(hostname)
}

/// Nothing is recognised: the first route takes every connection.
pub(super) fn all(work: &mut Work<'_>, served: &[Served<'_, '_>]) -> StreamRules {
    let first = first(work, served).map(|(s, stream)| rule(work, s, &HostPattern::Any, stream, None));
    StreamRules {
        recognise: Recognise::Nothing,
        rules: first.into_iter().collect(),
    }
}

/// The route that takes every connection; those after it are reported.
pub(super) fn first<'s, 'l, 'o>(
    work: &mut Work<'_>,
    served: &'s [Served<'l, 'o>],
) -> Option<(&'s Served<'l, 'o>, &'l Stream)> {
    let mut all = served
        .iter()
        .flat_map(|s| s.listener.streams.iter().map(move |it| (s, &it.stream)));
    let first = all.next()?;
    for (s, late) in all {
        let earlier = &first.1.name;
        found_late(s, late, earlier, &mut work.found);
    }
    Some(first)
}

fn rule(
    work: &mut Work<'_>,
    s: &Served<'_, '_>,
    hostname: &HostPattern,
    stream: &Stream,
    terminate: Option<&Termination>,
) -> StreamRule {
    let untouched = s.protocol == Protocol::TlsPassthrough;
    let mut rule = StreamRule {
        listener: s.listener.name.clone(),
        name: stream.name.clone(),
        hostname: hostname.clone(),
        terminate: terminate.cloned(),
        destinations: Vec::new(),
    };
    let mut shown = false;
    for share in &stream.shares {
        let mut to = if untouched { &share.untouched } else { &share.to }.clone();
        if let (Destination::Service(name), Some(certificate), false) = (&mut to, s.certificate, untouched) {
            shown |= client_certificate::present_to(work, s.gateway, certificate, name);
        }
        rule.destinations.push(Weighted {
            weight: share.weight,
            to,
        });
    }
    if shown {
        rule.name = client_certificate::rule_name(s.gateway, &rule.name);
    }
    rule
}

fn report_late(s: &Served<'_, '_>, late: &Stream, earlier: &StreamRule, found: &mut Vec<Diagnostic>) {
    found_late(s, late, &earlier.name, found);
}

fn found_late(s: &Served<'_, '_>, late: &Stream, earlier: &RuleName, found: &mut Vec<Diagnostic>) {
    let problem = format!(
        "{} gets no connection: {earlier} comes first and takes the same ones",
        late.name
    );
    let remedy = "attach one route, with weighted backends";
    found.push(
        s.gateway
            .finding(Severity::Warning, s.listener.field.as_str(), problem, remedy),
    );
}

fn report_foreign(s: &Served<'_, '_>, attached: &Attached, owner: &Listener<'_>, found: &mut Vec<Diagnostic>) {
    let problem = format!(
        "{} gets no connection for {}: its names belong to listener {}",
        attached.stream.name, attached.hostname, owner.name
    );
    let remedy = "attach the route to that listener";
    found.push(
        s.gateway
            .finding(Severity::Warning, s.listener.field.as_str(), problem, remedy),
    );
}
