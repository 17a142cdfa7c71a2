//! Rules of listeners that never look into the bytes beyond a ClientHello.

use super::{CertificateName, Destination, HostPattern, ListenerName, ListenerTls, RuleName, Weighted};

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
    /// The server name of a TLS ClientHello, which is passed on untouched, or answered where the rule terminates TLS.
    Sni,
}

/// One TCPRoute, UDPRoute or TLSRoute rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRule {
    pub listener: ListenerName,
    pub name: RuleName,
    pub hostname: HostPattern,
    /// `None`: bytes are passed on as they come.
    pub terminate: Option<Termination>,
    /// None of any weight: connections are refused. None at all: no route of the listener takes these names.
    pub destinations: Vec<Weighted<Destination>>,
}

/// TLS ends here and what it protected is relayed (TLS listeners in mode Terminate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// First is the default; never empty.
    pub certificates: Vec<CertificateName>,
    pub tls: ListenerTls,
}
