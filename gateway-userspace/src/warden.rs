//! Everything privileged, as a short typed list of requests. Whoever serves it parses no network bytes and no
//! configuration; nobody else attaches, pins, routes or opens privileged sockets.
//!
//! It runs in the gateway's own process; the list is what a process of its own will serve over a socket pair.

use crate::kernel::attach::{self, Hook, How};
use crate::kernel::bpf;
use crate::kernel::error::KernelError;
use crate::kernel::load::Programs;
use crate::kernel::pins::Pins;
use crate::sys::interfaces::Interface;
use crate::sys::netlink::Netlink;
use crate::sys::sockets::{self, Sharing};
use crate::sys::{addresses, announce, interfaces, routes};
use gateway_common::abi::Ring;
use std::collections::BTreeMap;
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

/// What may be asked.
#[derive(Debug)]
pub enum Request {
    /// Attach the program of this hook, or take over the link that an earlier process left.
    Attach(Hook),
    /// Detach and unpin it.
    Detach(Hook),
    /// Make an address local. Nothing happens to one that is already.
    MakeLocal(IpAddr),
    /// Undo that. Nothing happens to an address that someone else made local.
    UndoLocal(IpAddr),
    /// Tell the neighbours once more that an address is here.
    Announce(IpAddr),
    /// Open a listening socket.
    OpenListener(SocketAddr, Sharing),
    /// Make an empty ring.
    CreateRing,
    /// Detach everything, undo every address, remove every pin.
    RemoveAll,
    /// Leave pins and addresses to a successor: until [`Request::TakeBack`] nothing else may be asked.
    Yield,
    /// Put our programs back where they were, after a successor failed.
    TakeBack,
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    Done,
    Attached(How),
    Socket(TcpListener),
    Map(OwnedFd),
    Failed(KernelError),
}

/// How an address came to be local.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Local {
    /// Someone else's doing: never undone.
    Already,
    /// A local route of ours.
    Route,
    /// A /128 of ours on this interface, for an IPv6 address that is on-link there.
    OnLink(u32),
}

/// Serves the requests.
pub struct Warden {
    /// None with the datapath `off`: then only addresses and sockets can be asked for.
    kernel: Option<(Pins, Programs)>,
    netlink: Netlink,
    links: BTreeMap<Hook, OwnedFd>,
    locals: BTreeMap<IpAddr, Local>,
}

impl Warden {
    pub fn new(kernel: Option<(Pins, Programs)>) -> Result<Self, KernelError> {
        let netlink = Netlink::open().map_err(|error| KernelError::from_io("open a netlink socket", &error))?;
        Ok(Self {
            kernel,
            netlink,
            links: BTreeMap::new(),
            locals: BTreeMap::new(),
        })
    }

    /// The one door.
    pub fn handle(&mut self, request: Request) -> Answer {
        let done = |result: io::Result<()>, doing: String| match result {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed(KernelError::from_io(&doing, &error)),
        };
        match request {
            Request::Attach(hook) => match self.attach(hook) {
                Ok(how) => Answer::Attached(how),
                Err(error) => Answer::Failed(error),
            },
            Request::Detach(hook) => done(self.detach(hook), format!("detach {}", hook.pin_name())),
            Request::MakeLocal(addr) => done(self.make_local(addr), format!("make {addr} local")),
            Request::UndoLocal(addr) => done(self.undo_local(addr), format!("make {addr} not local")),
            Request::Announce(addr) => done(self.announce(addr), format!("announce {addr} to the neighbours")),
            Request::OpenListener(addr, sharing) => match sockets::listener(addr, sharing) {
                Ok(socket) => Answer::Socket(socket),
                Err(error) => Answer::Failed(KernelError::from_io(&format!("listen on {addr}"), &error)),
            },
            Request::CreateRing => match bpf::create_array(size_of::<Ring>() as u32, 1) {
                Ok(map) => Answer::Map(map),
                Err(error) => Answer::Failed(KernelError::from_io("make a ring", &error)),
            },
            Request::RemoveAll => done(self.remove_all(), "remove what was attached".into()),
            Request::Yield => {
                if let Some((pins, _)) = &mut self.kernel {
                    pins.yield_to_successor();
                }
                Answer::Done
            }
            Request::TakeBack => match self.take_back() {
                Ok(()) => Answer::Done,
                Err(error) => Answer::Failed(error),
            },
        }
    }

    /// Hooks that are attached.
    pub fn hooks(&self) -> impl Iterator<Item = Hook> + '_ {
        self.links.keys().copied()
    }

    /// Ids of the loaded programs.
    pub fn program_ids(&self) -> Vec<u32> {
        let Some((_, programs)) = &self.kernel else {
            return Vec::new();
        };
        let loaded = [&programs.tcx, &programs.xdp, &programs.lookup];
        let ids = loaded
            .into_iter()
            .flatten()
            .map(|program| bpf::program_id(program.as_fd()));
        ids.filter_map(Result::ok).collect()
    }

    /// Hooks that an earlier process left pinned.
    pub fn pinned_hooks(&self) -> io::Result<Vec<Hook>> {
        let Some((pins, _)) = &self.kernel else {
            return Ok(Vec::new());
        };
        Ok(pins.names()?.iter().filter_map(|name| Hook::of_pin(name)).collect())
    }

    /// Takes over the addresses that an earlier process of ours made local.
    pub fn adopt_locals(&mut self) -> io::Result<Vec<IpAddr>> {
        for addr in routes::our_locals(&mut self.netlink)? {
            self.locals.insert(addr, Local::Route);
        }
        for found in addresses::list(&mut self.netlink)?
            .into_iter()
            .filter(|found| found.ours)
        {
            self.locals.insert(found.addr, Local::OnLink(found.interface));
        }
        Ok(self.locals.keys().copied().collect())
    }

    fn attach(&mut self, hook: Hook) -> Result<How, KernelError> {
        let on = match hook {
            Hook::Tcx(index) | Hook::Clsact(index) | Hook::Xdp(index) => self.interface(index)?,
            Hook::Lookup => None,
        };
        let Some((pins, programs)) = &self.kernel else {
            return Err(KernelError::Failed("no eBPF object is loaded".into()));
        };
        let program = match hook {
            Hook::Tcx(_) | Hook::Clsact(_) => &programs.tcx,
            Hook::Xdp(_) => &programs.xdp,
            Hook::Lookup => &programs.lookup,
        };
        let Some(program) = program else {
            return Err(KernelError::Failed(format!(
                "the program of {} is not loaded",
                hook.pin_name()
            )));
        };
        let (link, how) = attach::attach(pins, hook, program.as_fd(), on.as_ref())?;
        self.links.insert(hook, link);
        Ok(how)
    }

    /// The successor may have put other programs into the links, removed some, and made other addresses local.
    fn take_back(&mut self) -> Result<(), KernelError> {
        if let Some((pins, _)) = &mut self.kernel {
            pins.take_back()?;
        }
        let hooks: Vec<Hook> = self.hooks().collect();
        for hook in hooks {
            self.links.remove(&hook);
            self.attach(hook)?;
        }
        let theirs = |local: &Local| *local == Local::Already;
        self.locals.retain(|_, local| theirs(local));
        self.adopt_locals()
            .map_err(|error| KernelError::from_io("list local addresses", &error))?;
        Ok(())
    }

    fn detach(&mut self, hook: Hook) -> io::Result<()> {
        self.links.remove(&hook);
        match &self.kernel {
            Some((pins, _)) => attach::detach(pins, hook),
            None => Ok(()),
        }
    }

    fn interface(&mut self, index: u32) -> Result<Option<Interface>, KernelError> {
        let all = interfaces::list(&mut self.netlink);
        let all = all.map_err(|error| KernelError::from_io("list the interfaces", &error))?;
        Ok(all.into_iter().find(|interface| interface.index == index))
    }

    fn make_local(&mut self, addr: IpAddr) -> io::Result<()> {
        if self.locals.contains_key(&addr) {
            return Ok(());
        }
        let route = routes::lookup(&mut self.netlink, addr)?;
        let how = match (route, addr) {
            (Some(route), _) if route.local => {
                // Perhaps an earlier process of ours, that nothing else is left of.
                let on_link = addresses::list(&mut self.netlink)?
                    .into_iter()
                    .find(|found| found.ours && found.addr == addr);
                if routes::our_locals(&mut self.netlink)?.contains(&addr) {
                    Local::Route
                } else {
                    on_link.map_or(Local::Already, |found| Local::OnLink(found.interface))
                }
            }
            // Neighbour discovery asks the interface, not the routing table.
            (Some(route), IpAddr::V6(v6)) if route.gateway.is_none() && route.interface > 1 => {
                addresses::add_nodad(&mut self.netlink, route.interface, v6)?;
                Local::OnLink(route.interface)
            }
            (Some(_) | None, _) => {
                routes::add_local(&mut self.netlink, addr)?;
                Local::Route
            }
        };
        self.locals.insert(addr, how);
        Ok(())
    }

    /// Only what we made local: the host's own addresses are nobody's news.
    fn announce(&mut self, addr: IpAddr) -> io::Result<()> {
        match self.locals.get(&addr) {
            Some(Local::Route | Local::OnLink(_)) => announce::announce(&mut self.netlink, addr).map(drop),
            Some(Local::Already) | None => Ok(()),
        }
    }

    fn undo_local(&mut self, addr: IpAddr) -> io::Result<()> {
        match (self.locals.get(&addr), addr) {
            (Some(Local::Route), _) => routes::remove_local(&mut self.netlink, addr)?,
            (Some(Local::OnLink(interface)), IpAddr::V6(v6)) => addresses::remove(&mut self.netlink, *interface, v6)?,
            (Some(Local::OnLink(_) | Local::Already) | None, _) => {}
        }
        self.locals.remove(&addr);
        Ok(())
    }

    /// Goes on past a failure, so that as much as can be is removed; returns the first.
    fn remove_all(&mut self) -> io::Result<()> {
        let mut first = Ok(());
        let mut note = |result: io::Result<()>| {
            if first.is_ok() {
                first = result;
            }
        };
        let hooks: Vec<Hook> = self
            .links
            .keys()
            .copied()
            .chain(self.pinned_hooks().unwrap_or_default())
            .collect();
        for hook in hooks {
            note(self.detach(hook));
        }
        let locals: Vec<IpAddr> = self.locals.keys().copied().collect();
        for addr in locals {
            note(self.undo_local(addr));
        }
        if let Some((pins, _)) = &self.kernel {
            note(pins.remove_all());
        }
        first
    }
}
