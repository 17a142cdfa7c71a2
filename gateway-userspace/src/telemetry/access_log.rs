//! The access log: one line for each finished request and each relayed connection.
//!
//! A worker formats lines into a buffer of its own and gives the buffer to a writer thread through a bounded queue, at
//! most every [`FLUSH_PAUSE`] or when [`CHUNK_BYTES`] have come together; the writer gives empty buffers back. A worker
//! never waits for a disk or a pipe: lines that find no room are dropped and counted.

pub mod json;
pub mod relay;
pub mod text;
pub mod timestamp;

use crate::settings::AccessLogFormat;
use crate::sys::clock::{Clock, Wall};
use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use gateway_http::outcome::Outcome;
use relay::RelayOutcome;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use timestamp::Timestamps;

/// A buffer of this size is handed over at once.
pub const CHUNK_BYTES: usize = 32 * 1024;
/// A buffer that cannot be handed over grows to this, then lines are dropped.
pub const CHUNK_BYTES_MAX: usize = 128 * 1024;
/// Buffers waiting for the writer, of all workers.
pub const CHUNKS_MAX: usize = 64;
/// Empty buffers on their way back to one worker.
pub const EMPTY_MAX: usize = 4;
/// Longest time a line waits for company.
pub const FLUSH_PAUSE: Duration = Duration::from_millis(100);

/// What is logged, how, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AccessLogOptions {
    pub format: Format,
    pub keep: Keep,
    /// One line of so many requests that `keep` lets through; 0 and 1 are every one. Faults are always logged.
    pub one_in: u32,
    pub target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    Off,
    /// Envoy's default format.
    #[default]
    Text,
    /// One object a line, with OpenTelemetry's attribute names where it has some.
    Json,
}

/// Which requests are worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Keep {
    #[default]
    All,
    /// Those that ended in a fault, or in a status of 500 or more.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Target {
    #[default]
    Stdout,
    Stderr,
    File(PathBuf),
}

impl From<AccessLogFormat> for AccessLogOptions {
    fn from(format: AccessLogFormat) -> Self {
        let format = match format {
            AccessLogFormat::Off => Format::Off,
            AccessLogFormat::Text => Format::Text,
            AccessLogFormat::Json => Format::Json,
        };
        Self {
            format,
            ..Self::default()
        }
    }
}

impl Target {
    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Target::Stdout => Box::new(io::stdout()),
            Target::Stderr => Box::new(io::stderr()),
            Target::File(path) => Box::new(append(path)?),
        })
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// The writer thread's handle; makes loggers. Dropped after all loggers, it waits until everything is written.
#[derive(Debug)]
pub struct AccessLogWriter {
    options: AccessLogOptions,
    queue: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Message {
    Chunk { lines: Vec<u8>, back: SyncSender<Vec<u8>> },
    Reopen,
}

impl AccessLogWriter {
    /// Fails if the target cannot be opened.
    pub fn start(options: AccessLogOptions) -> io::Result<Self> {
        if options.format == Format::Off {
            return Ok(Self {
                options,
                queue: None,
                thread: None,
            });
        }
        let (queue, messages) = mpsc::sync_channel(CHUNKS_MAX);
        let (mut out, target) = (options.target.open()?, options.target.clone());
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            for message in messages {
                match message {
                    Message::Chunk { mut lines, back } => {
                        // A full disk or a closed pipe must not stop the gateway; the next chunk may fare better.
                        let _ = out.write_all(&lines).and_then(|()| out.flush());
                        lines.clear();
                        let _ = back.try_send(lines);
                    }
                    Message::Reopen => {
                        if let Ok(opened) = target.open() {
                            out = opened;
                        }
                    }
                }
            }
        })?;
        Ok(Self {
            options,
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Opens the file anew, after it was moved away.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            let _ = queue.send(Message::Reopen);
        }
    }

    /// One worker's end.
    pub fn logger(&self, clock: Clock) -> AccessLogger {
        let (back, empty) = mpsc::sync_channel(EMPTY_MAX);
        AccessLogger {
            format: self.options.format,
            keep: self.options.keep,
            one_in: self.options.one_in.max(1),
            skipped: 0,
            queue: self.queue.clone(),
            back,
            empty,
            lines: Vec::new(),
            flush_at: None,
            clock,
            wall: clock.wall(),
            wall_until: Moment::ZERO,
            stamps: Timestamps::default(),
            dropped_total: 0,
        }
    }
}

impl Drop for AccessLogWriter {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A worker's end of the access log.
#[derive(Debug)]
pub struct AccessLogger {
    format: Format,
    keep: Keep,
    one_in: u32,
    skipped: u32,
    queue: Option<SyncSender<Message>>,
    back: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    lines: Vec<u8>,
    flush_at: Option<Moment>,
    clock: Clock,
    wall: Wall,
    wall_until: Moment,
    stamps: Timestamps,
    dropped_total: u64,
}

/// How old the mapping from moments to wall-clock time may be.
const WALL_PAUSE: Duration = Duration::from_secs(1);

impl AccessLogger {
    /// Whether a request's end is of any use here.
    pub fn wants_requests(&self) -> bool {
        self.format != Format::Off
    }

    /// Writes a request's line.
    pub fn log(&mut self, outcome: &Outcome<'_>, snapshot: &Snapshot) {
        if self.begin(outcome.ended, outcome.fault.is_some(), outcome.status >= 500) {
            let started = self.stamps.rfc3339(self.wall.unix_millis(outcome.started));
            match self.format {
                Format::Off => {}
                Format::Text => text::line(&mut self.lines, started, outcome, snapshot),
                Format::Json => json::line(&mut self.lines, started, outcome, snapshot),
            }
        }
    }

    /// Writes a relayed connection's line.
    pub fn log_relay(&mut self, outcome: &RelayOutcome, snapshot: &Snapshot) {
        if self.begin(outcome.ended, outcome.end.name().is_some(), false) {
            let started = self.stamps.rfc3339(self.wall.unix_millis(outcome.started));
            match self.format {
                Format::Off => {}
                Format::Text => relay::text_line(&mut self.lines, started, outcome, snapshot),
                Format::Json => relay::json_line(&mut self.lines, started, outcome, snapshot),
            }
        }
    }

    /// Whether there is to be a line, and room for it.
    fn begin(&mut self, ended: Moment, fault: bool, failed: bool) -> bool {
        if self.queue.is_none() || !self.wanted(fault, failed) {
            return false;
        }
        if self.lines.len() >= CHUNK_BYTES_MAX {
            self.dropped_total += 1;
            return false;
        }
        if ended >= self.wall_until {
            self.wall = self.clock.wall();
            self.wall_until = ended + WALL_PAUSE;
        }
        true
    }

    fn wanted(&mut self, fault: bool, failed: bool) -> bool {
        if fault {
            return true;
        }
        match self.keep {
            Keep::Failed if !failed => return false,
            Keep::Failed | Keep::All => {}
        }
        self.skipped += 1;
        if self.skipped < self.one_in {
            return false;
        }
        self.skipped = 0;
        true
    }

    /// Hands over what has come together, when it is time.
    pub fn end_turn(&mut self, now: Moment) {
        if self.lines.is_empty() {
            return;
        }
        let at = *self.flush_at.get_or_insert(now + FLUSH_PAUSE);
        if self.lines.len() >= CHUNK_BYTES || at <= now {
            self.flush();
            // What could not be handed over waits as long again.
            self.flush_at = (!self.lines.is_empty()).then(|| now + FLUSH_PAUSE);
        }
    }

    /// When lines that wait should be handed over.
    pub fn flush_at(&self) -> Option<Moment> {
        self.flush_at
    }

    /// Lines that found no room.
    pub fn dropped_total(&self) -> u64 {
        self.dropped_total
    }

    /// Hands over what is there, if the queue takes it.
    pub fn flush(&mut self) {
        let Some(queue) = &self.queue else { return };
        if self.lines.is_empty() {
            return;
        }
        let empty = self.empty.try_recv().unwrap_or_default();
        let lines = std::mem::replace(&mut self.lines, empty);
        match queue.try_send(Message::Chunk {
            lines,
            back: self.back.clone(),
        }) {
            Ok(()) => {}
            Err(
                TrySendError::Full(Message::Chunk { lines, .. })
                | TrySendError::Disconnected(Message::Chunk { lines, .. }),
            ) => {
                self.lines = lines;
            }
            Err(TrySendError::Full(Message::Reopen) | TrySendError::Disconnected(Message::Reopen)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::fault::Fault;

    fn outcome(status: u16, fault: Option<Fault>) -> Outcome<'static> {
        Outcome {
            status,
            fault,
            ..text::tests::outcome()
        }
    }

    #[test]
    fn lines_reach_the_file_and_the_end_of_the_writer_waits_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let options = AccessLogOptions {
            target: Target::File(path.clone()),
            ..Default::default()
        };
        let writer = AccessLogWriter::start(options).unwrap();
        let mut logger = writer.logger(Clock::start());
        for _ in 0..1000 {
            logger.log(&outcome(200, None), &Snapshot::default());
            logger.end_turn(Moment::from_millis(1));
        }
        logger.flush();
        drop(logger);
        drop(writer);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1000);
    }

    #[test]
    fn a_line_waits_for_company_but_not_long() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::File(folder.path().join("access.log"));
        let writer = AccessLogWriter::start(AccessLogOptions {
            target,
            ..Default::default()
        })
        .unwrap();
        let mut logger = writer.logger(Clock::start());
        logger.log(&outcome(200, None), &Snapshot::default());
        logger.end_turn(Moment::from_millis(10));
        assert_eq!(logger.flush_at(), Some(Moment::from_millis(110)));
        logger.end_turn(Moment::from_millis(110));
        assert_eq!(logger.flush_at(), None);
    }

    #[test]
    fn a_writer_that_stands_still_costs_lines_not_time() {
        let writer = AccessLogWriter {
            options: AccessLogOptions::default(),
            queue: Some(mpsc::sync_channel(0).0),
            thread: None,
        };
        let mut logger = writer.logger(Clock::start());
        for _ in 0..10_000 {
            logger.log(&outcome(200, None), &Snapshot::default());
            logger.end_turn(Moment::from_millis(1));
        }
        assert!(logger.dropped_total() > 0);
        assert!(logger.lines.len() < CHUNK_BYTES_MAX + 4096);
    }

    #[test]
    fn faults_are_logged_whatever_the_filter() {
        let options = AccessLogOptions {
            keep: Keep::Failed,
            one_in: 10,
            ..Default::default()
        };
        let (queue, _messages) = mpsc::sync_channel(1);
        let writer = AccessLogWriter {
            options,
            queue: Some(queue),
            thread: None,
        };
        let mut logger = writer.logger(Clock::start());
        assert!(!logger.wanted(false, false));
        assert!(logger.wanted(true, false));
        let wanted = (0..20).filter(|_| logger.wanted(false, true)).count();
        assert_eq!(wanted, 2);
    }
}
