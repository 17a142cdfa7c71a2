//! Link-layer addresses of neighbours: what XDP writes into a frame itself.

use super::netlink::{Message, Netlink, address, family, word};
use std::io;
use std::net::IpAddr;

const NDMSG: usize = 12;
/// Resolve it as if a packet were waiting (`ip neigh add ... use`).
const NTF_USE: u8 = 1;

/// The link-layer address of `addr` on an interface, if it is known and not known to have failed.
pub fn lookup(netlink: &mut Netlink, interface: u32, addr: IpAddr) -> io::Result<Option<[u8; 6]>> {
    let request = Message::new(libc::RTM_GETNEIGH, 0, &ndmsg(interface, addr, 0)).address(libc::NDA_DST, addr);
    let answers = match netlink.ask(&request) {
        Ok(answers) => answers,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let usable = libc::NUD_REACHABLE | libc::NUD_STALE | libc::NUD_DELAY | libc::NUD_PROBE | libc::NUD_PERMANENT;
    for answer in answers.iter().filter(|answer| answer.kind == libc::RTM_NEWNEIGH) {
        let index = answer.body.get(4..).and_then(word);
        let state = answer
            .body
            .get(8..10)
            .map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]));
        let of = answer.attributes(NDMSG).find(|(kind, _)| *kind == libc::NDA_DST);
        let mac = answer.attributes(NDMSG).find(|(kind, _)| *kind == libc::NDA_LLADDR);
        let same = index == Some(interface) && of.and_then(|(_, value)| address(value)) == Some(addr);
        if let (true, true, Some((_, value))) = (same, state & usable != 0, mac) {
            return Ok(value.try_into().ok());
        }
    }
    Ok(None)
}

/// Asks the kernel to resolve (or confirm) `addr` on an interface. The answer is in [`lookup`] soon after.
pub fn resolve(netlink: &mut Netlink, interface: u32, addr: IpAddr) -> io::Result<()> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let fixed = ndmsg(interface, addr, NTF_USE);
    let request = Message::new(libc::RTM_NEWNEIGH, flags, &fixed).address(libc::NDA_DST, addr);
    netlink.ask(&request).map(drop)
}

fn ndmsg(interface: u32, addr: IpAddr, flags: u8) -> [u8; NDMSG] {
    let mut fixed = [0; NDMSG];
    fixed[0] = family(addr);
    fixed[4..8].copy_from_slice(&interface.to_ne_bytes());
    fixed[10] = flags;
    fixed
}
