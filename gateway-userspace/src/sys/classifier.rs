//! A program on the ingress of an interface before Linux 6.6: a `bpf` filter of the `clsact` qdisc
//! (`tc filter add dev IF ingress bpf direct-action`).
//!
//! Unlike a link it lives until it is deleted. Ours has a priority and a handle of its own, and a name.

use super::netlink::{Answer, Attributes, Message, Netlink};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const TCMSG: usize = 20;
/// `TC_H_CLSACT`, and its ingress (`TC_H_MIN_INGRESS`).
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
/// Handle of the qdisc itself.
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// Ours among the filters; an unlikely choice for anyone else.
const PRIORITY: u32 = 83;
const HANDLE: u32 = 83;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// `TCA_BPF_FLAG_ACT_DIRECT`: the program's return value is the verdict.
const ACT_DIRECT: u32 = 1;
const NAME: &[u8] = b"sluice\0";

/// Puts the program on the interface's ingress, in place of an earlier one of ours; no packet sees a gap.
pub fn put(netlink: &mut Netlink, interface: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let qdisc = tcmsg(interface, CLSACT_HANDLE, CLSACT, 0);
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let qdisc = Message::new(libc::RTM_NEWQDISC, flags, &qdisc).attribute(libc::TCA_KIND, b"clsact\0");
    netlink.ask_unless(&qdisc, &[libc::EEXIST])?;
    let options = Message::attributes()
        .word(TCA_BPF_FD, program.as_raw_fd() as u32)
        .attribute(TCA_BPF_NAME, NAME)
        .word(TCA_BPF_FLAGS, ACT_DIRECT);
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let filter = Message::new(libc::RTM_NEWTFILTER, flags, &filter(interface))
        .attribute(libc::TCA_KIND, b"bpf\0")
        .nest(libc::TCA_OPTIONS, &options);
    netlink.ask(&filter).map(drop)
}

/// Takes it away. Nothing happens if it, or the interface, is gone. The qdisc stays: others may use it.
pub fn remove(netlink: &mut Netlink, interface: u32) -> io::Result<()> {
    let request = Message::new(libc::RTM_DELTFILTER, 0, &filter(interface)).attribute(libc::TCA_KIND, b"bpf\0");
    netlink.ask_unless(&request, &[libc::ENOENT, libc::ENODEV, libc::EINVAL])
}

/// Id of our program on the interface's ingress, if it is there.
pub fn find(netlink: &mut Netlink, interface: u32) -> io::Result<Option<u32>> {
    let request = tcmsg(interface, 0, CLSACT_INGRESS, 0);
    let answers = netlink.ask(&Message::new(libc::RTM_GETTFILTER, libc::NLM_F_DUMP, &request))?;
    Ok(answers.iter().find_map(our_program))
}

fn our_program(answer: &Answer) -> Option<u32> {
    let (_, options) = answer.attributes(TCMSG).find(|(kind, _)| *kind == libc::TCA_OPTIONS)?;
    let value = |wanted| {
        Attributes(options)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    if value(TCA_BPF_NAME)? != NAME {
        return None;
    }
    super::netlink::word(value(TCA_BPF_ID)?)
}

fn filter(interface: u32) -> [u8; TCMSG] {
    let every_protocol = u32::from((libc::ETH_P_ALL as u16).to_be());
    tcmsg(interface, HANDLE, CLSACT_INGRESS, PRIORITY << 16 | every_protocol)
}

/// `struct tcmsg`: family and padding, interface, handle, parent, info.
fn tcmsg(interface: u32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG] {
    let mut fixed = [0; TCMSG];
    for (at, word) in [(4, interface), (8, handle), (12, parent), (16, info)] {
        fixed[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    fixed
}
