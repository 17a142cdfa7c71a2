//! Programs attached by pinned links: to interfaces (TCX or XDP, ingress) and to the network namespace (`sk_lookup`).
//! Before Linux 6.6 a clsact filter stands for TCX.
//!
//! A link that an earlier process left is adopted: its program is replaced in place, so that no packet and no
//! connection sees a gap. An interface that carries someone else's XDP program is refused, with its name.

use super::bpf::{self, AttachType, Attached, Target};
use super::error::KernelError;
use super::pins::Pins;
use crate::sys::interfaces::Interface;
use crate::sys::netlink::Netlink;
use crate::sys::{classifier, netns};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// `XDP_FLAGS_SKB_MODE`.
const XDP_GENERIC: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
const XDP_NATIVE: u32 = 1 << 2;

/// Where a program goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hook {
    Tcx(u32),
    /// The same program as a filter of the clsact qdisc: before Linux 6.6. It has no link; the program is pinned, as
    /// the mark of where it is.
    Clsact(u32),
    Xdp(u32),
    Lookup,
}

impl Hook {
    /// Name of the link's pin.
    pub fn pin_name(self) -> String {
        match self {
            Hook::Tcx(index) => format!("tcx_{index}"),
            Hook::Clsact(index) => format!("clsact_{index}"),
            Hook::Xdp(index) => format!("xdp_{index}"),
            Hook::Lookup => "sk_lookup".into(),
        }
    }

    /// The hook a pin is of; `None` for maps.
    pub fn of_pin(name: &str) -> Option<Self> {
        if name == "sk_lookup" {
            return Some(Hook::Lookup);
        }
        let (kind, index) = name.split_once('_')?;
        let index = index.parse().ok()?;
        match kind {
            "tcx" => Some(Hook::Tcx(index)),
            "clsact" => Some(Hook::Clsact(index)),
            "xdp" => Some(Hook::Xdp(index)),
            _ => None,
        }
    }
}

/// How a program came to be attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Attached,
    /// The device has no native XDP; the kernel runs the program on socket buffers.
    AttachedGeneric,
    /// A link was there; its program was replaced.
    Adopted,
}

/// Attaches `program` by a pinned link, or puts it into the link that is there.
pub fn attach(
    pins: &Pins,
    hook: Hook,
    program: BorrowedFd<'_>,
    on: Option<&Interface>,
) -> Result<(OwnedFd, How), KernelError> {
    let name = hook.pin_name();
    let what = describe(hook, on);
    let failed = |doing: &str, error: &io::Error| KernelError::from_io(&format!("{doing} {what}"), error);
    if let Hook::Clsact(index) = hook {
        let how = put_filter(pins, &name, index, program).map_err(|error| failed("put a filter on", &error))?;
        let program = program
            .try_clone_to_owned()
            .map_err(|error| failed("put a filter on", &error))?;
        return Ok((program, how));
    }
    if let Some(link) = pins
        .get(&name)
        .map_err(|error| failed("open the pinned link of", &error))?
    {
        if still_on(link.as_fd(), hook).map_err(|error| failed("look at the link of", &error))? {
            bpf::replace_program(link.as_fd(), program).map_err(|error| failed("replace the program of", &error))?;
            return Ok((link, How::Adopted));
        }
        // Its interface or namespace is gone; another one has the number now.
        pins.unpin(&name)
            .map_err(|error| failed("unpin the dead link of", &error))?;
    }
    let (link, how) = match hook {
        Hook::Tcx(index) => {
            let link = bpf::link(program, Target::Interface(index), AttachType::TcxIngress, 0);
            (link.map_err(|error| tcx_failed(&what, &error))?, How::Attached)
        }
        Hook::Xdp(index) => attach_xdp(program, index, on, &what)?,
        // Has no link, and is done above.
        Hook::Clsact(_) => return Err(KernelError::Failed(format!("no link goes to {what}"))),
        Hook::Lookup => {
            let namespace = netns::current().map_err(|error| failed("open", &error))?;
            let link = bpf::link(program, Target::Namespace(namespace.as_fd()), AttachType::SkLookup, 0);
            (link.map_err(|error| failed("attach to", &error))?, How::Attached)
        }
    };
    pins.pin(link.as_fd(), &name)
        .map_err(|error| failed("pin the link of", &error))?;
    Ok((link, how))
}

/// Detaches and unpins.
pub fn detach(pins: &Pins, hook: Hook) -> io::Result<()> {
    if let Hook::Clsact(index) = hook {
        classifier::remove(&mut Netlink::open()?, index)?;
        return pins.unpin(&hook.pin_name());
    }
    if let Some(link) = pins.get(&hook.pin_name())? {
        // A link whose interface or namespace is gone is detached already.
        if let Err(error) = bpf::detach(link.as_fd())
            && !matches!(
                error.raw_os_error(),
                Some(libc::ENOLINK | libc::EOPNOTSUPP | libc::EINVAL)
            )
        {
            return Err(error);
        }
    }
    pins.unpin(&hook.pin_name())
}

/// The filter goes in before the pin that marks it, so that a mark always has its filter, or had one.
fn put_filter(pins: &Pins, name: &str, index: u32, program: BorrowedFd<'_>) -> io::Result<How> {
    let mut netlink = Netlink::open()?;
    let was = classifier::find(&mut netlink, index).unwrap_or(None).is_some();
    classifier::put(&mut netlink, index, program)?;
    pins.unpin(name)?;
    pins.pin(program, name)?;
    Ok(if was { How::Adopted } else { How::Attached })
}

fn attach_xdp(
    program: BorrowedFd<'_>,
    index: u32,
    on: Option<&Interface>,
    what: &str,
) -> Result<(OwnedFd, How), KernelError> {
    if let Some(foreign) = on.and_then(|interface| interface.xdp) {
        let name = super::inspect::program_name(foreign).unwrap_or_else(|| "unknown".into());
        return Err(KernelError::Unavailable(format!(
            "{what} carries the XDP program `{name}` (id {foreign}) of someone else: detach it, or use --datapath tcx"
        )));
    }
    match bpf::link(program, Target::Interface(index), AttachType::Xdp, XDP_NATIVE) {
        Ok(link) => Ok((link, How::Attached)),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            Err(KernelError::from_io(&format!("attach to {what}"), &error))
        }
        Err(native) => match bpf::link(program, Target::Interface(index), AttachType::Xdp, XDP_GENERIC) {
            Ok(link) => Ok((link, How::AttachedGeneric)),
            Err(error) => Err(KernelError::from_io(
                &format!("attach to {what} (native: {native}; generic)"),
                &error,
            )),
        },
    }
}

fn tcx_failed(what: &str, error: &io::Error) -> KernelError {
    match error.raw_os_error() {
        Some(libc::EINVAL) => KernelError::Unavailable(format!("attach to {what}: TCX links need Linux 6.6")),
        _ => KernelError::from_io(&format!("attach to {what}"), error),
    }
}

fn still_on(link: BorrowedFd<'_>, hook: Hook) -> io::Result<bool> {
    let (_, attached) = bpf::link_facts(link)?;
    Ok(match (hook, attached) {
        (Hook::Tcx(index), Attached::Tcx { interface }) | (Hook::Xdp(index), Attached::Xdp { interface }) => {
            index == interface
        }
        (Hook::Lookup, Attached::Namespace { inode }) => u64::from(inode) == netns::current()?.metadata()?.ino(),
        (Hook::Tcx(_) | Hook::Clsact(_) | Hook::Xdp(_) | Hook::Lookup, _) => false,
    })
}

fn describe(hook: Hook, on: Option<&Interface>) -> String {
    let name = |index: u32| on.map_or_else(|| format!("interface {index}"), |interface| interface.name.clone());
    match hook {
        Hook::Tcx(index) | Hook::Clsact(index) | Hook::Xdp(index) => name(index),
        Hook::Lookup => "the network namespace".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_found_again_by_its_pin() {
        for hook in [Hook::Tcx(3), Hook::Clsact(4), Hook::Xdp(17), Hook::Lookup] {
            assert_eq!(Hook::of_pin(&hook.pin_name()), Some(hook));
        }
        assert_eq!(Hook::of_pin("VIPS"), None);
        assert_eq!(Hook::of_pin("tcx_x"), None);
    }
}
