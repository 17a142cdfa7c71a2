//! Clients that send what a row says, byte for byte.

use super::judge;
use super::rig::Rig;
use gateway_http::engine::DownstreamProtocol;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Nothing comes for so long: nothing comes. The clock stands still otherwise.
const QUIET: Duration = Duration::from_millis(200);

/// What an HTTP/1.1 client got.
#[derive(Debug)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub closed: bool,
}

impl Answer {
    /// The status of each response; 0 for one that is cut.
    pub fn statuses(&self) -> Vec<u16> {
        let responses = judge::responses(&self.bytes, self.closed).expect("the answers are well formed");
        responses
            .iter()
            .map(|response| response.map_or(0, |(status, _)| status))
            .collect()
    }
}

/// Sends `bytes` over HTTP/1.1 and reads until the connection ends or is quiet.
pub async fn http1(rig: &Rig, bytes: &[u8]) -> Answer {
    let mut socket = rig.socket(DownstreamProtocol::Detect).await;
    let _ = socket.write_all(bytes).await;
    let (bytes, closed) = all(&mut socket).await;
    Answer { bytes, closed }
}

pub async fn all(socket: &mut DuplexStream) -> (Vec<u8>, bool) {
    let mut read = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        match tokio::time::timeout(QUIET, socket.read(&mut chunk)).await {
            Ok(Ok(len)) if len > 0 => read.extend_from_slice(&chunk[..len]),
            Ok(_) => return (read, true),
            Err(_) => return (read, false),
        }
    }
}

/// One frame of HTTP/2 (RFC 9113 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field block of literals without indexing (RFC 7541 6.2.2): any bytes at all.
pub fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

/// RFC 7541 5.1 with a prefix of seven bits.
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        return block.push(value as u8);
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// What became of stream 1.
#[derive(Debug, Default)]
pub struct Reply {
    pub status: Option<u16>,
    pub body: usize,
    pub ended: bool,
    pub reset: bool,
    pub goaway: bool,
    /// Fields of all sections.
    pub fields: Vec<(String, String)>,
}

/// Sends frames behind a preface over HTTP/2 and reads until the connection ends or is quiet.
pub async fn http2(rig: &Rig, frames: &[u8]) -> Reply {
    let mut socket = rig.socket(DownstreamProtocol::Http2).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frames);
    let _ = socket.write_all(&bytes).await;
    let (read, _) = all(&mut socket).await;
    reply(&read)
}

fn reply(mut bytes: &[u8]) -> Reply {
    let mut reply = Reply::default();
    let mut decoder = loona_hpack::Decoder::new();
    while bytes.len() >= 9 {
        let len = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let (kind, flags) = (bytes[3], bytes[4]);
        let payload = &bytes[9..9 + len];
        bytes = &bytes[9 + len..];
        match kind {
            0 => reply.body += payload.len(),
            1 => {
                let fields = decoder.decode(payload).expect("a valid block");
                for (name, value) in fields {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    if &name[..] == b":status" {
                        let status: u16 = text(&value).parse().expect("a number");
                        reply.status = (status >= 200).then_some(status);
                    }
                    reply.fields.push((text(&name), text(&value)));
                }
            }
            3 => reply.reset = true,
            7 => reply.goaway = true,
            _ => {}
        }
        if matches!(kind, 0 | 1) && flags & 1 != 0 {
            reply.ended = true;
        }
    }
    reply
}

/// The same in two writes.
pub async fn http1_in_two(rig: &Rig, bytes: &[u8], cut: usize) -> Answer {
    let mut socket = rig.socket(DownstreamProtocol::Detect).await;
    let _ = socket.write_all(&bytes[..cut]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let _ = socket.write_all(&bytes[cut..]).await;
    let (bytes, closed) = all(&mut socket).await;
    Answer { bytes, closed }
}
