//! A socket of the HTTP plane and the two ways its bytes go: as they are, or through TLS.
//!
//! Registered once for reading and writing, edge-triggered, and never again: what the socket could not take or give is
//! remembered here.

use super::tls::Session;
use gateway_core::ids::ListenerId;
use gateway_core::time::Moment;
use gateway_http::engine::ConnId;
use mio::net::TcpStream;
use socket2::SockRef;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// One socket.
#[derive(Debug)]
pub struct Socket {
    pub stream: TcpStream,
    pub tls: Option<Session>,
    pub stage: Stage,
    /// The peer closed its side, or the socket is broken: read to the end, a short read is not the end.
    pub closing: bool,
    /// The end was read.
    pub ended: bool,
    /// The socket took less than it was given; an event says when it takes more.
    pub blocked: bool,
}

/// Where a socket is in its life.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// TLS is being agreed on; the engine does not know the connection yet.
    Handshaking {
        listener: ListenerId,
        peer: SocketAddr,
        local: SocketAddr,
        until: Moment,
    },
    /// An upstream connect is under way.
    Connecting { conn: ConnId },
    /// The engine's.
    Open { conn: ConnId, upstream: bool },
    /// We said all and wait for the peer to take it: closing at once could reset what is still on its way
    /// (RFC 9112 9.6).
    Lingering { until: Moment, bytes_left: usize },
}

/// How long a closed downstream socket waits for its peer.
pub const LINGER: Duration = Duration::from_secs(1);
/// What it reads and throws away meanwhile.
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;

impl Socket {
    pub fn new(stream: TcpStream, stage: Stage) -> Self {
        Self {
            stream,
            tls: None,
            stage,
            closing: false,
            ended: false,
            blocked: false,
        }
    }

    /// The engine's name for it.
    pub fn conn(&self) -> Option<ConnId> {
        match self.stage {
            Stage::Connecting { conn } | Stage::Open { conn, .. } => Some(conn),
            Stage::Handshaking { .. } | Stage::Lingering { .. } => None,
        }
    }

    /// Gives `slices` to the peer, sealed if need be. A short count or `WouldBlock`: the rest when an event says so.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.tls {
            None => loop {
                match self.stream.write_vectored(slices) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    done => return done,
                }
            },
            Some(session) => {
                let done = session.write(&mut self.stream, slices);
                self.blocked |= session.wants_write();
                done
            }
        }
    }

    /// Sends what TLS holds back. False: the socket is full.
    pub fn flush(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            None => Ok(true),
            Some(session) => session.flush(&mut self.stream),
        }
    }

    /// Says goodbye in order; true if the peer may still be reading, so that the socket should linger.
    pub fn finish(&mut self) -> bool {
        if let Some(session) = &mut self.tls {
            session.close();
        }
        let flushed = self.flush();
        let shut = self.stream.shutdown(Shutdown::Write);
        !self.ended && flushed.is_ok() && shut.is_ok()
    }

    /// Makes closing it an abort: the peer gets a reset.
    pub fn abort(&self) {
        abort(&self.stream);
    }

    /// Reads and throws away, up to the linger's bound. False: there is nothing more to wait for.
    pub fn discard(&mut self, scratch: &mut [u8]) -> bool {
        loop {
            let Stage::Lingering { bytes_left, .. } = &mut self.stage else {
                return false;
            };
            match self.stream.read(scratch) {
                Ok(0) => return false,
                Ok(n) => match bytes_left.checked_sub(n) {
                    Some(left) => *bytes_left = left,
                    None => return false,
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

/// Makes closing `stream` an abort: the peer gets a reset.
pub fn abort(stream: &TcpStream) {
    // If it fails the peer gets a FIN instead: the connection ends all the same.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Whether a nonblocking connect has come to its end: `Ok(false)` means not yet.
pub fn connect_done(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
        Err(error) => Err(error),
    }
}
