//! Packets built by hand, checksums from scratch: nothing of the code under test.

use std::net::IpAddr;

/// A TCP segment, or a UDP datagram, in an Ethernet frame.
#[derive(Clone, Debug)]
pub struct Segment {
    pub src: (IpAddr, u16),
    pub dst: (IpAddr, u16),
    /// TCP flags, RFC 9293 order: FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
    pub flags: u8,
    /// A datagram instead; then `flags` say nothing.
    pub udp: bool,
    /// TTL or hop limit.
    pub hops: u8,
    /// 802.1Q tag.
    pub vlan: Option<u16>,
    pub payload: Vec<u8>,
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// Ethernet destination and source of every built frame.
pub const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// A segment between two `address:port`s.
pub fn tcp(src: &str, dst: &str, flags: u8) -> Segment {
    let end = |text: &str| {
        let end: std::net::SocketAddr = text.parse().expect("an address and a port");
        (end.ip(), end.port())
    };
    Segment {
        src: end(src),
        dst: end(dst),
        flags,
        udp: false,
        hops: 64,
        vlan: None,
        payload: b"sluice".to_vec(),
    }
}

impl Segment {
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// The same ends and payload as a UDP datagram.
    pub fn over_udp(mut self) -> Self {
        self.udp = true;
        self
    }

    pub fn vlan(mut self, tag: u16) -> Self {
        self.vlan = Some(tag);
        self
    }

    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The answer to it: both ends change places.
    pub fn answer(&self, flags: u8) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            flags,
            ..self.clone()
        }
    }

    /// Offset of the IP header in [`Segment::frame`].
    pub fn ip_at(&self) -> usize {
        if self.vlan.is_some() { 18 } else { 14 }
    }

    /// The whole frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = MACS.to_vec();
        if let Some(tag) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(tag.to_be_bytes());
        }
        let (src, dst) = (octets(self.src.0), octets(self.dst.0));
        let (carried, proto) = if self.udp {
            (self.udp(&src, &dst), 17)
        } else {
            (self.tcp(&src, &dst), 6)
        };
        let len = carried.len() as u16;
        if src.len() == 4 {
            frame.extend([0x08, 0x00]);
            let mut ip = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, self.hops, proto, 0, 0];
            ip[2..4].copy_from_slice(&(len + 20).to_be_bytes());
            ip.extend(&src);
            ip.extend(&dst);
            let sum = checksum(&ip);
            ip[10..12].copy_from_slice(&sum);
            frame.extend(ip);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([proto, self.hops]);
            frame.extend(&src);
            frame.extend(&dst);
        }
        frame.extend(carried);
        frame
    }

    fn udp(&self, src: &[u8], dst: &[u8]) -> Vec<u8> {
        let len = (8 + self.payload.len()) as u16;
        let mut udp = Vec::new();
        udp.extend(self.src.1.to_be_bytes());
        udp.extend(self.dst.1.to_be_bytes());
        udp.extend(len.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let mut covered = [src, dst].concat();
        covered.extend(u32::from(len).to_be_bytes());
        covered.extend([0, 0, 0, 17]);
        covered.extend(&udp);
        let sum = match checksum(&covered) {
            [0, 0] => [0xff, 0xff],
            sum => sum,
        };
        udp[6..8].copy_from_slice(&sum);
        udp
    }

    fn tcp(&self, src: &[u8], dst: &[u8]) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.src.1.to_be_bytes());
        tcp.extend(self.dst.1.to_be_bytes());
        tcp.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(&self.payload);
        let mut covered = [src, dst].concat();
        covered.extend((tcp.len() as u32).to_be_bytes());
        covered.extend([0, 0, 0, 6]);
        covered.extend(&tcp);
        let sum = checksum(&covered);
        tcp[16..18].copy_from_slice(&sum);
        tcp
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// RFC 1071, the plain way.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
