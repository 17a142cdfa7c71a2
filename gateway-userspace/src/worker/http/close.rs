//! Sockets go: in order, by a reset, or turned away before the engine knew them.

use super::HttpPlane;
use crate::worker::accept::Incoming;
use crate::worker::context::Context;
use crate::worker::slab::Key;
use crate::worker::socket::{LINGER, LINGER_BYTES_MAX, LINGER_SEALED, Stage};
use crate::worker::splice::Strayed;
use crate::worker::token::Source;
use gateway_core::fault::Refusal;
use gateway_http::engine::ConnId;
use std::net::Shutdown;

/// Closed sockets of a worker that wait for their peers; more are closed at once.
pub const LINGERING_MAX: usize = 1024;

impl HttpPlane {
    /// Nothing follows what was written; the peer may still send.
    pub(super) fn finish(&mut self, conn: ConnId) {
        let Some(socket) = self.key(conn).and_then(|key| self.sockets.get_mut(key)) else {
            return;
        };
        socket.finish();
        if socket.tls.is_some() {
            socket.blocked |= !socket.flush().unwrap_or(true);
        } else {
            // A socket that is broken says so when it is read.
            let _ = socket.stream.shutdown(Shutdown::Write);
        }
    }

    /// Carries out the engine's close. The connection's name is free at once, its socket may stay a little.
    pub(super) fn close(&mut self, conn: ConnId, reset: bool, context: &mut Context) {
        let Some(key) = self.by_conn.get_mut(conn.index()).and_then(Option::take) else {
            return;
        };
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let downstream = matches!(socket.stage, Stage::Open { upstream: false, .. });
        if reset {
            socket.abort();
        } else if downstream {
            socket.finish();
            if self.lingering < LINGERING_MAX {
                let wait = if socket.flush().is_ok_and(|sent| sent) {
                    LINGER
                } else {
                    LINGER_SEALED
                };
                let until = context.now + wait;
                socket.stage = Stage::Lingering {
                    until,
                    bytes_left: LINGER_BYTES_MAX,
                };
                self.lingering += 1;
                context.timers.wake(until, Source::Http(key));
                return self.linger(key);
            }
        } else if matches!(socket.stage, Stage::Open { .. }) {
            // An endpoint is told that nothing follows; it has to take it now or do without.
            socket.finish();
            let _ = socket.flush();
        }
        self.sockets.remove(key);
    }

    /// Goes on with a lingering socket.
    pub(super) fn linger(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        if !socket.linger(&mut self.sealed) {
            self.lingering -= 1;
            self.sockets.remove(key);
        }
    }

    /// A connection that does not get past its handshake.
    pub(super) fn refuse(&mut self, key: Key, refusal: Refusal, context: &mut Context) {
        let Some(mut socket) = self.sockets.remove(key) else {
            return;
        };
        match socket.stage {
            Stage::Handshaking { .. } => self.handshakes -= 1,
            Stage::Lingering { .. } => self.lingering -= 1,
            Stage::Connecting { .. } | Stage::Securing { .. } | Stage::Open { .. } => {}
        }
        // The alert goes out if it can.
        let _ = socket.flush();
        context.refusals.count(refusal);
    }

    /// Lets go of a connection whose hello, the first `n` bytes of what was read, names a TLS listener of its port.
    pub(super) fn stray(&mut self, key: Key, n: usize, name: Option<String>, context: &mut Context) {
        let Some(mut socket) = self.sockets.remove(key) else {
            return;
        };
        self.handshakes -= 1;
        let Stage::Handshaking {
            listener, peer, local, ..
        } = socket.stage
        else {
            return;
        };
        // It would be dropped by the poll with the socket, which stays open.
        let _ = context.registry.deregister(&mut socket.stream);
        self.strayed.push(Strayed {
            incoming: Incoming {
                stream: socket.stream,
                peer,
                local,
                listener,
            },
            hello: self.sealed[..n].to_vec(),
            name,
        });
    }

    /// Its time may be over.
    pub fn timeout(&mut self, key: Key, context: &mut Context) {
        let Some(socket) = self.sockets.get(key) else { return };
        match socket.stage {
            Stage::Handshaking { until, .. } if until <= context.now => self.refuse(key, Refusal::Silent, context),
            Stage::Lingering { until, .. } if until <= context.now => {
                self.lingering -= 1;
                self.sockets.remove(key);
            }
            Stage::Handshaking { .. }
            | Stage::Lingering { .. }
            | Stage::Connecting { .. }
            | Stage::Securing { .. }
            | Stage::Open { .. } => {}
        }
    }
}
