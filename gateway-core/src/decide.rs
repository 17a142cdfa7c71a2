//! The one function a newcomer reads: what happens to a request.
//!
//! `filters of the listener (ask first) -> route (404) -> filters (may answer: redirect) -> pick a destination
//! -> pick an endpoint -> Forward`.
//! A rule with an authorization service has it asked before what was decided is carried out: [`Decide::authorizer`].
//!
//! Each phase hands out a receipt that only it can make and that the next one asks for: `Matched`, `Admitted`,
//! `Picked`. So their order can not be got wrong. Nothing here allocates but the `Location` of a redirect.

use crate::balance::Balancers;
use crate::balance::budget::Allowance;
use crate::fault::{Fault, Refusal};
use crate::filter;
use crate::filter::cors::{AnswerFields, Preflight};
use crate::ids::{EndpointId, ListenerId, RuleId};
use crate::ir::{Filter, Recognise, Timeouts, UpstreamProtocol};
use crate::session::Token;
use crate::snapshot::{
    DestinationPlan, DestinationTo, HttpPlan, ListenerPlan, RulePlan, ServicePlan, Snapshot, StreamRulePlan,
};
use crate::time::Moment;
use gateway_common::abi::{FlowKey, addr_words};
use gateway_common::datapath::hash;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use crate::route::{Fields, RequestHead};

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    Forward(Forward),
    Reply(Reply),
    /// A filter of the listener comes first: this rule's authorization service is asked, then all is decided by
    /// [`Decide::request_after`] it.
    Ask(RuleId),
}

impl From<Reply> for Decision {
    fn from(reply: Reply) -> Self {
        Decision::Reply(reply)
    }
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
    /// When the whole request must be over, attempts and pauses between them included (`timeouts.request`).
    pub deadline: Option<Moment>,
    /// How long one attempt may take (`timeouts.backendRequest`).
    pub attempt_timeout: Option<Duration>,
    /// The rule says which failed attempts are followed by others: `snapshot.rule(rule).retry`.
    pub retries: bool,
    /// The session it belongs to, if its rule has sessions and it showed one.
    pub session: Option<Token>,
    /// Its endpoints are spoken to over TLS.
    pub tls: bool,
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
    Redirect {
        rule: RuleId,
        status: u16,
        location: String,
    },
    /// The CORS filter of the rule that the actual request would meet answered a preflight.
    Preflight { rule: RuleId, fields: AnswerFields },
}

/// Where a copy of a request goes, or the question whether it may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorTo {
    pub endpoint: EndpointId,
    pub protocol: UpstreamProtocol,
    pub tls: bool,
}

/// Decides over one snapshot with one worker's balancer state.
pub struct Decide<'a> {
    pub snapshot: &'a Snapshot,
    pub balancers: &'a mut Balancers,
}

impl Decide<'_> {
    /// What happens to a request that came in on `listener`. Deterministic: the same snapshot, balancer state and
    /// arguments give the same decision.
    pub fn request<F: Fields>(&mut self, listener: ListenerId, head: &RequestHead<'_, F>, now: Moment) -> Decision {
        self.request_after(listener, head, 0, now)
    }

    /// As [`Decide::request`], of a request that `passed` so many filters of the listener.
    pub fn request_after<F: Fields>(
        &mut self,
        listener: ListenerId,
        head: &RequestHead<'_, F>,
        passed: u8,
        now: Moment,
    ) -> Decision {
        match self.forward(listener, head, passed, now) {
            Ok(forward) => Decision::Forward(forward),
            Err(decision) => decision,
        }
    }

    fn forward<F: Fields>(
        &mut self,
        listener: ListenerId,
        head: &RequestHead<'_, F>,
        passed: u8,
        now: Moment,
    ) -> Result<Forward, Decision> {
        if head.method == b"OPTIONS"
            && let Some(answer) = self.preflight(listener, head, passed)
        {
            return Err(answer.into());
        }
        let matched = Matched::find(self.snapshot, listener, head, passed)?; // 404
        let admitted = matched.admit(head)?; // 3xx
        let picked = admitted.pick(self.snapshot, self.balancers, head, now)?; // 500, 503
        Ok(picked.forward(now))
    }

    /// The answer to a CORS preflight: by the rule that the request it asks about would meet (Fetch, "CORS protocol").
    /// `None`: not a preflight, or no rule of ours answers it.
    fn preflight<F: Fields>(&self, listener: ListenerId, head: &RequestHead<'_, F>, passed: u8) -> Option<Reply> {
        let asked = Preflight {
            origin: head.fields.field(b"origin")?,
            method: head.fields.field(b"access-control-request-method")?,
            headers: head.fields.field(b"access-control-request-headers"),
        };
        let actual = RequestHead {
            method: asked.method,
            ..*head
        };
        let matched = Matched::find(self.snapshot, listener, &actual, passed).ok()?;
        let cors = filter::cors(&matched.rule.filters)?;
        Some(Reply::Preflight {
            rule: matched.rule.id,
            fields: cors.preflight(&asked),
        })
    }

    /// Where the mirror `index` of a rule sends a copy of this request; `None` when it is not this one's turn or no
    /// endpoint is there. The share is exact over each round of `denominator` requests of this worker.
    pub fn mirror(&mut self, rule: RuleId, index: usize, now: Moment) -> Option<MirrorTo> {
        let mirror = self.snapshot.rule(rule)?.mirrors.get(index)?;
        if !self
            .balancers
            .mirrors(rule, index, mirror.numerator, mirror.denominator)
        {
            return None;
        }
        let service = self.snapshot.service(mirror.to)?;
        Some(MirrorTo {
            endpoint: self.balancers.pick(service, &[], now)?,
            protocol: mirror.protocol,
            tls: service.tls.is_some(),
        })
    }

    /// Who is asked whether a request of a rule may pass. `not`: endpoints that were asked in vain.
    ///
    /// # Errors
    /// [`Fault::Broken`]: the rule asks nobody, or a service that is not there. [`Fault::NoEndpoint`]: none serves.
    pub fn authorizer(&mut self, rule: RuleId, not: &[EndpointId], now: Moment) -> Result<MirrorTo, Fault> {
        let auth = self.snapshot.rule(rule).and_then(|rule| rule.auth.as_ref());
        let auth = auth.ok_or(Fault::Broken)?;
        let service = match auth.to {
            DestinationTo::Service(id) => self.snapshot.service(id).ok_or(Fault::Broken)?,
            DestinationTo::Fail { .. } => return Err(Fault::Broken),
        };
        Ok(MirrorTo {
            endpoint: self.balancers.pick(service, not, now).ok_or(Fault::NoEndpoint)?,
            protocol: auth.protocol,
            tls: service.tls.is_some(),
        })
    }

    /// Another endpoint for a request that was provably not processed by `not`; `None` when there is none. `self` must
    /// hold the snapshot that `forward` was decided over, here and below.
    pub fn again(&mut self, forward: &Forward, not: &[EndpointId], now: Moment) -> Option<EndpointId> {
        let service = service_of(self.snapshot, forward)?;
        self.balancers.pick(service, not, now)
    }

    /// An endpoint for the attempt after failed ones: one that was not tried, else not the last tried, else any.
    /// `tried`: the last one at its end.
    pub fn retry(&mut self, forward: &Forward, tried: &[EndpointId], now: Moment) -> Option<EndpointId> {
        let service = service_of(self.snapshot, forward)?;
        let last = &tried[tried.len().saturating_sub(1)..];
        [tried, last, &[]]
            .into_iter()
            .find_map(|not| self.balancers.pick(service, not, now))
    }

    /// A request whose rule has retries begins: its service may be retried a little more.
    pub fn allow_retries(&mut self, forward: &Forward, allowance: Allowance, now: Moment) {
        if let Some(service) = service_of(self.snapshot, forward) {
            self.balancers.budget(service.id).request(allowance, now);
        }
    }

    /// Whether the service's budget has another attempt left; it is taken.
    pub fn take_retry(&mut self, forward: &Forward, allowance: Allowance, now: Moment) -> bool {
        service_of(self.snapshot, forward).is_some_and(|service| self.balancers.budget(service.id).take(allowance, now))
    }

    /// Endpoint for a connection to a stream listener (splice plane, or a relay behind a kernel VIP).
    /// `server_name`: from the ClientHello, lower case, when the plan asks for it.
    pub fn connection(
        &mut self,
        listener: ListenerId,
        client: IpAddr,
        server_name: Option<&str>,
        now: Moment,
    ) -> Result<(RuleId, EndpointId), Refusal> {
        let rule = stream_rule(self.snapshot, listener, server_name)?;
        let index = self
            .balancers
            .destination(rule.id, &rule.destinations)
            .ok_or(Refusal::Broken)?;
        match rule.destinations[index].to {
            DestinationTo::Fail { .. } => Err(Refusal::Broken),
            DestinationTo::Service(id) => {
                let service = self.snapshot.service(id).ok_or(Refusal::Broken)?;
                let affinity = affinity(self.snapshot, client);
                let endpoint = self.balancers.pick_for(service, affinity, &[], now);
                Ok((rule.id, endpoint.ok_or(Refusal::NoEndpoint)?))
            }
        }
    }

    /// Another endpoint for a connection of this client whose endpoint could not be reached; `None` when there is none.
    pub fn connection_again(
        &mut self,
        of: EndpointId,
        client: IpAddr,
        not: &[EndpointId],
        now: Moment,
    ) -> Option<EndpointId> {
        let service = self.snapshot.endpoint(of)?.service;
        let service = self.snapshot.service(service)?;
        let affinity = affinity(self.snapshot, client);
        self.balancers.pick_for(service, affinity, not, now)
    }
}

/// What a client's address says for an endpoint: rendezvous hashing (Thaler and Ravishankar, 1998), by the hash that
/// packets are forwarded by.
fn affinity(snapshot: &Snapshot, client: IpAddr) -> impl Fn(EndpointId) -> u32 {
    let src = addr_words(client);
    move |endpoint| {
        let Some(endpoint) = snapshot.endpoint(endpoint) else {
            return 0;
        };
        hash(&FlowKey {
            src,
            dst: addr_words(endpoint.addr.ip()),
            ports: FlowKey::ports(0, endpoint.addr.port().to_be()),
            proto: 0,
        })
    }
}

/// The service a request was sent to; `None` where that is broken.
fn service_of<'s>(snapshot: &'s Snapshot, forward: &Forward) -> Option<&'s ServicePlan> {
    let rule = snapshot.rule(forward.rule)?;
    match rule.destinations.get(usize::from(forward.destination))?.to {
        DestinationTo::Service(id) => snapshot.service(id),
        DestinationTo::Fail { .. } => None,
    }
}

/// The rule of a connection to a stream listener: of those that match the server name the most specific one.
/// `server_name`: as for [`Decide::connection`].
pub fn stream_rule<'s>(
    snapshot: &'s Snapshot,
    listener: ListenerId,
    server_name: Option<&str>,
) -> Result<&'s StreamRulePlan, Refusal> {
    let plan = snapshot
        .listener(listener)
        .and_then(ListenerPlan::stream)
        .ok_or(Refusal::NoListener)?;
    match plan.recognise {
        // A listener without a route is configuration too, and it is not the client's fault.
        Recognise::Nothing => plan.rules.first().ok_or(Refusal::Broken),
        // Without a name only a rule for any name is meant.
        Recognise::Sni => plan
            .rule(server_name.unwrap_or_default())
            .filter(|rule| !rule.destinations.is_empty())
            .ok_or(Refusal::NoServerName),
    }
}

/// Receipt: this rule of this listener matched.
struct Matched<'s> {
    http: &'s HttpPlan,
    port: u16,
    rule: &'s RulePlan,
    prefix_len: u16,
}

impl<'s> Matched<'s> {
    fn find<F: Fields>(
        snapshot: &'s Snapshot,
        listener: ListenerId,
        head: &RequestHead<'_, F>,
        passed: u8,
    ) -> Result<Self, Decision> {
        let plan = snapshot.listener(listener).ok_or(Reply::NoHost)?;
        let http = plan.http().ok_or(Reply::NoHost)?;
        // Isolation: a request belongs to the first scope, even if only a later one has a route for it.
        let scope = http
            .scope_of(head.host)
            .and_then(|index| http.scopes.get(index))
            .ok_or(Reply::NoHost)?;
        if let Some(guard) = scope.guards.get(usize::from(passed)) {
            return Err(Decision::Ask(*guard));
        }
        let found = scope.hosts.find(head).ok_or(Reply::NoRoute)?;
        let rule = snapshot.rule(found.rule).ok_or(Reply::NoRoute)?;
        Ok(Self {
            http,
            port: plan.bind.port,
            rule,
            prefix_len: found.prefix_len,
        })
    }

    fn admit<F: Fields>(self, head: &RequestHead<'_, F>) -> Result<Admitted<'s>, Reply> {
        self.answer(&self.rule.filters, head)?;
        Ok(Admitted(self))
    }

    /// Whether a filter answers by itself.
    fn answer<F: Fields>(&self, filters: &[Filter], head: &RequestHead<'_, F>) -> Result<(), Reply> {
        let Some(redirect) = filter::redirect(filters) else {
            return Ok(());
        };
        let scheme = if self.http.tls { "https" } else { "http" };
        let prefix_len = usize::from(self.prefix_len);
        let location = filter::redirect_location(
            redirect, scheme, head.host, self.port, head.path, head.query, prefix_len,
        );
        Err(Reply::Redirect {
            rule: self.rule.id,
            status: redirect.status,
            location,
        })
    }
}

/// Receipt: it may be sent on.
struct Admitted<'s>(Matched<'s>);

impl<'s> Admitted<'s> {
    fn pick<F: Fields>(
        self,
        snapshot: &'s Snapshot,
        balancers: &mut Balancers,
        head: &RequestHead<'_, F>,
        now: Moment,
    ) -> Result<Picked<'s>, Reply> {
        let rule = self.0.rule;
        let broken = |status| Reply::Broken { rule: rule.id, status };
        // No destination, or all weights zero: 500 (Gateway API HTTPRouteRule.backendRefs).
        let index = balancers.destination(rule.id, &rule.destinations).ok_or(broken(500))?;
        let destination = &rule.destinations[index];
        self.0.answer(&destination.filters, head)?;
        let service = match &destination.to {
            DestinationTo::Service(id) => snapshot.service(*id).ok_or(broken(500))?,
            DestinationTo::Fail { status, .. } => return Err(broken(*status)),
        };
        let tls = service.tls.is_some();
        let session = rule.session.as_ref();
        let session = session.and_then(|session| session.of(head.fields, balancers.unix_s(now)));
        let kept = session.and_then(|token| kept(snapshot, service, token.endpoint));
        let endpoint = match kept.filter(|endpoint| !balancers.is_out(*endpoint, now)) {
            Some(endpoint) => endpoint,
            // Whoever is left begins the session anew.
            None => balancers
                .pick(service, &[], now)
                .ok_or(Reply::NoEndpoint { rule: rule.id })?,
        };
        Ok(Picked {
            session,
            matched: self.0,
            index,
            destination,
            endpoint,
            tls,
        })
    }
}

/// Receipt: this endpoint takes it.
struct Picked<'s> {
    matched: Matched<'s>,
    index: usize,
    destination: &'s DestinationPlan,
    endpoint: EndpointId,
    session: Option<Token>,
    tls: bool,
}

impl Picked<'_> {
    fn forward(self, now: Moment) -> Forward {
        let timeouts: Timeouts = self.matched.rule.timeouts;
        Forward {
            rule: self.matched.rule.id,
            destination: u16::try_from(self.index).unwrap_or(u16::MAX),
            endpoint: self.endpoint,
            protocol: self.destination.protocol,
            prefix_len: self.matched.prefix_len,
            tls: self.tls,
            deadline: allowed(timeouts.request).map(|allowed| now + allowed),
            attempt_timeout: allowed(timeouts.backend_request),
            retries: self.matched.rule.retry.is_some(),
            session: self.session,
        }
    }
}

/// The endpoint of a session, as long as it takes new work.
fn kept(snapshot: &Snapshot, service: &ServicePlan, addr: SocketAddr) -> Option<EndpointId> {
    let at = |id: &EndpointId| snapshot.endpoint(*id).is_some_and(|endpoint| endpoint.addr == addr);
    service.turns.iter().copied().find(at)
}

/// Zero is none (Gateway API HTTPRouteTimeouts).
fn allowed(timeout: Option<Duration>) -> Option<Duration> {
    timeout.filter(|timeout| !timeout.is_zero())
}

#[cfg(test)]
mod tests;
