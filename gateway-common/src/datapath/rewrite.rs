//! Address translation: one side's address and port are replaced, the hop limit falls by one, the checksums follow.

use super::{Head, Packet};
use crate::abi::AddrWords;
use crate::checksum;

/// What a translation changes under the transport checksum, as one's-complement sums ([`checksum::change`]).
pub struct Change {
    /// Of the addresses: part of the pseudo-header only.
    pub addresses: u64,
    /// Of the ports: bytes of the segment itself.
    pub ports: u64,
    /// Of IP header bytes that no header checksum balances: all of them in IPv6, none in IPv4.
    pub unbalanced: Option<u64>,
}

/// Which end of the 5-tuple is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// On the way back: the endpoint becomes the VIP.
    Source,
    /// On the way in: the VIP becomes the endpoint.
    Destination,
}

impl<const V6: bool, const L3: usize> Head<V6, L3> {
    /// Writes `addr` and `port_be` as the packet's `end`. The hop limit must be above 1. `None` cannot happen once
    /// the headers were read; a caller that sees it drops the packet.
    #[inline(always)]
    pub fn translate<P: Packet>(&self, packet: &mut P, end: End, addr: &AddrWords, port_be: u16) -> Option<()> {
        let (old, old_port) = match end {
            End::Source => (&self.src, self.ports & 0xffff),
            End::Destination => (&self.dst, self.ports >> 16),
        };
        let ports = checksum::change(old_port, port_be as u32);
        let change = if V6 {
            let addresses = checksum::change(old[0], addr[0])
                + checksum::change(old[1], addr[1])
                + checksum::change(old[2], addr[2])
                + checksum::change(old[3], addr[3]);
            // Hop limit: the high byte of the second word's upper half, in memory order.
            let hop = checksum::change(self.hop_word & 0xff00_0000, (self.hop_word & 0xff00_0000) - 0x0100_0000);
            Change {
                addresses,
                ports,
                unbalanced: Some(addresses + hop),
            }
        } else {
            Change {
                addresses: checksum::change(old[3], addr[3]),
                ports,
                unbalanced: None,
            }
        };
        self.write_ip(packet, end, addr, change.addresses)?;
        packet.put(Self::L4 + if end == End::Source { 0 } else { 2 }, port_be)?;
        let at = if self.is_udp() { 6 } else { 16 };
        packet.transport_checksum(Self::L4 + at, self.checksum, &change, self.is_udp())
    }

    #[inline(always)]
    fn write_ip<P: Packet>(&self, packet: &mut P, end: End, addr: &AddrWords, addresses: u64) -> Option<()> {
        if V6 {
            packet.put(L3 + 7, self.hop_limit() - 1)?;
            packet.put(L3 + if end == End::Source { 8 } else { 24 }, *addr)
        } else {
            let kept = self.hop_word & 0xffff;
            let field = (self.hop_word >> 16) as u16;
            let header = checksum::update(field, addresses + checksum::change(kept, kept - 1));
            packet.put(L3 + 8, (kept - 1) | (header as u32) << 16)?;
            packet.put(L3 + if end == End::Source { 12 } else { 16 }, addr[3])
        }
    }
}
