//! The successor's side.

use super::protocol::{Place, Placed, Talk, VERSION, Word};
use crate::settings::AdminAddr;
use crate::sys::packets::{Door, Line};
use crate::sys::process;
use gateway_core::ir::{Bind, Transport};
use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// For one answer of the old process, which may be in the middle of a change of configuration.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// What a successor gets.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// How connections reached the old process: `tcx`, `xdp`, `lookup` or `off`.
    pub datapath: String,
    /// Listening sockets of each bind, whichever worker they were of.
    pub listeners: BTreeMap<Bind, Vec<TcpListener>>,
    pub admin: Vec<(AdminAddr, OwnedFd)>,
    pub probe: Option<(std::net::SocketAddr, OwnedFd)>,
    pub door: Option<Door>,
}

/// The conversation with the old process. Dropped before [`Taker::ready`], it is a failure there.
#[derive(Debug)]
pub struct Taker {
    talk: Talk,
    /// The old process.
    pub pid: u32,
}

impl Taker {
    /// Says who asks, and receives the sockets. Nothing changes for the old process yet.
    pub fn greet(line: Line) -> Result<(Self, Inheritance), String> {
        let ours = process::user();
        let peer = line.peer().map_err(|error| format!("ask who runs: {error}"))?;
        if peer.uid != ours && peer.uid != 0 {
            return Err(format!("process {} at the door is of user {}", peer.pid, peer.uid));
        }
        let talk = Talk(line);
        let hello = Word::Hello {
            version: VERSION,
            pid: std::process::id(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        };
        talk.say(&hello, &[], ANSWER_MAX).map_err(told(peer.pid))?;
        match talk.hear(ANSWER_MAX).map_err(told(peer.pid))?.0 {
            Word::Welcome {
                version: VERSION,
                pid,
                datapath,
                sockets,
            } => {
                let taken = talk.take(sockets, ANSWER_MAX).map_err(told(peer.pid))?;
                Ok((Self { talk, pid }, sort(datapath, taken)))
            }
            Word::Welcome { version, .. } => Err(format!(
                "process {} hands over in version {version}, this one takes version {VERSION}: stop it first",
                peer.pid
            )),
            Word::Refuse { why } => Err(format!("process {} does not hand over: {why}", peer.pid)),
            other => Err(format!("process {} answered {other:?}", peer.pid)),
        }
    }

    /// From the return on nobody but this process writes the kernel's maps.
    pub fn ask_to_yield(&self) -> Result<(), String> {
        let pid = i32::try_from(self.pid).unwrap_or_default();
        self.talk.say(&Word::Yield, &[], ANSWER_MAX).map_err(told(pid))?;
        match self.talk.hear(ANSWER_MAX).map_err(told(pid))?.0 {
            Word::Yielded => Ok(()),
            Word::Refuse { why } => Err(format!("process {pid} does not yield: {why}")),
            other => Err(format!("process {pid} answered {other:?}")),
        }
    }

    /// This process serves; the old one may drain. An old one that is gone is no failure any more.
    pub fn ready(self) {
        let said = self.talk.say(&Word::Ready, &[], ANSWER_MAX);
        match said.and_then(|()| self.talk.hear(ANSWER_MAX)) {
            Ok((Word::Farewell, _)) => tracing::info!("took over from process {}, which drains", self.pid),
            Ok((other, _)) => tracing::warn!("process {} answered {other:?} to ready", self.pid),
            Err(error) => tracing::warn!("process {} ended in the hand-over: {error}", self.pid),
        }
    }

    /// This process will not serve; the old one goes on.
    pub fn fail(self, why: &str) {
        let why = why.chars().take(4096).collect();
        // Its end says the same with fewer words.
        let _ = self.talk.say(&Word::Failed { why }, &[], ANSWER_MAX);
    }
}

fn told(pid: i32) -> impl Fn(io::Error) -> String {
    move |error| format!("process {pid} at the door: {error}")
}

fn sort(datapath: String, taken: Vec<Placed>) -> Inheritance {
    let mut inheritance = Inheritance {
        datapath,
        ..Inheritance::default()
    };
    for (place, socket) in taken {
        match place {
            Place::Listener { address, port } => {
                let bind = Bind {
                    addr: address,
                    port,
                    transport: Transport::Tcp,
                };
                inheritance.listeners.entry(bind).or_default().push(socket.into());
            }
            Place::AdminTcp { address } => inheritance.admin.push((AdminAddr::Tcp(address), socket)),
            Place::AdminUnix { path } => inheritance.admin.push((AdminAddr::Unix(path), socket)),
            Place::Probe { address } => inheritance.probe = Some((address, socket)),
            Place::Door => inheritance.door = Some(Door::of(socket)),
        }
    }
    inheritance
}
