//! The way to an endpoint: interface and, for XDP, link addresses. And whether its replies come back this way.

use crate::sys::interfaces::{self, Interface};
use crate::sys::netlink::Netlink;
use crate::sys::{neighbours, routes};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a batch of new endpoints may wait for its neighbours to answer.
const RESOLVE_MAX: Duration = Duration::from_millis(100);
const RESOLVE_STEP: Duration = Duration::from_millis(5);

/// The way to an endpoint as `ENDPOINTS` holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Way {
    /// 0: no route.
    pub interface: u32,
    /// Ethernet destination and source as three words; zero while unresolved, or where the kernel writes them.
    pub macs: [u32; 3],
}

/// Asks the kernel's routing and neighbour tables.
pub struct Locator {
    netlink: Netlink,
    /// Whether link addresses are needed (XDP).
    writes_link: bool,
}

impl Locator {
    pub fn new(netlink: Netlink, writes_link: bool) -> Self {
        Self { netlink, writes_link }
    }

    /// The way to `addr`. An unresolved neighbour is asked for, and known the next time.
    pub fn way_to(&mut self, addr: IpAddr) -> Way {
        let Ok(Some(route)) = routes::lookup(&mut self.netlink, addr) else {
            return Way::default();
        };
        let macs = if self.writes_link {
            self.link_addresses(route.interface, route.gateway.unwrap_or(addr))
        } else {
            None
        };
        Way {
            interface: route.interface,
            macs: macs.unwrap_or_default(),
        }
    }

    /// Whether packets can be sent that way.
    pub fn is_whole(&self, way: &Way) -> bool {
        way.interface != 0 && (!self.writes_link || way.macs != [0; 3])
    }

    /// Asks for the neighbours of all of `addrs` at once and waits a little for their answers.
    pub fn resolve(&mut self, addrs: &[SocketAddr]) {
        if !self.writes_link {
            return;
        }
        let start = Instant::now();
        while start.elapsed() < RESOLVE_MAX {
            let unresolved = addrs
                .iter()
                .filter(|addr| self.way_to(addr.ip()).macs == [0; 3])
                .count();
            if unresolved == 0 {
                return;
            }
            sleep(RESOLVE_STEP);
        }
    }

    fn link_addresses(&mut self, interface: u32, next_hop: IpAddr) -> Option<[u32; 3]> {
        let known = neighbours::lookup(&mut self.netlink, interface, next_hop).ok()?;
        // Also confirms one that is known and has grown stale.
        let _ = neighbours::resolve(&mut self.netlink, interface, next_hop);
        let own = interfaces::list(&mut self.netlink)
            .ok()?
            .into_iter()
            .find(|one| one.index == interface)?;
        Some(mac_words(known?, own.mac))
    }
}

/// Destination and source as the first twelve bytes of a frame.
fn mac_words(destination: [u8; 6], source: [u8; 6]) -> [u32; 3] {
    let [a, b, c, d, e, f] = destination;
    let [g, h, i, j, k, l] = source;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes)
}

/// Whether replies of an endpoint provably come back through an interface that carries our program.
pub fn reach(netlink: &mut Netlink, endpoint: IpAddr, carrying: &BTreeSet<u32>, declared: bool) -> Result<(), String> {
    let route = routes::lookup(netlink, endpoint).map_err(|error| format!("asking for its route failed: {error}"))?;
    let Some(route) = route else {
        return Err("there is no route to it".into());
    };
    if route.local {
        return Err("it is an address of this host, where packets meet no program on their way back".into());
    }
    if !carrying.contains(&route.interface) {
        let name = interface_name(netlink, route.interface);
        return Err(format!(
            "{name} leads to it and carries no program of ours (--interface {name})"
        ));
    }
    match route.gateway {
        Some(gateway) if !declared => Err(format!(
            "it is behind {gateway}, so its replies may take another way (--return-path gateway declares that they do not)"
        )),
        _ => Ok(()),
    }
}

fn interface_name(netlink: &mut Netlink, index: u32) -> String {
    let all: Vec<Interface> = interfaces::list(netlink).unwrap_or_default();
    all.into_iter()
        .find(|one| one.index == index)
        .map_or_else(|| format!("interface {index}"), |one| one.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_addresses_lie_as_in_a_frame() {
        let words = mac_words([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn an_address_of_this_host_is_not_reached_by_packets() {
        let answer = reach(
            &mut Netlink::open().unwrap(),
            "127.0.0.1".parse().unwrap(),
            &BTreeSet::new(),
            true,
        );
        assert!(answer.unwrap_err().contains("address of this host"));
    }
}
