//! One TLS connection: ciphertext in, plaintext out, and back. Knows sockets only as `Read` and `Write`.

use gateway_core::fault::Refusal;
use gateway_http::engine::{DownstreamProtocol, TlsFacts};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection};
use rustls::{HandshakeKind, InvalidMessage, ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

/// Ciphertext that waits for the socket before the engine has to keep its bytes itself: four records.
pub const SEALED_BYTES_MAX: usize = 64 * 1024;

/// One side of a TLS connection.
#[derive(Debug)]
pub struct Session(Box<Connection>);

/// What a piece of ciphertext came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fed {
    /// Bytes of plaintext.
    pub plain: usize,
    /// The peer said that nothing follows (close_notify).
    pub closed: bool,
}

impl Session {
    /// A client's connection to us.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        ServerConnection::new(config).map(|connection| Self::new(connection.into()))
    }

    /// Ours to an endpoint: `name` is asked for and must be what the endpoint's certificate is for. Its ClientHello
    /// waits to be flushed.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        ClientConnection::new(config, name).map(|connection| Self::new(connection.into()))
    }

    /// The same, offering other protocols than `config` does.
    pub fn relay(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn: Vec<Vec<u8>>,
    ) -> Result<Self, rustls::Error> {
        ClientConnection::new_with_alpn(config, name, alpn).map(|connection| Self::new(connection.into()))
    }

    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(SEALED_BYTES_MAX));
        Self(Box::new(connection))
    }

    /// Opens all of `sealed` into `plain`, which must be at least as long. After an error, `flush` sends the alert.
    pub fn feed(&mut self, mut sealed: &[u8], plain: &mut [u8]) -> Result<Fed, rustls::Error> {
        let mut fed = Fed::default();
        while !sealed.is_empty() {
            // A full inner buffer is an error here, and cannot be: every record is taken out as soon as it is whole.
            self.0
                .read_tls(&mut sealed)
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            let state = self.0.process_new_packets()?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                match self.0.reader().read(&mut plain[fed.plain..]) {
                    Ok(0) | Err(_) => break,
                    Ok(n) => {
                        fed.plain += n;
                        left = left.saturating_sub(n);
                    }
                }
            }
            if state.peer_has_closed() {
                fed.closed = true;
                break;
            }
        }
        Ok(fed)
    }

    /// Seals and sends, in as few writes as the socket allows. Returns how many bytes were taken; `WouldBlock` if none.
    /// Taken bytes may still wait here: see [`Session::wants_write`].
    pub fn write(&mut self, socket: &mut impl Write, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = 0;
        for slice in slices {
            let mut rest = &slice[..];
            while !rest.is_empty() {
                let n = self.0.writer().write(rest)?;
                taken += n;
                rest = &rest[n..];
                if n == 0 && !self.flush(socket)? {
                    return if taken == 0 {
                        Err(ErrorKind::WouldBlock.into())
                    } else {
                        Ok(taken)
                    };
                }
            }
        }
        self.flush(socket)?;
        if taken == 0 && total > 0 {
            Err(ErrorKind::WouldBlock.into())
        } else {
            Ok(taken)
        }
    }

    /// Sends what waits. False: the socket is full.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while self.0.wants_write() {
            match self.0.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether sealed bytes wait for the socket.
    pub fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    /// Says that nothing follows; to be flushed.
    pub fn close(&mut self) {
        self.0.send_close_notify();
    }

    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    pub fn resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// What the client said of itself; of a connection of ours nothing.
    pub fn facts(&self) -> TlsFacts {
        TlsFacts {
            server_name: self.server_name().map(str::to_ascii_lowercase),
            client: None,
        }
    }

    /// The name a client asked for.
    pub fn server_name(&self) -> Option<&str> {
        match &*self.0 {
            Connection::Server(connection) => connection.server_name(),
            Connection::Client(_) => None,
        }
    }

    /// The peer's verified chain, leaf first; of a resumed connection that of the first one.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.0.peer_certificates().unwrap_or_default()
    }

    /// What ALPN settled.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.0.alpn_protocol()
    }

    /// From ALPN; without it the first bytes tell.
    pub fn protocol(&self) -> DownstreamProtocol {
        match self.alpn() {
            Some(b"h2") => DownstreamProtocol::Http2,
            Some(b"http/1.1") => DownstreamProtocol::Http1,
            Some(_) | None => DownstreamProtocol::Detect,
        }
    }
}

/// Whose fault a failed handshake is.
pub fn refusal(error: &rustls::Error) -> Refusal {
    match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            Refusal::NotTls
        }
        rustls::Error::General(text) if text == NO_CERTIFICATE => Refusal::NoServerName,
        _ => Refusal::Handshake,
    }
}

/// How rustls 0.23 says that the resolver had no certificate (`server/hs.rs`); held by a test.
const NO_CERTIFICATE: &str = "no server certificate chain resolved";

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::aws_lc_rs;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    #[derive(Debug)]
    struct NoCertificate;

    impl ResolvesServerCert for NoCertificate {
        fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            None
        }
    }

    /// What a server without certificates makes of these bytes.
    fn refused(bytes: &[u8]) -> Refusal {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("the provider has them").with_no_client_auth();
        let config = config.with_cert_resolver(Arc::new(NoCertificate));
        let mut server = ServerConnection::new(Arc::new(config)).expect("a connection");
        server.read_tls(&mut &bytes[..]).expect("from memory");
        refusal(&server.process_new_packets().expect_err("there is no certificate"))
    }

    #[test]
    fn a_name_without_certificate_is_told_from_what_is_no_tls() {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config
            .expect("the provider has them")
            .with_root_certificates(RootCertStore::empty());
        let name = "unknown.example".try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(config.with_no_client_auth()), name).expect("a connection");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("to memory");
        assert_eq!(refused(&hello), Refusal::NoServerName);
        assert_eq!(refused(b"GET / HTTP/1.1\r\n\r\n"), Refusal::NotTls);
    }
}
