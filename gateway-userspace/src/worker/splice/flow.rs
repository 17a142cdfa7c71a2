//! One direction of a relay: from a leg to a leg, as fast as the slower one.
//!
//! Small pieces are copied through the worker's rooms: one read, one write, nothing held while the relay is idle. A
//! flow between plain sockets that keeps filling the room is bulk and gets a pipe: splice(2) moves pages instead of
//! copying them. At most one read (bulk: [`PIPE_BYTES`]) is held for a receiver that does not take it, under TLS
//! [`SEALED_BYTES_MAX`](crate::worker::tls::session::SEALED_BYTES_MAX) of ciphertext besides; then the sender is not
//! read, and its own window closes.

use super::leg::{End, Leg, Rooms};
use super::{BULK_READS, PIPE_BYTES, PUMPS_PER_TURN, PipePool};
use crate::sys::splice::Pipe;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

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
    /// Bytes the receiver took; before TLS.
    pub bytes: u64,
    /// Of those, moved by splice(2).
    pub spliced: u64,
    /// The sender ended without saying so.
    pub cut: bool,
    held: Vec<u8>,
    pipe: Option<Pipe>,
    full_reads: u8,
}

impl Flow {
    /// Puts bytes that were read already in front of everything, and what the sender said after them.
    pub fn begin_with(&mut self, bytes: Vec<u8>, end: Option<End>) {
        self.held = bytes;
        self.note(end);
    }

    fn note(&mut self, end: Option<End>) {
        if let Some(end) = end {
            self.progress = Progress::Ending;
            self.cut = end == End::Cut;
        }
    }

    pub fn is_over(&self) -> bool {
        match self.progress {
            Progress::Ended | Progress::Refused => true,
            Progress::Flowing | Progress::Ending => false,
        }
    }

    /// Moves bytes until a side says no, or the turn's share is used up.
    pub fn pump(&mut self, from: &mut Leg, to: &mut Leg, rooms: &mut Rooms, pipes: &mut PipePool) -> Pumped {
        for _ in 0..PUMPS_PER_TURN {
            match self.step(from, to, rooms, pipes) {
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
    fn step(&mut self, from: &mut Leg, to: &mut Leg, rooms: &mut Rooms, pipes: &mut PipePool) -> Result<bool, Side> {
        if self.is_over() {
            return Ok(false);
        }
        if !to.flush().map_err(|_| Side::Receiver)? {
            return Ok(false);
        }
        if !self.held.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0) {
            return self.push(to);
        }
        if self.progress == Progress::Ending {
            self.release(pipes);
            if to.finish(self.cut).map_err(|_| Side::Receiver)? {
                self.progress = Progress::Ended;
            }
            return Ok(false);
        }
        if !from.readable {
            self.release(pipes);
            return Ok(false);
        }
        let plain = from.tls.is_none() && to.tls.is_none();
        if plain && self.full_reads >= BULK_READS && self.pipe.is_none() {
            self.pipe = pipes.take();
        }
        match self.pipe.is_some() {
            true => self.splice(from, to, pipes),
            false => self.copy(from, to, rooms),
        }
    }

    /// Reads into the worker's room and writes it at once; what is refused is held.
    fn copy(&mut self, from: &mut Leg, to: &mut Leg, rooms: &mut Rooms) -> Result<bool, Side> {
        let Some(taken) = from.read(rooms).map_err(|_| Side::Sender)? else {
            return Ok(false);
        };
        self.note(taken.end);
        self.full_reads = if taken.full {
            self.full_reads.saturating_add(1)
        } else {
            0
        };
        let bytes = &rooms.plain[..taken.len];
        let mut sent = 0;
        while to.writable && sent < bytes.len() {
            sent += to.write(&bytes[sent..]).map_err(|_| Side::Receiver)?;
        }
        self.bytes += sent as u64;
        self.held.extend_from_slice(&bytes[sent..]);
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
        if !self.held.is_empty() {
            let sent = to.write(&self.held).map_err(|_| Side::Receiver)?;
            self.bytes += sent as u64;
            if sent == self.held.len() {
                self.held = Vec::new();
            } else {
                self.held.drain(..sent);
            }
            return Ok(true);
        }
        let Some(pipe) = &mut self.pipe else { return Ok(true) };
        match pipe.drain(to.stream.as_fd()) {
            Ok(sent) => {
                self.bytes += sent as u64;
                self.spliced += sent as u64;
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
