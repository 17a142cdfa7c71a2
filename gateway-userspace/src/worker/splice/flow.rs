//! One direction of a relay: from a socket to a socket, as fast as the slower one.
//!
//! Small pieces are copied through the worker's buffer: one read, one write, nothing held while the relay is idle. A
//! flow that keeps filling the buffer is bulk and gets a pipe: splice(2) moves pages instead of copying them. At most
//! [`super::RELAY_BYTES`] (bulk: [`PIPE_BYTES`]) are held for a receiver that does not take them; then the sender is not read, and its own
//! window closes.

use super::{BULK_READS, PIPE_BYTES, PUMPS_PER_TURN, PipePool};
use crate::sys::splice::Pipe;
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

/// A socket of a relay and what is known of it. Edge-triggered: `readable` and `writable` hold until a call says no.
#[derive(Debug)]
pub struct Leg {
    pub stream: TcpStream,
    pub readable: bool,
    pub writable: bool,
    /// The peer closed its side or the socket broke: a short read is not the end.
    pub closing: bool,
}

impl Leg {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            readable: false,
            writable: false,
            closing: false,
        }
    }
}

/// How far a direction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Progress {
    #[default]
    Flowing,
    /// The sender finished; what is held still has to go.
    Ending,
    /// The receiver got everything, and the FIN.
    Ended,
    /// The receiver takes nothing any more; what comes for it is not read.
    Refused,
}

/// What a pump came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pumped {
    /// Nothing more until an event.
    Waits,
    /// Its share of the turn is used up.
    Again,
    /// The sender broke: both sides are to be reset.
    Broken,
}

#[derive(Debug, Default)]
pub struct Flow {
    pub progress: Progress,
    /// Bytes the receiver took.
    pub bytes: u64,
    /// Of those, moved by splice(2).
    pub spliced: u64,
    held: Vec<u8>,
    pipe: Option<Pipe>,
    full_reads: u8,
}

impl Flow {
    /// Puts bytes that were read already in front of everything.
    pub fn begin_with(&mut self, bytes: Vec<u8>) {
        self.held = bytes;
    }

    pub fn is_over(&self) -> bool {
        match self.progress {
            Progress::Ended | Progress::Refused => true,
            Progress::Flowing | Progress::Ending => false,
        }
    }

    /// Moves bytes until a side says no, or the turn's share is used up.
    pub fn pump(&mut self, from: &mut Leg, to: &mut Leg, buffer: &mut [u8], pipes: &mut PipePool) -> Pumped {
        for _ in 0..PUMPS_PER_TURN {
            match self.step(from, to, buffer, pipes) {
                Ok(true) => {}
                Ok(false) => return Pumped::Waits,
                Err(Side::Sender) => return Pumped::Broken,
                Err(Side::Receiver) => {
                    self.progress = Progress::Refused;
                    self.release(pipes);
                    return Pumped::Waits;
                }
            }
        }
        Pumped::Again
    }

    /// One move. False: wait for an event.
    fn step(&mut self, from: &mut Leg, to: &mut Leg, buffer: &mut [u8], pipes: &mut PipePool) -> Result<bool, Side> {
        if self.is_over() {
            return Ok(false);
        }
        if !self.held.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0) {
            return self.push(to);
        }
        if self.progress == Progress::Ending {
            self.release(pipes);
            to.stream.shutdown(Shutdown::Write).map_err(|_| Side::Receiver)?;
            self.progress = Progress::Ended;
            return Ok(false);
        }
        if !from.readable {
            self.release(pipes);
            return Ok(false);
        }
        if self.full_reads >= BULK_READS && self.pipe.is_none() {
            self.pipe = pipes.take();
        }
        match self.pipe.is_some() {
            true => self.splice(from, to, pipes),
            false => self.copy(from, to, buffer),
        }
    }

    /// Reads into the worker's buffer and writes it at once; what is refused is held.
    fn copy(&mut self, from: &mut Leg, to: &mut Leg, buffer: &mut [u8]) -> Result<bool, Side> {
        let n = match from.stream.read(buffer) {
            Ok(0) => {
                self.progress = Progress::Ending;
                return Ok(true);
            }
            Ok(n) => n,
            Err(error) => return wait(&error, &mut from.readable).ok_or(Side::Sender),
        };
        let full = n == buffer.len();
        from.readable = full || from.closing;
        self.full_reads = if full { self.full_reads.saturating_add(1) } else { 0 };
        let mut sent = 0;
        while to.writable && sent < n {
            match to.stream.write(&buffer[sent..n]) {
                Ok(more) => {
                    sent += more;
                    to.writable = sent == n;
                }
                Err(error) => _ = wait(&error, &mut to.writable).ok_or(Side::Receiver)?,
            }
        }
        self.bytes += sent as u64;
        self.held.extend_from_slice(&buffer[sent..n]);
        Ok(true)
    }

    fn splice(&mut self, from: &mut Leg, to: &mut Leg, pipes: &mut PipePool) -> Result<bool, Side> {
        let Some(pipe) = &mut self.pipe else { return Ok(true) };
        match pipe.fill(from.stream.as_fd(), PIPE_BYTES) {
            Ok(0) => {
                self.progress = Progress::Ending;
                Ok(true)
            }
            Ok(_) => self.push(to),
            Err(error) => {
                // It is no bulk for now, and the pipe, empty, can serve another flow.
                self.full_reads = 0;
                self.release(pipes);
                wait(&error, &mut from.readable).ok_or(Side::Sender)
            }
        }
    }

    /// Writes what is held. False: the receiver is full.
    fn push(&mut self, to: &mut Leg) -> Result<bool, Side> {
        if !to.writable {
            return Ok(false);
        }
        let spliced = self.held.is_empty();
        let done = match &mut self.pipe {
            Some(pipe) if spliced => pipe.drain(to.stream.as_fd()),
            Some(_) | None => to.stream.write(&self.held),
        };
        match done {
            Ok(n) => {
                self.bytes += n as u64;
                if spliced {
                    self.spliced += n as u64;
                } else if n == self.held.len() {
                    self.held = Vec::new();
                } else {
                    self.held.drain(..n);
                }
                Ok(true)
            }
            Err(error) => wait(&error, &mut to.writable).ok_or(Side::Receiver),
        }
    }

    /// Gives an empty pipe back. One that holds bytes nobody will take is closed.
    pub fn release(&mut self, pipes: &mut PipePool) {
        if let Some(pipe) = self.pipe.take() {
            pipes.give(pipe);
        }
    }
}

/// Which socket an error belongs to.
enum Side {
    Sender,
    Receiver,
}

/// `None`: a real error. Otherwise whether to go on at once.
fn wait(error: &io::Error, ready: &mut bool) -> Option<bool> {
    match error.kind() {
        ErrorKind::Interrupted => Some(true),
        ErrorKind::WouldBlock => {
            *ready = false;
            Some(false)
        }
        _ => None,
    }
}
