//! Bytes come: from a socket, through TLS if there is any, to the engine, which parses them where they are.

use super::{HttpPlane, READ_BYTES, READS_PER_TURN};
use crate::worker::context::Context;
use crate::worker::slab::Key;
use crate::worker::socket::Stage;
use crate::worker::tls::Session;
use crate::worker::tls::session::{Fed, refusal};
use gateway_core::detect::client_hello::{self, Hello, NotHello};
use gateway_core::fault::Refusal;
use gateway_core::snapshot::ListenerPlan;
use gateway_http::engine::ConnId;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

/// What one read came to.
enum Chunk {
    /// So many bytes; and whether the socket may hold more.
    Bytes(usize, bool),
    Empty,
    End,
    Broken,
}

impl HttpPlane {
    /// Reads a socket until it is empty, or its share of the turn is used up.
    pub(super) fn read(&mut self, key: Key, context: &mut Context) {
        for _ in 0..READS_PER_TURN {
            let Some(socket) = self.sockets.get(key) else { return };
            let more = match (socket.stage, socket.tls.is_some()) {
                (Stage::Open { conn, .. }, false) => self.read_plain(key, conn, context),
                (Stage::Open { .. } | Stage::Handshaking { .. } | Stage::Securing { .. }, true) => {
                    self.read_sealed(key, context)
                }
                (Stage::Handshaking { .. }, false) => self.read_hello(key, context),
                (Stage::Securing { .. }, false) | (Stage::Connecting { .. } | Stage::Lingering { .. }, _) => false,
            };
            if !more {
                return;
            }
        }
        self.again.push(key);
    }

    /// One chunk of a plain socket. True: there may be more.
    fn read_plain(&mut self, key: Key, conn: ConnId, context: &mut Context) -> bool {
        if !self.engine.wants_read(conn) {
            return false;
        }
        let lead = self.engine.restore(conn, &mut self.buffer);
        let chunk = self.fill(key, lead);
        let (len, more) = match chunk {
            Chunk::Bytes(n, more) => (lead + n, more),
            Chunk::Empty | Chunk::End | Chunk::Broken => (lead, false),
        };
        self.deliver(conn, len, context);
        self.after(key, conn, &chunk, context);
        more
    }

    /// Reads into the buffer behind `lead` bytes.
    fn fill(&mut self, key: Key, lead: usize) -> Chunk {
        let Some(socket) = self.sockets.get_mut(key) else {
            return Chunk::Broken;
        };
        let room = &mut self.buffer[lead..lead + READ_BYTES];
        self.reads_total += 1;
        read_once(&mut socket.stream, room, socket.closing)
    }

    fn deliver(&mut self, conn: ConnId, len: usize, context: &mut Context) {
        if len == 0 {
            return;
        }
        self.engine.received(conn, &self.buffer[..len], context.now);
        while let Some(borrower) = self.engine.next_borrower() {
            self.transmit(borrower, len, context.now);
        }
    }

    fn after(&mut self, key: Key, conn: ConnId, chunk: &Chunk, context: &mut Context) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        match chunk {
            Chunk::Bytes(..) | Chunk::Empty => {}
            // Every later event finds the end again.
            Chunk::End if socket.ended => {}
            Chunk::End => {
                socket.ended = true;
                self.engine.ended(conn, context.now);
            }
            Chunk::Broken => self.engine.lost(conn, context.now),
        }
    }

    /// One chunk of ciphertext. True: there may be more.
    fn read_sealed(&mut self, key: Key, context: &mut Context) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else {
            return false;
        };
        let open = socket.conn();
        if open.is_some_and(|conn| !self.engine.wants_read(conn)) {
            return false;
        }
        self.reads_total += 1;
        let chunk = read_once(&mut socket.stream, &mut self.sealed, socket.closing);
        let (n, more) = match chunk {
            Chunk::Bytes(n, more) => (n, more),
            Chunk::Empty => return false,
            // The FIN behind a close_notify.
            Chunk::End if socket.ended => return false,
            Chunk::End | Chunk::Broken => {
                self.cut(key, open, context);
                return false;
            }
        };
        if socket.ended {
            // Behind a close_notify nothing counts (RFC 8446 6.1).
            return more;
        }
        self.unseal(key, open, n, context) && more
    }

    /// Opens the first `n` bytes of what was read. True: the connection goes on.
    fn unseal(&mut self, key: Key, open: Option<ConnId>, n: usize, context: &mut Context) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else {
            return false;
        };
        let lead = open.map_or(0, |conn| self.engine.restore(conn, &mut self.buffer));
        let Some(session) = socket.tls.as_mut() else {
            return false;
        };
        let fed = session.feed(&self.sealed[..n], &mut self.buffer[lead..]);
        let wants_write = session.wants_write();
        if wants_write {
            socket.blocked |= !socket.flush().unwrap_or(true);
        }
        match fed {
            Ok(fed) => self.opened(key, open, lead, fed, context),
            Err(error) => {
                match open {
                    Some(conn) => {
                        self.deliver(conn, lead, context);
                        self.engine.lost(conn, context.now);
                    }
                    None => self.disagree(key, refusal(&error), &error.to_string(), context),
                }
                false
            }
        }
    }

    /// A handshake came to nothing.
    fn disagree(&mut self, key: Key, refusal: Refusal, why: &str, context: &mut Context) {
        match self.sockets.get(key).map(|socket| socket.stage) {
            Some(Stage::Securing { conn }) => self.unsecured(key, conn, why, context),
            Some(_) => self.refuse(key, refusal, context),
            None => {}
        }
    }

    /// Reads a hello whose name decides what its client is asked. True: there may be more.
    fn read_hello(&mut self, key: Key, context: &mut Context) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else {
            return false;
        };
        let Some(handshake) = socket.handshake.as_mut() else {
            return false;
        };
        let known = handshake.hello.len();
        self.sealed[..known].copy_from_slice(&handshake.hello);
        self.reads_total += 1;
        let (n, more) = match read_once(&mut socket.stream, &mut self.sealed[known..], socket.closing) {
            Chunk::Bytes(n, more) => (known + n, more),
            Chunk::Empty => return false,
            Chunk::End | Chunk::Broken => {
                self.refuse(key, Refusal::Handshake, context);
                return false;
            }
        };
        let name = match client_hello::parse(&self.sealed[..n]) {
            Hello::Incomplete { .. } => {
                handshake.hello.clear();
                handshake.hello.extend_from_slice(&self.sealed[..n]);
                return more;
            }
            Hello::Complete { server_name } => Ok(server_name),
            Hello::Not(NotHello::NotTls | NotHello::OtherMessage | NotHello::TooLong) => Err(Refusal::NotTls),
            Hello::Not(NotHello::Malformed) => Err(Refusal::Handshake),
        };
        if let (Ok(name), Stage::Handshaking { listener, .. }) = (&name, socket.stage) {
            let http = context.snapshot.listener(listener).and_then(ListenerPlan::http);
            if http.is_some_and(|http| http.is_relayed(name.as_deref().unwrap_or_default())) {
                self.stray(key, n, name.clone(), context);
                return false;
            }
        }
        let session = name.and_then(|name| {
            let class = handshake.tls.of(name.as_deref()).ok_or(Refusal::NoServerName)?;
            handshake.check.clone_from(&class.check);
            Session::server(Arc::clone(&class.config)).map_err(|_| Refusal::Broken)
        });
        match session {
            Ok(session) => {
                handshake.hello = Vec::new();
                socket.tls = Some(session);
                self.unseal(key, None, n, context) && more
            }
            Err(refusal) => {
                self.refuse(key, refusal, context);
                false
            }
        }
    }

    /// Plaintext is in the buffer. True: the connection goes on.
    fn opened(&mut self, key: Key, open: Option<ConnId>, lead: usize, fed: Fed, context: &mut Context) -> bool {
        let conn = match open {
            Some(conn) => conn,
            None => {
                let handshaking = |socket: &crate::worker::socket::Socket| {
                    socket
                        .tls
                        .as_ref()
                        .is_some_and(crate::worker::tls::Session::is_handshaking)
                };
                if self.sockets.get(key).is_none_or(handshaking) {
                    return true;
                }
                match self.sockets.get(key).map(|socket| socket.stage) {
                    Some(Stage::Securing { conn }) => {
                        self.secured(key, conn, context);
                        conn
                    }
                    Some(_) | None => match self.established(key, context) {
                        Some(conn) => conn,
                        None => return false,
                    },
                }
            }
        };
        self.deliver(conn, lead + fed.plain, context);
        if fed.closed {
            self.after(key, conn, &Chunk::End, context);
        }
        !fed.closed
    }

    /// The transport ended without close_notify: what came may have been cut short (RFC 8446 6.1).
    fn cut(&mut self, key: Key, open: Option<ConnId>, context: &mut Context) {
        match open {
            Some(conn) => self.engine.lost(conn, context.now),
            None => self.disagree(key, Refusal::Handshake, "the endpoint ended the connection", context),
        }
    }
}

/// One read. A short one means that the socket is empty, unless its end is near: then it is read to the end.
fn read_once(stream: &mut impl Read, room: &mut [u8], closing: bool) -> Chunk {
    loop {
        return match stream.read(room) {
            Ok(0) => Chunk::End,
            Ok(n) => Chunk::Bytes(n, n == room.len() || closing),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock => Chunk::Empty,
                _ => Chunk::Broken,
            },
        };
    }
}
