//! Network interfaces, as rtnetlink lists them.

use super::netlink::{Attributes, Message, Netlink, word};
use std::io;

const IFINFOMSG: usize = 16;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
/// `ETH_ALEN`.
const MAC_BYTES: usize = 6;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// `veth`, `bridge`, ...; empty for a device that is no rtnetlink kind (a NIC, the loopback).
    pub kind: String,
    pub mac: [u8; MAC_BYTES],
    pub mtu: u32,
    pub up: bool,
    pub loopback: bool,
    /// Frames begin with an Ethernet header (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// Program id of an attached XDP program.
    pub xdp: Option<u32>,
}

/// Every interface of this network namespace, in order of index.
pub fn list(netlink: &mut Netlink) -> io::Result<Vec<Interface>> {
    let answers = netlink.ask(&Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; IFINFOMSG]))?;
    let links = answers.iter().filter(|answer| answer.kind == libc::RTM_NEWLINK);
    let mut interfaces: Vec<Interface> = links.filter_map(parse).collect();
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

/// The interface of that name.
pub fn by_name(netlink: &mut Netlink, name: &str) -> io::Result<Option<Interface>> {
    Ok(list(netlink)?.into_iter().find(|interface| interface.name == name))
}

fn parse(answer: &super::netlink::Answer) -> Option<Interface> {
    let body = &answer.body;
    let flags = word(body.get(8..)?)?;
    let mut interface = Interface {
        index: word(body.get(4..)?)?,
        up: flags & libc::IFF_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        ethernet: u16::from_ne_bytes(body.get(2..4)?.try_into().ok()?) == libc::ARPHRD_ETHER,
        ..Interface::default()
    };
    for (kind, value) in answer.attributes(IFINFOMSG) {
        match kind {
            libc::IFLA_IFNAME => interface.name = text(value),
            libc::IFLA_MTU => interface.mtu = word(value)?,
            libc::IFLA_ADDRESS => {
                if let Ok(mac) = value.try_into() {
                    interface.mac = mac;
                }
            }
            libc::IFLA_LINKINFO => {
                let kind = Attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                interface.kind = kind.map(|(_, value)| text(value)).unwrap_or_default();
            }
            libc::IFLA_XDP => interface.xdp = xdp_program(value),
            _ => {}
        }
    }
    Some(interface)
}

fn xdp_program(nested: &[u8]) -> Option<u32> {
    let mut attached = 0;
    let mut program = None;
    for (kind, value) in Attributes(nested) {
        match kind {
            IFLA_XDP_ATTACHED => attached = *value.first()?,
            IFLA_XDP_PROG_ID => program = word(value),
            _ => {}
        }
    }
    program.filter(|_| attached != 0)
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there_and_is_no_ethernet() {
        let interfaces = list(&mut Netlink::open().unwrap()).unwrap();
        let lo = interfaces.iter().find(|interface| interface.name == "lo").unwrap();
        assert_eq!((lo.index, lo.loopback, lo.ethernet), (1, true, false));
    }

    #[test]
    fn an_unknown_name_is_none() {
        assert_eq!(by_name(&mut Netlink::open().unwrap(), "no-such-if0").unwrap(), None);
    }
}
