//! What is live, as values for the admin: made by workers, merged and rendered at the rim.

use crate::ids::{EndpointId, ListenerId, RuleId};
use std::net::SocketAddr;

/// Which plane carries it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LivePlane {
    Kernel,
    Splice,
    Http,
}

impl LivePlane {
    pub const fn name(self) -> &'static str {
        match self {
            LivePlane::Kernel => "kernel",
            LivePlane::Splice => "splice",
            LivePlane::Http => "http",
        }
    }
}

/// One live connection.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// Unique in its worker for the life of the process.
    pub id: u64,
    pub plane: LivePlane,
    /// `h2`, `h1`, `tls`, `tcp`, `udp`; of kernel flows `tcp` or `udp`.
    pub protocol: &'static str,
    /// Downstream, or upstream.
    pub side: Side,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Of a downstream connection.
    pub listener: Option<ListenerId>,
    /// Of an upstream, spliced or kernel connection.
    pub endpoint: Option<EndpointId>,
    /// Streams open now, and streams ever opened.
    pub streams: u32,
    pub streams_total: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub age_ms: u64,
    /// The name asked for in its TLS handshake; `None` without TLS or without a name.
    pub server_name: Option<String>,
    /// Whom its client's verified certificate names.
    pub identity: Option<String>,
    /// Why it is on this plane, when there is more to say than the listener's own reason.
    pub why: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Downstream,
    Upstream,
}

/// One live stream: a request between two connections.
#[derive(Clone, Debug)]
pub struct StreamView {
    /// `ConnectionView::id` of the downstream connection.
    pub connection: u64,
    /// HTTP/2 stream id; for HTTP/1.1 the number of the request on its connection.
    pub stream: u32,
    pub listener: ListenerId,
    pub rule: Option<RuleId>,
    pub endpoint: Option<EndpointId>,
    pub method: String,
    /// Empty of a CONNECT.
    pub path: String,
    /// `request`, or of an open tunnel `websocket`, `upgrade` (another protocol) or `connect`. Of the gateway's own:
    /// `mirror`, or `question` (to an authorization service).
    pub kind: &'static str,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub age_ms: u64,
}
