//! HTTP/2 frames as RFC 9113 4.1 writes them, read and written without our codec; and what every byte stream of ours
//! must hold to.

/// A frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The client's preface (RFC 9113 3.4) and an empty SETTINGS.
pub fn hello() -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    put(&mut out, SETTINGS, 0, 0, &[]);
    out
}

pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A field as a literal without indexing (RFC 7541 6.2.2), whatever is in it. Texts up to 126 bytes.
pub fn put_literal(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0);
    for text in [name, value] {
        assert!(text.len() < 127);
        out.push(text.len() as u8);
        out.extend_from_slice(text);
    }
}

/// Reads the frames of one direction of one connection as they come.
#[derive(Default)]
pub struct Reader {
    bytes: Vec<u8>,
    /// The peer of who is read is an endpoint: the preface comes first.
    preface_due: bool,
    /// Inside a field block on this stream.
    block: Option<u32>,
    first: bool,
}

impl Reader {
    /// Of what our engine writes, as server or as `client`.
    pub fn new(client: bool) -> Self {
        Self {
            preface_due: client,
            first: true,
            ..Self::default()
        }
    }

    /// The whole frames of what came so far. Panics where they break a rule that no peer forgives.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.bytes.extend_from_slice(bytes);
        if self.preface_due && self.bytes.len() >= 24 {
            assert!(self.bytes.starts_with(&hello()[..24]), "the preface comes first");
            self.bytes.drain(..24);
            self.preface_due = false;
        }
        let mut frames = Vec::new();
        while !self.preface_due && self.bytes.len() >= 9 {
            let len = u32::from_be_bytes([0, self.bytes[0], self.bytes[1], self.bytes[2]]) as usize;
            if self.bytes.len() < 9 + len {
                break;
            }
            let stream: [u8; 4] = self.bytes[5..9].try_into().expect("four bytes");
            let frame = Frame {
                kind: self.bytes[3],
                flags: self.bytes[4],
                stream: u32::from_be_bytes(stream),
                payload: self.bytes[9..9 + len].to_vec(),
            };
            self.bytes.drain(..9 + len);
            self.check(&frame);
            frames.push(frame);
        }
        frames
    }

    fn check(&mut self, frame: &Frame) {
        assert!(frame.payload.len() <= 16_384, "nobody allowed more");
        assert!(frame.stream <= 0x7fff_ffff);
        assert_ne!(frame.kind, PUSH_PROMISE, "we push nothing");
        if std::mem::take(&mut self.first) {
            assert_eq!(frame.kind, SETTINGS, "SETTINGS come first (RFC 9113 3.4)");
        }
        match self.block {
            Some(stream) => assert_eq!(
                (frame.kind, frame.stream),
                (CONTINUATION, stream),
                "a block is not interrupted"
            ),
            None => assert_ne!(frame.kind, CONTINUATION, "a continuation of nothing"),
        }
        if matches!(frame.kind, HEADERS | CONTINUATION) {
            self.block = (frame.flags & END_HEADERS == 0).then_some(frame.stream);
        }
        let on_stream = matches!(frame.kind, DATA | HEADERS | 2 | 3 | CONTINUATION);
        let on_connection = matches!(frame.kind, SETTINGS | 6 | 7);
        assert!(!on_stream || frame.stream != 0, "{frame:?}");
        assert!(!on_connection || frame.stream == 0, "{frame:?}");
        let len = match frame.kind {
            2 => Some(5),
            3 | 8 => Some(4),
            6 => Some(8),
            _ => None,
        };
        assert!(len.is_none_or(|len| frame.payload.len() == len), "{frame:?}");
    }
}
