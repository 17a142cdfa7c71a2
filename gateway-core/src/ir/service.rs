//! Services and their endpoints.

use super::{BackendTls, EndpointName, ServiceName};
use std::net::SocketAddr;
use std::sync::Arc;

/// A set of endpoints that serve the same thing.
///
/// Of an endpoint with addresses of both families this holds one, IPv4 first: balancing counts endpoints, not
/// addresses. Packets cannot change their family, so kernel rules name a service whose endpoints are all of their
/// VIP's: this one where it is, else `<name>/ipv4` or `<name>/ipv6` beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    /// In order of address; no address twice.
    pub endpoints: Vec<Endpoint>,
    pub balance: BalancePolicy,
    /// `None`: in plain text.
    pub tls: Option<Arc<BackendTls>>,
}

/// One address that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub name: EndpointName,
    pub addr: SocketAddr,
    /// Turns per round, 1..=1000. 1 unless a policy says otherwise.
    pub weight: u16,
    pub readiness: Readiness,
}

/// What an EndpointSlice's conditions mean to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// `ready`: new work.
    Serving,
    /// `terminating` and `serving`: keeps what it has, gets nothing new.
    Draining,
}

/// How an endpoint is chosen for a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BalancePolicy {
    #[default]
    RoundRobin,
    /// Fewest streams in flight from this worker; ties go round.
    LeastRequest,
    /// By the client's address alone, so that all its connections go to one endpoint while that serves; of others that
    /// come or go only their own share of the clients moves. For connections and datagrams: requests go round.
    ClientAddress,
}

/// Where a rule sends its traffic, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted<T> {
    /// 0..=1_000_000 (Gateway API). All zero: the rule answers 500.
    pub weight: u32,
    pub to: T,
}

/// What a backendRef turned out to be. Broken configuration is a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Service(ServiceName),
    /// Answers this share of the traffic with `status` (HTTP) or refuses the connection (streams).
    Fail {
        status: u16,
        why: String,
    },
}
