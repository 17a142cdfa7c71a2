//! The splice plane: connections whose bytes are relayed as they are, or as they are under TLS that ends here.
//!
//! `Hello` (only with SNI: the ClientHello is read, and passed on untouched) -> `Handshaking` (only where its rule
//! terminates TLS) -> `Connecting` to the endpoint that `Decide::connection` chose, to another if that fails ->
//! `Securing` (only where its service is spoken to over TLS) -> `Relaying`. A FIN, under TLS a close_notify, is passed
//! on when everything before it was, in each direction for itself; an error on one side resets the other.
//!
//! What a relay may hold, of ours: [`RELAY_BYTES`] and a record in each direction, and for each leg under TLS as much
//! ciphertext again; at rest nothing but its session.

mod flow;
mod leg;
mod pipes;
mod relay;
mod secure;

pub use pipes::PipePool;

use super::accept::Incoming;
use super::context::Context;
use super::slab::{Key, Slab};
use super::token::Source;
use crate::telemetry::access_log::relay::{RelayEnd, RelayOutcome};
use crate::telemetry::report::{RelayMetrics, TlsMetrics};
use gateway_core::balance::Balancers;
use gateway_core::fault::Refusal;
use gateway_core::ir::Recognise;
use gateway_core::model::{ConnectionView, LivePlane, Side};
use gateway_core::snapshot::StreamPlan;
use gateway_core::time::Moment;
use leg::Rooms;
use mio::Interest;
use relay::{Relay, Stage};
use std::time::Duration;

/// Bytes copied at once, and the most that is held for a receiver in each direction.
pub const RELAY_BYTES: usize = 64 * 1024;
/// The same of a bulk flow, whose bytes go through a pipe.
pub const PIPE_BYTES: usize = 256 * 1024;
/// Moves of one direction in one turn; then others come first.
pub const PUMPS_PER_TURN: usize = 16;
/// Reads in a row that filled the buffer, after which a flow counts as bulk.
pub const BULK_READS: u8 = 4;
/// Empty pipes kept.
pub const PIPES_KEPT: usize = 64;
/// Readable and writable, registered once.
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Why a connection to an HTTPS port is relayed.
const BESIDE_HTTPS: &str = "the name in its ClientHello belongs to a TLS listener of the port";

/// A connection that came to the HTTP plane and belongs here.
#[derive(Debug)]
pub struct Strayed {
    pub incoming: Incoming,
    /// What was read of it: a whole ClientHello, and whatever followed.
    pub hello: Vec<u8>,
    pub name: Option<String>,
}

/// All relays of one worker.
#[derive(Debug)]
pub struct SplicePlane {
    relays: Slab<Relay>,
    balancers: Balancers,
    rooms: Rooms,
    pipes: PipePool,
    again: Vec<Key>,
    /// Relays that ended in this turn, for the log.
    ended: Vec<RelayOutcome>,
    /// With clients, under way.
    handshakes: usize,
    /// When the log last heard of a handshake with an endpoint that failed.
    told_at: Option<Moment>,
    pub metrics: RelayMetrics,
    pub tls: TlsMetrics,
}

impl SplicePlane {
    pub fn new(worker: u16, pipes_max: usize) -> Self {
        Self {
            relays: Slab::default(),
            balancers: Balancers::new(worker),
            rooms: Rooms::new(),
            pipes: PipePool::new(pipes_max),
            again: Vec::new(),
            ended: Vec::new(),
            handshakes: 0,
            told_at: None,
            metrics: RelayMetrics::default(),
            tls: TlsMetrics::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Whether the next poll must not wait.
    pub fn is_eager(&self) -> bool {
        !self.again.is_empty()
    }

    /// A connection to a stream listener.
    pub fn accept(
        &mut self,
        incoming: Incoming,
        plan: &StreamPlan,
        why: Option<&'static str>,
        context: &mut Context,
    ) -> Result<(), Refusal> {
        let Some(key) = self.admit(incoming, plan.recognise, why, context)? else {
            return Ok(());
        };
        match plan.recognise {
            Recognise::Nothing => self.choose(key, None, context),
            // The hello is usually there already.
            Recognise::Sni => self.hello(key, context),
        }
        Ok(())
    }

    /// A connection to an HTTPS port whose hello, of which nothing was answered, names a TLS listener of the port.
    pub fn adopt(&mut self, strayed: Strayed, context: &mut Context) -> Result<(), Refusal> {
        let Strayed { incoming, hello, name } = strayed;
        let Some(key) = self.admit(incoming, Recognise::Sni, Some(BESIDE_HTTPS), context)? else {
            return Ok(());
        };
        if let Some(relay) = self.relays.get_mut(key) {
            relay.stage = Stage::Hello {
                bytes: hello,
                bytes_min: 0,
            };
        }
        self.choose(key, name, context);
        Ok(())
    }

    /// `None`: it is over already.
    fn admit(
        &mut self,
        incoming: Incoming,
        recognise: Recognise,
        why: Option<&'static str>,
        context: &mut Context,
    ) -> Result<Option<Key>, Refusal> {
        if self.relays.len() >= context.options.relay.relays_max {
            return Err(Refusal::TooMany);
        }
        let listener = incoming.listener;
        let key = self.relays.insert(Relay::new(incoming, recognise, why, context));
        let share = self.metrics.listener(listener);
        share.connections_total += 1;
        share.connections_active += 1;
        let relay = self.relays.get_mut(key).expect("it was just inserted");
        let token = Source::RelayDown(key).token();
        if context.registry.register(&mut relay.down.stream, token, BOTH).is_err() {
            self.refuse(key, Refusal::TooMany, context);
            return Ok(None);
        }
        relay.watch(key, context);
        Ok(Some(key))
    }

    pub fn event(&mut self, key: Key, up: bool, event: &mio::event::Event, context: &mut Context) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        let leg = if up { relay.up.as_mut() } else { Some(&mut relay.down) };
        let Some(leg) = leg else { return };
        leg.closing |= event.is_read_closed() || event.is_error();
        leg.readable |= event.is_readable() || leg.closing;
        leg.writable |= event.is_writable() || event.is_write_closed();
        match relay.stage {
            Stage::Hello { .. } => self.hello(key, context),
            Stage::Handshaking { .. } => self.handshake(key, context),
            Stage::Connecting if up => self.connecting(key, context),
            Stage::Securing if up => self.secure(key, context),
            // The client cannot wait for what its relay is about: only a reset is worth noticing.
            Stage::Connecting | Stage::Securing if event.is_error() => {
                self.end(key, RelayEnd::ClientReset, context.now);
            }
            Stage::Connecting | Stage::Securing => {}
            Stage::Relaying => {
                self.pump(key, context);
                if event.is_error() {
                    self.broken(key, up, context.now);
                }
            }
        }
    }

    /// An error that no read or write will meet, because that direction is over.
    fn broken(&mut self, key: Key, up: bool, now: Moment) {
        let Some(relay) = self.relays.get(key) else { return };
        let leg = if up { relay.up.as_ref() } else { Some(&relay.down) };
        if leg.is_some_and(|leg| !matches!(leg.stream.take_error(), Ok(None))) {
            self.metrics.resets_total += 1;
            let end = if up {
                RelayEnd::EndpointReset
            } else {
                RelayEnd::ClientReset
            };
            self.end(key, end, now);
        }
    }

    /// Relays that ended since the last call.
    pub fn take_ended(&mut self) -> impl Iterator<Item = RelayOutcome> + '_ {
        self.ended.drain(..)
    }

    /// Goes on where the last turn stopped.
    pub fn pump_again(&mut self, context: &mut Context) {
        for key in std::mem::take(&mut self.again) {
            self.pump(key, context);
        }
    }

    /// Its time may be over.
    pub fn timeout(&mut self, key: Key, context: &mut Context) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        if relay.wake_at.is_some_and(|at| at > context.now) {
            return;
        }
        relay.wake_at = None;
        if relay.deadline > context.now {
            return relay.watch(key, context);
        }
        match relay.stage {
            Stage::Hello { .. } | Stage::Handshaking { .. } => self.refuse(key, Refusal::Silent, context),
            Stage::Connecting => self.connect_failed(key, context),
            Stage::Securing => self.unsecured(key, "it did not finish the handshake in time", context),
            Stage::Relaying => {
                self.metrics.idle_total += 1;
                self.end(key, RelayEnd::Idle, context.now);
            }
        }
    }

    /// What is live, for the admin.
    pub fn views(&self, now: Moment) -> impl Iterator<Item = ConnectionView> + '_ {
        self.relays.iter().map(move |(key, relay)| ConnectionView {
            id: RELAY_ID | u64::from(key.generation) << 32 | u64::from(key.index),
            plane: LivePlane::Splice,
            protocol: relay.protocol(),
            side: Side::Downstream,
            peer: relay.peer,
            local: relay.local,
            listener: Some(relay.listener),
            endpoint: relay.endpoint,
            streams: 0,
            streams_total: 0,
            bytes_in: relay.to_up.bytes,
            bytes_out: relay.to_down.bytes,
            age_ms: age_ms(now.since(relay.opened)),
            server_name: relay.server_name.clone(),
            identity: relay.identity.clone(),
            why: relay.why,
        })
    }
}

/// Keeps the ids of relays apart from those of the engine.
const RELAY_ID: u64 = 1 << 63;

fn age_ms(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}
