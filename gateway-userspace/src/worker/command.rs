//! How the rest of the process talks to a worker: a bounded queue of commands and a waker.

use super::tls::TlsPlans;
use crate::telemetry::report::Report;
use gateway_core::ir::Bind;
use gateway_core::snapshot::Snapshot;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError};

/// Commands waiting for one worker; a sender waits when there are more.
pub const COMMANDS_MAX: usize = 64;
/// Commands carried out in one turn.
pub const COMMANDS_PER_TURN: usize = 16;

/// What a worker can be told.
#[derive(Debug)]
pub enum Command {
    /// A new revision, and the TLS configurations made for it.
    Publish {
        snapshot: Arc<Snapshot>,
        tls: Arc<TlsPlans>,
    },
    /// Listen on these, and no longer on those. Connections that are open stay.
    Listen {
        added: Vec<(Bind, std::net::TcpListener)>,
        datagrams: Vec<(Bind, std::net::UdpSocket)>,
        removed: Vec<Bind>,
    },
    /// Answer with duplicates of the own listening sockets.
    Lend {
        reply: Sender<Vec<(Bind, std::net::TcpListener)>>,
    },
    /// Close the own listening sockets: their queues are another process's now. Those of UDP go on answering.
    GiveAway,
    /// Answer with counters, and with everything that is live if `views`.
    Inspect { views: bool, reply: Sender<Report> },
    /// Close own listening sockets and finish what is open. What their queues hold, and what still comes through lookup
    /// sockets, is served and told to leave.
    Drain,
    /// Memory is as short as this.
    Pressure(gateway_http::engine::Pressure),
    /// Close the lookup sockets too.
    CloseLookup,
    /// End now.
    Stop,
    /// Fail as a bug would.
    #[cfg(test)]
    Panic,
    /// Hang as a bug would, for so long.
    #[cfg(test)]
    Hang(std::time::Duration),
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct Mailbox {
    queue: SyncSender<Command>,
    waker: Arc<mio::Waker>,
}

impl Mailbox {
    pub fn new(queue: SyncSender<Command>, waker: mio::Waker) -> Self {
        Self {
            queue,
            waker: Arc::new(waker),
        }
    }

    /// Makes the worker turn.
    pub fn wake(&self) -> io::Result<()> {
        self.waker.wake()
    }

    /// Sends unless the queue is full: a worker that hangs must not hang the sender.
    pub fn try_send(&self, command: Command) -> io::Result<()> {
        self.queue.try_send(command).map_err(io::Error::other)?;
        self.waker.wake()
    }

    /// Fails only when the worker has ended.
    pub fn send(&self, command: Command) -> io::Result<()> {
        self.queue
            .send(command)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the worker has ended"))?;
        self.waker.wake()
    }
}

/// The next command; the end of every sender is a stop.
pub fn next(queue: &Receiver<Command>) -> Option<Command> {
    match queue.try_recv() {
        Ok(command) => Some(command),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => Some(Command::Stop),
    }
}
