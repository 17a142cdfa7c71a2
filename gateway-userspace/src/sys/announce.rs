//! Telling the neighbours that an address is here now: a gratuitous ARP request (RFC 5227 section 3) or an unsolicited
//! neighbour advertisement (RFC 4861 section 7.2.6) on every Ethernet interface whose subnet holds the address.
//!
//! Without it a neighbour goes on sending to whoever had the address before until its entry expires. Needs CAP_NET_RAW;
//! nothing else of the gateway does.

use super::addresses::{self, InterfaceAddress};
use super::interfaces::{self, Interface};
use super::netlink::Netlink;
use gateway_common::checksum;
use ipnet::IpNet;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const ETHERNET: usize = 14;
const MAC_BROADCAST: [u8; 6] = [0xff; 6];
/// Of the multicast address of all nodes (RFC 2464 section 7).
const MAC_ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Flag O: what neighbours have in their tables is replaced.
const OVERRIDE: u8 = 0x20;
const OPTION_TARGET_MAC: u8 = 2;

/// Announces `addr`; how many interfaces it was said on (none: nobody on a link of ours takes it for a neighbour).
pub fn announce(netlink: &mut Netlink, addr: IpAddr) -> io::Result<usize> {
    let known = addresses::list(netlink)?;
    let links = interfaces::list(netlink)?;
    let on: Vec<&Interface> = links
        .iter()
        .filter(|link| link.up && link.ethernet && !link.loopback && on_link(&known, link.index, addr))
        .collect();
    for link in &on {
        let (ethertype, frame) = match addr {
            IpAddr::V4(addr) => (libc::ETH_P_ARP, gratuitous_arp(link.mac, addr)),
            IpAddr::V6(addr) => (libc::ETH_P_IPV6, unsolicited_advertisement(link.mac, addr)),
        };
        send(link.index, ethertype as u16, &frame)?;
    }
    Ok(on.len())
}

/// Whether hosts on the link of an interface take `addr` for a neighbour. Addresses that stand alone make no link.
fn on_link(known: &[InterfaceAddress], interface: u32, addr: IpAddr) -> bool {
    known.iter().filter(|it| it.interface == interface).any(|it| {
        IpNet::new(it.addr, it.prefix).is_ok_and(|net| net.prefix_len() < net.max_prefix_len() && net.contains(&addr))
    })
}

fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + 72);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

fn gratuitous_arp(mac: [u8; 6], addr: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(MAC_BROADCAST, mac, libc::ETH_P_ARP as u16);
    // Ethernet, IPv4, their lengths, request.
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&addr.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&addr.octets());
    frame
}

fn unsolicited_advertisement(mac: [u8; 6], addr: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend_from_slice(&addr.octets());
    message.extend_from_slice(&[OPTION_TARGET_MAC, 1]);
    message.extend_from_slice(&mac);
    let length = message.len() as u16;
    let mut pseudo = Vec::with_capacity(72);
    pseudo.extend_from_slice(&addr.octets());
    pseudo.extend_from_slice(&ALL_NODES.octets());
    pseudo.extend_from_slice(&u32::from(length).to_be_bytes());
    pseudo.extend_from_slice(&[0, 0, 0, ICMPV6]);
    pseudo.extend_from_slice(&message);
    let sum: u64 = pseudo
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    message[2..4].copy_from_slice(&(!checksum::fold16(sum)).to_be_bytes());

    let mut frame = ethernet(MAC_ALL_NODES, mac, libc::ETH_P_IPV6 as u16);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    // Receivers drop it with any other hop limit.
    frame.extend_from_slice(&[ICMPV6, 255]);
    frame.extend_from_slice(&addr.octets());
    frame.extend_from_slice(&ALL_NODES.octets());
    frame.extend_from_slice(&message);
    frame
}

fn send(interface: u32, ethertype: u16, frame: &[u8]) -> io::Result<()> {
    // SAFETY: no pointers go in; the descriptor is checked and owned by nobody else.
    let socket = unsafe {
        let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(raw)
    };
    // SAFETY: sockaddr_ll is plain old data, for which zero is a value.
    let mut to: libc::sockaddr_ll = unsafe { zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = ethertype.to_be();
    to.sll_ifindex = interface as i32;
    to.sll_halen = 6;
    // SAFETY: both pointers are to values that live until the call returns, with their own lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    match sent {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn a_gratuitous_arp_request_asks_for_the_address_it_comes_from() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(198, 18, 0, 10));
        let expected = "ffffffffffff0200000000070806000108000604000102000000000\
                        7c612000a000000000000c612000a";
        assert_eq!(hex(&frame), expected);
    }

    #[test]
    fn an_unsolicited_advertisement_goes_to_all_nodes_with_a_checksum_that_holds() {
        let addr: Ipv6Addr = "2001:2::a".parse().unwrap();
        let frame = unsolicited_advertisement(MAC, addr);
        assert_eq!(frame.len(), ETHERNET + 40 + 32);
        assert_eq!((&frame[..6], frame[20], frame[21]), (&MAC_ALL_NODES[..], ICMPV6, 255));
        assert_eq!(frame[54..60], [136, 0, frame[56], frame[57], 0x20, 0]);
        assert_eq!(frame[78..86], [2, 1, 2, 0, 0, 0, 0, 7]);
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58], &frame[54..]].concat();
        let words = pseudo
            .chunks(2)
            .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])));
        assert_eq!(checksum::fold16(words.sum()), 0xffff);
    }

    #[test]
    fn only_subnets_make_neighbours() {
        let known = |addr: &str, prefix| InterfaceAddress {
            interface: 2,
            addr: addr.parse().unwrap(),
            prefix,
            ours: false,
        };
        let known = [known("198.18.0.1", 24), known("198.18.9.9", 32)];
        for (addr, expected) in [
            ("198.18.0.10", true),
            ("198.18.9.9", false),
            ("198.18.1.1", false),
            ("2001:2::a", false),
        ] {
            assert_eq!(on_link(&known, 2, addr.parse().unwrap()), expected, "{addr}");
        }
        assert!(!on_link(&known, 3, "198.18.0.10".parse().unwrap()));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
