//! `FLOWS` (client to VIP) and `REVERSE` (endpoint to client): the two directions of one translated connection.
//!
//! Both maps have the same key shape and the same value shape; each entry names its twin, so that either can be
//! found and removed from the other. The laws of their life are in `docs/adr/0003-flow-state.md`.

use super::AddrWords;

/// Entries of each of the two maps.
pub const FLOWS_MAX: u32 = 262_144;

/// A full 5-tuple in wire order, as the packet carries it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowKey {
    /// Source address.
    pub src: AddrWords,
    /// Destination address.
    pub dst: AddrWords,
    /// Source port and destination port, as the first four bytes of the transport header.
    pub ports: u32,
    /// IP protocol number.
    pub proto: u32,
}
const _: () = assert!(core::mem::size_of::<FlowKey>() == 40);

impl FlowKey {
    /// Source port, wire order.
    #[inline(always)]
    pub const fn src_port_be(&self) -> u16 {
        self.ports as u16
    }

    /// Destination port, wire order.
    #[inline(always)]
    pub const fn dst_port_be(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// The two ports as [`FlowKey::ports`] holds them.
    #[inline(always)]
    pub const fn ports(src_be: u16, dst_be: u16) -> u32 {
        src_be as u32 | (dst_be as u32) << 16
    }

    /// Key in `REVERSE` of the twin of an entry `flow`, which lies in `FLOWS` under this key.
    #[inline(always)]
    pub const fn twin_of_flow(&self, flow: &Flow) -> FlowKey {
        FlowKey {
            src: flow.addr,
            dst: self.src,
            ports: Self::ports(flow.port_be, self.src_port_be()),
            proto: self.proto,
        }
    }

    /// Key in `FLOWS` of the twin of an entry `reverse`, which lies in `REVERSE` under this key.
    #[inline(always)]
    pub const fn twin_of_reverse(&self, reverse: &Flow) -> FlowKey {
        FlowKey {
            src: self.dst,
            dst: reverse.addr,
            ports: Self::ports(self.dst_port_be(), reverse.port_be),
            proto: self.proto,
        }
    }
}

/// How far a TCP connection or an exchange of datagrams has come, as far as the gateway can see. Authoritative in
/// `REVERSE`. The first three are TCP's, the others UDP's.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FlowPhase {
    /// SYN seen, and perhaps the endpoint's SYN-ACK.
    Opening = 0,
    /// The endpoint has sent more than a SYN-ACK, which it does only once the client has answered that: no spoofed
    /// SYN comes this far.
    Established = 1,
    /// RST seen, or FIN from both sides ([`Flow::closing`]): kept for the last segments, then removed.
    Closing = 2,
    /// Datagrams from the client only.
    Asked = 3,
    /// The endpoint has answered. A flood with invented sources comes this far and no further.
    Answered = 4,
    /// The client has spoken again after an answer: somebody is there.
    Streaming = 5,
}

impl FlowPhase {
    /// Of a flow that opens now.
    #[inline(always)]
    pub const fn first(udp: bool) -> Self {
        if udp { FlowPhase::Asked } else { FlowPhase::Opening }
    }
}

/// Value of `FLOWS` and `REVERSE`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// In `FLOWS`: the endpoint's address. In `REVERSE`: the VIP's address, which becomes the source.
    pub addr: AddrWords,
    /// Ethernet destination and source for the way back to the client, as seen on its SYN (used by XDP).
    pub macs: [u32; 3],
    /// The interface the client's SYN or first datagram came in on.
    pub ifindex: u32,
    /// Id of the VIP.
    pub vip: u32,
    /// In `REVERSE`: coarse time of the last packet from the endpoint after its SYN-ACK (before: of the SYN), in
    /// [`TICKS_PER_SECOND`]ths, from `CLOCK`; of UDP, of the last datagram either way. In `FLOWS`: of the SYN, or of
    /// the client's last datagram.
    pub seen: u32,
    /// In `FLOWS`: the endpoint's port. In `REVERSE`: the VIP's port. Wire order.
    pub port_be: u16,
    /// Endpoint index.
    pub endpoint: u16,
    /// A [`FlowPhase`] as its number.
    pub phase: u8,
    /// 1 once the client has sent FIN. One byte a side, so that two CPUs that see the two FINs never overwrite
    /// each other's mark.
    pub fin_client: u8,
    /// 1 once the endpoint has sent FIN.
    pub fin_endpoint: u8,
    /// Always 0.
    pub pad: u8,
}
const _: () = assert!(core::mem::size_of::<Flow>() == 48);

/// `CLOCK[0]` counts this many times a second; userspace writes it, because reading a clock costs 18-32 ns a packet.
///
/// It counts time *during which a process watched*: a new process goes on from the value it finds (adding the
/// monotonic time since its own start), so that no flow ages while nobody could have noticed its packets.
pub const TICKS_PER_SECOND: u32 = 10;

/// Idle limit until the endpoint has answered more than its SYN-ACK. RFC 5382 REQ-5 asks for at least 4 min, which
/// also covers clients that connect in advance and speak later.
pub const OPENING_TICKS: u32 = 4 * 60 * TICKS_PER_SECOND;
/// Idle limit of an established flow: longer than TCP keepalive's default of 2 h with its 9 probes of 75 s, so that
/// a connection with keepalive lives for ever (RFC 5382 REQ-5 asks for at least 2 h 4 min).
pub const ESTABLISHED_TICKS: u32 = (2 * 3600 + 15 * 60) * TICKS_PER_SECOND;
/// Idle limit after RST or both FINs: the last ACKs and their retransmissions (Linux keeps TIME-WAIT for 60 s).
pub const CLOSING_TICKS: u32 = 60 * TICKS_PER_SECOND;
/// Idle limit of opening and closing flows while the table is under pressure ([`crate::sweep::pressed`]): a flood of
/// spoofed SYNs never gets further than a SYN-ACK, and last segments are worth less than new flows.
pub const PRESSED_TICKS: u32 = 10 * TICKS_PER_SECOND;

/// Idle limit of a UDP flow whose client has not spoken again since an answer, or that has no answer yet: one question
/// and its answer (DNS), or datagrams that want none (syslog; each of them prolongs it). Cilium's limit for such flows.
pub const ASKED_TICKS: u32 = 60 * TICKS_PER_SECOND;
/// Idle limit of a UDP flow that goes both ways, unless settings say otherwise: what RFC 4787 REQ-5 recommends, and
/// IPVS's default.
pub const STREAMING_TICKS: u32 = 300 * TICKS_PER_SECOND;
/// After so long without a datagram a question, answered or not, gives its way back to another flow that needs it: the
/// client's port is in use again, towards another VIP with the same endpoint.
pub const GIVES_WAY_TICKS: u32 = TICKS_PER_SECOND;

impl Flow {
    /// Whether it ended: RST, or FIN from both sides. A flow with one FIN still carries data the other way.
    #[inline(always)]
    pub const fn closing(&self) -> bool {
        self.phase == FlowPhase::Closing as u8 || (self.fin_client != 0 && self.fin_endpoint != 0)
    }

    /// Whether this entry of `REVERSE` is of a UDP flow that may be over, and leaves its place to one that is not.
    #[inline(always)]
    pub const fn gives_way(&self, now: u32) -> bool {
        let age = now.wrapping_sub(self.seen);
        let question = self.phase == FlowPhase::Asked as u8 || self.phase == FlowPhase::Answered as u8;
        question && age < 1 << 31 && age > GIVES_WAY_TICKS
    }

    /// Ticks without a packet after which this entry of `REVERSE` is removed. `streaming`: of UDP flows that go both
    /// ways; it bounds the other UDP flows too.
    #[inline(always)]
    pub const fn idle_ticks_max(&self, pressed: bool, streaming: u32) -> u32 {
        const OPENING: u8 = FlowPhase::Opening as u8;
        const ASKED: u8 = FlowPhase::Asked as u8;
        const ANSWERED: u8 = FlowPhase::Answered as u8;
        const STREAMING: u8 = FlowPhase::Streaming as u8;
        let whole = match self.phase {
            _ if self.closing() => CLOSING_TICKS,
            OPENING => OPENING_TICKS,
            ASKED | ANSWERED if streaming < ASKED_TICKS => streaming,
            ASKED | ANSWERED => ASKED_TICKS,
            STREAMING => return streaming,
            _ => return ESTABLISHED_TICKS,
        };
        if pressed && whole > PRESSED_TICKS {
            PRESSED_TICKS
        } else {
            whole
        }
    }

    /// Whether this entry of `REVERSE` was idle for too long. A `seen` in the future (stamped after `now` was read)
    /// is no age.
    #[inline(always)]
    pub const fn expired(&self, now: u32, pressed: bool, streaming: u32) -> bool {
        let age = now.wrapping_sub(self.seen);
        age < 1 << 31 && age > self.idle_ticks_max(pressed, streaming)
    }
}
