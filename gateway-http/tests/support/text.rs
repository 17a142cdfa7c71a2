//! HTTP/1.1 by hand: a peer that says exactly what a test says.

use super::config::{Config, endpoint_addr};
use super::rig::Rig;
use gateway_core::ir::UpstreamProtocol;
use gateway_http::engine::DownstreamProtocol;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc::UnboundedReceiver;

/// Longer than anything takes while time stands still otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// One end of a connection.
pub struct Text<S = DuplexStream> {
    pub socket: S,
    read: Vec<u8>,
}

/// A message that came: its head as text, its body decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
    /// Lines behind the last chunk.
    pub trailers: String,
}

impl Message {
    pub fn start(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| {
            line.split(':')
                .next()
                .is_some_and(|field| field.eq_ignore_ascii_case(name))
        };
        self.head
            .lines()
            .skip(1)
            .find(named)
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

impl Text {
    pub async fn client(rig: &Rig) -> Self {
        Self::new(rig.socket(DownstreamProtocol::Detect).await)
    }

    /// A reader and a writer.
    pub fn split(self) -> (Text<ReadHalf<DuplexStream>>, WriteHalf<DuplexStream>) {
        let (reader, writer) = tokio::io::split(self.socket);
        (Text::new(reader), writer)
    }

    /// Writes; a closed socket is no error here.
    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(text.as_ref()).await;
    }

    /// No more is sent.
    pub async fn finish(&mut self) {
        let _ = self.socket.shutdown().await;
    }
}

impl<S: AsyncRead + Unpin> Text<S> {
    pub fn new(socket: S) -> Self {
        Self {
            socket,
            read: Vec::new(),
        }
    }

    /// Reads more; `false` at the end.
    async fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut bytes)).await;
        let len = read.expect("the peer stays silent").unwrap_or(0);
        self.read.extend_from_slice(&bytes[..len]);
        len > 0
    }

    /// Everything up to and with `mark`; `None` when the connection ends before.
    async fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some(at) = self
                .read
                .windows(mark.len())
                .position(|window| window == mark.as_bytes())
            {
                let rest = self.read.split_off(at + mark.len());
                let taken = std::mem::replace(&mut self.read, rest);
                return Some(String::from_utf8(taken).expect("text"));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    pub async fn exactly(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.read.len() < len {
            if !self.fill().await {
                return None;
            }
        }
        let rest = self.read.split_off(len);
        Some(std::mem::replace(&mut self.read, rest))
    }

    /// The next head.
    pub async fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n").await
    }

    /// The next message, its body as its own head frames it. `None` when the connection ends before its end.
    pub async fn message(&mut self) -> Option<Message> {
        let head = self.head().await?;
        let mut message = Message {
            head,
            body: Vec::new(),
            trailers: String::new(),
        };
        let status: u16 = message
            .start()
            .split(' ')
            .nth(1)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        if message.field("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.until("\r\n").await?;
                let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
                if size == 0 {
                    break;
                }
                message.body.extend(self.exactly(size).await?);
                assert_eq!(self.exactly(2).await?, b"\r\n");
            }
            loop {
                let line = self.until("\r\n").await?;
                if line == "\r\n" {
                    return Some(message);
                }
                message.trailers.push_str(&line);
            }
        }
        if let Some(length) = message.field("content-length").filter(|_| !matches!(status, 204 | 304)) {
            message.body = self.exactly(length.parse().expect("a number")).await?;
        }
        Some(message)
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.read)
    }

    /// Whether the peer closed and sent nothing more.
    pub async fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.fill().await
    }

    /// Whether nothing comes for a while.
    pub async fn is_silent(&mut self) -> bool {
        let mut bytes = [0; 1];
        self.read.is_empty()
            && tokio::time::timeout(Duration::from_millis(50), self.socket.read(&mut bytes))
                .await
                .is_err()
    }
}

/// `count` endpoints that are spoken HTTP/1.1 to.
pub fn http1_config(count: u8) -> Config {
    Config::new(count).rule(|rule| rule.destinations[0].to.protocol = UpstreamProtocol::Http1)
}

/// The connections that come to one endpoint.
pub struct Endpoint {
    pub sockets: UnboundedReceiver<DuplexStream>,
}

impl Endpoint {
    pub async fn new(rig: &Rig, number: u8) -> Self {
        Self {
            sockets: rig.listen(endpoint_addr(number)).await,
        }
    }

    /// The next connection.
    pub async fn accept(&mut self) -> Text {
        let socket = tokio::time::timeout(PATIENCE, self.sockets.recv())
            .await
            .expect("a connect in time");
        Text::new(socket.expect("the driver runs"))
    }

    /// Whether no further connection came.
    pub fn is_quiet(&mut self) -> bool {
        self.sockets.try_recv().is_err()
    }
}
