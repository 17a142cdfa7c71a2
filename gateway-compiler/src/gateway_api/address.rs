//! Where Gateways are reached: what they ask for, one address an entry, and one address of each pool for those that ask
//! for none.
//!
//! No two Gateways get one address of a pool. An address that a Gateway has stays its own: what its status says is given
//! out before anything new.

use super::Work;
use super::condition::Problem;
use super::routability::{self, Asked, CLUSTER};
use crate::Settings;
use crate::diagnostic::Severity;
use crate::hash::fnv;
use crate::objects::{Subject, kinds};
use crate::status::reason;
use ipnet::IpNet;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most addresses of one Gateway (Gateway API).
const ADDRESSES_MAX: usize = 16;
/// Most addresses of a pool that are tried before it counts as used up.
const POOL_PROBES_MAX: u64 = 65_536;

/// A Gateway, or a Service of type LoadBalancer, that wants addresses.
pub(super) struct Wanting<'o> {
    pub subject: Subject<'o>,
    /// Where it asks: a list of addresses, or one field.
    pub field: Field,
    /// What it asks for.
    pub asks: Cow<'o, [kinds::Address]>,
    /// What it has by its status.
    pub has: Cow<'o, [kinds::Address]>,
    /// Where its addresses come from.
    pub pools: Vec<IpNet>,
    /// What it has of the cluster, by index in `asks`.
    pub cluster: Vec<(usize, Asked)>,
}

/// A place for an address of a pool.
struct Slot {
    /// Any of them will do, the first is best.
    pools: Vec<IpNet>,
    routability: &'static str,
    /// Index in `asks`.
    entry: Option<usize>,
}

/// Where addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// `spec.addresses` of a Gateway.
    Addresses,
    One(&'static str),
}

impl Field {
    fn of(self, index: usize, part: &str) -> String {
        match self {
            Field::Addresses => format!("spec.addresses[{index}].{part}"),
            Field::One(field) => field.to_owned(),
        }
    }
}

impl Wanting<'_> {
    /// No address is asked for, or one without a value.
    fn wants_of_pool(&self) -> bool {
        self.asks.is_empty() || !self.slots().is_empty()
    }

    fn slots(&self) -> Vec<Slot> {
        if self.asks.is_empty() {
            let of_pool = |pool: &IpNet| Slot {
                pools: vec![*pool],
                routability: "",
                entry: None,
            };
            return self.pools.iter().map(of_pool).collect();
        }
        let mut slots: Vec<Slot> = Vec::new();
        for (entry, spec) in self.asks.iter().enumerate().take(ADDRESSES_MAX) {
            let Some(routability) = routability::of_pool(spec.routability.as_deref()) else {
                continue;
            };
            if !spec.value.is_empty() || unserved(spec).is_some() {
                continue;
            }
            // Two of them are of two pools, where there are two.
            let mut pools = self.pools.clone();
            pools.rotate_left(slots.len() % self.pools.len().max(1));
            slots.push(Slot {
                pools,
                routability,
                entry: Some(entry),
            });
        }
        slots
    }
}

/// What it got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    /// `None` is every address of the host. Empty: nowhere.
    pub addresses: Vec<Option<IpAddr>>,
    /// Of those that are more, or are asked to be called more, than an address of a pool.
    pub routability: BTreeMap<IpAddr, &'static str>,
    /// An address of a type that is not served: the Gateway cannot be accepted.
    pub unsupported: Option<Problem>,
    /// Why the Gateway cannot be programmed.
    pub unplaced: Option<Problem>,
    /// What it has not of all it asked for.
    pub unassigned: Vec<String>,
}

/// Gives every Gateway its addresses; the result is in the order of `all`.
pub(super) fn place(work: &mut Work<'_>, all: &[Wanting<'_>]) -> Vec<Placed> {
    let mut by_age: Vec<usize> = (0..all.len()).collect();
    by_age.sort_by(|a, b| all[*a].subject.age().cmp(&all[*b].subject.age()));
    let mut placed = vec![Placed::default(); all.len()];
    let mut taken = Taken::default();
    for index in &by_age {
        let gateway = &all[*index];
        for (addr, _) in held(gateway) {
            taken.reserve(addr, gateway.subject);
        }
    }
    for index in &by_age {
        asked(work, &all[*index], &mut taken, &mut placed[*index]);
    }
    let mut left: Vec<Vec<Slot>> = all.iter().map(|_| Vec::new()).collect();
    for index in &by_age {
        let gateway = &all[*index];
        if !gateway.wants_of_pool() {
            continue;
        }
        for slot in gateway.slots() {
            let mine = held(gateway).find(|(addr, routability)| {
                slot.pools.iter().any(|pool| is_usable(pool, addr))
                    && *routability == Some(slot.routability)
                    && taken.is_of(addr, gateway.subject)
                    && !placed[*index].addresses.contains(&Some(*addr))
            });
            match mine {
                Some((addr, _)) => taken.give(addr, slot.routability, gateway.subject, &mut placed[*index]),
                None => left[*index].push(slot),
            }
        }
    }
    // What is new goes by name, not by age: it stays when an older Gateway goes, even if nothing remembers it.
    for (index, gateway) in all.iter().enumerate().filter(|(_, it)| it.wants_of_pool()) {
        let id = gateway.subject.id;
        left[index].retain(|slot| {
            let mut picks = slot.pools.iter().map(|pool| taken.pick(pool, &id.namespace, &id.name));
            let Some(addr) = picks.find_map(|addr| addr) else {
                return true;
            };
            taken.give(addr, slot.routability, gateway.subject, &mut placed[index]);
            false
        });
        finish(work, gateway, &left[index], &mut placed[index]);
    }
    for (one, gateway) in placed.iter_mut().zip(all) {
        if one.addresses.is_empty() && !one.unassigned.is_empty() && !gateway.asks.is_empty() {
            one.unplaced.get_or_insert(Problem {
                reason: reason::ADDRESS_NOT_ASSIGNED,
                message: one.unassigned.join("; "),
            });
        }
        one.addresses.sort_unstable();
        one.addresses.dedup();
    }
    placed
}

/// What a Gateway has by its status, as far as it still asks for it, and what it is called there.
fn held(gateway: &Wanting<'_>) -> impl Iterator<Item = (IpAddr, Option<&'static str>)> {
    let read = |text: &str| Some(text.parse::<IpAddr>().ok()?.to_canonical());
    let asks = move |addr: &IpAddr| {
        let of_pool = gateway.wants_of_pool() && gateway.pools.iter().any(|pool| is_usable(pool, addr));
        let mut specs = gateway.asks.iter();
        of_pool || specs.any(|spec| read(&spec.value).as_ref() == Some(addr))
    };
    let said = gateway.has.iter().take(ADDRESSES_MAX);
    said.filter_map(move |it| Some((read(&it.value)?, routability::of_pool(it.routability.as_deref()))))
        .filter(move |(addr, _)| asks(addr))
}

/// Why no address of this sort is to be had: the reason, the part of it, the sentence and the remedy.
fn unserved(address: &kinds::Address) -> Option<(&'static str, &'static str, String, &'static str)> {
    let kind = address.kind.as_deref().unwrap_or("IPAddress");
    if kind != "IPAddress" {
        let message = format!("an address of type {kind} is not served");
        return Some((reason::UNSUPPORTED_ADDRESS, "type", message, "use type IPAddress"));
    }
    None
}

/// A Gateway that wanted one of a pool and has none, or has one of some pools only. `left`: what was not to be had.
fn finish(work: &mut Work<'_>, gateway: &Wanting<'_>, left: &[Slot], placed: &mut Placed) {
    if gateway.pools.is_empty() && gateway.asks.is_empty() {
        placed.addresses.push(None);
        return;
    }
    for (index, slot) in left.iter().enumerate() {
        let (message, remedy) = match &slot.pools[..] {
            [] => (
                "there is no pool to assign an address from".to_owned(),
                "write an address, or give --address-pool",
            ),
            [pool] => (
                format!("the address pool {pool} is used up"),
                "give a larger --address-pool",
            ),
            _ => (
                "every address pool is used up".to_owned(),
                "give a larger --address-pool",
            ),
        };
        // That of one pool is said of none of the others.
        if index == 0 {
            let field = slot
                .entry
                .map_or("spec".to_owned(), |entry| gateway.field.of(entry, "value"));
            let finding = gateway
                .subject
                .finding(Severity::Error, field, message.as_str(), remedy);
            work.found.push(finding);
        }
        match slot.entry {
            Some(entry) => placed.unassigned.push(format!("spec.addresses[{entry}]: {message}")),
            None if placed.addresses.is_empty() => {
                placed.unassigned.push(message.clone());
                placed.unplaced.get_or_insert(Problem {
                    reason: reason::ADDRESS_NOT_ASSIGNED,
                    message,
                });
            }
            None => {}
        }
    }
}

/// The addresses a Gateway names, and those of the cluster.
fn asked(work: &mut Work<'_>, gateway: &Wanting<'_>, taken: &mut Taken, placed: &mut Placed) {
    let mut miss = |placed: &mut Placed, severity, index: usize, part: &str, message: &str, remedy: &str| {
        let field = gateway.field.of(index, part);
        work.found
            .push(gateway.subject.finding(severity, field, message, remedy));
        placed.unassigned.push(format!("spec.addresses[{index}]: {message}"));
    };
    for (index, spec) in gateway.asks.iter().enumerate().take(ADDRESSES_MAX) {
        if let Some((reason, part, message, remedy)) = unserved(spec) {
            miss(placed, Severity::Error, index, part, &message, remedy);
            placed.unsupported.get_or_insert(Problem { reason, message });
            continue;
        }
        let scope = spec.routability.as_deref();
        if scope == Some(CLUSTER) {
            match gateway.cluster.iter().find(|(entry, _)| *entry == index) {
                Some((_, Ok(addr))) => taken.give(*addr, CLUSTER, gateway.subject, placed),
                Some((_, Err(message))) => {
                    let remedy = "see to it that the gateway runs in the cluster and may write Services";
                    miss(placed, Severity::Warning, index, "routability", message, remedy);
                }
                None => {
                    let message = format!("{:?} is no address, or is named twice", spec.value);
                    miss(
                        placed,
                        Severity::Error,
                        index,
                        "value",
                        &message,
                        "write another one, or none",
                    );
                }
            }
            continue;
        }
        let Some(routability) = routability::of_pool(scope) else {
            let message = format!(
                "an address of routability {} is not to be had",
                scope.unwrap_or_default()
            );
            miss(
                placed,
                Severity::Error,
                index,
                "routability",
                &message,
                "use Cluster, or leave it out",
            );
            continue;
        };
        if spec.value.is_empty() {
            continue;
        }
        match usable(work.settings, gateway, taken, &spec.value) {
            Ok(addr) => taken.give(addr, routability, gateway.subject, placed),
            Err((message, remedy)) => {
                miss(placed, Severity::Error, index, "value", &message, remedy);
                placed.unplaced.get_or_insert(Problem {
                    reason: reason::ADDRESS_NOT_USABLE,
                    message,
                });
            }
        }
    }
}

fn usable(
    settings: &Settings,
    gateway: &Wanting<'_>,
    taken: &Taken,
    value: &str,
) -> Result<IpAddr, (String, &'static str)> {
    let Ok(addr) = value.parse::<IpAddr>().map(|addr| addr.to_canonical()) else {
        return Err((format!("{value:?} is no IP address"), "write an IPv4 or IPv6 address"));
    };
    if addr.is_unspecified() || addr.is_multicast() {
        let remedy = "name one address, or none for all of the host";
        return Err((format!("{addr} cannot be an address of a Gateway"), remedy));
    }
    // Where there is no pool nothing says what may be had.
    if settings.any_address || gateway.pools.is_empty() {
        return Ok(addr);
    }
    if !gateway.pools.iter().any(|pool| is_usable(pool, &addr)) {
        return Err((
            format!("{addr} is in no address pool of this Gateway"),
            "name an address of a pool, or none, or enlarge the pool",
        ));
    }
    match taken.0.get(&addr) {
        Some(owner) if !taken.is_of(&addr, gateway.subject) => Err((
            format!("{addr} is in use by {owner}"),
            "name another address of the pool, or none",
        )),
        _ => Ok(addr),
    }
}

/// Addresses that are given out, and to whom.
#[derive(Default)]
struct Taken(BTreeMap<IpAddr, String>);

impl Taken {
    fn is_free(&self, addr: &IpAddr) -> bool {
        !self.0.contains_key(addr)
    }

    fn is_of(&self, addr: &IpAddr, owner: Subject<'_>) -> bool {
        self.0.get(addr).is_some_and(|it| *it == owner.id.to_string())
    }

    fn reserve(&mut self, addr: IpAddr, to: Subject<'_>) {
        self.0.entry(addr).or_insert_with(|| to.id.to_string());
    }

    fn give(&mut self, addr: IpAddr, routability: &'static str, to: Subject<'_>, placed: &mut Placed) {
        self.reserve(addr, to);
        placed.addresses.push(Some(addr));
        if !routability.is_empty() {
            placed.routability.insert(addr, routability);
        }
    }

    /// A free address of a pool, by a hash of the name, so that it stays when others come and go.
    fn pick(&self, pool: &IpNet, namespace: &str, name: &str) -> Option<IpAddr> {
        let usable = usable_count(pool);
        let start = fnv(format!("{namespace}/{name}").as_bytes());
        let mut candidates = (0..usable.min(POOL_PROBES_MAX)).map(|probe| nth(pool, (start % usable + probe) % usable));
        candidates.find(|addr| self.is_free(addr))
    }
}

/// Whether an address of a pool can be a VIP.
fn is_usable(pool: &IpNet, addr: &IpAddr) -> bool {
    let edge = match pool {
        IpNet::V4(net) if net.prefix_len() < 31 => [IpAddr::V4(net.network()), IpAddr::V4(net.broadcast())],
        IpNet::V6(net) if net.prefix_len() < 128 => [IpAddr::V6(net.network()); 2],
        _ => return pool.contains(addr),
    };
    pool.contains(addr) && !edge.contains(addr)
}

/// How many addresses of a pool can be a VIP: not the network's own and not IPv4 broadcast.
fn usable_count(pool: &IpNet) -> u64 {
    let bits = u32::from(pool.max_prefix_len() - pool.prefix_len());
    match (pool, bits) {
        (_, 0) => 1,
        (IpNet::V4(_), 1) => 2,
        (IpNet::V4(_), bits) => (1 << bits) - 2,
        (IpNet::V6(_), bits) => (1 << bits.min(62)) - 1,
    }
}

fn nth(pool: &IpNet, index: u64) -> IpAddr {
    let first = u128::from(pool.max_prefix_len() - pool.prefix_len() > u8::from(matches!(pool, IpNet::V4(_))));
    match pool.network() {
        IpAddr::V4(network) => {
            let offset = u32::try_from(u128::from(index) + first).unwrap_or(0);
            IpAddr::V4(u32::from(network).wrapping_add(offset).into())
        }
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).wrapping_add(u128::from(index) + first).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(pool: &str, names: &[&str]) -> Vec<String> {
        let (pool, mut taken) = (pool.parse().unwrap(), Taken::default());
        let mut one = |name: &&str| {
            let addr = taken.pick(&pool, "x", name)?;
            taken.0.insert(addr, (*name).to_owned());
            Some(addr.to_string())
        };
        names.iter().filter_map(&mut one).collect()
    }

    #[test]
    fn a_pool_gives_every_usable_address_once() {
        let names: Vec<String> = (0..10).map(|n| format!("g{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut got = pick("192.0.2.0/29", &names);
        got.sort();
        assert_eq!(got, (1..=6).map(|n| format!("192.0.2.{n}")).collect::<Vec<_>>());
        assert_eq!(pick("192.0.2.7/32", &["a", "b"]), ["192.0.2.7"]);
        assert_eq!(pick("2001:db8::/64", &["a"]).len(), 1);
        assert!(!pick("2001:db8::/126", &["a", "b", "c", "d"]).contains(&"2001:db8::".to_owned()));
    }

    #[test]
    fn an_address_does_not_depend_on_who_else_is_there() {
        assert_eq!(pick("10.0.0.0/8", &["a", "b"])[1], pick("10.0.0.0/8", &["b"])[0]);
    }

    #[test]
    fn the_ends_of_a_pool_are_no_addresses() {
        let usable = |pool: &str, addr: &str| is_usable(&pool.parse().unwrap(), &addr.parse().unwrap());
        assert!(!usable("192.0.2.0/24", "192.0.2.255") && !usable("192.0.2.0/24", "192.0.2.0"));
        assert!(usable("192.0.2.0/31", "192.0.2.0") && usable("192.0.2.0/24", "192.0.2.254"));
        assert!(!usable("2001:db8::/64", "2001:db8::") && !usable("192.0.2.0/24", "198.51.100.1"));
    }
}
