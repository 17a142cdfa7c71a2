//! Sockets come: accepted ones, with TLS or without, and the engine's upstream connects.

use super::HttpPlane;
use crate::worker::accept::Incoming;
use crate::worker::slab::Key;
use crate::worker::socket::{Socket, Stage, connect_done};
use crate::worker::tls::Session;
use crate::worker::token::Source;
use crate::worker::turn::Context;
use gateway_core::fault::Refusal;
use gateway_http::engine::{Accepted, ConnId, DownstreamProtocol};
use mio::Interest;
use mio::net::TcpStream;
use std::net::SocketAddr;

/// Readable and writable, once and for all.
pub const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

impl HttpPlane {
    /// A connection to a plain HTTP listener.
    pub fn accept_plain(&mut self, incoming: Incoming, context: &mut Context) -> Result<(), Refusal> {
        let Incoming {
            stream,
            peer,
            local,
            listener,
        } = incoming;
        let accepted = Accepted {
            listener,
            peer,
            local,
            tls: None,
            protocol: DownstreamProtocol::Detect,
        };
        let conn = self.engine.accept(accepted, context.now)?;
        let key = self
            .sockets
            .insert(Socket::new(stream, Stage::Open { conn, upstream: false }));
        self.name(conn, key);
        self.register(key, context);
        Ok(())
    }

    /// A connection to an HTTPS listener.
    pub fn accept_tls(&mut self, incoming: Incoming, context: &mut Context) -> Result<(), Refusal> {
        if self.handshakes >= context.options.handshakes_max {
            return Err(Refusal::TooMany);
        }
        let Incoming {
            stream,
            peer,
            local,
            listener,
        } = incoming;
        let config = context.tls.config(listener).ok_or(Refusal::Broken)?;
        let session = Session::server(config.clone()).map_err(|_| Refusal::Broken)?;
        let until = context.now + context.options.handshake_timeout;
        let mut socket = Socket::new(
            stream,
            Stage::Handshaking {
                listener,
                peer,
                local,
                until,
            },
        );
        socket.tls = Some(session);
        let key = self.sockets.insert(socket);
        self.handshakes += 1;
        context.timers.wake(until, Source::Http(key));
        self.register(key, context);
        Ok(())
    }

    /// The handshake is over: the engine gets the connection, and the `plain` bytes that came with its end.
    pub(super) fn established(&mut self, key: Key, context: &mut Context) -> Option<ConnId> {
        let socket = self.sockets.get_mut(key)?;
        let Stage::Handshaking {
            listener, peer, local, ..
        } = socket.stage
        else {
            return None;
        };
        let session = socket.tls.as_ref()?;
        self.tls.handshakes_total += 1;
        self.tls.resumed_total += u64::from(session.resumed());
        let accepted = Accepted {
            listener,
            peer,
            local,
            tls: Some(session.facts()),
            protocol: session.protocol(),
        };
        match self.engine.accept(accepted, context.now) {
            Ok(conn) => {
                self.handshakes -= 1;
                socket.stage = Stage::Open { conn, upstream: false };
                self.name(conn, key);
                Some(conn)
            }
            Err(refusal) => {
                self.refuse(key, refusal, context);
                None
            }
        }
    }

    /// Opens a socket for a new upstream connection.
    pub(super) fn connect(&mut self, conn: ConnId, addr: SocketAddr, context: &mut Context) {
        match TcpStream::connect(addr) {
            Ok(stream) => {
                // Frames are written whole: nothing is won by waiting for more.
                let _ = stream.set_nodelay(true);
                let key = self.sockets.insert(Socket::new(stream, Stage::Connecting { conn }));
                self.name(conn, key);
                self.register(key, context);
            }
            Err(_) => self.engine.connect_failed(conn, context.now),
        }
    }

    pub(super) fn connecting(&mut self, key: Key, conn: ConnId, context: &mut Context) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        match connect_done(&socket.stream) {
            Ok(false) => {}
            Ok(true) => {
                socket.stage = Stage::Open { conn, upstream: true };
                self.engine.connected(conn, context.now);
                // Its first bytes may have come with the event that said it is connected.
                self.read(key, context);
            }
            Err(_) => {
                socket.closing = true;
                self.engine.connect_failed(conn, context.now);
            }
        }
    }

    /// A socket that cannot be registered would never be heard of again: it ends like one that broke.
    fn register(&mut self, key: Key, context: &mut Context) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let token = Source::Http(key).token();
        if context.registry.register(&mut socket.stream, token, BOTH).is_ok() {
            return;
        }
        match socket.stage {
            Stage::Handshaking { .. } | Stage::Lingering { .. } => self.refuse(key, Refusal::TooMany, context),
            Stage::Connecting { conn } => self.engine.connect_failed(conn, context.now),
            Stage::Open { conn, .. } => self.engine.lost(conn, context.now),
        }
    }
}
