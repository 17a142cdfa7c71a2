//! A socket of the HTTP plane and the two ways its bytes go: as they are, or through TLS.
//!
//! Registered once for reading and writing, edge-triggered, and never again: what the socket could not take or give is
//! remembered here.

use super::tls::identity::ClientCheck;
use super::tls::{Downstream, Session};
use gateway_core::ids::ListenerId;
use gateway_core::time::Moment;
use gateway_http::engine::ConnId;
use mio::net::TcpStream;
use socket2::SockRef;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What a client's handshake needs until it is over.
#[derive(Debug)]
pub struct Handshake {
    pub tls: Arc<Downstream>,
    /// The hello, as long as it is needed to know what to answer; then empty.
    pub hello: Vec<u8>,
    /// How the client's certificate is checked.
    pub check: Option<Arc<ClientCheck>>,
}

/// One socket.
#[derive(Debug)]
pub struct Socket {
    pub stream: TcpStream,
    pub tls: Option<Session>,
    /// Of a handshake of a client's that is not over.
    pub handshake: Option<Box<Handshake>>,
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
    /// It is connected, and TLS is being agreed on. The engine times it with the connect.
    Securing { conn: ConnId },
    /// The engine's.
    Open { conn: ConnId, upstream: bool },
    /// We said all: what TLS holds back still goes out, then the peer may take it in its time; closing at once could
    /// reset what is on its way (RFC 9112 9.6).
    Lingering { until: Moment, bytes_left: usize },
}

/// How long a closed downstream socket waits for its peer's FIN.
pub const LINGER: Duration = Duration::from_secs(1);
/// How long it waits for its peer to take what TLS holds back.
pub const LINGER_SEALED: Duration = Duration::from_secs(30);
/// What it reads and throws away meanwhile.
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;

impl Socket {
    pub fn new(stream: TcpStream, stage: Stage) -> Self {
        Self {
            stream,
            tls: None,
            handshake: None,
            stage,
            closing: false,
            ended: false,
            blocked: false,
        }
    }

    /// The engine's name for it, if the engine is told of its bytes.
    pub fn conn(&self) -> Option<ConnId> {
        match self.stage {
            Stage::Connecting { conn } | Stage::Open { conn, .. } => Some(conn),
            Stage::Handshaking { .. } | Stage::Securing { .. } | Stage::Lingering { .. } => None,
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

    /// Says that nothing follows what was written. What TLS holds back is sent by [`Socket::linger`].
    pub fn finish(&mut self) {
        if let Some(session) = &mut self.tls {
            session.close();
        }
    }

    /// Makes closing it an abort: the peer gets a reset.
    pub fn abort(&self) {
        abort(&self.stream);
    }

    /// Sends the rest, then the FIN, then reads until the peer's. False: there is nothing more to wait for.
    pub fn linger(&mut self, scratch: &mut [u8]) -> bool {
        match self.flush() {
            Ok(true) => {}
            Ok(false) => return true,
            Err(_) => return false,
        }
        // The second time it does nothing.
        let shut = self.stream.shutdown(Shutdown::Write);
        shut.is_ok() && !self.ended && self.discard(scratch)
    }

    /// Reads and throws away, up to the linger's bound. False: that was the end.
    fn discard(&mut self, scratch: &mut [u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

    type Client = StreamOwned<ClientConnection, std::net::TcpStream>;

    /// The gateway's end of a TLS connection, established, and the client's.
    fn pair() -> (Socket, Client) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let server = server
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut client = StreamOwned::new(ClientConnection::new(Arc::new(client), name).unwrap(), stream);
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stage = Stage::Lingering {
            until: Moment::ZERO,
            bytes_left: LINGER_BYTES_MAX,
        };
        let mut socket = Socket::new(TcpStream::from_std(stream), stage);
        socket.tls = Some(Session::server(Arc::new(server)).unwrap());
        let hello = std::thread::spawn(move || {
            client.write_all(b"hi").unwrap();
            client
        });
        let (mut sealed, mut plain) = (vec![0; 16_384], vec![0; 16_384]);
        while !plain.starts_with(b"hi") {
            let Ok(n) = socket.stream.read(&mut sealed) else {
                continue;
            };
            socket.tls.as_mut().unwrap().feed(&sealed[..n], &mut plain).unwrap();
            socket.flush().unwrap();
        }
        (socket, hello.join().unwrap())
    }

    #[test]
    fn what_tls_holds_back_and_the_close_notify_arrive_though_the_socket_was_full_at_the_end() {
        let (mut socket, mut client) = pair();
        let piece = vec![b'x'; 100_000];
        let mut written = 0;
        while let Ok(n) = socket.write(&[IoSlice::new(&piece)]) {
            written += n;
        }
        assert!(socket.tls.as_ref().unwrap().wants_write(), "the socket took everything");
        socket.finish();
        let reading = std::thread::spawn(move || {
            let mut got = Vec::new();
            // Ends without an error only after a close_notify.
            client.read_to_end(&mut got).unwrap();
            got.len()
        });
        while socket.linger(&mut [0; 1024]) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(reading.join().unwrap(), written);
    }
}
