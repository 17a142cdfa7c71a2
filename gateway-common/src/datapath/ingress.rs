//! A packet to a VIP: handed to the stack, or translated and forwarded to an endpoint.
//!
//! A settled slot needs no table: every live flow of it is on `current`. The flow table is consulted for segments that
//! open or end a connection, for every segment while the slot is unsettled, and for every datagram. Order matters: nothing is recorded
//! or written before the packet is certain to be sent.

use super::flow;
use super::header::{FIN, RST, SYN};
use super::rewrite::End;
use super::{Head, Outcome, Packet, Tables, slot_of};
use crate::abi::{Reason, Vip};

/// A segment or datagram to `vip`.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables, const V6: bool, const L3: usize>(
    packet: &mut P,
    tables: &T,
    head: &Head<V6, L3>,
    vip: Vip,
) -> Outcome {
    if !vip.forwards() {
        return Outcome::ended(vip.id, Reason::HandOff);
    }
    match forward(packet, tables, head, vip) {
        Ok(ifindex) => Outcome {
            vip: vip.id,
            reason: Reason::Forwarded,
            ifindex,
        },
        Err(reason) => Outcome::ended(vip.id, reason),
    }
}

#[inline(always)]
fn forward<P: Packet, T: Tables, const V6: bool, const L3: usize>(
    packet: &mut P,
    tables: &T,
    head: &Head<V6, L3>,
    vip: Vip,
) -> Result<u32, Reason> {
    if head.hop_limit() <= 1 {
        return Err(Reason::HopLimit);
    }
    let (vip, mode) = (vip.id, vip.mode);
    let slot = tables.slot(vip, slot_of(mode, &head.key())).ok_or(Reason::NoEndpoint)?;
    let (index, opening) = if head.is_udp() {
        flow::datagram(packet, tables, head, vip, slot)?
    } else if slot.current == slot.previous && head.flags & (SYN | FIN | RST) == 0 {
        (slot.current, None)
    } else {
        flow::consult(packet, tables, head, vip, slot)?
    };
    tables
        .endpoint(index, |endpoint| {
            if !endpoint.takes_flows() || endpoint.ifindex == 0 {
                return Err(Reason::NoEndpoint);
            }
            if P::WRITES_LINK && !endpoint.has_macs() {
                return Err(Reason::NoNeighbour);
            }
            if let Some(opening) = opening {
                flow::open(tables, &head.key(), &opening, index, endpoint)?;
            }
            if P::WRITES_LINK {
                packet.put(0, endpoint.macs).ok_or(Reason::Truncated)?;
            }
            head.translate(packet, End::Destination, &endpoint.addr, endpoint.port_be)
                .ok_or(Reason::Truncated)?;
            Ok(endpoint.ifindex)
        })
        .unwrap_or(Err(Reason::NoEndpoint))
}
