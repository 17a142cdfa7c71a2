//! One session: it begins with a client's datagram, and ends when nothing has passed for long enough.
//!
//! How long that is says what has passed, as in the kernel plane (`FlowPhase` of `gateway-common`): a question, or one
//! question and its answer, is kept for a minute at most; an exchange in which the client spoke again after an answer
//! for `timeouts.udpIdle`. While the worker drains, an answer that is under way is all that is waited for.

use super::{DatagramPlane, Key};
use crate::sys::datagrams::Batch;
use crate::telemetry::access_log::relay::{RelayEnd, RelayOutcome};
use crate::worker::accept::unmapped;
use crate::worker::context::{Context, PAST_THE_KERNEL};
use crate::worker::token::Source;
use gateway_core::decide::Decide;
use gateway_core::fault::Refusal;
use gateway_core::ids::{EndpointId, ListenerId, RuleId};
use gateway_core::ir::Revision;
use gateway_core::snapshot::{ListenerPlan, Serve};
use gateway_core::time::Moment;
use mio::Interest;
use mio::net::UdpSocket;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Idle limit of a session that is not an exchange yet.
pub const ASKED_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle limit while the worker drains.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How far an exchange has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Asked,
    Answered,
    Streaming,
}

/// A client's exchange with one endpoint.
#[derive(Debug)]
pub struct Session {
    pub client: SocketAddr,
    /// The address of ours that it sends to, where its socket has several.
    pub local: Option<IpAddr>,
    /// Of the listening socket.
    pub socket: Key,
    /// `None`: its share of the traffic is refused, for as long as the configuration is this one.
    pub upstream: Option<UdpSocket>,
    pub listener: ListenerId,
    pub rule: Option<RuleId>,
    pub endpoint: Option<EndpointId>,
    pub opened: Moment,
    /// Its last datagram, either way.
    pub seen: Moment,
    pub phase: Phase,
    pub revision: Revision,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// Why it is here, if its listener does not say so.
    pub why: Option<&'static str>,
    /// When its next timer comes: at the deadline, or earlier.
    pub wake_at: Option<Moment>,
}

impl Session {
    /// When it is over if nothing passes any more.
    pub fn deadline(&self, context: &Context) -> Moment {
        let streaming = context.options.limits.udp_idle_timeout;
        let idle = match self.phase {
            Phase::Asked | Phase::Answered => streaming.min(ASKED_TIMEOUT),
            Phase::Streaming => streaming,
        };
        self.seen
            + if context.draining {
                idle.min(DRAIN_TIMEOUT)
            } else {
                idle
            }
    }
}

impl DatagramPlane {
    /// Passes a client's datagram on.
    pub(super) fn forward(
        &mut self,
        socket: Key,
        client: SocketAddr,
        local: Option<IpAddr>,
        payload: &[u8],
        context: &mut Context,
    ) {
        let mut known = self.by_client.get(&(socket.index, client, local)).copied();
        if let Some(key) = known
            && !self.holds(key, context)
        {
            self.end(key, RelayEnd::Finished, context);
            known = None;
        }
        let key = match known.map_or_else(|| self.begin(socket, client, local, None, context), Ok) {
            Ok(key) => key,
            Err(refusal) => return self.refuse(refusal, context),
        };
        let Some(sent) = self.send(key, payload, context) else {
            return self.refuse(Refusal::Broken, context);
        };
        if sent != Some(ErrorKind::ConnectionRefused) {
            return;
        }
        // Its endpoint told us, by ICMP, that nobody is there: another one gets this datagram.
        let refused = self.sessions.get(key).and_then(|session| session.endpoint);
        self.broken(key, context);
        match self.begin(socket, client, local, refused, context) {
            Ok(key) => _ = self.send(key, payload, context),
            Err(refusal) => self.refuse(refusal, context),
        }
    }

    /// Whether a session goes on: its endpoint is still configured, or its refusal is still what the configuration says.
    fn holds(&self, key: Key, context: &Context) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let admits = |plan: &ListenerPlan| plan.exposure.admits(unmapped(session.client).ip());
        match session.endpoint {
            // Who may not come any more begins anew, and is refused.
            Some(_) if !context.snapshot.listener(session.listener).is_some_and(admits) => false,
            Some(endpoint) => context.snapshot.endpoint(endpoint).is_some(),
            None => session.revision == context.snapshot.revision,
        }
    }

    /// Chooses an endpoint for a client.
    fn begin(
        &mut self,
        socket: Key,
        client: SocketAddr,
        local: Option<IpAddr>,
        not: Option<EndpointId>,
        context: &mut Context,
    ) -> Result<Key, Refusal> {
        if context.draining {
            return Err(Refusal::Draining);
        }
        if self.sessions.len() >= context.options.limits.udp_sessions_max {
            return Err(Refusal::TooMany);
        }
        let snapshot = Arc::clone(&context.snapshot);
        let listening = self.sockets.get(socket).ok_or(Refusal::NoListener)?;
        let (listener, plan) = snapshot.udp_listener(&listening.bind).ok_or(Refusal::NoListener)?;
        let from = unmapped(client).ip();
        if !plan.exposure.admits(from) {
            return Err(Refusal::NotAllowed);
        }
        let mut decide = Decide {
            snapshot: &snapshot,
            balancers: &mut self.balancers,
        };
        let chosen = match decide.connection(listener, from, None, context.now) {
            Ok((rule, endpoint)) if Some(endpoint) == not => {
                let other = decide.connection_again(endpoint, from, &[endpoint], context.now);
                Ok((rule, other.ok_or(Refusal::NoEndpoint)?))
            }
            chosen => chosen,
        };
        let (rule, endpoint) = match chosen {
            Ok((rule, endpoint)) => (Some(rule), Some(endpoint)),
            // The share of a broken backendRef: this client's datagrams are all of it.
            Err(Refusal::Broken) => (None, None),
            Err(refusal) => return Err(refusal),
        };
        let key = self.sessions.insert(Session {
            client,
            local,
            socket,
            upstream: None,
            listener,
            rule,
            endpoint,
            opened: context.now,
            seen: context.now,
            phase: Phase::Asked,
            revision: snapshot.revision,
            bytes_up: 0,
            bytes_down: 0,
            why: matches!(plan.serve, Serve::KernelRelay(_)).then_some(PAST_THE_KERNEL),
            wake_at: None,
        });
        self.by_client.insert((socket.index, client, local), key);
        let share = self.metrics.listener(listener);
        share.connections_total += 1;
        share.connections_active += 1;
        if let Some(endpoint) = endpoint {
            self.balancers.started(endpoint);
            let share = self.metrics.endpoint(endpoint);
            share.connections_total += 1;
            share.connections_active += 1;
            if !self.connect(key, endpoint, context) {
                self.metrics.connect_failures_total += 1;
                self.balancers.failed(endpoint, context.now);
                self.end(key, RelayEnd::Refused(Refusal::NoEndpoint), context);
                return Err(Refusal::NoEndpoint);
            }
        }
        self.watch(key, context);
        Ok(key)
    }

    /// Opens the session's socket to its endpoint.
    fn connect(&mut self, key: Key, endpoint: EndpointId, context: &Context) -> bool {
        let Some(addr) = context.snapshot.endpoint(endpoint).map(|plan| plan.addr) else {
            return false;
        };
        let any: SocketAddr = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let opened = UdpSocket::bind(any).and_then(|mut socket| {
            socket.connect(addr)?;
            let token = Source::DatagramUp(key).token();
            context.registry.register(&mut socket, token, Interest::READABLE)?;
            Ok(socket)
        });
        match (opened, self.sessions.get_mut(key)) {
            (Ok(socket), Some(session)) => {
                session.upstream = Some(socket);
                true
            }
            (Ok(_) | Err(_), _) => false,
        }
    }

    /// Sends to the session's endpoint. `None`: it is one that is refused; else what went wrong, if anything did.
    fn send(&mut self, key: Key, payload: &[u8], context: &Context) -> Option<Option<ErrorKind>> {
        let session = self.sessions.get_mut(key)?;
        let sent = session.upstream.as_ref()?.send(payload);
        session.seen = context.now;
        if session.phase == Phase::Answered {
            session.phase = Phase::Streaming;
        }
        match sent {
            Ok(_) => {
                session.bytes_up += payload.len() as u64;
                let (listener, endpoint) = (session.listener, session.endpoint);
                self.metrics.listener(listener).bytes_up += payload.len() as u64;
                if let Some(endpoint) = endpoint {
                    self.metrics.endpoint(endpoint).bytes_up += payload.len() as u64;
                }
                Some(None)
            }
            Err(error) => {
                if error.kind() != ErrorKind::ConnectionRefused {
                    self.lose(1);
                }
                Some(Some(error.kind()))
            }
        }
    }

    /// Passes an endpoint's datagrams to the client.
    pub(super) fn give_back(&mut self, key: Key, batch: &mut Batch, came: usize, context: &Context) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(listening) = self.sockets.get(session.socket) else {
            return;
        };
        session.seen = context.now;
        if session.phase == Phase::Asked {
            session.phase = Phase::Answered;
            if let Some(endpoint) = session.endpoint {
                self.balancers.answered(endpoint);
            }
        }
        let sent = batch.send_to(listening.socket.as_fd(), session.client, session.local);
        let bytes: u64 = (0..sent).map(|at| batch.payload(at).len() as u64).sum();
        session.bytes_down += bytes;
        let (listener, endpoint) = (session.listener, session.endpoint);
        self.metrics.listener(listener).bytes_down += bytes;
        if let Some(endpoint) = endpoint {
            self.metrics.endpoint(endpoint).bytes_down += bytes;
        }
        self.lose(came - sent);
    }

    /// Its endpoint is not there.
    pub(super) fn broken(&mut self, key: Key, context: &mut Context) {
        if let Some(endpoint) = self.sessions.get(key).and_then(|session| session.endpoint) {
            self.balancers.failed(endpoint, context.now);
        }
        self.metrics.resets_total += 1;
        self.end(key, RelayEnd::EndpointReset, context);
    }

    /// Forgets a session, and leaves a note for the log.
    pub(super) fn end(&mut self, key: Key, end: RelayEnd, context: &mut Context) {
        let Some(mut session) = self.sessions.remove(key) else {
            return;
        };
        self.by_client
            .remove(&(session.socket.index, session.client, session.local));
        if let Some(upstream) = &mut session.upstream {
            let _ = context.registry.deregister(upstream);
        }
        let end = match session.endpoint {
            None => RelayEnd::Refused(Refusal::Broken),
            Some(_) => end,
        };
        self.ended.push(RelayOutcome {
            started: session.opened,
            ended: context.now,
            listener: session.listener,
            rule: session.rule,
            endpoint: session.endpoint,
            attempts: u8::from(session.endpoint.is_some()),
            peer: session.client,
            bytes_up: session.bytes_up,
            bytes_down: session.bytes_down,
            end,
        });
        self.metrics.listener(session.listener).connections_active -= 1;
        if let Some(endpoint) = session.endpoint {
            self.balancers.finished(endpoint);
            self.metrics.endpoint(endpoint).connections_active -= 1;
        }
    }
}
