//! Frames by hand: a peer that says what no library would.

use gateway_http::h2::frame::{self, ErrorCode, HEADER_LEN, Header, Kind, flags};
use gateway_http::h2::hpack::{Decoder, Encoder, SectionLimits};
use gateway_http::head::FieldList;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A frame that came.
#[derive(Clone, Debug)]
pub struct Frame {
    pub header: Header,
    pub payload: Vec<u8>,
}

/// One end of a connection.
pub struct Raw {
    pub socket: DuplexStream,
    read: Vec<u8>,
    encoder: Encoder,
    decoder: Decoder,
}

impl Raw {
    /// A client that said its preface and empty SETTINGS.
    pub async fn client(socket: DuplexStream) -> Self {
        let mut raw = Self::bare(socket);
        let mut hello = frame::PREFACE.to_vec();
        frame::put_settings(&mut hello, &[]);
        raw.send(&hello).await;
        raw
    }

    /// An endpoint that read the preface and said `settings`.
    pub async fn endpoint(socket: DuplexStream, settings: &[gateway_http::h2::settings::Setting]) -> Self {
        let mut raw = Self::bare(socket);
        let mut preface = [0; 24];
        raw.socket.read_exact(&mut preface).await.expect("preface");
        assert_eq!(&preface, frame::PREFACE);
        let mut hello = Vec::new();
        frame::put_settings(&mut hello, settings);
        raw.send(&hello).await;
        raw
    }

    pub fn bare(socket: DuplexStream) -> Self {
        Self {
            socket,
            read: Vec::new(),
            encoder: Encoder::new(),
            decoder: Decoder::new(),
        }
    }

    /// Writes; a closed socket is no error here.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    pub async fn frame(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = Header {
            len: payload.len(),
            kind,
            flags,
            stream,
        }
        .to_bytes()
        .to_vec();
        bytes.extend_from_slice(payload);
        self.send(&bytes).await;
    }

    pub fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut list = FieldList::new();
        for (name, value) in fields {
            list.push(name.as_bytes(), value.as_bytes());
        }
        let mut block = Vec::new();
        self.encoder.encode(&list, &mut block);
        block
    }

    pub async fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let block = self.block(fields);
        let end = if end { flags::END_STREAM } else { 0 };
        self.frame(Kind::Headers, flags::END_HEADERS | end, stream, &block)
            .await;
    }

    /// A GET or POST without more.
    pub async fn request(&mut self, stream: u32, method: &str, end: bool) {
        let fields = [
            (":method", method),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "example.com"),
        ];
        self.headers(stream, &fields, end).await;
    }

    /// The next frame; `None` when the peer closed.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(header) = Header::parse(&self.read)
                && self.read.len() >= HEADER_LEN + header.len
            {
                let rest = self.read.split_off(HEADER_LEN + header.len);
                let payload = self.read.split_off(HEADER_LEN);
                self.read = rest;
                return Some(Frame { header, payload });
            }
            let mut bytes = [0; 16 * 1024];
            let len = self.socket.read(&mut bytes).await.unwrap_or(0);
            if len == 0 {
                return None;
            }
            self.read.extend_from_slice(&bytes[..len]);
        }
    }

    /// The next frame of a kind; others are passed over. `None` when the peer closed or stayed silent.
    pub async fn wait_for(&mut self, kind: Kind) -> Option<Frame> {
        let search = async {
            loop {
                let frame = self.next().await?;
                if frame.header.kind == kind && !(kind == Kind::Settings && frame.header.has(flags::ACK)) {
                    return Some(frame);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(3), search)
            .await
            .unwrap_or(None)
    }

    /// The fields of a HEADERS frame that came.
    pub fn fields(&mut self, frame: &Frame) -> Vec<(String, String)> {
        let mut list = FieldList::new();
        let limits = SectionLimits {
            size_max: 1 << 16,
            fields_max: 1000,
        };
        self.decoder
            .decode(&frame.payload, &mut list, limits)
            .expect("a valid block");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        list.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    /// How the peer ended a stream or the connection: the code of the first RST_STREAM or GOAWAY.
    pub async fn error(&mut self) -> Option<(Kind, ErrorCode)> {
        let search = async {
            loop {
                let frame = self.next().await?;
                match frame.header.kind {
                    Kind::RstStream => {
                        let code = frame::u31(&frame.payload).expect("four bytes");
                        return Some((Kind::RstStream, ErrorCode::from_code(code)));
                    }
                    Kind::GoAway => {
                        let (_, code) = frame::goaway(&frame.payload).expect("eight bytes");
                        return Some((Kind::GoAway, code));
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(3), search)
            .await
            .unwrap_or(None)
    }
}
