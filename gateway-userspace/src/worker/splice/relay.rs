//! The life of one relay.

use super::flow::{Flow, Pumped};
use super::leg::Leg;
use super::{BOTH, SplicePlane};
use crate::telemetry::access_log::relay::{RelayEnd, RelayOutcome};
use crate::worker::accept::Incoming;
use crate::worker::context::Context;
use crate::worker::slab::Key;
use crate::worker::socket::{abort, connect_done};
use crate::worker::tls::identity::ClientCheck;
use crate::worker::token::Source;
use gateway_core::decide::{Decide, stream_rule};
use gateway_core::detect::client_hello::{self, HELLO_BYTES_MAX, Hello};
use gateway_core::fault::Refusal;
use gateway_core::ids::{EndpointId, ListenerId, RuleId};
use gateway_core::ir::Recognise;
use gateway_core::time::Moment;
use mio::net::TcpStream;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;

/// A client's connection and, once chosen, an endpoint's.
#[derive(Debug)]
pub struct Relay {
    pub stage: Stage,
    pub down: Leg,
    pub up: Option<Leg>,
    pub to_up: Flow,
    pub to_down: Flow,
    pub listener: ListenerId,
    pub rule: Option<RuleId>,
    pub endpoint: Option<EndpointId>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub opened: Moment,
    /// Of the stage. Moves with every byte while relaying; its timer follows when it comes.
    pub deadline: Moment,
    /// When its next timer comes: at the deadline, or earlier.
    pub wake_at: Option<Moment>,
    recognise: Recognise,
    /// The name asked for in the client's hello; lower case.
    pub server_name: Option<String>,
    /// Whom the client's verified certificate names.
    pub identity: Option<String>,
    /// Why it is here, if its listener does not say so.
    pub why: Option<&'static str>,
    tried: Vec<EndpointId>,
    told: (u64, u64, u64),
}

#[derive(Debug)]
pub enum Stage {
    /// The ClientHello so far, and how long it must be before it is worth another look.
    Hello {
        bytes: Vec<u8>,
        bytes_min: usize,
    },
    /// TLS with the client is being agreed on.
    Handshaking {
        check: Option<Arc<ClientCheck>>,
    },
    Connecting,
    /// It is connected, and TLS with the endpoint is being agreed on.
    Securing,
    Relaying,
}

impl Relay {
    pub fn new(incoming: Incoming, recognise: Recognise, why: Option<&'static str>, context: &Context) -> Self {
        let Incoming {
            stream,
            peer,
            local,
            listener,
        } = incoming;
        let mut down = Leg::new(stream, None);
        // A fresh socket takes bytes, and may have some: its first edge is not waited for.
        (down.readable, down.writable) = (true, true);
        Self {
            stage: Stage::Hello {
                bytes: Vec::new(),
                bytes_min: 0,
            },
            down,
            up: None,
            to_up: Flow::default(),
            to_down: Flow::default(),
            listener,
            rule: None,
            endpoint: None,
            peer,
            local,
            opened: context.now,
            deadline: context.now + context.options.relay.hello_timeout,
            wake_at: None,
            recognise,
            server_name: None,
            identity: None,
            why,
            tried: Vec::new(),
            told: (0, 0, 0),
        }
    }

    /// Sees to it that a timer comes no later than the deadline.
    pub fn watch(&mut self, key: Key, context: &mut Context) {
        if self.wake_at.is_none_or(|at| self.deadline < at) {
            self.wake_at = Some(self.deadline);
            context.timers.wake(self.deadline, Source::RelayDown(key));
        }
    }

    /// Whether the TLS in it is between the client and the endpoint alone.
    pub fn passes_through(&self) -> bool {
        self.recognise == Recognise::Sni && self.down.tls.is_none()
    }

    pub fn protocol(&self) -> &'static str {
        match self.recognise {
            Recognise::Nothing => "tcp",
            Recognise::Sni => "tls",
        }
    }

    /// Reads on in the ClientHello. `None`: more has to come.
    fn read_hello(&mut self) -> Option<Result<Option<String>, Refusal>> {
        let Stage::Hello { bytes, bytes_min } = &mut self.stage else {
            return None;
        };
        let mut piece = [0; 4096];
        while self.down.readable {
            let room = (HELLO_BYTES_MAX - bytes.len()).min(piece.len());
            if room == 0 {
                return Some(Err(Refusal::NotTls));
            }
            match self.down.stream.read(&mut piece[..room]) {
                Ok(0) => return Some(Err(Refusal::NotTls)),
                Ok(n) => bytes.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.down.readable = false,
                Err(_) => return Some(Err(Refusal::NotTls)),
            }
            if bytes.len() < *bytes_min {
                continue;
            }
            match client_hello::parse(bytes) {
                Hello::Incomplete { bytes_min: wanted } => *bytes_min = wanted,
                Hello::Complete { server_name } => return Some(Ok(server_name)),
                Hello::Not(_) => return Some(Err(Refusal::NotTls)),
            }
        }
        None
    }
}

impl SplicePlane {
    pub(super) fn hello(&mut self, key: Key, context: &mut Context) {
        match self.relays.get_mut(key).and_then(Relay::read_hello) {
            None => {}
            Some(Ok(name)) => self.choose(key, name, context),
            Some(Err(refusal)) => self.refuse(key, refusal, context),
        }
    }

    /// Whether its TLS ends here, and where it goes if not.
    pub(super) fn choose(&mut self, key: Key, server_name: Option<String>, context: &mut Context) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        relay.server_name = server_name;
        let rule = stream_rule(&context.snapshot, relay.listener, relay.server_name.as_deref());
        match rule.map(|rule| rule.terminate.is_some()) {
            Ok(true) => self.answer(key, context),
            Ok(false) => self.route(key, context),
            Err(refusal) => self.refuse(key, refusal, context),
        }
    }

    /// Decides where it goes, and connects.
    pub(super) fn route(&mut self, key: Key, context: &mut Context) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        let snapshot = Arc::clone(&context.snapshot);
        let mut decide = Decide {
            snapshot: &snapshot,
            balancers: &mut self.balancers,
        };
        match decide.connection(
            relay.listener,
            relay.peer.ip(),
            relay.server_name.as_deref(),
            context.now,
        ) {
            Ok((rule, endpoint)) => {
                if let Stage::Hello { bytes, .. } = std::mem::replace(&mut relay.stage, Stage::Connecting) {
                    relay.to_up.begin_with(bytes, None);
                }
                relay.rule = Some(rule);
                self.connect(key, endpoint, context);
            }
            Err(refusal) => self.refuse(key, refusal, context),
        }
    }

    fn connect(&mut self, key: Key, endpoint: EndpointId, context: &mut Context) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        relay.stage = Stage::Connecting;
        relay.endpoint = Some(endpoint);
        relay.tried.push(endpoint);
        relay.deadline = context.now + context.options.relay.connect_timeout;
        relay.watch(key, context);
        self.balancers.started(endpoint);
        let share = self.metrics.endpoint(endpoint);
        share.connections_total += 1;
        share.connections_active += 1;
        let addr = context.snapshot.endpoint(endpoint).map(|plan| plan.addr);
        let session = match relay.session_with(endpoint, context) {
            Ok(session) => session,
            Err(why) => return self.unsecured(key, &why, context),
        };
        let opened = addr
            .and_then(|addr| TcpStream::connect(addr).ok())
            .and_then(|mut stream| {
                let _ = stream.set_nodelay(true);
                context
                    .registry
                    .register(&mut stream, Source::RelayUp(key).token(), BOTH)
                    .ok()?;
                Some(stream)
            });
        match opened {
            Some(stream) => relay.up = Some(Leg::new(stream, session)),
            None => self.connect_failed(key, context),
        }
    }

    pub(super) fn connecting(&mut self, key: Key, context: &mut Context) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        let Some(up) = &relay.up else { return };
        match connect_done(&up.stream) {
            Ok(false) => {}
            Err(_) => self.connect_failed(key, context),
            Ok(true) if up.tls.is_some() => {
                relay.stage = Stage::Securing;
                self.secure(key, context);
            }
            Ok(true) => self.reached(key, context),
        }
    }

    /// The endpoint is there, and who it should be.
    pub(super) fn reached(&mut self, key: Key, context: &mut Context) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        if let Some(endpoint) = relay.endpoint {
            self.balancers.answered(endpoint);
        }
        relay.stage = Stage::Relaying;
        self.pump(key, context);
    }

    /// This endpoint cannot be had: another, if there is one and it was not tried too often.
    pub(super) fn connect_failed(&mut self, key: Key, context: &mut Context) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        relay.up = None;
        self.metrics.connect_failures_total += 1;
        let Some(failed) = relay.endpoint.take() else { return };
        self.balancers.failed(failed, context.now);
        self.balancers.finished(failed);
        self.metrics.endpoint(failed).connections_active -= 1;
        let snapshot = Arc::clone(&context.snapshot);
        let mut decide = Decide {
            snapshot: &snapshot,
            balancers: &mut self.balancers,
        };
        let next = match relay.tried.len() < usize::from(context.options.relay.attempts_max) {
            true => decide.connection_again(failed, relay.peer.ip(), &relay.tried, context.now),
            false => None,
        };
        match next {
            Some(endpoint) => self.connect(key, endpoint, context),
            None => self.refuse(key, Refusal::NoEndpoint, context),
        }
    }

    /// Moves what can be moved, both ways.
    pub(super) fn pump(&mut self, key: Key, context: &mut Context) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        let Some(up) = &mut relay.up else { return };
        let pumped = [
            relay.to_up.pump(&mut relay.down, up, &mut self.rooms, &mut self.pipes),
            relay
                .to_down
                .pump(up, &mut relay.down, &mut self.rooms, &mut self.pipes),
        ];
        relay.deadline = context.now + context.options.relay.idle_timeout;
        self.tell(key);
        let broken = match pumped {
            [Pumped::Broken, _] => Some(RelayEnd::ClientReset),
            [_, Pumped::Broken] => Some(RelayEnd::EndpointReset),
            [Pumped::Waits | Pumped::Again, Pumped::Waits | Pumped::Again] => None,
        };
        if let Some(end) = broken {
            self.metrics.resets_total += 1;
            return self.end(key, end, context.now);
        }
        let Some(relay) = self.relays.get(key) else { return };
        if relay.to_up.is_over() && relay.to_down.is_over() {
            let cut = relay.to_up.cut || relay.to_down.cut;
            self.metrics.cut_total += u64::from(cut);
            let end = if cut { RelayEnd::Cut } else { RelayEnd::Finished };
            return self.end(key, end, context.now);
        }
        if pumped.contains(&Pumped::Again) {
            self.again.push(key);
        }
    }

    /// Brings the counters up to date.
    fn tell(&mut self, key: Key) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        let now = (
            relay.to_up.bytes,
            relay.to_down.bytes,
            relay.to_up.spliced + relay.to_down.spliced,
        );
        let then = std::mem::replace(&mut relay.told, now);
        let (listener, endpoint) = (relay.listener, relay.endpoint);
        self.metrics.spliced_bytes_total += now.2 - then.2;
        let share = self.metrics.listener(listener);
        share.bytes_up += now.0 - then.0;
        share.bytes_down += now.1 - then.1;
        if let Some(endpoint) = endpoint {
            let share = self.metrics.endpoint(endpoint);
            share.bytes_up += now.0 - then.0;
            share.bytes_down += now.1 - then.1;
        }
    }

    /// Closes a connection that was not relayed, by a reset: nobody will answer on it.
    pub(super) fn refuse(&mut self, key: Key, refusal: Refusal, context: &mut Context) {
        context.refusals.count(refusal);
        self.end(key, RelayEnd::Refused(refusal), context.now);
    }

    /// Closes both sides, and leaves a note for the log.
    pub(super) fn end(&mut self, key: Key, end: RelayEnd, now: Moment) {
        let Some(mut relay) = self.relays.remove(key) else {
            return;
        };
        let handshaking = matches!(relay.stage, Stage::Handshaking { .. });
        self.handshakes -= usize::from(handshaking);
        if !matches!(end, RelayEnd::Finished | RelayEnd::Cut) {
            // A reset would overtake the alert that says why there is no TLS.
            if !handshaking {
                abort(&relay.down.stream);
            }
            if let Some(up) = &relay.up {
                abort(&up.stream);
            }
        }
        self.ended.push(RelayOutcome {
            started: relay.opened,
            ended: now,
            listener: relay.listener,
            rule: relay.rule,
            endpoint: relay.endpoint,
            attempts: u8::try_from(relay.tried.len()).unwrap_or(u8::MAX),
            peer: relay.peer,
            bytes_up: relay.to_up.bytes,
            bytes_down: relay.to_down.bytes,
            end,
        });
        relay.to_up.release(&mut self.pipes);
        relay.to_down.release(&mut self.pipes);
        self.metrics.listener(relay.listener).connections_active -= 1;
        if let Some(endpoint) = relay.endpoint {
            self.balancers.finished(endpoint);
            self.metrics.endpoint(endpoint).connections_active -= 1;
        }
    }
}
