//! How a request ended: the one record from which access log and metrics are written.

use crate::retry::Retried;
use crate::trace::Trace;
use gateway_core::fault::Fault;
use gateway_core::ids::{EndpointId, ListenerId, RuleId};
use gateway_core::time::Moment;
use std::net::SocketAddr;

/// A finished request. Texts are borrowed from the engine's buffers.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    pub started: Moment,
    pub ended: Moment,
    pub listener: ListenerId,
    pub rule: Option<RuleId>,
    pub endpoint: Option<EndpointId>,
    /// Endpoints tried, 1 for a request that went straight through, 0 for a local reply.
    pub attempts: u8,
    /// What for the last retry was, if its rule has retries and it had any.
    pub retried: Option<Retried>,
    pub peer: SocketAddr,
    /// `HTTP/2` or `HTTP/1.1`.
    pub protocol: &'static str,
    /// Lossy text; at most [`TEXT_BYTES_MAX`] bytes each.
    pub method: &'a str,
    pub authority: &'a str,
    /// Path with query.
    pub path: &'a str,
    pub user_agent: &'a str,
    pub request_id: &'a str,
    /// 0 when no response head was sent.
    pub status: u16,
    /// From the trailers or the trailers-only response.
    pub grpc_status: Option<u32>,
    /// gRPC messages from and to the client; `None` when the call is no gRPC.
    pub grpc_messages: Option<[u64; 2]>,
    pub fault: Option<Fault>,
    /// Body bytes from and to the client.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Time until the response's head.
    pub first_byte: Option<Moment>,
    /// When requests are traced.
    pub trace: Option<Trace>,
}

/// Longest text kept for the access log, per field.
pub const TEXT_BYTES_MAX: usize = 512;
