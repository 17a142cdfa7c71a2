//! Reads a frame's headers into words: Ethernet with at most one VLAN tag, IPv4 without options or IPv6, TCP or UDP.
//! What is not that ends here, with its reason; a fragment or an optional header is an answer only once the
//! destination's own entry ([`crate::abi::VipMode::Address`]) was looked up.

use super::{Outcome, Packet, Tables};
use crate::abi::{AddrWords, FlowKey, Reason, VipKey, v4_words};

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q.
pub const ETHERTYPE_VLAN: u16 = 0x8100;

pub const PROTO_TCP: u8 = 6;
pub const PROTO_UDP: u8 = 17;

/// TCP flags (RFC 9293 3.1).
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// IPv6 next headers (RFC 8200 4.1) that stand between the fixed header and a transport.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Bytes of an IP header without options.
const fn ip_bytes(v6: bool) -> usize {
    if v6 { 40 } else { 20 }
}

/// A packet's plain words, read and written whole: LLVM's BPF back end reads a byte array byte by byte.
pub trait Word: Copy {
    /// From the first bytes of `bytes`; `None` when there are too few.
    fn load(bytes: &[u8]) -> Option<Self>;
    /// Into the first bytes of `bytes`; `None` when there are too few.
    fn store(self, bytes: &mut [u8]) -> Option<()>;
}

macro_rules! word {
    ($($kind:ty),*) => {$(
        impl Word for $kind {
            fn load(bytes: &[u8]) -> Option<Self> {
                bytes.first_chunk().map(|b| <$kind>::from_ne_bytes(*b))
            }
            fn store(self, bytes: &mut [u8]) -> Option<()> {
                *bytes.first_chunk_mut()? = self.to_ne_bytes();
                Some(())
            }
        }
    )*};
}
word!(u8, u16, u32);

impl<const N: usize> Word for [u32; N] {
    fn load(bytes: &[u8]) -> Option<Self> {
        let mut words = [0; N];
        for (word, four) in words.iter_mut().zip(bytes.get(..N * 4)?.chunks_exact(4)) {
            *word = u32::load(four)?;
        }
        Some(words)
    }
    fn store(self, bytes: &mut [u8]) -> Option<()> {
        for (word, four) in self.iter().zip(bytes.get_mut(..N * 4)?.chunks_exact_mut(4)) {
            word.store(four)?;
        }
        Some(())
    }
}

/// The headers of a TCP segment or a UDP datagram. `V6`: which family. `L3`: offset of the IP header.
pub struct Head<const V6: bool, const L3: usize> {
    pub src: AddrWords,
    pub dst: AddrWords,
    /// As [`FlowKey::ports`].
    pub ports: u32,
    /// [`PROTO_TCP`] or [`PROTO_UDP`].
    pub proto: u8,
    /// TCP flags; of UDP none.
    pub flags: u8,
    /// TCP or UDP checksum field.
    pub checksum: u16,
    /// The 32-bit word of the IP header with the TTL or hop limit: IPv4's third, IPv6's second.
    pub hop_word: u32,
}

impl<const V6: bool, const L3: usize> Head<V6, L3> {
    /// Offset of the transport header.
    pub const L4: usize = L3 + ip_bytes(V6);

    /// Reads the headers, or says how the packet's walk ends.
    #[inline(always)]
    pub fn parse<P: Packet, T: Tables>(packet: &P, tables: &T) -> Result<Self, Outcome> {
        if V6 {
            Self::parse_v6(packet, tables)
        } else {
            Self::parse_v4(packet, tables)
        }
    }

    #[inline(always)]
    fn parse_v4<P: Packet, T: Tables>(packet: &P, tables: &T) -> Result<Self, Outcome> {
        let ip: [u32; 5] = packet.get(L3).ok_or(Outcome::stranger(Reason::Truncated))?;
        let dst = v4_words(ip[4]);
        if ip[0] as u8 != 0x45 {
            return Err(match ip[0] as u8 >> 4 {
                4 => guarded(tables, dst, Reason::OptionsDropped, Reason::Options),
                _ => Outcome::stranger(Reason::NotIp),
            });
        }
        // More-fragments, or an offset.
        if ip[1] & u32::from_ne_bytes([0, 0, 0x3f, 0xff]) != 0 {
            return Err(guarded(tables, dst, Reason::FragmentDropped, Reason::Fragment));
        }
        match (ip[2] >> 8) as u8 {
            PROTO_TCP => Self::segment(packet, v4_words(ip[3]), dst, ip[2]),
            PROTO_UDP => Self::datagram(packet, v4_words(ip[3]), dst, ip[2]),
            _ => Err(Outcome::stranger(Reason::NotTransport)),
        }
    }

    #[inline(always)]
    fn parse_v6<P: Packet, T: Tables>(packet: &P, tables: &T) -> Result<Self, Outcome> {
        let ip: [u32; 10] = packet.get(L3).ok_or(Outcome::stranger(Reason::Truncated))?;
        let dst = [ip[6], ip[7], ip[8], ip[9]];
        if ip[0] as u8 >> 4 != 6 {
            return Err(Outcome::stranger(Reason::NotIp));
        }
        match (ip[1] >> 16) as u8 {
            PROTO_TCP => Self::segment(packet, [ip[2], ip[3], ip[4], ip[5]], dst, ip[1]),
            PROTO_UDP => Self::datagram(packet, [ip[2], ip[3], ip[4], ip[5]], dst, ip[1]),
            FRAGMENT => Err(guarded(tables, dst, Reason::FragmentDropped, Reason::Fragment)),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                Err(guarded(tables, dst, Reason::OptionsDropped, Reason::Options))
            }
            _ => Err(Outcome::stranger(Reason::NotTransport)),
        }
    }

    #[inline(always)]
    fn segment<P: Packet>(packet: &P, src: AddrWords, dst: AddrWords, hop_word: u32) -> Result<Self, Outcome> {
        let tcp: [u32; 5] = packet.get(Self::L4).ok_or(Outcome::stranger(Reason::Truncated))?;
        Ok(Self {
            src,
            dst,
            ports: tcp[0],
            proto: PROTO_TCP,
            flags: (tcp[3] >> 8) as u8,
            checksum: tcp[4] as u16,
            hop_word,
        })
    }

    #[inline(always)]
    fn datagram<P: Packet>(packet: &P, src: AddrWords, dst: AddrWords, hop_word: u32) -> Result<Self, Outcome> {
        let udp: [u32; 2] = packet.get(Self::L4).ok_or(Outcome::stranger(Reason::Truncated))?;
        Ok(Self {
            src,
            dst,
            ports: udp[0],
            proto: PROTO_UDP,
            flags: 0,
            checksum: (udp[1] >> 16) as u16,
            hop_word,
        })
    }

    #[inline(always)]
    pub const fn is_udp(&self) -> bool {
        self.proto == PROTO_UDP
    }

    /// TTL or hop limit.
    #[inline(always)]
    pub const fn hop_limit(&self) -> u8 {
        if V6 {
            (self.hop_word >> 24) as u8
        } else {
            self.hop_word as u8
        }
    }

    /// The destination, as a key of `VIPS`.
    #[inline(always)]
    pub const fn vip_key(&self) -> VipKey {
        VipKey {
            addr: self.dst,
            port_be: (self.ports >> 16) as u16,
            proto: self.proto,
            pad: 0,
        }
    }

    /// The 5-tuple, as a key of `FLOWS` or `REVERSE`.
    #[inline(always)]
    pub const fn key(&self) -> FlowKey {
        FlowKey {
            src: self.src,
            dst: self.dst,
            ports: self.ports,
            proto: self.proto as u32,
        }
    }

    /// A first SYN, and nothing else that would make it nonsense.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (SYN | ACK | FIN | RST) == SYN
    }
}

/// `dropped` where the address owns a kernel VIP, else `passed`: without ports nobody can tell whose it is.
#[inline(always)]
fn guarded<T: Tables>(tables: &T, dst: AddrWords, dropped: Reason, passed: Reason) -> Outcome {
    match tables.vip(&VipKey::address(dst)) {
        Some(vip) => Outcome::ended(vip.id, dropped),
        None => Outcome::stranger(passed),
    }
}
