//! The typed configuration that every source compiles to and both planes are lowered from.
//!
//! Ordered and closed: maps are `BTreeMap`s, enums have every case. A value that exists is valid; what a user got
//! wrong is a value too ([`Destination::Fail`]). Nothing here is serialized (the admin has its own view types).

pub mod http;
pub mod name;
pub mod service;
pub mod stream;
pub mod tls;

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use http::*;
pub use name::*;
pub use service::*;
pub use stream::*;
pub use tls::*;

/// The whole configuration of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ir {
    /// One per address, port and transport; several Gateway API listeners may share one.
    pub listeners: BTreeMap<Bind, Listener>,
    /// Every service some listener refers to.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// Every certificate some listener refers to.
    pub certificates: BTreeMap<CertificateName, Certificate>,
}

/// Counts configurations; a request sees exactly one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Revision(pub u64);

/// Transport of a listener.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// IP protocol number.
    pub const fn protocol_number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }
}

/// Where a listener is reached. `addr: None` is every address of the host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Bind {
    pub addr: Option<IpAddr>,
    pub port: u16,
    pub transport: Transport,
}

impl Bind {
    /// TCP on one address.
    pub fn tcp(addr: SocketAddr) -> Self {
        Self {
            addr: Some(addr.ip()),
            port: addr.port(),
            transport: Transport::Tcp,
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        match self.addr {
            Some(addr) => write!(f, "{scheme}://{}", SocketAddr::new(addr, self.port)),
            None => write!(f, "{scheme}://*:{}", self.port),
        }
    }
}

/// A bound port and who handles its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub bind: Bind,
    /// The Gateway API listeners behind it, in order of their names.
    pub names: Vec<ListenerName>,
    pub plane: Plane,
    /// Why this plane, in one sentence for `status`.
    pub why: String,
    pub exposure: Exposure,
}

/// Where a listener is reached, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Its endpoints are on other nodes, where its clients are to go: for it the address is not made one of this host.
    /// What comes nevertheless is refused.
    pub elsewhere: bool,
    /// Clients that may connect, by their addresses; empty: all. Who is asked connection by connection is not forwarded
    /// by packets.
    pub clients: Vec<IpNet>,
}

impl Exposure {
    /// Whether a client may connect. `client` is not IPv4-mapped.
    pub fn admits(&self, client: IpAddr) -> bool {
        self.clients.is_empty() || self.clients.iter().any(|net| net.contains(&client))
    }
}

/// Who handles the bytes of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plane {
    /// XDP/TC forwards packets, userspace sees counters.
    Kernel(StreamRules),
    /// Bytes are relayed after at most one ClientHello.
    Splice(StreamRules),
    /// Requests are parsed and routed.
    Http(HttpRules),
}

impl Plane {
    /// Word used in the annotation `sluice.dev/plane`, in status and in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Plane::Kernel(_) => "kernel",
            Plane::Splice(_) => "splice",
            Plane::Http(_) => "http",
        }
    }

    /// Rules by which connections are forwarded or relayed; of an HTTPS port those of its TLS listeners.
    pub fn stream_rules(&self) -> &[StreamRule] {
        match self {
            Plane::Kernel(rules) | Plane::Splice(rules) => &rules.rules,
            Plane::Http(rules) => &rules.streams,
        }
    }
}

/// A key pair for TLS. The key never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// DER private key: PKCS#8, PKCS#1 or SEC1, in that order of likelihood; the TLS rim tells them apart.
    pub key: SecretBytes,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("chain", &self.chain.len())
            .field("key", &self.key)
            .finish()
    }
}

/// Bytes that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The secret itself: for the TLS library only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} secret bytes]", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_admitted_by_their_addresses_and_all_where_none_are_named() {
        let of = |nets: &[&str]| Exposure {
            clients: nets.iter().map(|net| net.parse().unwrap()).collect(),
            ..Exposure::default()
        };
        let admits = |nets: &[&str], client: &str| of(nets).admits(client.parse().unwrap());
        assert!(admits(&[], "192.0.2.1") && admits(&[], "2001:db8::1"));
        let nets = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/64"];
        assert!(admits(&nets, "10.255.0.1") && admits(&nets, "192.0.2.7") && admits(&nets, "2001:db8::9"));
        assert!(!admits(&nets, "11.0.0.1") && !admits(&nets, "192.0.2.8") && !admits(&nets, "2001:db8:1::"));
        assert!(!admits(&["0.0.0.0/0"], "2001:db8::1"), "a family that is not named");
    }
}
