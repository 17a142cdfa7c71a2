//! The relay of datagrams: UDP listeners of the splice plane, and what reaches a kernel VIP's port without meeting a
//! program.
//!
//! Each worker has a socket of its own bound to each listener's address; the kernel spreads clients over them by their
//! address and port, so a client stays with a worker. A *session* is one client's exchange through one such socket: it
//! has a connected socket to the endpoint that was chosen at its first datagram, which says whose answers these are
//! without a look at them. No datagram ends a session; silence does (`session.rs`), and so does its endpoint's leaving.
//!
//! Nothing is queued here: what a socket does not take at once is lost and counted, as on any link.

mod session;

use super::accept::unmapped;
use super::context::Context;
use super::slab::{Key, Slab};
use super::token::Source;
use crate::sys::datagrams::{self, Batch};
use crate::telemetry::access_log::relay::{RelayEnd, RelayOutcome};
use crate::telemetry::report::RelayMetrics;
use gateway_core::balance::Balancers;
use gateway_core::fault::Refusal;
use gateway_core::ir::Bind;
use gateway_core::model::{ConnectionView, LivePlane, Side};
use gateway_core::time::Moment;
use mio::net::UdpSocket;
use mio::{Interest, Registry};
use session::Session;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

/// Batches taken from one socket in one turn; then others come first.
pub const BATCHES_PER_TURN: usize = 8;

/// Opens the sockets of one worker for a bind: one, or one for each family when every address is meant.
pub fn open(bind: &Bind) -> io::Result<Vec<std::net::UdpSocket>> {
    if let Some(addr) = bind.addr {
        return Ok(vec![datagrams::listener(SocketAddr::new(addr, bind.port))?]);
    }
    let four = datagrams::listener(SocketAddr::from((Ipv4Addr::UNSPECIFIED, bind.port)))?;
    match datagrams::listener(SocketAddr::from((Ipv6Addr::UNSPECIFIED, bind.port))) {
        Ok(six) => Ok(vec![four, six]),
        Err(error) if super::accept::no_ipv6(&error) => Ok(vec![four]),
        Err(error) => Err(error),
    }
}

/// A socket that clients send to.
#[derive(Debug)]
struct Listening {
    socket: UdpSocket,
    bind: Bind,
}

/// Whose session: by which socket, from where, and to which address of ours where there are several.
type Client = (u32, SocketAddr, Option<IpAddr>);

/// All sessions of one worker.
#[derive(Debug)]
pub struct DatagramPlane {
    sockets: Slab<Listening>,
    sessions: Slab<Session>,
    by_client: HashMap<Client, Key>,
    balancers: Balancers,
    /// Made with the first listener: a worker without one has no use for a megabyte.
    batch: Option<Box<Batch>>,
    again: Vec<Source>,
    /// Sessions that ended in this turn, for the log.
    ended: Vec<RelayOutcome>,
    pub metrics: RelayMetrics,
}

impl DatagramPlane {
    pub fn new(worker: u16) -> Self {
        Self {
            sockets: Slab::default(),
            sessions: Slab::default(),
            by_client: HashMap::new(),
            balancers: Balancers::new(worker),
            batch: None,
            again: Vec::new(),
            ended: Vec::new(),
            metrics: RelayMetrics::default(),
        }
    }

    /// Sessions that relay.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether the next poll must not wait.
    pub fn is_eager(&self) -> bool {
        !self.again.is_empty()
    }

    /// Takes a socket into service.
    pub fn add(&mut self, registry: &Registry, bind: Bind, socket: std::net::UdpSocket) -> io::Result<()> {
        self.batch.get_or_insert_default();
        let key = self.sockets.insert(Listening {
            socket: UdpSocket::from_std(socket),
            bind,
        });
        let Some(listening) = self.sockets.get_mut(key) else {
            return Ok(());
        };
        let token = Source::DatagramDown(key).token();
        if let Err(error) = registry.register(&mut listening.socket, token, Interest::READABLE) {
            self.sockets.remove(key);
            return Err(error);
        }
        self.again.push(Source::DatagramDown(key));
        Ok(())
    }

    /// Closes the sockets of a bind, and the sessions behind them: nothing could answer for them any more.
    pub fn remove(&mut self, bind: &Bind, context: &mut Context) {
        let gone: Vec<Key> = self
            .sockets
            .iter()
            .filter(|(_, listening)| listening.bind == *bind)
            .map(|(key, _)| key)
            .collect();
        for key in gone {
            let behind: Vec<Key> = self
                .sessions
                .iter()
                .filter(|(_, session)| session.socket == key)
                .map(|(key, _)| key)
                .collect();
            for session in behind {
                self.end(session, RelayEnd::Finished, context);
            }
            if let Some(mut listening) = self.sockets.remove(key) {
                let _ = context.registry.deregister(&mut listening.socket);
            }
        }
    }

    /// Another process has sockets at the same addresses: it takes every datagram from now on, answers still leave here.
    pub fn give_away(&mut self, context: &mut Context) {
        let keys: Vec<Key> = self.sockets.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(listening) = self.sockets.get(key) else {
                continue;
            };
            let ipv6 = listening.socket.local_addr().is_ok_and(|addr| addr.is_ipv6());
            if let Err(error) = datagrams::retire(&listening.socket, ipv6) {
                tracing::warn!(bind = %listening.bind, %error, "a UDP socket still takes datagrams beside the successor's");
                continue;
            }
            // What came before is still served.
            self.read_clients(key, context);
        }
    }

    /// From now on there are no new sessions, and the others end soon after their last datagram.
    pub fn drain(&mut self, context: &mut Context) {
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.watch(key, context);
        }
    }

    /// Forgets every session after a panic; the sockets stay, and may hold datagrams.
    pub fn start_over(&mut self, worker: u16) {
        self.sessions = Slab::default();
        self.by_client.clear();
        self.balancers = Balancers::new(worker);
        self.batch = (!self.sockets.is_empty()).then(Box::default);
        let kept = self.sockets.iter().map(|(key, _)| Source::DatagramDown(key));
        self.again = kept.collect();
        let mut metrics = std::mem::take(&mut self.metrics);
        for share in metrics.listeners.iter_mut().chain(&mut metrics.endpoints) {
            share.connections_active = 0;
        }
        self.metrics = metrics;
    }

    /// Sessions that ended since the last call.
    pub fn take_ended(&mut self) -> impl Iterator<Item = RelayOutcome> + '_ {
        self.ended.drain(..)
    }

    /// Goes on where the last turn stopped.
    pub fn read_again(&mut self, context: &mut Context) {
        for source in std::mem::take(&mut self.again) {
            match source {
                Source::DatagramDown(key) => self.read_clients(key, context),
                Source::DatagramUp(key) => self.read_endpoint(key, context),
                Source::Mailbox | Source::Listener(_) | Source::Http(_) | Source::RelayDown(_) | Source::RelayUp(_) => {
                }
            }
        }
    }

    /// Datagrams of clients.
    pub fn read_clients(&mut self, key: Key, context: &mut Context) {
        let Some(mut batch) = self.batch.take() else { return };
        let mut more = true;
        for _ in 0..BATCHES_PER_TURN {
            let Some(listening) = self.sockets.get(key) else {
                more = false;
                break;
            };
            match batch.receive(listening.socket.as_fd()) {
                Ok(came) => {
                    for at in 0..came {
                        let Some(sender) = batch.sender(at) else { continue };
                        self.forward(key, sender, batch.local(at), batch.payload(at), context);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    more = false;
                    break;
                }
                // An error that an earlier answer met (ICMP): the next call goes on.
                Err(_) => {}
            }
        }
        if more {
            self.again.push(Source::DatagramDown(key));
        }
        self.batch = Some(batch);
    }

    /// Answers of a session's endpoint.
    pub fn read_endpoint(&mut self, key: Key, context: &mut Context) {
        let Some(mut batch) = self.batch.take() else { return };
        let mut more = true;
        for _ in 0..BATCHES_PER_TURN {
            let Some(session) = self.sessions.get(key) else {
                more = false;
                break;
            };
            let Some(upstream) = &session.upstream else {
                more = false;
                break;
            };
            match batch.receive(upstream.as_fd()) {
                Ok(came) => self.give_back(key, &mut batch, came, context),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    more = false;
                    break;
                }
                Err(_) => {
                    // Nobody is there (an ICMP error): the next datagram chooses anew.
                    self.broken(key, context);
                    more = false;
                    break;
                }
            }
        }
        if more {
            self.again.push(Source::DatagramUp(key));
        }
        self.batch = Some(batch);
    }

    /// A session's time may be over.
    pub fn timeout(&mut self, key: Key, context: &mut Context) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.wake_at.is_some_and(|at| at > context.now) {
            return;
        }
        session.wake_at = None;
        if session.deadline(context) > context.now {
            return self.watch(key, context);
        }
        self.metrics.idle_total += 1;
        self.end(key, RelayEnd::Finished, context);
    }

    /// What is live, for the admin.
    pub fn views(&self, now: Moment) -> impl Iterator<Item = ConnectionView> + '_ {
        let relaying = self.sessions.iter().filter(|(_, session)| session.upstream.is_some());
        relaying.map(move |(key, session)| {
            let bound = self.sockets.get(session.socket).map(|listening| listening.bind);
            let addr = session.local.or(bound.and_then(|bind| bind.addr));
            let addr = addr.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            ConnectionView {
                id: SESSION_ID | u64::from(key.generation) << 32 | u64::from(key.index),
                plane: LivePlane::Splice,
                protocol: "udp",
                side: Side::Downstream,
                peer: unmapped(session.client),
                local: SocketAddr::new(addr, bound.map_or(0, |bind| bind.port)),
                listener: Some(session.listener),
                endpoint: session.endpoint,
                streams: 0,
                streams_total: 0,
                bytes_in: session.bytes_up,
                bytes_out: session.bytes_down,
                age_ms: u64::try_from(now.since(session.opened).as_millis()).unwrap_or(u64::MAX),
                server_name: None,
                identity: None,
                why: session.why,
            }
        })
    }

    /// Sees to it that a timer comes no later than a session's deadline.
    fn watch(&mut self, key: Key, context: &mut Context) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let deadline = session.deadline(context);
        if session.wake_at.is_none_or(|at| deadline < at) {
            session.wake_at = Some(deadline);
            context.timers.wake(deadline, Source::DatagramUp(key));
        }
    }

    /// Counts datagrams that were not passed on.
    fn lose(&mut self, count: usize) {
        self.metrics.datagrams_lost_total += count as u64;
    }

    fn refuse(&mut self, refusal: Refusal, context: &mut Context) {
        context.refusals.count(refusal);
        self.lose(1);
    }
}

/// Keeps the ids of sessions apart from those of relays and of the engine.
const SESSION_ID: u64 = 3 << 62;
