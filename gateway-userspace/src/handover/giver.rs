//! The old process's side: a thread at the door, and the start of a successor on SIGUSR2.
//!
//! Law: until the successor said that it is ready, everything here can be taken back, and is: when the successor ends,
//! says that it failed, or is not ready in time (then it is killed). This process serves throughout.

use super::protocol::{Place, Placed, SOCKETS_MAX, Talk, VERSION, Word};
use crate::sys::packets::{Door, Line, timed_out};
use crate::sys::process;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// For one word of the successor, and for one answer of the control loop.
const WORD_MAX: Duration = Duration::from_secs(10);
/// From a failure that the successor told to its end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Between two looks whether the door is still ours.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at a started successor.
const CHILD_LOOK: Duration = Duration::from_millis(20);

/// What the control loop is asked for in the course of a hand-over, in this order.
#[derive(Debug)]
pub enum Ask {
    /// The sockets and the datapath, or why there is no hand-over now.
    Lend(SyncSender<Result<Loan, String>>),
    /// Stop writing the kernel's maps, and leave the pins to the successor.
    Yield(SyncSender<Result<(), String>>),
    /// The successor failed: go on as before. The reason is in the log.
    TakeBack,
    /// The successor serves: drain, and remove nothing.
    Given { pid: u32, done: SyncSender<()> },
}

/// What a successor is given.
#[derive(Debug)]
pub struct Loan {
    /// `tcx`, `xdp`, `lookup` or `off`.
    pub datapath: String,
    pub sockets: Vec<Placed>,
}

/// This process's part in its own succession.
#[derive(Debug)]
pub struct Giver {
    shared: Arc<Shared>,
    program: PathBuf,
}

#[derive(Debug)]
struct Shared {
    given: AtomicBool,
    /// A successor was started here and is not ready yet.
    summoned: AtomicBool,
    ready_max: Duration,
}

impl Giver {
    /// Opens the door. `ready_max`: from the yielding to the successor's readiness.
    pub fn start(door: Door, ready_max: Duration, ask: impl Fn(Ask) + Send + 'static) -> io::Result<Self> {
        // Asked now: once the file is replaced, the kernel no longer tells where it was.
        let program = std::env::current_exe()?;
        let shared = Arc::new(Shared {
            given: AtomicBool::new(false),
            summoned: AtomicBool::new(false),
            ready_max,
        });
        let host = Arc::clone(&shared);
        thread::Builder::new()
            .name("hand-over".into())
            .spawn(move || host.receive(&door, &ask))?;
        Ok(Self { shared, program })
    }

    /// Starts the file that is at this program's path now, with this process's arguments, as the successor.
    pub fn summon(&self) {
        if self.shared.given.load(Ordering::Acquire) || self.shared.summoned.swap(true, Ordering::AcqRel) {
            tracing::warn!("SIGUSR2: a hand-over is under way already");
            return;
        }
        let mut arguments: Vec<OsString> = std::env::args_os().collect();
        let mut command = Command::new(&self.program);
        if !arguments.is_empty() {
            command.arg0(arguments.remove(0));
        }
        let program = self.program.display().to_string();
        let shared = Arc::clone(&self.shared);
        let watched = command.args(arguments).spawn().and_then(|child| {
            tracing::info!("SIGUSR2: started {program} as process {}", child.id());
            thread::Builder::new()
                .name("successor".into())
                .spawn(move || shared.watch(child, &program))
        });
        if let Err(error) = watched {
            tracing::error!(
                "SIGUSR2: start {}: {error}; this process goes on",
                self.program.display()
            );
            self.shared.summoned.store(false, Ordering::Release);
        }
    }
}

impl Shared {
    /// Waits for a started successor, and says so if it ends or dawdles. One that serves is reaped when it ends.
    fn watch(&self, mut child: Child, program: &str) {
        let until = Instant::now() + self.ready_max * 2;
        loop {
            let given = self.given.load(Ordering::Acquire);
            match child.try_wait() {
                // Whatever came of it later: it has its own log.
                Ok(Some(_)) if given => return,
                Ok(Some(status)) => {
                    tracing::error!(
                        "the successor {program} ended before it was ready ({status}); this process goes on"
                    );
                    break;
                }
                Ok(None) if !given && Instant::now() >= until => {
                    tracing::error!("the successor {program} was not ready in time; this process goes on");
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                Ok(None) => thread::sleep(CHILD_LOOK),
                Err(error) => {
                    tracing::error!("wait for the successor: {error}");
                    break;
                }
            }
        }
        self.summoned.store(false, Ordering::Release);
    }

    fn receive(&self, door: &Door, ask: &impl Fn(Ask)) {
        while !self.given.load(Ordering::Acquire) {
            match door.wait(LOOK) {
                Ok(Some(line)) => {
                    if let Err(why) = self.converse(line, door, ask) {
                        tracing::error!("no hand-over: {why}; this process goes on");
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!("the door of the hand-over: {error}");
                    thread::sleep(LOOK);
                }
            }
        }
    }

    fn converse(&self, line: Line, door: &Door, ask: &impl Fn(Ask)) -> Result<(), String> {
        let peer = line.peer().map_err(|error| format!("ask who knocks: {error}"))?;
        if peer.uid != process::user() && peer.uid != 0 {
            return Err(format!("process {} of user {} knocked", peer.pid, peer.uid));
        }
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("process {} ended before it was ready", peer.pid),
            _ if timed_out(&error) => format!("process {} did not answer in time", peer.pid),
            _ => format!("process {}: {error}", peer.pid),
        };
        let talk = Talk(line);
        match talk.hear(WORD_MAX).map_err(told)?.0 {
            Word::Hello {
                version: VERSION,
                release,
                ..
            } => {
                tracing::info!("process {} (sluice {release}) asks to take over", peer.pid);
            }
            Word::Hello { version, .. } => {
                let why = format!("it takes version {version}, this process hands over in version {VERSION}");
                return refuse(&talk, why);
            }
            other => return Err(format!("process {} began with {other:?}", peer.pid)),
        }
        let loan = match answer(ask, Ask::Lend) {
            Ok(loan) => loan,
            Err(why) => return refuse(&talk, why),
        };
        self.lend(&talk, loan, door).map_err(told)?;
        match talk.hear(WORD_MAX).map_err(told)?.0 {
            Word::Yield => {}
            Word::Failed { why } => return Err(format!("process {}: {why}", peer.pid)),
            other => return Err(format!("process {} said {other:?}, not yield", peer.pid)),
        }
        if let Err(why) = answer(ask, Ask::Yield) {
            return refuse(&talk, why);
        }
        let heard = talk
            .say(&Word::Yielded, &[], WORD_MAX)
            .and_then(|()| talk.hear(self.ready_max));
        let why = match heard {
            Ok((Word::Ready, _)) => {
                self.given.store(true, Ordering::Release);
                let (done, given) = sync_channel(1);
                ask(Ask::Given {
                    pid: peer.pid.cast_unsigned(),
                    done,
                });
                // It drains whether or not it says so in time; the successor serves.
                let _ = given.recv_timeout(WORD_MAX);
                let _ = talk.say(&Word::Farewell, &[], WORD_MAX);
                return Ok(());
            }
            Ok((Word::Failed { why }, _)) => format!("process {}: {why}", peer.pid),
            Ok((other, _)) => format!("process {} said {other:?}, not ready", peer.pid),
            Err(error) if timed_out(&error) => {
                let time = self.ready_max;
                format!("process {} was not ready within {time:?} and was ended", peer.pid)
            }
            Err(error) => told(error),
        };
        // One that says it failed ends by itself. Whatever it still is, it must not write the maps any more.
        if !matches!(talk.hear(LAST_WORDS), Err(error) if error.kind() == io::ErrorKind::UnexpectedEof) {
            let _ = process::end(peer.pid);
        }
        ask(Ask::TakeBack);
        Err(why)
    }

    fn lend(&self, talk: &Talk, loan: Loan, door: &Door) -> io::Result<()> {
        let mut sockets = loan.sockets;
        sockets.push((Place::Door, door.duplicate()?));
        if sockets.len() > SOCKETS_MAX {
            return Err(io::Error::other("more sockets than can be handed over"));
        }
        let welcome = Word::Welcome {
            version: VERSION,
            pid: std::process::id(),
            datapath: loan.datapath,
            sockets: sockets.len(),
        };
        talk.say(&welcome, &[], WORD_MAX)?;
        talk.give(&sockets, WORD_MAX)
    }
}

/// Tells the successor why not, and returns the same.
fn refuse(talk: &Talk, why: String) -> Result<(), String> {
    let _ = talk.say(&Word::Refuse { why: why.clone() }, &[], WORD_MAX);
    Err(why)
}

/// Asks the control loop and waits.
fn answer<T>(ask: &impl Fn(Ask), question: impl FnOnce(SyncSender<Result<T, String>>) -> Ask) -> Result<T, String> {
    let (reply, answered) = sync_channel(1);
    ask(question(reply));
    answered
        .recv_timeout(WORD_MAX)
        .unwrap_or_else(|_| Err("the control loop is busy".into()))
}
