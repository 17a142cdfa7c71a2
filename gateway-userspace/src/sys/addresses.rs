//! Interface addresses. The only ones we add are `nodad` /128s for IPv6 VIPs that are on-link: a local route alone
//! answers no neighbour solicitation (ARP asks the routing table, neighbour discovery asks the interface).

use super::netlink::{Message, Netlink, address, bits, family};
use super::routes::OUR_PROTOCOL;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

const IFADDRMSG: usize = 8;
/// Since Linux 5.18; older kernels ignore it, and then a leftover is found by its /128 and flags only.
const IFA_PROTO: u16 = 11;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    pub interface: u32,
    pub addr: IpAddr,
    pub prefix: u8,
    /// Added by us.
    pub ours: bool,
}

/// Every address of this network namespace.
pub fn list(netlink: &mut Netlink) -> io::Result<Vec<InterfaceAddress>> {
    let answers = netlink.ask(&Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; IFADDRMSG]))?;
    let mut found = Vec::new();
    for answer in answers.iter().filter(|answer| answer.kind == libc::RTM_NEWADDR) {
        let mut addr = None;
        let mut ours = false;
        for (kind, value) in answer.attributes(IFADDRMSG) {
            match kind {
                libc::IFA_LOCAL => addr = address(value),
                libc::IFA_ADDRESS => addr = addr.or_else(|| address(value)),
                IFA_PROTO => ours = value.first() == Some(&OUR_PROTOCOL),
                _ => {}
            }
        }
        let interface = answer.body.get(4..).and_then(super::netlink::word);
        if let (Some(addr), Some(interface), Some(prefix)) = (addr, interface, answer.body.get(1)) {
            let prefix = *prefix;
            found.push(InterfaceAddress {
                interface,
                addr,
                prefix,
                ours,
            });
        }
    }
    Ok(found)
}

/// Adds `addr`/128 to an interface: without duplicate address detection, and never a source address by itself
/// (preferred lifetime 0).
pub fn add_nodad(netlink: &mut Netlink, interface: u32, addr: Ipv6Addr) -> io::Result<()> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    // struct ifa_cacheinfo: preferred, valid, created, updated.
    let lifetimes: Vec<u8> = [0u32, u32::MAX, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let request = request(libc::RTM_NEWADDR, flags, interface, addr)
        .attribute(libc::IFA_CACHEINFO, &lifetimes)
        .attribute(IFA_PROTO, &[OUR_PROTOCOL]);
    netlink.ask_unless(&request, &[libc::EEXIST])
}

/// Takes it away again. Nothing happens if it is gone.
pub fn remove(netlink: &mut Netlink, interface: u32, addr: Ipv6Addr) -> io::Result<()> {
    netlink.ask_unless(&request(libc::RTM_DELADDR, 0, interface, addr), &[libc::EADDRNOTAVAIL])
}

fn request(kind: u16, flags: i32, interface: u32, addr: Ipv6Addr) -> Message {
    let addr = IpAddr::V6(addr);
    let mut fixed = [0; IFADDRMSG];
    (fixed[0], fixed[1], fixed[2]) = (family(addr), bits(addr), libc::IFA_F_NODAD as u8);
    fixed[4..8].copy_from_slice(&interface.to_ne_bytes());
    Message::new(kind, flags, &fixed)
        .address(libc::IFA_LOCAL, addr)
        .address(libc::IFA_ADDRESS, addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_its_address() {
        let found = list(&mut Netlink::open().unwrap()).unwrap();
        let expected: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(
            found
                .iter()
                .any(|a| a.addr == expected && a.interface == 1 && a.prefix == 8 && !a.ours)
        );
    }
}
