//! What happens to a packet. [`packet`] is the whole walk; [`ingress`] (client to VIP), [`reverse`] (endpoint to
//! client) and [`lookup`] (connection to worker) are its parts.
//!
//! The same code runs in the kernel and on the host: it sees the packet through [`Packet`] and the maps through
//! [`Tables`]. It decides and rewrites; it neither counts nor sends, that is the caller's, from the [`Outcome`].
//!
//! Written for the BPF back end: words are loaded and stored whole, never as byte arrays; table entries are used by
//! reference; a flow key is built only where a table is consulted.

pub mod flow;
pub mod header;
pub mod ingress;
pub mod lookup;
pub mod reverse;
pub mod rewrite;

pub use flow::{Entry, Insert, Table};
pub use header::{Head, Word};
pub use lookup::{Steer, lookup};
pub use rewrite::Change;

use crate::abi::{Endpoint, Flow, FlowKey, NO_VIP, RING_SLOTS, Reason, Slot, Vip, VipKey};

/// A frame: Ethernet header first. Offsets are in bytes from its start; words are in wire order.
pub trait Packet {
    /// Whether this program writes the Ethernet addresses itself (XDP), or leaves them to the kernel's neighbour
    /// table (TCX).
    const WRITES_LINK: bool;

    /// The word at `at`, or `None` past the end.
    fn get<W: Word>(&self, at: usize) -> Option<W>;
    /// Stores a word. `None`, and nothing stored, past the end.
    fn put<W: Word>(&mut self, at: usize, value: W) -> Option<()>;
    /// Interface the frame came in on.
    fn ifindex(&self) -> u32;
    /// Carries `change` into the transport checksum at `at`, whose present value is `field`. What that takes depends
    /// on who finishes the checksum: see the implementations. `udp`: 0 means that there is none.
    fn transport_checksum(&mut self, at: usize, field: u16, change: &Change, udp: bool) -> Option<()>;
}

/// The maps. Named after them; see `docs/maps.md`.
pub trait Tables {
    /// An entry of `FLOWS` or `REVERSE`, where it lies.
    type Entry<'t>: Entry
    where
        Self: 't;

    fn vip(&self, key: &VipKey) -> Option<Vip>;
    /// A slot of the VIP's ring. `index` in `0..RING_SLOTS`.
    fn slot(&self, vip: u32, index: u32) -> Option<Slot>;
    fn endpoint<R>(&self, index: u16, read: impl FnOnce(&Endpoint) -> R) -> Option<R>;
    /// Whether this bit of `SOURCES` is set.
    fn source(&self, bit: u32) -> bool;
    /// `CLOCK[0]`.
    fn now(&self) -> u32;
    fn find<'t>(&'t self, table: Table, key: &FlowKey) -> Option<Self::Entry<'t>>;
    fn insert(&self, table: Table, key: &FlowKey, value: &Flow) -> Insert;
    /// Replaces or inserts; false when there is no room.
    fn replace(&self, table: Table, key: &FlowKey, value: &Flow) -> bool;
    fn remove(&self, table: Table, key: &FlowKey);
    /// `CONFIG[CONFIG_UDP_IDLE]`, or its default.
    fn udp_idle(&self) -> u32;
    /// `CONFIG[CONFIG_WORKERS]`.
    fn workers(&self) -> u32;
    /// `LOAD[worker]`.
    fn load(&self, worker: u32) -> u32;
}

/// How a packet's walk ended: the one counter it changes and, where it is sent, the way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Row of the counter: a VIP's id, or [`NO_VIP`].
    pub vip: u32,
    pub reason: Reason,
    /// Interface to send from; 0 unless the reason's action is [`crate::abi::Action::Send`].
    pub ifindex: u32,
}

impl Outcome {
    #[inline(always)]
    pub(crate) const fn ended(vip: u32, reason: Reason) -> Self {
        Self {
            vip,
            reason,
            ifindex: 0,
        }
    }

    #[inline(always)]
    pub(crate) const fn stranger(reason: Reason) -> Self {
        Self::ended(NO_VIP, reason)
    }
}

/// The walk of one packet: to a VIP, else from an endpoint, else not ours.
#[inline(always)]
pub fn packet<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    const PLAIN: usize = 14;
    const TAGGED: usize = 18;
    let Some(kind) = packet.get::<u16>(12) else {
        return Outcome::stranger(Reason::Truncated);
    };
    match u16::from_be(kind) {
        header::ETHERTYPE_IPV4 => ip::<P, T, false, PLAIN>(packet, tables),
        header::ETHERTYPE_IPV6 => ip::<P, T, true, PLAIN>(packet, tables),
        header::ETHERTYPE_VLAN => match packet.get::<u16>(16).map(u16::from_be) {
            Some(header::ETHERTYPE_IPV4) => ip::<P, T, false, TAGGED>(packet, tables),
            Some(header::ETHERTYPE_IPV6) => ip::<P, T, true, TAGGED>(packet, tables),
            Some(_) => Outcome::stranger(Reason::NotIp),
            None => Outcome::stranger(Reason::Truncated),
        },
        _ => Outcome::stranger(Reason::NotIp),
    }
}

#[inline(always)]
fn ip<P: Packet, T: Tables, const V6: bool, const L3: usize>(packet: &mut P, tables: &T) -> Outcome {
    let head = match Head::<V6, L3>::parse(packet, tables) {
        Ok(head) => head,
        Err(ended) => return ended,
    };
    match tables.vip(&head.vip_key()) {
        Some(vip) => ingress::ingress(packet, tables, &head, vip),
        None => reverse::reverse(packet, tables, &head),
    }
}

/// Index of a flow in a ring from its 32-bit hash, without a division the verifier cannot follow.
#[inline(always)]
pub const fn ring_index(hash: u32) -> u32 {
    ((hash as u64 * RING_SLOTS as u64) >> 32) as u32
}

#[inline(always)]
const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^ word >> 32
}

/// Hash of a client's 5-tuple: which slot of the VIP's ring it falls into. Userspace finds a flow's slot with the
/// same function. An IPv4 flow is mixed in registers from its 12 bytes.
#[inline(always)]
pub const fn hash(key: &FlowKey) -> u32 {
    let (src, dst) = (&key.src, &key.dst);
    if src[0] | src[1] == 0 && src[2] == crate::abi::V4_MARK {
        return mix(mix(src[3] as u64 | (key.ports as u64) << 32) ^ dst[3] as u64) as u32;
    }
    let a = mix(pair(src[0], src[1]) ^ pair(dst[2], dst[3]).rotate_left(17));
    let b = mix(a ^ pair(src[2], src[3]) ^ pair(dst[0], dst[1]).rotate_left(29));
    mix(b ^ key.ports as u64) as u32
}

#[inline(always)]
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Slot of a client's flow in its VIP's ring. `mode`: of a VIP that is forwarded, a [`VipMode`](crate::abi::VipMode) as
/// its number.
#[inline(always)]
pub const fn slot_of(mode: u32, key: &FlowKey) -> u32 {
    ring_index(hash(&FlowKey {
        ports: key.ports | mode,
        ..*key
    }))
}
