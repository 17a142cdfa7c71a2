//! The flow tables on the packet path: which endpoint a flow is on, how an entry is made, how its end is marked.
//! The model, and why each step is safe against the others, is `docs/adr/0003-flow-state.md`.

use super::header::{FIN, PROTO_UDP, RST};
use super::{Head, Packet, Tables};
use crate::abi::{AddrWords, Endpoint, Flow, FlowKey, FlowPhase, Reason, Slot};

/// Which of the two tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Table {
    /// `FLOWS`: client to VIP.
    Flows,
    /// `REVERSE`: endpoint to client.
    Reverse,
}

/// What an insertion came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insert {
    Done,
    /// The key is there already; nothing was written.
    Exists,
    /// No room.
    Full,
}

/// An entry where it lies. Other CPUs read and write it too: fields are stored one by one, and only to a value that
/// any of them may store at any time.
pub trait Entry {
    fn with<R>(&self, read: impl FnOnce(&Flow) -> R) -> R;
    fn set_seen(&self, now: u32);
    fn set_phase(&self, phase: FlowPhase);
    /// FIN seen from the client, else from the endpoint.
    fn set_fin(&self, client: bool);
}

/// The client's side of a connection that opens now.
pub struct Opening {
    pub vip: u32,
    /// Interface its SYN came in on.
    pub ifindex: u32,
    /// Ethernet addresses of an answer.
    pub macs: [u32; 3],
    /// What `FLOWS` holds for this client now.
    pub before: Before,
}

/// What [`open`] records of the client's side.
#[inline(always)]
fn opening<P: Packet>(packet: &P, vip: u32, before: Before) -> Opening {
    Opening {
        vip,
        ifindex: packet.ifindex(),
        macs: packet.get(0).map_or([0; 3], way_back),
        before,
    }
}

/// Ethernet addresses of an answer to a frame that came with these: destination and source change places.
#[inline(always)]
const fn way_back(macs: [u32; 3]) -> [u32; 3] {
    let [a, b, c] = macs;
    [b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16]
}

/// The endpoint of a segment that opens or ends a connection or whose slot is unsettled, and what to record of it.
#[inline(always)]
pub(super) fn consult<P: Packet, T: Tables, const V6: bool, const L3: usize>(
    packet: &P,
    tables: &T,
    head: &Head<V6, L3>,
    vip: u32,
    slot: Slot,
) -> Result<(u16, Option<Opening>), Reason> {
    let key = head.key();
    let Some(entry) = tables.find(Table::Flows, &key) else {
        return match (head.opens(), slot.current == slot.previous) {
            (true, _) => Ok((slot.current, Some(opening(packet, vip, Before::NOTHING)))),
            // Its entry is gone; every live flow of this slot is on `current`, so if it lives, it is there.
            (false, true) => Ok((slot.current, None)),
            (false, false) => Err(Reason::NoFlow),
        };
    };
    let (index, closing) = entry.with(|flow| (flow.endpoint, flow.closing()));
    let lives = tables
        .endpoint(index, |endpoint| {
            entry.with(|flow| endpoint.takes_flows() && same(flow, endpoint))
        })
        .unwrap_or(false);
    if head.opens() {
        // A retransmitted SYN stays where the first went; after the end of its flow, it opens a new one.
        let index = if lives && !closing { index } else { slot.current };
        let before = entry.with(|flow| Before {
            addr: flow.addr,
            port_be: flow.port_be,
            closing,
        });
        return Ok((index, Some(opening(packet, vip, before))));
    }
    if !lives {
        return Err(Reason::NoEndpoint);
    }
    if head.flags & (FIN | RST) != 0 {
        let twin = entry.with(|flow| key.twin_of_flow(flow));
        mark(&entry, head.flags, true);
        if let Some(back) = tables.find(Table::Reverse, &twin)
            && back.with(|reverse| returns_to(reverse, &key))
        {
            mark(&back, head.flags, true);
        }
    }
    Ok((index, None))
}

/// The endpoint of a datagram, and what to record of it. No datagram opens or ends anything, so the entry alone says
/// where its flow is: there as long as that endpoint lives, else on `current`.
///
/// At most once a tick the way back is looked at too: it is stamped, lifted to *Streaming* when it was answered before,
/// and made again if it is gone.
#[inline(always)]
pub(super) fn datagram<P: Packet, T: Tables, const V6: bool, const L3: usize>(
    packet: &P,
    tables: &T,
    head: &Head<V6, L3>,
    vip: u32,
    slot: Slot,
) -> Result<(u16, Option<Opening>), Reason> {
    let key = head.key();
    let Some(entry) = tables.find(Table::Flows, &key) else {
        return Ok((slot.current, Some(opening(packet, vip, Before::NOTHING))));
    };
    let (index, seen) = entry.with(|flow| (flow.endpoint, flow.seen));
    let lives = tables
        .endpoint(index, |endpoint| {
            entry.with(|flow| endpoint.takes_datagrams() && same(flow, endpoint))
        })
        .unwrap_or(false);
    let now = tables.now();
    if lives && seen == now {
        return Ok((index, None));
    }
    let before = entry.with(|flow| Before {
        addr: flow.addr,
        port_be: flow.port_be,
        closing: false,
    });
    if !lives {
        return Ok((slot.current, Some(opening(packet, vip, before))));
    }
    let twin = entry.with(|flow| key.twin_of_flow(flow));
    entry.set_seen(now);
    if let Some(back) = tables.find(Table::Reverse, &twin)
        && back.with(|reverse| returns_to(reverse, &key))
    {
        back.set_seen(now);
        if back.with(|reverse| reverse.phase) == FlowPhase::Answered as u8 {
            back.set_phase(FlowPhase::Streaming);
        }
        return Ok((index, None));
    }
    Ok((index, Some(opening(packet, vip, before))))
}

/// Whether the index still means the endpoint that the flow was opened to.
#[inline(always)]
fn same(flow: &Flow, endpoint: &Endpoint) -> bool {
    flow.addr == endpoint.addr && flow.port_be == endpoint.port_be
}

/// Marks the end of a connection, as its FIN or RST says it.
#[inline(always)]
pub(super) fn mark(entry: &impl Entry, flags: u8, client: bool) {
    if flags & RST != 0 {
        entry.set_phase(FlowPhase::Closing);
    } else if flags & FIN != 0 {
        entry.set_fin(client);
    }
}

/// Makes both entries of a flow, `REVERSE` first: its key shows whether the endpoint knows this client address and
/// port from another VIP already. Leaves them as they are for a retransmitted SYN.
#[inline(always)]
pub(super) fn open<T: Tables>(
    tables: &T,
    key: &FlowKey,
    opening: &Opening,
    index: u16,
    endpoint: &Endpoint,
) -> Result<(), Reason> {
    let now = tables.now();
    let mut value = Flow {
        addr: key.dst,
        macs: opening.macs,
        ifindex: opening.ifindex,
        vip: opening.vip,
        seen: now,
        port_be: key.dst_port_be(),
        endpoint: index,
        phase: FlowPhase::first(key.proto == PROTO_UDP as u32) as u8,
        fin_client: 0,
        fin_endpoint: 0,
        pad: 0,
    };
    let mut twin = FlowKey {
        src: endpoint.addr,
        dst: key.src,
        ports: FlowKey::ports(endpoint.port_be, key.src_port_be()),
        proto: key.proto,
    };
    let before = &opening.before;
    let again = !before.closing && before.on(endpoint);
    let fresh = match tables.insert(Table::Reverse, &twin, &value) {
        Insert::Done => true,
        Insert::Full => return Err(Reason::TableFull),
        Insert::Exists => {
            let Some(held) = tables.find(Table::Reverse, &twin) else {
                return Err(Reason::Conflict);
            };
            let ours = held.with(|reverse| returns_to(reverse, key));
            if !ours {
                if !held.with(|reverse| {
                    reverse.closing() || reverse.gives_way(now) || reverse.expired(now, false, tables.udp_idle())
                }) {
                    return Err(Reason::Conflict);
                }
                // That flow is over: its other half goes with it, or it would name an entry that is no longer its own.
                // Unless that client has a new flow on another endpoint by now.
                let half = held.with(|reverse| twin.twin_of_reverse(reverse));
                if tables
                    .find(Table::Flows, &half)
                    .is_some_and(|entry| entry.with(|flow| same(flow, endpoint)))
                {
                    tables.remove(Table::Flows, &half);
                }
            }
            let kept = ours && again;
            if !kept && !tables.replace(Table::Reverse, &twin, &value) {
                return Err(Reason::TableFull);
            }
            false
        }
    };
    if again {
        return Ok(());
    }
    value.addr = endpoint.addr;
    value.port_be = endpoint.port_be;
    if !tables.replace(Table::Flows, key, &value) {
        if fresh {
            tables.remove(Table::Reverse, &twin);
        }
        return Err(Reason::TableFull);
    }
    // Its last flow was on another endpoint: that one's late segments are no longer for this client.
    if before.port_be != 0 && !before.on(endpoint) {
        twin.src = before.addr;
        twin.ports = FlowKey::ports(before.port_be, key.src_port_be());
        forget(tables, &twin, key);
    }
    Ok(())
}

/// What `FLOWS` held under a key before. Plain words with a value on every path, not an `Option`: an undefined word may
/// come to share a register with a pointer, which the verifier refuses.
pub struct Before {
    /// Address of the endpoint.
    addr: AddrWords,
    /// Its port; 0: there was no entry.
    port_be: u16,
    closing: bool,
}

impl Before {
    const NOTHING: Before = Before {
        addr: [0; 4],
        port_be: 0,
        closing: true,
    };

    #[inline(always)]
    fn on(&self, endpoint: &Endpoint) -> bool {
        self.addr == endpoint.addr && self.port_be == endpoint.port_be
    }
}

/// Whether an entry of `REVERSE` leads back through the VIP of `key`, a key of `FLOWS`.
#[inline(always)]
fn returns_to(reverse: &Flow, key: &FlowKey) -> bool {
    reverse.addr == key.dst && reverse.port_be == key.dst_port_be()
}

/// Removes an entry of `REVERSE` if it still belongs to the VIP of `key`.
#[inline(always)]
fn forget<T: Tables>(tables: &T, twin: &FlowKey, key: &FlowKey) {
    let ours = tables
        .find(Table::Reverse, twin)
        .is_some_and(|entry| entry.with(|reverse| returns_to(reverse, key)));
    if ours {
        tables.remove(Table::Reverse, twin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::Word;

    #[test]
    fn the_way_back_swaps_destination_and_source() {
        let frame = [1u8, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let mut back = [0u8; 12];
        way_back(<[u32; 3]>::load(&frame).unwrap()).store(&mut back).unwrap();
        assert_eq!(back, [7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6]);
    }
}
