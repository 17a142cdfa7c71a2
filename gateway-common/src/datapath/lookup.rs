//! A new connection that no program forwarded: is its destination a VIP, and which worker takes it.
//!
//! Hand-off VIPs and kernel VIPs alike: a kernel VIP has a relay behind the same lookup, for packets that met no
//! program of ours (a process on this host, an interface that carries none).

use super::Tables;
use super::header::PROTO_UDP;
use crate::abi::{NO_VIP, Reason, VipKey, VipMode, WORKERS_MAX, binding_index};

/// What a socket lookup came to. The caller assigns the socket, and counts [`Reason::NoSocket`] if it is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Steer {
    /// Row of the counter.
    pub vip: u32,
    pub reason: Reason,
    /// Index in `LISTENERS`, where the reason is [`Reason::Assigned`].
    pub listener: u32,
}

/// The worker for a connection to `key`: of two drawn by `dice`, the one with fewer live connections.
#[inline(always)]
pub fn lookup<T: Tables>(tables: &T, key: &VipKey, ipv6: bool, dice: u32) -> Steer {
    let Some(vip) = tables.vip(key).filter(|vip| vip.mode != VipMode::Address as u32) else {
        return Steer {
            vip: NO_VIP,
            reason: Reason::NotOurs,
            listener: 0,
        };
    };
    // The workers' own sockets are bound to UDP listeners' addresses: only they can answer from the VIP's port.
    if key.proto == PROTO_UDP {
        return Steer {
            vip: vip.id,
            reason: Reason::HandOff,
            listener: 0,
        };
    }
    let workers = tables.workers();
    if workers == 0 || workers > WORKERS_MAX {
        return Steer {
            vip: vip.id,
            reason: Reason::NoSocket,
            listener: 0,
        };
    }
    let first = ((dice & 0xffff) * workers) >> 16;
    let drawn = ((dice >> 16) * workers) >> 16;
    let second = if drawn != first {
        drawn
    } else if first + 1 < workers {
        first + 1
    } else {
        0
    };
    let worker = if tables.load(second) < tables.load(first) {
        second
    } else {
        first
    };
    Steer {
        vip: vip.id,
        reason: Reason::Assigned,
        listener: binding_index(worker, ipv6),
    }
}
