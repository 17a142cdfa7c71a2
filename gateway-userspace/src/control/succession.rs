//! The control loop's part in a hand-over: what is lent, when writing stops, and how it is taken back.
//!
//! Between yielding and its end nothing is written: a change of the configuration waits, and so does a drain.

use super::Control;
use crate::admin::server::Doors;
use crate::handover::giver::{Ask, Giver, Loan};
use crate::handover::protocol::{Place, Placed};
use gateway_core::control::Event;
use std::io;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// For every worker's answer to what it listens on.
const LEND_MAX: Duration = Duration::from_secs(5);
/// A drained process stays this long even when nothing is open: connections whose handshake is under way are not seen yet.
const LINGER: Duration = Duration::from_millis(200);
/// The same after a hand-over, when the kernel may still complete handshakes for this process's sockets: long enough for
/// a lost segment to be sent again.
const LINGER_HANDED_OVER: Duration = Duration::from_secs(2);

/// Who writes the kernel's maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Ours,
    /// A successor that is not ready yet; what has to wait for it.
    Yielded {
        reload: bool,
        drain: bool,
    },
    /// A successor that serves.
    Given,
}

impl Control {
    /// From now on successors are heard, and SIGUSR2 starts one. `giver` is the reason where that is impossible.
    pub fn succeed_by(&mut self, giver: Result<Giver, String>, doors: Doors) {
        self.giver = giver;
        self.doors = doors;
    }

    pub(super) fn linger(&self) -> Duration {
        match self.standing {
            Standing::Ours | Standing::Yielded { .. } => LINGER,
            Standing::Given => LINGER_HANDED_OVER,
        }
    }

    /// The end of a container's first process is the container's, and whoever supervises it would start it again, beside
    /// the successor in another container, and take everything back. So it waits for its own end to be asked for.
    pub(super) fn stays(&self) -> bool {
        std::process::id() == 1 && self.standing == Standing::Given && !self.told && !self.failed
    }

    pub(super) fn upgrade(&self) {
        match (&self.giver, self.workers.draining()) {
            (_, true) => warn!("SIGUSR2: this process drains already"),
            (Err(why), false) => error!("SIGUSR2: there can be no hand-over: {why}"),
            (Ok(giver), false) => giver.summon(),
        }
    }

    /// SIGTERM.
    pub(super) fn drain(&mut self) -> bool {
        if let Standing::Yielded { drain, .. } = &mut self.standing {
            if std::mem::replace(drain, true) {
                return true;
            }
            info!("draining as soon as the hand-over under way has ended");
            return false;
        }
        if !std::mem::replace(&mut self.told, true) && self.standing == Standing::Given {
            info!("draining already, {} live", self.workers.live());
            return false;
        }
        info!("draining: no new connections, {} live", self.workers.live());
        self.handle(Event::Drain)
    }

    /// One step of a hand-over; true to leave.
    pub(super) fn hand_over(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Lend(reply) => {
                // Who asked may have given up waiting; then nothing has happened.
                let _ = reply.send(self.lend());
                false
            }
            Ask::Yield(reply) => {
                let may = self.may_give();
                if may.is_ok() {
                    self.kernel.yield_to_successor();
                    self.standing = Standing::Yielded {
                        reload: false,
                        drain: false,
                    };
                }
                let _ = reply.send(may);
                false
            }
            Ask::TakeBack => self.take_back(),
            Ask::Given { pid, done } => {
                info!("process {pid} serves; this one drains, {} live", self.workers.live());
                // Only the main process is heard by the service manager, so this one names the next.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::MainPid(pid)]);
                self.standing = Standing::Given;
                self.doors.close();
                self.workers.give_away();
                let leave = self.handle(Event::HandedOver);
                let _ = done.send(());
                // The successor has a watch of its own, and statuses to write.
                self.cluster = None;
                leave
            }
        }
    }

    fn may_give(&self) -> Result<(), String> {
        match self.standing {
            _ if self.workers.draining() => Err("it drains".into()),
            Standing::Ours => Ok(()),
            Standing::Yielded { .. } | Standing::Given => Err("another hand-over is under way".into()),
        }
    }

    fn lend(&self) -> Result<Loan, String> {
        self.may_give()?;
        let own = self.workers.lend(LEND_MAX)?.into_iter().map(|(bind, socket)| {
            let place = Place::Listener {
                address: bind.addr,
                port: bind.port,
            };
            (place, socket.into())
        });
        let mut sockets: Vec<Placed> = own.collect();
        let doors = self
            .doors
            .lend()
            .map_err(|error: io::Error| format!("lend the admin's sockets: {error}"))?;
        sockets.extend(doors);
        Ok(Loan {
            datapath: self.kernel.status().word().to_owned(),
            sockets,
        })
    }

    fn take_back(&mut self) -> bool {
        let Standing::Yielded { reload, drain } = self.standing else {
            return false;
        };
        let began = Instant::now();
        self.standing = Standing::Ours;
        match self.kernel.take_back() {
            Ok(tables) => {
                self.register_workers();
                self.handle(Event::KernelIs(tables));
                let addresses = self.state.local();
                self.unlocal = self.kernel.set_local(&addresses);
            }
            // Traffic goes on with what the maps hold; changes of the configuration do not reach them.
            Err(error) => error!("take the kernel's maps back: {error}"),
        }
        info!("took back from a successor that failed, in {:?}", began.elapsed());
        let leave = reload && (self.reload() || self.take_in());
        leave || (drain && self.drain())
    }

    /// Puts this process's sockets where `sk_lookup` finds them, and lets it.
    pub fn register_workers(&self) {
        for socket in self.workers.lookup_sockets() {
            if let Err(error) = self.kernel.register_listener(socket.worker, socket.ipv6, socket.fd) {
                error!("{error}");
            }
        }
        if let Err(error) = self.kernel.open_door() {
            error!("{error}");
        }
    }
}
