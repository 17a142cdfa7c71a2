//! `VIPS`: who owns a destination. `RINGS`: which endpoint a flow of a kernel VIP goes to.

use super::AddrWords;

/// Most virtual services (address, port, protocol) at once.
pub const VIPS_MAX: u32 = 4096;
/// Slots of a Maglev ring; prime (Eisenbud et al., NSDI 2016), and the exact length the kernel indexes with.
pub const RING_SLOTS: usize = 65_537;

/// A destination: address, port, protocol. 20 bytes, no padding left to chance.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VipKey {
    /// Address in wire order, IPv4 mapped.
    pub addr: AddrWords,
    /// Port in wire order.
    pub port_be: u16,
    /// IP protocol number: 6 or 17.
    pub proto: u8,
    /// Always 0.
    pub pad: u8,
}
const _: () = assert!(core::mem::size_of::<VipKey>() == 20);

impl VipKey {
    /// The key of [`VipMode::Address`]: marks that the address owns a kernel VIP.
    #[inline(always)]
    pub const fn address(addr: AddrWords) -> Self {
        Self {
            addr,
            port_be: 0,
            proto: 0,
            pad: 0,
        }
    }

    /// `port` in host order.
    pub const fn new(addr: core::net::IpAddr, port: u16, proto: u8) -> Self {
        Self {
            addr: super::addr_words(addr),
            port_be: port.to_be(),
            proto,
            pad: 0,
        }
    }
}

/// What to do with a packet for a VIP.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VipMode {
    /// The kernel plane forwards it (DNAT).
    Nat = 0,
    /// The stack takes it, and `sk_lookup` hands it to a worker.
    HandOff = 1,
    /// The address owns a kernel VIP; this entry (port 0, proto 0) only marks the address, for fragments.
    Address = 2,
    /// As [`VipMode::Nat`], and the flows of one client, whatever their ports, are in one slot of the ring. Its bits
    /// cover the ports where a slot is looked for, those of `Nat` nothing: no program has to branch.
    NatByClient = u32::MAX,
}

impl VipMode {
    /// The kernel plane forwards it.
    pub const fn forwards(self) -> bool {
        matches!(self, VipMode::Nat | VipMode::NatByClient)
    }

    /// A client's flows are in one slot.
    pub const fn by_client(self) -> bool {
        matches!(self, VipMode::NatByClient)
    }

    /// The mode that a [`Vip`] holds.
    pub const fn of(vip: &Vip) -> Self {
        match vip.mode {
            0 => VipMode::Nat,
            1 => VipMode::HandOff,
            u32::MAX => VipMode::NatByClient,
            _ => VipMode::Address,
        }
    }
}

/// Value of `VIPS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vip {
    /// Dense id, `0..VIPS_MAX`: index of `RINGS` and of the counters.
    pub id: u32,
    /// A [`VipMode`] as its number.
    pub mode: u32,
}
const _: () = assert!(core::mem::size_of::<Vip>() == 8);

impl Vip {
    /// See [`VipMode::forwards`].
    #[inline(always)]
    pub const fn forwards(&self) -> bool {
        self.mode == VipMode::Nat as u32 || self.mode == VipMode::NatByClient as u32
    }
}

/// A `previous` that is no endpoint: the slot is unsettled, and what older flows are on is not known.
pub const SLOT_UNKNOWN: u16 = u16::MAX;

/// One slot: the endpoint for new flows, and the one older flows may still be on.
///
/// *Settled* means `current == previous`: no live flow of this slot is anywhere else, and the forward path need
/// not consult the flow table. See `docs/adr/0003-flow-state.md`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// Endpoint index for new flows; 0 is "no endpoint".
    pub current: u16,
    /// Differs from `current` while some live flow of this slot may be on another endpoint.
    pub previous: u16,
}
const _: () = assert!(core::mem::size_of::<Slot>() == 4);

/// A whole ring: the single value of an inner array map, so that a swap is one system call.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// Indexed by [`crate::datapath::ring_index`].
    pub slots: [Slot; RING_SLOTS],
}
const _: () = assert!(core::mem::size_of::<Ring>() == 262_148);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_back_as_it_was_written() {
        for mode in [VipMode::Nat, VipMode::HandOff, VipMode::Address, VipMode::NatByClient] {
            let vip = Vip {
                id: 1,
                mode: mode as u32,
            };
            assert_eq!(VipMode::of(&vip), mode);
            assert_eq!(vip.forwards(), mode.forwards());
            assert_eq!(mode.forwards(), matches!(mode, VipMode::Nat | VipMode::NatByClient));
        }
        assert!(VipMode::NatByClient.by_client() && !VipMode::Nat.by_client());
    }
}
