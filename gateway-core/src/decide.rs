//! The one function a newcomer reads: what happens to a request.
//!
//! `route (404) -> filters (may answer: redirect) -> pick a destination -> pick an endpoint -> Forward`.
//! Limits and authorization stand between route and filters once they exist.

use crate::balance::Balancers;
use crate::ids::{EndpointId, ListenerId, RuleId};
use crate::ir::UpstreamProtocol;
use crate::snapshot::Snapshot;
use crate::time::Moment;

/// The fields of a request, however the codec holds them.
pub trait Fields {
    /// The first value of a field; `name` is lower case.
    fn field(&self, name: &[u8]) -> Option<&[u8]>;
}

/// What routing looks at. Borrowed from the codec's scratch buffer.
pub struct RequestHead<'a, F> {
    pub method: &'a [u8],
    /// Host of the authority: lower case, without port.
    pub host: &'a str,
    /// Normalised path, without query, starting with `/` (or `*`).
    pub path: &'a [u8],
    /// Without `?`; `None` when there is none.
    pub query: Option<&'a [u8]>,
    pub fields: &'a F,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    Forward(Forward),
    Reply(Reply),
}

/// Send it on. The rule and the destination are read from the same snapshot: `snapshot.rule(rule)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    pub rule: RuleId,
    /// Index into the rule's `destinations`.
    pub destination: u16,
    pub endpoint: EndpointId,
    pub protocol: UpstreamProtocol,
    /// Bytes of the path that the rule's prefix match took; for prefix rewrites. 0 if not a prefix match.
    pub prefix_len: u16,
    /// When the whole request must be over.
    pub deadline: Option<Moment>,
}

/// Answer it here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No listener hostname or route matches: 404, gRPC UNIMPLEMENTED.
    NoRoute,
    /// The host belongs to no listener hostname of this port: 404.
    NoHost,
    /// The destination is broken configuration: its status (500), gRPC UNAVAILABLE; `why` is in `status`.
    Broken { rule: RuleId, status: u16 },
    /// No endpoint can take it now: 503, gRPC UNAVAILABLE.
    NoEndpoint { rule: RuleId },
    /// A redirect filter answered.
    Redirect { rule: RuleId, status: u16, location: String },
}

/// Decides over one snapshot with one worker's balancer state.
pub struct Decide<'a> {
    pub snapshot: &'a Snapshot,
    pub balancers: &'a mut Balancers,
}

impl Decide<'_> {
    /// What happens to a request that came in on `listener`. `tls_host`: the server name of the TLS connection, if
    /// any. Deterministic: the same snapshot, balancer state and arguments give the same decision.
    pub fn request<F: Fields>(
        &mut self,
        listener: ListenerId,
        head: &RequestHead<'_, F>,
        now: Moment,
    ) -> Decision {
        let _ = (listener, head, now);
        todo!()
    }

    /// Another endpoint for a request that was provably not processed by `not`; `None` when there is none.
    pub fn again(&mut self, forward: &Forward, not: &[EndpointId], now: Moment) -> Option<EndpointId> {
        let _ = (forward, not, now);
        todo!()
    }

    /// Endpoint for a connection to a stream listener (splice plane, or a relay behind a kernel VIP).
    /// `server_name`: from the ClientHello, lower case, when the plan asks for it.
    pub fn connection(
        &mut self,
        listener: ListenerId,
        server_name: Option<&str>,
        now: Moment,
    ) -> Result<(RuleId, EndpointId), crate::fault::Refusal> {
        let _ = (listener, server_name, now);
        todo!()
    }
}
