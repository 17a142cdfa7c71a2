//! Routes: the way to an address, and addresses made local.
//!
//! A local route of ours carries the protocol number [`OUR_PROTOCOL`], so that a later run, or `doctor --clean`, knows
//! it from anyone else's.

use super::netlink::{Answer, Message, Netlink, address, bits, family, word};
use std::io;
use std::net::IpAddr;

/// `rtm_protocol` (and `IFA_PROTO`) of what we add; unassigned in `/etc/iproute2/rt_protos`.
pub const OUR_PROTOCOL: u8 = 83;

const RTMSG: usize = 12;

/// Where packets to an address go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the outgoing interface; 0 if none.
    pub interface: u32,
    /// Next hop; `None` when the address is on-link.
    pub gateway: Option<IpAddr>,
    /// The address is one of this host's.
    pub local: bool,
}

/// The route the kernel would take to `addr`; `None` when there is none.
pub fn lookup(netlink: &mut Netlink, addr: IpAddr) -> io::Result<Option<Route>> {
    let request = Message::new(libc::RTM_GETROUTE, 0, &rtmsg(addr, 0, 0, 0, 0)).address(libc::RTA_DST, addr);
    let answers = match netlink.ask(&request) {
        Ok(answers) => answers,
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES)
            ) =>
        {
            return Ok(None);
        }
        // An unreachable, prohibit or blackhole route answers with EINVAL.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(answers
        .iter()
        .find(|answer| answer.kind == libc::RTM_NEWROUTE)
        .and_then(parse))
}

/// Makes `addr` local: `ip route add local ADDR dev lo`. Nothing happens if it is already.
pub fn add_local(netlink: &mut Netlink, addr: IpAddr) -> io::Result<()> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    netlink.ask_unless(&local_route(libc::RTM_NEWROUTE, flags, addr), &[libc::EEXIST])
}

/// Takes a local route of ours away again. Nothing happens if it is gone.
pub fn remove_local(netlink: &mut Netlink, addr: IpAddr) -> io::Result<()> {
    netlink.ask_unless(&local_route(libc::RTM_DELROUTE, 0, addr), &[libc::ESRCH])
}

/// Addresses with a local route of ours.
pub fn our_locals(netlink: &mut Netlink) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let mut fixed = [0; RTMSG];
        fixed[0] = family;
        for answer in netlink.ask(&Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &fixed))? {
            let ours = answer.body.get(5) == Some(&OUR_PROTOCOL) && answer.body.get(7) == Some(&libc::RTN_LOCAL);
            let destination = answer.attributes(RTMSG).find(|(kind, _)| *kind == libc::RTA_DST);
            if let (true, Some((_, value))) = (ours, destination) {
                found.extend(address(value));
            }
        }
    }
    Ok(found)
}

fn local_route(kind: u16, flags: i32, addr: IpAddr) -> Message {
    let fixed = rtmsg(
        addr,
        libc::RT_TABLE_LOCAL,
        OUR_PROTOCOL,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
    );
    Message::new(kind, flags, &fixed)
        .address(libc::RTA_DST, addr)
        .word(libc::RTA_OIF, 1)
}

fn rtmsg(addr: IpAddr, table: u8, protocol: u8, scope: u8, kind: u8) -> [u8; RTMSG] {
    let mut fixed = [0; RTMSG];
    (fixed[0], fixed[1]) = (family(addr), bits(addr));
    (fixed[4], fixed[5], fixed[6], fixed[7]) = (table, protocol, scope, kind);
    fixed
}

fn parse(answer: &Answer) -> Option<Route> {
    let local = *answer.body.get(7)? == libc::RTN_LOCAL;
    let mut route = Route {
        interface: 0,
        gateway: None,
        local,
    };
    for (kind, value) in answer.attributes(RTMSG) {
        match kind {
            libc::RTA_OIF => route.interface = word(value)?,
            libc::RTA_GATEWAY => route.gateway = address(value),
            // A next hop of the other family: two bytes of family, then the address.
            RTA_VIA => route.gateway = value.get(2..).and_then(address),
            _ => {}
        }
    }
    Some(route)
}

const RTA_VIA: u16 = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_local() {
        let route = lookup(&mut Netlink::open().unwrap(), "127.0.0.1".parse().unwrap())
            .unwrap()
            .unwrap();
        assert!(route.local);
        assert_eq!(route.gateway, None);
    }
}
