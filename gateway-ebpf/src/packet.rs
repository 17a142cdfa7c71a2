//! A packet as the decision functions see it: an XDP frame, a socket buffer, a socket that is looked for.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers;
use aya_ebpf::programs::{SkLookupContext, TcContext, XdpContext};
use gateway_common::abi::{NO_VIP, Reason, VipKey, v4_words};
use gateway_common::checksum;
use gateway_common::datapath::{Change, Outcome, Packet, Word};

/// The longest headers that are read: Ethernet, VLAN tag, IPv6, TCP without options.
const HEADERS_BYTES: u32 = 18 + 40 + 20;

/// Address of `W` at `at`, when it lies between `data` and `end`.
#[inline(always)]
fn within<W>(data: usize, end: usize, at: usize) -> Option<*mut W> {
    if data + at + core::mem::size_of::<W>() > end {
        None
    } else {
        Some((data + at) as *mut W)
    }
}

/// A frame in a driver's buffer. Checksums are whole: the hardware has verified or nobody has.
pub struct Frame<'c> {
    ctx: &'c XdpContext,
}

impl<'c> Frame<'c> {
    #[inline(always)]
    pub fn new(ctx: &'c XdpContext) -> Self {
        Self { ctx }
    }
}

impl Packet for Frame<'_> {
    const WRITES_LINK: bool = true;

    #[inline(always)]
    fn get<W: Word>(&self, at: usize) -> Option<W> {
        // SAFETY: the word lies in the packet, and BPF loads need no alignment; the verifier proves both.
        within(self.ctx.data(), self.ctx.data_end(), at).map(|word: *mut W| unsafe { *word })
    }

    #[inline(always)]
    fn put<W: Word>(&mut self, at: usize, value: W) -> Option<()> {
        // SAFETY: as in `get`; the frame is this program's alone while it runs.
        within(self.ctx.data(), self.ctx.data_end(), at).map(|word: *mut W| unsafe { *word = value })
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn transport_checksum(&mut self, at: usize, field: u16, change: &Change, udp: bool) -> Option<()> {
        let change = change.addresses + change.ports;
        let sum = if udp {
            checksum::update_udp(field, change)
        } else {
            checksum::update(field, change)
        };
        self.put(at, sum)
    }
}

/// A socket buffer. Its transport checksum may be unfinished (`CHECKSUM_PARTIAL`: the field holds the pseudo-header's
/// sum, and the device, or nobody on a veth, adds the segment), so only the kernel's helpers can update it.
pub struct Skb<'c> {
    ctx: &'c TcContext,
}

impl<'c> Skb<'c> {
    /// With the headers in linear memory; or how the packet's walk ends.
    #[inline(always)]
    pub fn new(ctx: &'c TcContext) -> Result<Self, Outcome> {
        // SAFETY: the kernel hands a valid context.
        let skb = unsafe { &*ctx.skb.skb };
        // The tag was taken out of the bytes: the packet belongs to the VLAN's own interface, which comes next.
        if skb.vlan_present != 0 {
            return Err(Outcome {
                vip: NO_VIP,
                reason: Reason::NotOurs,
                ifindex: 0,
            });
        }
        if ctx.data() + HEADERS_BYTES as usize > ctx.data_end() && ctx.data_end() < ctx.data() + skb.len as usize {
            // A failure shows as a packet that is too short.
            let _ = ctx.pull_data(skb.len.min(HEADERS_BYTES));
        }
        Ok(Self { ctx })
    }
}

impl Packet for Skb<'_> {
    const WRITES_LINK: bool = false;

    #[inline(always)]
    fn get<W: Word>(&self, at: usize) -> Option<W> {
        // SAFETY: the word lies in the packet, and BPF loads need no alignment; the verifier proves both.
        within(self.ctx.data(), self.ctx.data_end(), at).map(|word: *mut W| unsafe { *word })
    }

    #[inline(always)]
    fn put<W: Word>(&mut self, at: usize, value: W) -> Option<()> {
        // SAFETY: as in `get`; the kernel has made the headers of this buffer ours before the program began.
        within(self.ctx.data(), self.ctx.data_end(), at).map(|word: *mut W| unsafe { *word = value })
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the kernel hands a valid context.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    /// Addresses are part of the pseudo-header, which an unfinished checksum already holds; ports are not, and the
    /// kernel leaves them to whoever finishes it.
    #[inline(always)]
    fn transport_checksum(&mut self, at: usize, _field: u16, change: &Change, udp: bool) -> Option<()> {
        let skb = self.ctx.skb.skb;
        // The helper then leaves a 0 alone and writes none.
        let udp = if udp { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        let (addresses, ports) = (
            checksum::fold32(change.addresses) as u64,
            checksum::fold32(change.ports) as u64,
        );
        // SAFETY: the kernel hands a valid context; the offset is checked by the helper.
        unsafe {
            if helpers::bpf_l4_csum_replace(skb, at as u32, 0, addresses, BPF_F_PSEUDO_HDR as u64 | udp) != 0
                || helpers::bpf_l4_csum_replace(skb, at as u32, 0, ports, udp) != 0
            {
                return None;
            }
            if let Some(header) = change.unbalanced {
                // A device's sum over the whole packet (`CHECKSUM_COMPLETE`): the first helper took the addresses'
                // change out of it, as the IPv4 header's own checksum would have put it back. IPv6 has none. For
                // every other kind of checksum this does nothing.
                helpers::bpf_csum_update(skb, checksum::fold32(header));
            }
        }
        Some(())
    }
}

/// What a socket is looked for.
pub struct Socket {
    pub key: VipKey,
    pub ipv6: bool,
    /// Uniform bits.
    pub dice: u32,
}

impl Socket {
    #[inline(always)]
    pub fn new(ctx: &SkLookupContext) -> Self {
        const AF_INET6: u32 = 10;
        // Volatile, and both families before the choice: else their loads become one load through a computed context
        // pointer, which the verifier refuses.
        macro_rules! field {
            ($($at:tt)+) => {
                // SAFETY: the kernel hands a valid context.
                unsafe { (&raw const (*ctx.lookup).$($at)+).read_volatile() }
            };
        }
        let ipv6 = field!(family) == AF_INET6;
        let v4 = v4_words(field!(local_ip4));
        let v6 = [
            field!(local_ip6[0]),
            field!(local_ip6[1]),
            field!(local_ip6[2]),
            field!(local_ip6[3]),
        ];
        let addr = if ipv6 { v6 } else { v4 };
        let key = VipKey {
            addr,
            port_be: (field!(local_port) as u16).to_be(),
            proto: field!(protocol) as u8,
            pad: 0,
        };
        // SAFETY: takes nothing, touches nothing of ours.
        let dice = unsafe { helpers::bpf_get_prandom_u32() };
        Self { key, ipv6, dice }
    }
}
