//! The PROXY protocol, versions 1 and 2 (haproxy.org, `proxy-protocol.txt`): who really connected, told by the load
//! balancer before us.
//!
//! Total over arbitrary bytes and bounded by [`HEADER_BYTES_MAX`]; nothing is copied. As long as something is missing the
//! answer says how many bytes are needed before it is worth asking again. Nothing here decides whether the sender may be
//! believed: a listener that expects a header must get one, and no other may look for it (section 5 there).

mod v1;
mod v2;

use std::net::SocketAddr;

/// Longest header that is read: version 2 with its 16 bytes, addresses and extensions. The protocol allows 64 KiB; what
/// load balancers send is below 600 bytes.
pub const HEADER_BYTES_MAX: usize = 4096;
/// Most extensions (TLVs) of a header.
pub const TLVS_MAX: usize = 32;

/// What the first bytes of a connection are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proxied<'a> {
    /// More is needed: at least so many bytes in all.
    Incomplete { bytes_min: usize },
    /// A whole header.
    Complete(Header<'a>),
    /// Something else; the connection is to be closed.
    Not(NotProxied),
}

/// Why it is no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotProxied {
    /// Neither version's signature.
    NoSignature,
    /// Longer than [`HEADER_BYTES_MAX`], or than the 107 bytes of a line.
    TooLong,
    /// Against the grammar: an address, a port, a length, a version or a command that there is not.
    Malformed,
}

/// A header, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// Bytes of it: the connection's own begin there.
    pub len: usize,
    pub source: Source<'a>,
    /// Extensions as they came, well formed and at most [`TLVS_MAX`]; read them with [`Header::tlvs`].
    extensions: &'a [u8],
}

/// Who connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source<'a> {
    /// The proxy itself (a health check) or someone it does not tell: the socket's own addresses count.
    Unknown,
    Inet {
        transport: Transport,
        client: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
    /// Paths without the padding behind them.
    Unix {
        transport: Transport,
        client: &'a [u8],
        destination: &'a [u8],
    },
}

/// What the client's connection was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Stream,
    Datagram,
}

/// One extension (section 2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tlv<'a> {
    /// `PP2_TYPE_*`: 0x01 ALPN, 0x02 authority, 0x03 CRC32c, 0x04 nothing, 0x05 unique id, 0x20 TLS, 0x30 namespace.
    pub kind: u8,
    pub value: &'a [u8],
}

impl<'a> Header<'a> {
    /// The extensions in order.
    pub fn tlvs(&self) -> impl Iterator<Item = Tlv<'a>> + use<'a> {
        v2::Tlvs(self.extensions)
    }
}

/// Looks at everything that came so far.
pub fn parse(bytes: &[u8]) -> Proxied<'_> {
    let starts = |signature: &[u8]| bytes.iter().zip(signature).all(|(got, want)| got == want);
    let parsed = if starts(v2::SIGNATURE) {
        v2::parse(bytes)
    } else if starts(v1::SIGNATURE) {
        v1::parse(bytes)
    } else {
        Err(Proxied::Not(NotProxied::NoSignature))
    };
    parsed.map_or_else(|other| other, Proxied::Complete)
}

#[cfg(test)]
mod tests;
