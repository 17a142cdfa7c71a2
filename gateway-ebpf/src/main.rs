//! The kernel programs. Each is a thin entry: the packet and the maps as `gateway-common` wants them, its decision,
//! and one verdict.
//!
//! * `xdp_ingress`: XDP, with fragments (jumbo frames). Rewrites Ethernet addresses itself.
//! * `tc_ingress`: TCX (or clsact) ingress. Keeps GSO; the kernel resolves neighbours.
//! * `steer`: `sk_lookup`. Gives connections to VIPs to a worker's listening socket.
//!
//! Tested on Linux 6.1, 6.12 and 6.18 (`cargo xtask vm`).
#![no_std]
#![no_main]

mod maps;
mod packet;
mod tables;
mod verdict;

use aya_ebpf::macros::{classifier, sk_lookup, xdp};
use aya_ebpf::programs::{SkLookupContext, TcContext, XdpContext};
use gateway_common::datapath;
use packet::{Frame, Skb, Socket};
use tables::Maps;

#[xdp(frags)]
pub fn xdp_ingress(ctx: XdpContext) -> u32 {
    let outcome = datapath::packet(&mut Frame::new(&ctx), &Maps);
    verdict::xdp(&ctx, outcome)
}

#[classifier]
pub fn tc_ingress(ctx: TcContext) -> i32 {
    let outcome = match Skb::new(&ctx) {
        Ok(mut skb) => datapath::packet(&mut skb, &Maps),
        Err(outcome) => outcome,
    };
    verdict::tc(outcome)
}

#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    let socket = Socket::new(&ctx);
    verdict::socket(&ctx, datapath::lookup(&Maps, &socket.key, socket.ipv6, socket.dice))
}

/// Some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing here panics: the verifier would refuse the loop.
    loop {}
}
