//! A packet from an endpoint to a client: the source becomes the VIP again, and it goes out where the client's SYN
//! came in.
//!
//! Only a full 5-tuple that a SYN of a client made is taken: the gateway's own connections to the same endpoint, and
//! anything else it sends, pass untouched.

use super::flow::{self, Entry, Table};
use super::header::{FIN, RST, SYN};
use super::rewrite::End;
use super::{Head, Outcome, Packet, Tables};
use crate::abi::{FlowPhase, Reason, source_bit};

/// A segment or datagram whose destination is no VIP.
#[inline(always)]
pub fn reverse<P: Packet, T: Tables, const V6: bool, const L3: usize>(
    packet: &mut P,
    tables: &T,
    head: &Head<V6, L3>,
) -> Outcome {
    if !tables.source(source_bit(&head.src, head.ports as u16)) {
        return Outcome::stranger(Reason::NotOurs);
    }
    let key = head.key();
    let Some(entry) = tables.find(Table::Reverse, &key) else {
        return Outcome::stranger(Reason::NotOurs);
    };
    let (vip, ifindex, phase, seen) = entry.with(|flow| (flow.vip, flow.ifindex, flow.phase, flow.seen));
    if head.hop_limit() <= 1 {
        return Outcome::ended(vip, Reason::HopLimit);
    }
    // A SYN-ACK proves nothing about the client, so it neither lifts nor prolongs the entry.
    if head.flags & SYN == 0 {
        let now = tables.now();
        if seen != now {
            entry.set_seen(now);
        }
        if phase == FlowPhase::Opening as u8 && head.flags & RST == 0 {
            entry.set_phase(FlowPhase::Established);
        }
        if phase == FlowPhase::Asked as u8 {
            entry.set_phase(FlowPhase::Answered);
        }
    }
    if head.flags & (FIN | RST) != 0 {
        let twin = entry.with(|flow| key.twin_of_reverse(flow));
        flow::mark(&entry, head.flags, false);
        if let Some(there) = tables.find(Table::Flows, &twin)
            && there.with(|flow| flow.addr == key.src && flow.port_be == key.src_port_be())
        {
            flow::mark(&there, head.flags, false);
        }
    }
    let written = entry.with(|flow| {
        if P::WRITES_LINK {
            packet.put(0, flow.macs)?;
        }
        head.translate(packet, End::Source, &flow.addr, flow.port_be)
    });
    match written {
        Some(()) => Outcome {
            vip,
            reason: Reason::Returned,
            ifindex,
        },
        None => Outcome::ended(vip, Reason::Truncated),
    }
}
