//! What is attached to each listener, kept from one compilation to the next: a route that joins or leaves costs what it
//! brings, and what it does not touch stays the very same.
//!
//! Law: a table is what the routes in it make, in whatever order they came and went.

use super::listener::{Attached, Met};
use super::rank::Rank;
use super::route::{Carries, Converted};
use super::shadowed;
use crate::diagnostic::Diagnostic;
use crate::objects::{Key, Objects};
use crate::plane::Wish;
use gateway_core::ir::{HostPattern, HttpRule, ListenerName, ServiceName, VirtualHost};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// As in the IR.
pub(super) type Hosts = Arc<Vec<Arc<VirtualHost>>>;

/// A listener by the place of its Gateway, and its own among that Gateway's.
pub(super) type At = (usize, usize);

/// A route at a listener.
#[derive(Clone, Debug)]
pub(super) struct Join {
    pub at: At,
    /// What hostnames of the two have in common, each once, with the route's own.
    pub hosts: Vec<(HostPattern, HostPattern)>,
}

/// What was attached to one listener.
#[derive(Clone, Debug)]
pub(super) struct Table {
    listener: ListenerName,
    /// How many routes are accepted.
    pub accepted: u32,
    hosts: BTreeMap<Met, Host>,
    streams: BTreeMap<Arc<Rank>, Vec<Attached>>,
    wishes: BTreeMap<Arc<Rank>, Vec<Wish>>,
    /// Services that its HTTP rules name.
    named: Counts<ServiceName>,
    /// Services that its routes send to.
    reached: Counts<Key>,
    made: Option<Made>,
}

/// Routes that share a hostname, oldest first.
#[derive(Clone, Debug, Default)]
struct Host {
    routes: Vec<(Arc<Rank>, Arc<Converted>)>,
    /// Until one of them changes.
    made: Option<(Arc<VirtualHost>, Vec<Diagnostic>)>,
}

/// What the routes of a table come to.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub hosts: Hosts,
    pub found: Vec<Diagnostic>,
}

impl Table {
    pub fn new(listener: ListenerName) -> Self {
        Self {
            listener,
            accepted: 0,
            hosts: BTreeMap::new(),
            streams: BTreeMap::new(),
            wishes: BTreeMap::new(),
            named: Counts::default(),
            reached: Counts::default(),
            made: None,
        }
    }

    pub fn join(&mut self, rank: &Arc<Rank>, route: &Arc<Converted>, hosts: &[(HostPattern, HostPattern)]) {
        self.accepted += u32::from(!route.verdict.all_bad());
        if !route.verdict.wishes.is_empty() {
            self.wishes.insert(Arc::clone(rank), route.verdict.wishes.clone());
        }
        route.asked.reached.iter().for_each(|key| self.reached.add(key));
        match &route.carries {
            Carries::Http(rules) => {
                rules
                    .iter()
                    .flat_map(|rule| rule.services())
                    .for_each(|name| self.named.add(name));
                for (host, own) in hosts {
                    let host = self.host(host, own);
                    if let Err(at) = host.routes.binary_search_by(|(other, _)| other.cmp(rank)) {
                        host.routes.insert(at, (Arc::clone(rank), Arc::clone(route)));
                    }
                }
            }
            Carries::Stream(stream) => {
                let attached = |(hostname, own): &(HostPattern, HostPattern)| Attached {
                    hostname: hostname.clone(),
                    own: own.clone(),
                    stream: stream.clone(),
                };
                self.streams
                    .insert(Arc::clone(rank), hosts.iter().map(attached).collect());
            }
            Carries::Nothing => {}
        }
    }

    /// Undoes [`Table::join`].
    pub fn leave(&mut self, rank: &Arc<Rank>, route: &Converted, hosts: &[(HostPattern, HostPattern)]) {
        self.accepted -= u32::from(!route.verdict.all_bad());
        self.wishes.remove(rank);
        self.streams.remove(rank);
        route.asked.reached.iter().for_each(|key| self.reached.remove(key));
        let Carries::Http(rules) = &route.carries else { return };
        rules
            .iter()
            .flat_map(|rule| rule.services())
            .for_each(|name| self.named.remove(name));
        for (hostname, own) in hosts {
            let host = self.host(hostname, own);
            host.routes.retain(|(other, _)| other != rank);
            if host.routes.is_empty() {
                self.hosts.remove(&(hostname.clone(), Reverse(own.specificity())));
            }
        }
    }

    /// A host that is about to change.
    fn host(&mut self, host: &HostPattern, own: &HostPattern) -> &mut Host {
        self.made = None;
        let host = self
            .hosts
            .entry((host.clone(), Reverse(own.specificity())))
            .or_default();
        host.made = None;
        host
    }

    /// Works out what changed. `before`: hosts of listeners that may be the same.
    pub fn make(&mut self, objects: &Objects, before: &BTreeMap<ListenerName, Hosts>) -> &Made {
        let (known, hosts) = (before.get(&self.listener), &mut self.hosts);
        self.made.get_or_insert_with(|| {
            let mut made = Made {
                hosts: Arc::default(),
                found: Vec::new(),
            };
            let all = hosts.iter_mut().map(|((hostname, _), host)| {
                let routes = &host.routes;
                let (host, found) = host.made.get_or_insert_with(|| one(objects, hostname, routes, known));
                made.found.extend(found.iter().cloned());
                Arc::clone(host)
            });
            made.hosts = Arc::new(all.collect());
            made
        })
    }

    /// What [`Table::make`] made last.
    pub fn into_hosts(self) -> Option<(ListenerName, Hosts)> {
        Some((self.listener, self.made?.hosts))
    }

    /// In order of age.
    pub fn streams(&self) -> impl Iterator<Item = &Attached> {
        self.streams.values().flatten()
    }

    pub fn wishes(&self) -> impl Iterator<Item = &Wish> {
        self.wishes.values().flatten()
    }

    pub fn named(&self) -> impl Iterator<Item = &ServiceName> {
        self.named.0.keys()
    }

    pub fn reached(&self) -> impl Iterator<Item = &Key> {
        self.reached.0.keys()
    }
}

fn one(
    objects: &Objects,
    hostname: &HostPattern,
    routes: &[(Arc<Rank>, Arc<Converted>)],
    known: Option<&Hosts>,
) -> (Arc<VirtualHost>, Vec<Diagnostic>) {
    let all = routes.iter().flat_map(|(rank, route)| {
        let rules = match &route.carries {
            Carries::Http(rules) => rules.as_slice(),
            Carries::Stream(_) | Carries::Nothing => &[],
        };
        rules.iter().map(move |rule| (rank, rule))
    });
    let ranked: Vec<(&Arc<Rank>, &Arc<HttpRule>)> = all.collect();
    let mut found = Vec::new();
    shadowed::report(objects, hostname, &ranked, &mut found);
    let rules: Vec<_> = ranked.into_iter().map(|(_, rule)| Arc::clone(rule)).collect();
    let same = known.and_then(|known| same_host(known, hostname, &rules));
    let host = same.unwrap_or_else(|| {
        let hostname = hostname.clone();
        Arc::new(VirtualHost { hostname, rules })
    });
    (host, found)
}

/// The host that had this name and the very same rules before.
fn same_host(before: &[Arc<VirtualHost>], hostname: &HostPattern, rules: &[Arc<HttpRule>]) -> Option<Arc<VirtualHost>> {
    let from = before.partition_point(|host| host.hostname < *hostname);
    let mut named = before[from..].iter().take_while(|host| host.hostname == *hostname);
    let same = |host: &&Arc<VirtualHost>| {
        let mut both = host.rules.iter().zip(rules);
        host.rules.len() == rules.len() && both.all(|(a, b)| Arc::ptr_eq(a, b))
    };
    named.find(same).cloned()
}

/// How many name it; nobody: it is not there.
#[derive(Clone, Debug)]
struct Counts<K>(BTreeMap<K, u32>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Counts<K> {
    fn add(&mut self, key: &K) {
        match self.0.get_mut(key) {
            Some(count) => *count += 1,
            None => _ = self.0.insert(key.clone(), 1),
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }
}
