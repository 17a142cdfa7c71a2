//! Sockets come: accepted ones, with TLS or without, and the engine's upstream connects.

use super::HttpPlane;
use crate::worker::accept::{Incoming, keepalive};
use crate::worker::context::Context;
use crate::worker::slab::Key;
use crate::worker::socket::{Handshake, Socket, Stage, connect_done};
use crate::worker::tls::{Session, Upstream, identity};
use crate::worker::token::Source;
use gateway_core::fault::Refusal;
use gateway_core::ids::EndpointId;
use gateway_core::ir::UpstreamProtocol;
use gateway_http::engine::{Accepted, ConnId, DownstreamProtocol};
use mio::Interest;
use mio::net::TcpStream;
use socket2::SockRef;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Between two lines of the log about handshakes with endpoints that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// How long an endpoint's host may leave bytes unacknowledged.
const UNANSWERED_MAX: Duration = Duration::from_secs(30);
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
        let tls = Arc::clone(context.tls.listener(listener).ok_or(Refusal::Broken)?);
        let mut handshake = Handshake {
            tls: Arc::clone(&tls),
            hello: Vec::new(),
            check: None,
        };
        let session = match tls.only() {
            Some(class) => {
                handshake.check.clone_from(&class.check);
                Some(Session::server(Arc::clone(&class.config)).map_err(|_| Refusal::Broken)?)
            }
            // What is asked of the client depends on the name it asks for.
            None => None,
        };
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
        socket.tls = session;
        socket.handshake = Some(Box::new(handshake));
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
        let check = socket.handshake.take().and_then(|handshake| handshake.check);
        let accepted = identity::facts(session, check.as_deref()).map(|facts| Accepted {
            listener,
            peer,
            local,
            tls: Some(facts),
            protocol: session.protocol(),
        });
        self.tls.handshakes_total += u64::from(accepted.is_ok());
        self.tls.resumed_total += u64::from(accepted.is_ok() && session.resumed());
        match accepted.and_then(|accepted| self.engine.accept(accepted, context.now)) {
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
    pub(super) fn connect(
        &mut self,
        conn: ConnId,
        endpoint: EndpointId,
        addr: SocketAddr,
        protocol: UpstreamProtocol,
        context: &mut Context,
    ) {
        let session = match context.tls.upstream(endpoint) {
            Upstream::Plain => Ok(None),
            Upstream::Tls(tls) => Session::client(Arc::clone(tls.config(protocol)), tls.name.clone())
                .map(Some)
                .map_err(|_| ()),
            // Rather not at all than in plain text.
            Upstream::Broken => Err(()),
        };
        let Ok(session) = session else {
            self.engine.securing(conn);
            return self.engine.connect_failed(conn, context.now);
        };
        match TcpStream::connect(addr) {
            Ok(stream) => {
                // Frames are written whole: nothing is won by waiting for more.
                let _ = stream.set_nodelay(true);
                // An endpoint whose host is gone, or a path that swallows packets, is found in half a minute, whether
                // or not something was on its way. Where the options are missing the timeouts of requests remain.
                let options = SockRef::from(&stream);
                let _ = options.set_tcp_keepalive(&keepalive());
                let _ = options.set_tcp_user_timeout(Some(UNANSWERED_MAX));
                let mut socket = Socket::new(stream, Stage::Connecting { conn });
                socket.tls = session;
                let key = self.sockets.insert(socket);
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
            Ok(true) if socket.tls.is_some() => {
                socket.stage = Stage::Securing { conn };
                self.engine.securing(conn);
                match socket.flush() {
                    Ok(sent) => socket.blocked = !sent,
                    Err(_) => return self.engine.connect_failed(conn, context.now),
                }
                self.read(key, context);
            }
            Ok(true) => {
                socket.stage = Stage::Open { conn, upstream: true };
                self.engine.connected(conn, context.now);
                if let Ok(local) = socket.stream.local_addr() {
                    self.engine.name_local(conn, local);
                }
                // Its first bytes may have come with the event that said it is connected.
                self.read(key, context);
            }
            Err(_) => {
                socket.closing = true;
                self.engine.connect_failed(conn, context.now);
            }
        }
    }

    /// The endpoint is who it should be.
    pub(super) fn secured(&mut self, key: Key, conn: ConnId, context: &mut Context) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.stage = Stage::Open { conn, upstream: true };
            self.tls.upstream_handshakes_total += 1;
            self.engine.connected(conn, context.now);
        }
    }

    /// TLS with an endpoint came to nothing; `why` for the log, which hears of one failure a second.
    #[cold]
    pub(super) fn unsecured(&mut self, key: Key, conn: ConnId, why: &str, context: &mut Context) {
        self.tls.upstream_failures_total += 1;
        if self.told_at.is_none_or(|told| context.now.since(told) >= FAILURE_PAUSE) {
            self.told_at = Some(context.now);
            let peer = self.sockets.get(key).and_then(|socket| socket.stream.peer_addr().ok());
            let peer = peer.map_or_else(String::new, |peer| peer.to_string());
            tracing::warn!(endpoint = %peer, "TLS to an endpoint failed: {why}");
        }
        if let Some(socket) = self.sockets.get_mut(key) {
            // The alert goes out if it can.
            let _ = socket.flush();
        }
        self.engine.connect_failed(conn, context.now);
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
            Stage::Connecting { conn } | Stage::Securing { conn } => self.engine.connect_failed(conn, context.now),
            Stage::Open { conn, .. } => self.engine.lost(conn, context.now),
        }
    }
}
