//! A socket of a relay: bytes as they are, or under TLS.
//!
//! Edge-triggered: `readable` and `writable` hold until a call says no. What a TLS session still holds for its socket
//! makes the leg not writable; nothing more is taken for it before that went out.

use super::RELAY_BYTES;
use crate::worker::tls::Session;
use mio::net::TcpStream;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;

/// The longest piece of a record that a session keeps until the rest of it comes (RFC 8446 5.2, with room).
const RECORD_BYTES_MAX: usize = 18 * 1024;

/// Where a worker's relays read to.
#[derive(Debug)]
pub struct Rooms {
    /// A read, and under TLS the beginning of a record that came before it.
    pub plain: Box<[u8]>,
    sealed: Box<[u8]>,
}

impl Rooms {
    pub fn new() -> Self {
        Self {
            plain: vec![0; RELAY_BYTES + RECORD_BYTES_MAX].into_boxed_slice(),
            sealed: vec![0; RELAY_BYTES].into_boxed_slice(),
        }
    }
}

/// A socket of a relay and what is known of it.
#[derive(Debug)]
pub struct Leg {
    pub stream: TcpStream,
    pub tls: Option<Session>,
    pub readable: bool,
    pub writable: bool,
    /// The peer closed its side or the socket broke: a short read is not the end.
    pub closing: bool,
}

/// What one read came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Taken {
    /// Bytes of [`Rooms::plain`].
    pub len: usize,
    /// There may be as many again.
    pub full: bool,
    /// Nothing follows.
    pub end: Option<End>,
}

/// How a peer's bytes end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It said so: a FIN, under TLS a close_notify.
    Said,
    /// A FIN under TLS: what came may be cut short (RFC 8446 6.1).
    Cut,
}

/// Why a leg cannot be read any more.
#[derive(Debug)]
pub enum Lost {
    Socket(io::Error),
    Tls(rustls::Error),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Socket(error) => error.fmt(f),
            Lost::Tls(error) => error.fmt(f),
        }
    }
}

impl Leg {
    pub fn new(stream: TcpStream, tls: Option<Session>) -> Self {
        Self {
            stream,
            tls,
            readable: false,
            writable: false,
            closing: false,
        }
    }

    /// Reads once, and opens what it read. `None`: the socket is empty.
    pub fn read(&mut self, rooms: &mut Rooms) -> Result<Option<Taken>, Lost> {
        let Rooms { plain, sealed } = rooms;
        let room = match self.tls {
            None => &mut plain[..RELAY_BYTES],
            Some(_) => &mut sealed[..],
        };
        let len = loop {
            match self.stream.read(room) {
                Ok(len) => break len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) => return Err(Lost::Socket(error)),
            }
        };
        let full = len == room.len();
        self.readable = full || self.closing;
        let taken = match (&self.tls, len) {
            (None, 0) => Taken {
                end: Some(End::Said),
                ..Taken::default()
            },
            (Some(_), 0) => Taken {
                end: Some(End::Cut),
                ..Taken::default()
            },
            (None, len) => Taken { len, full, end: None },
            (Some(_), len) => self.open(&sealed[..len], plain)?,
        };
        Ok(Some(taken))
    }

    /// Opens what came under TLS.
    pub fn open(&mut self, sealed: &[u8], plain: &mut [u8]) -> Result<Taken, Lost> {
        let Some(session) = &mut self.tls else {
            return Ok(Taken::default());
        };
        let fed = session.feed(sealed, plain);
        // Answers to it, or the alert that says what is wrong with it. A socket that is broken says so when it is read.
        let _ = self.flush();
        let fed = fed.map_err(Lost::Tls)?;
        Ok(Taken {
            len: fed.plain,
            full: false,
            end: fed.closed.then_some(End::Said),
        })
    }

    /// Gives bytes to the peer; fewer than all when its socket is full.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let done = match &mut self.tls {
                None => self.stream.write(bytes),
                Some(session) => session.write(&mut self.stream, &[IoSlice::new(bytes)]),
            };
            match done {
                Ok(len) => {
                    let waits = self.tls.as_ref().is_some_and(Session::wants_write);
                    self.writable = len == bytes.len() && !waits;
                    return Ok(len);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(0);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what TLS holds back. False: the socket is full.
    pub fn flush(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            Some(session) if session.wants_write() => {
                self.writable = self.writable && session.flush(&mut self.stream)?;
                Ok(self.writable)
            }
            Some(_) | None => Ok(true),
        }
    }

    /// Says that nothing follows, unless what came was `cut` short: then only the FIN is passed on, and a peer that
    /// speaks TLS knows. False: the socket is full, and it has to be done again.
    pub fn finish(&mut self, cut: bool) -> io::Result<bool> {
        if let (Some(session), false) = (&mut self.tls, cut) {
            session.close();
        }
        if !self.flush()? {
            return Ok(false);
        }
        self.stream.shutdown(Shutdown::Write)?;
        Ok(true)
    }
}
