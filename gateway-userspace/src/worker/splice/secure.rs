//! TLS of a relay, on either side: the client's hello is answered before an endpoint is chosen, the endpoint's is
//! waited for before a byte goes there.
//!
//! A handshake with a client ends within [`WorkerOptions::handshake_timeout`](crate::worker::WorkerOptions) of the
//! accept, and at most `handshakes_max` are under way; one with an endpoint belongs to its connect, and one that fails
//! leads to another endpoint as a connect that fails does. Never to plain text.

use super::SplicePlane;
use super::leg::{Lost, Taken};
use super::relay::{Relay, Stage};
use crate::worker::context::Context;
use crate::worker::slab::Key;
use crate::worker::tls::session::refusal;
use crate::worker::tls::{Session, Upstream, identity};
use gateway_core::fault::Refusal;
use gateway_core::ids::EndpointId;
use gateway_core::time::Moment;
use std::sync::Arc;
use std::time::Duration;

/// Between two lines of the log about handshakes with endpoints that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

impl SplicePlane {
    /// Client handshakes under way.
    pub fn handshakes(&self) -> usize {
        self.handshakes
    }

    /// Answers the hello that was read.
    pub(super) fn answer(&mut self, key: Key, context: &mut Context) {
        if self.handshakes >= context.options.handshakes_max {
            return self.refuse(key, Refusal::TooMany, context);
        }
        let Some(relay) = self.relays.get_mut(key) else { return };
        let tls = context.tls.relayed(relay.listener);
        let Some(class) = tls.and_then(|tls| tls.of(relay.server_name.as_deref())) else {
            return self.refuse(key, Refusal::Broken, context);
        };
        let Ok(session) = Session::server(Arc::clone(&class.config)) else {
            return self.refuse(key, Refusal::Broken, context);
        };
        let answering = Stage::Handshaking {
            check: class.check.clone(),
        };
        let Stage::Hello { bytes, .. } = std::mem::replace(&mut relay.stage, answering) else {
            return;
        };
        self.handshakes += 1;
        relay.deadline = relay.opened + context.options.handshake_timeout;
        relay.watch(key, context);
        relay.down.tls = Some(session);
        let opened = relay.down.open(&bytes, &mut self.rooms.plain);
        if self.handshaken(key, opened, context) {
            self.handshake(key, context);
        }
    }

    /// Goes on with a client's handshake.
    pub(super) fn handshake(&mut self, key: Key, context: &mut Context) {
        loop {
            let Some(relay) = self.relays.get_mut(key) else { return };
            if relay.down.flush().is_err() {
                return self.refuse(key, Refusal::Handshake, context);
            }
            if !relay.down.readable {
                return;
            }
            let taken = match relay.down.read(&mut self.rooms) {
                Ok(None) => return,
                Ok(Some(taken)) => Ok(taken),
                Err(lost) => Err(lost),
            };
            if !self.handshaken(key, taken, context) {
                return;
            }
        }
    }

    /// What a read came to. True: more has to come.
    fn handshaken(&mut self, key: Key, taken: Result<Taken, Lost>, context: &mut Context) -> bool {
        let Some(relay) = self.relays.get_mut(key) else {
            return false;
        };
        let (Some(session), Stage::Handshaking { check }) = (&relay.down.tls, &relay.stage) else {
            return false;
        };
        let outcome = match taken {
            Err(Lost::Tls(error)) => Err(refusal(&error)),
            Err(Lost::Socket(_)) => Err(Refusal::Handshake),
            Ok(taken) if session.is_handshaking() => match taken.end {
                None => return true,
                Some(_) => Err(Refusal::Handshake),
            },
            Ok(taken) => identity::facts(session, check.as_deref()).map(|facts| (taken, facts)),
        };
        match outcome {
            Ok((taken, facts)) => {
                self.tls.handshakes_total += 1;
                self.tls.resumed_total += u64::from(session.resumed());
                self.handshakes -= 1;
                relay.identity = facts.client.map(|client| client.identity);
                relay
                    .to_up
                    .begin_with(self.rooms.plain[..taken.len].to_vec(), taken.end);
                relay.stage = Stage::Connecting;
                self.route(key, context);
            }
            Err(refusal) => self.refuse(key, refusal, context),
        }
        false
    }

    /// Goes on with an endpoint's handshake.
    pub(super) fn secure(&mut self, key: Key, context: &mut Context) {
        loop {
            let Some(relay) = self.relays.get_mut(key) else { return };
            let (Some(up), Stage::Securing) = (&mut relay.up, &relay.stage) else {
                return;
            };
            if let Err(error) = up.flush() {
                return self.unsecured(key, &error.to_string(), context);
            }
            if !up.readable {
                return;
            }
            let taken = match up.read(&mut self.rooms) {
                Ok(None) => return,
                Ok(Some(taken)) => taken,
                Err(lost) => return self.unsecured(key, &lost.to_string(), context),
            };
            if !up.tls.as_ref().is_some_and(Session::is_handshaking) {
                relay
                    .to_down
                    .begin_with(self.rooms.plain[..taken.len].to_vec(), taken.end);
                self.tls.upstream_handshakes_total += 1;
                return self.reached(key, context);
            }
            if taken.end.is_some() {
                return self.unsecured(key, "the endpoint ended the connection", context);
            }
        }
    }

    /// TLS with an endpoint came to nothing; `why` for the log, which hears of one failure a second.
    #[cold]
    pub(super) fn unsecured(&mut self, key: Key, why: &str, context: &mut Context) {
        self.tls.upstream_failures_total += 1;
        let endpoint = self.relays.get(key).and_then(|relay| relay.endpoint);
        if self
            .told_at
            .is_none_or(|told: Moment| context.now.since(told) >= FAILURE_PAUSE)
        {
            self.told_at = Some(context.now);
            let addr = endpoint
                .and_then(|id| context.snapshot.endpoint(id))
                .map(|plan| plan.addr);
            let addr = addr.map_or_else(String::new, |addr| addr.to_string());
            tracing::warn!(endpoint = %addr, "TLS to an endpoint failed: {why}");
        }
        self.connect_failed(key, context);
    }
}

impl Relay {
    /// What is spoken with an endpoint: TLS where its service says so, and what the client agreed on inside. `Err`: nobody can speak to it.
    pub(super) fn session_with(&self, endpoint: EndpointId, context: &Context) -> Result<Option<Session>, String> {
        if self.passes_through() {
            return Ok(None);
        }
        match context.tls.upstream(endpoint) {
            Upstream::Plain => Ok(None),
            Upstream::Tls(tls) => {
                let alpn = self.down.tls.as_ref().and_then(Session::alpn);
                tls.relay(alpn).map(Some).map_err(|error| error.to_string())
            }
            Upstream::Broken => Err("it cannot be had as configured; see the status".to_owned()),
        }
    }
}
