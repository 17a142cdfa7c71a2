//! Rules of listeners that never look into the bytes beyond a ClientHello.

use super::{Destination, HostPattern, ListenerName, RuleName, Weighted};

/// Rules of a kernel or splice listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRules {
    pub recognise: Recognise,
    /// Most specific hostname first; with [`Recognise::Nothing`] there is at most one.
    pub rules: Vec<StreamRule>,
}

/// What is read before the endpoint is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recognise {
    /// Nothing: a TCPRoute or UDPRoute.
    Nothing,
    /// The server name of a TLS ClientHello, which is passed on untouched: a TLSRoute in mode Passthrough.
    Sni,
}

/// One TCPRoute, UDPRoute or TLSRoute rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRule {
    pub listener: ListenerName,
    pub name: RuleName,
    pub hostname: HostPattern,
    pub destinations: Vec<Weighted<Destination>>,
}
