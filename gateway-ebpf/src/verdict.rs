//! From an outcome to what the kernel does. The only place that acts and the only one that counts: every packet
//! (every lookup) changes exactly one cell of `COUNTERS`.

use crate::maps::{COUNTERS, LISTENERS};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, sk_action, xdp_action};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh};
use aya_ebpf::programs::{SkLookupContext, XdpContext};
use gateway_common::abi::{Action, Reason, counter_index};
use gateway_common::datapath::{Outcome, Steer};

#[inline(always)]
fn count(vip: u32, reason: Reason) {
    if let Some(cell) = COUNTERS.get_ptr_mut(counter_index(vip, reason)) {
        // SAFETY: this CPU's own cell; a program is not interrupted by itself on the same CPU.
        unsafe { *cell += 1 };
    }
}

/// XDP: back out of the same interface, or redirected to another.
#[inline(always)]
pub fn xdp(ctx: &XdpContext, outcome: Outcome) -> u32 {
    count(outcome.vip, outcome.reason);
    match outcome.reason.action() {
        Action::Send if outcome.ifindex == ctx.ingress_ifindex() as u32 => xdp_action::XDP_TX,
        // SAFETY: takes plain numbers; an interface that is gone drops the frame.
        Action::Send => unsafe { bpf_redirect(outcome.ifindex, 0) as u32 },
        Action::Pass | Action::Assign => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

/// TCX: the kernel finds the neighbour and writes the link header. Passing leaves the packet to the next program, which
/// may be someone else's.
#[inline(always)]
pub fn tc(outcome: Outcome) -> i32 {
    count(outcome.vip, outcome.reason);
    match outcome.reason.action() {
        // SAFETY: takes plain numbers and no parameters; an interface that is gone drops the packet.
        Action::Send => unsafe { bpf_redirect_neigh(outcome.ifindex, core::ptr::null_mut(), 0, 0) as i32 },
        Action::Pass | Action::Assign => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
    }
}

/// `sk_lookup`: the worker's socket, or nobody's.
#[inline(always)]
pub fn socket(ctx: &SkLookupContext, steer: Steer) -> u32 {
    let reason = match steer.reason {
        Reason::Assigned if LISTENERS.redirect_sk_lookup(ctx, steer.listener, 0).is_err() => Reason::NoSocket,
        reason => reason,
    };
    count(steer.vip, reason);
    match reason.action() {
        Action::Drop => sk_action::SK_DROP,
        Action::Send | Action::Pass | Action::Assign => sk_action::SK_PASS,
    }
}
