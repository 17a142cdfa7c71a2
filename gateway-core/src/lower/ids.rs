//! Names to dense ids that outlive a revision.
//!
//! Laws: a name keeps its id for as long as it is configured. The id of a name that left is kept from use for
//! [`QUARANTINE_REVISIONS`] revisions, so that a stream, a counter or a balancer that still holds it never means
//! another thing; a name that comes back within that time gets its old id. Ids are given lowest first, so the tables
//! indexed by them stay as short as what is configured (plus the quarantine).

use crate::ids::{EndpointId, ListenerId, RuleId, ServiceId};
use crate::ir::{Bind, Ir, Plane, RuleName, ServiceName};
use gateway_common::abi::VIPS_MAX;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// Revisions for which the id of a name that left is not given to another name.
pub const QUARANTINE_REVISIONS: u64 = 256;

/// Ids of one kind in quarantine at once; beyond it the oldest are free early. Bounds the tables against a
/// configuration that replaces everything again and again.
pub const QUARANTINE_IDS_MAX: usize = 65_536;

/// Services, endpoints and rules of one configuration, each.
pub const NAMES_MAX: u32 = 1 << 20;

/// The ids of everything an [`Ir`] names.
#[derive(Clone, Debug)]
pub struct Ids {
    listeners: Dense<Bind>,
    services: Dense<ServiceName>,
    endpoints: Dense<(ServiceName, SocketAddr)>,
    rules: Dense<RuleName>,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            listeners: Dense::new(VIPS_MAX),
            services: Dense::new(NAMES_MAX),
            endpoints: Dense::new(NAMES_MAX),
            rules: Dense::new(NAMES_MAX),
        }
    }
}

impl Ids {
    /// Gives an id to every name of the next revision. Returns the binds for which none is left (more than
    /// [`VIPS_MAX`] listeners); they are not served.
    pub fn assign(&mut self, ir: &Ir) -> Vec<Bind> {
        let mut rules: Vec<&RuleName> = Vec::new();
        for listener in ir.listeners.values() {
            rules.extend(listener.plane.stream_rules().iter().map(|r| &r.name));
            match &listener.plane {
                Plane::Kernel(_) | Plane::Splice(_) => {}
                Plane::Http(http) => {
                    let hosts = http.scopes.iter().flat_map(|scope| scope.hosts.iter());
                    let guards = http.scopes.iter().flat_map(|scope| &scope.guards);
                    rules.extend(hosts.flat_map(|host| &host.rules).chain(guards).map(|r| &r.name));
                }
            }
        }
        let services = ir.services.values();
        let endpoints: Vec<_> = services
            .flat_map(|service| service.endpoints.iter().map(|e| (service.name.clone(), e.addr)))
            .collect();
        self.rules.assign(rules);
        self.services.assign(ir.services.keys().collect());
        self.endpoints.assign(endpoints.iter().collect());
        self.listeners.assign(ir.listeners.keys().collect())
    }

    /// Gives `bind` this id before the first [`Ids::assign`]: how a new process goes on with the ids in pinned maps.
    /// False if the id is taken or out of range; the bind then gets a new one.
    pub fn adopt_listener(&mut self, bind: Bind, id: ListenerId) -> bool {
        self.listeners.adopt(bind, id.0)
    }

    /// `None`: not configured, or there was no id left for it. Always below [`VIPS_MAX`].
    pub fn listener(&self, bind: &Bind) -> Option<ListenerId> {
        self.listeners.get(bind).map(ListenerId)
    }

    pub fn service(&self, name: &ServiceName) -> Option<ServiceId> {
        self.services.get(name).map(ServiceId)
    }

    pub fn endpoint(&self, service: &ServiceName, addr: SocketAddr) -> Option<EndpointId> {
        self.endpoints.get(&(service.clone(), addr)).map(EndpointId)
    }

    pub fn rule(&self, name: &RuleName) -> Option<RuleId> {
        self.rules.get(name).map(RuleId)
    }
}

/// Dense ids `0..bound` for keys of one kind.
#[derive(Clone, Debug)]
pub struct Dense<K> {
    bound: u32,
    /// Calls of `assign` so far.
    revision: u64,
    live: BTreeMap<K, u32>,
    /// Key, id and revision in which it left; oldest first.
    quarantine: VecDeque<(K, u32, u64)>,
    /// Below `next` and given to nobody.
    free: BTreeSet<u32>,
    /// Never given so far, nor any above.
    next: u32,
}

impl<K: Ord + Clone> Dense<K> {
    pub fn new(bound: u32) -> Self {
        Self {
            bound,
            revision: 0,
            live: BTreeMap::new(),
            quarantine: VecDeque::new(),
            free: BTreeSet::new(),
            next: 0,
        }
    }

    pub fn get(&self, key: &K) -> Option<u32> {
        self.live.get(key).copied()
    }

    /// Makes exactly `keys` live, in any order and any number of times; returns those for which no id is left.
    pub fn assign(&mut self, mut keys: Vec<&K>) -> Vec<K> {
        self.revision += 1;
        keys.sort();
        keys.dedup();
        // Both are in order: one walk along the two.
        let mut wanted = keys.into_iter().peekable();
        let mut new: BTreeSet<&K> = BTreeSet::new();
        let (revision, quarantine) = (self.revision, &mut self.quarantine);
        self.live.retain(|key, id| {
            while let Some(before) = wanted.next_if(|next| *next < key) {
                new.insert(before);
            }
            let stays = wanted.next_if(|next| *next == key).is_some();
            if !stays {
                quarantine.push_back((key.clone(), *id, revision));
            }
            stays
        });
        new.extend(wanted);
        if !new.is_empty() {
            self.bring_back(&new);
        }
        self.release();
        let mut left_out = Vec::new();
        for key in new {
            if self.live.contains_key(key) {
                continue;
            }
            match self.take() {
                Some(id) => drop(self.live.insert(key.clone(), id)),
                None => left_out.push(key.clone()),
            }
        }
        left_out
    }

    /// Makes `key` live with this id, if neither has a meaning yet.
    pub fn adopt(&mut self, key: K, id: u32) -> bool {
        let unused = id >= self.next || self.free.contains(&id);
        if id >= self.bound || !unused || self.live.contains_key(&key) {
            return false;
        }
        self.free.extend(self.next..id);
        self.next = self.next.max(id + 1);
        self.free.remove(&id);
        self.live.insert(key, id);
        true
    }

    /// Keys in quarantine that are wanted again get their old ids.
    fn bring_back(&mut self, new: &BTreeSet<&K>) {
        let live = &mut self.live;
        self.quarantine.retain(|(key, id, _)| {
            let back = new.contains(key);
            if back {
                live.insert(key.clone(), *id);
            }
            !back
        });
    }

    /// Ends the quarantine of ids whose time is over.
    fn release(&mut self) {
        while let Some((_, id, left)) = self.quarantine.front() {
            if self.quarantine.len() <= QUARANTINE_IDS_MAX && self.revision - left < QUARANTINE_REVISIONS {
                break;
            }
            self.free.insert(*id);
            self.quarantine.pop_front();
        }
    }

    /// The lowest free id, else a new one, else the one that is in quarantine for longest: better an id that some
    /// old counter may still name than a listener that is not served.
    fn take(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop_first() {
            return Some(id);
        }
        if self.next < self.bound {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.quarantine.pop_front().map(|(_, id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(dense: &mut Dense<char>, keys: &str) -> Vec<char> {
        let keys: Vec<char> = keys.chars().collect();
        dense.assign(keys.iter().collect())
    }

    #[test]
    fn a_name_keeps_its_id_while_others_come_and_go() {
        let mut dense = Dense::new(10);
        assign(&mut dense, "bc");
        let (b, c) = (dense.get(&'b'), dense.get(&'c'));
        assert_eq!((b, c), (Some(0), Some(1)));
        assign(&mut dense, "abcd");
        assign(&mut dense, "c");
        assert_eq!(dense.get(&'c'), c);
        assert_eq!(dense.get(&'b'), None);
    }

    #[test]
    fn an_id_is_not_given_to_another_name_within_the_quarantine() {
        let mut dense = Dense::new(10_000);
        assign(&mut dense, "a");
        assign(&mut dense, "b");
        for _ in 1..QUARANTINE_REVISIONS {
            assert_eq!(dense.get(&'b'), Some(1));
            assign(&mut dense, "b");
        }
        assign(&mut dense, "bc");
        assert_eq!(
            dense.get(&'c'),
            Some(0),
            "its time is over, so the lowest id is given again"
        );
    }

    #[test]
    fn a_name_that_comes_back_in_time_gets_its_old_id() {
        let mut dense = Dense::new(10);
        assign(&mut dense, "ab");
        assign(&mut dense, "b");
        assign(&mut dense, "bcd");
        assign(&mut dense, "abcd");
        assert_eq!(dense.get(&'a'), Some(0));
        assert_eq!((dense.get(&'c'), dense.get(&'d')), (Some(2), Some(3)));
    }

    #[test]
    fn no_two_live_names_share_an_id_and_ids_stay_in_range_when_there_are_too_many() {
        let mut dense = Dense::new(3);
        assert_eq!(assign(&mut dense, "abcde"), ['d', 'e']);
        let ids: BTreeSet<_> = "abc".chars().filter_map(|k| dense.get(&k)).collect();
        assert_eq!(ids, BTreeSet::from([0, 1, 2]));
        assert_eq!(assign(&mut dense, "cde"), [], "ids in quarantine are better than none");
        assert_eq!(dense.get(&'c'), Some(2));
    }

    #[test]
    fn an_adopted_id_stays_and_the_gap_below_it_is_used() {
        let mut dense = Dense::new(10);
        assert!(dense.adopt('x', 2));
        assert!(!dense.adopt('y', 2), "taken");
        assert!(!dense.adopt('y', 10), "out of range");
        assert!(dense.adopt('y', 0));
        assign(&mut dense, "xyz");
        assert_eq!(
            (dense.get(&'x'), dense.get(&'y'), dense.get(&'z')),
            (Some(2), Some(0), Some(1))
        );
    }

    #[test]
    fn the_quarantine_is_bounded() {
        let mut dense: Dense<u32> = Dense::new(NAMES_MAX);
        for revision in 0..8 {
            let keys: Vec<u32> = (revision * 20_000..(revision + 1) * 20_000).collect();
            dense.assign(keys.iter().collect());
        }
        assert!(dense.quarantine.len() <= QUARANTINE_IDS_MAX);
        assert!(dense.next as usize <= QUARANTINE_IDS_MAX + 3 * 20_000, "{}", dense.next);
    }
}
