//! Frames (RFC 9113 4, 6): headers in and out, padding, error codes. Writers are in `frame/write.rs`.

mod write;

pub use write::*;

/// Length of a frame's header (RFC 9113 4.1).
pub const HEADER_LEN: usize = 9;
/// Largest payload we accept, and the largest we send: SETTINGS_MAX_FRAME_SIZE is left at its default (RFC 9113 6.5.2).
pub const PAYLOAD_MAX: usize = 16_384;
/// What a client sends first (RFC 9113 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest window (RFC 9113 6.9.1).
pub const WINDOW_MAX: i64 = (1 << 31) - 1;
/// A stream's and a connection's window before anything was said (RFC 9113 6.9.2).
pub const WINDOW_DEFAULT: u32 = 65_535;

/// Flags (RFC 9113 6). One bit means different things in different frames.
pub mod flags {
    /// DATA, HEADERS.
    pub const END_STREAM: u8 = 0x1;
    /// SETTINGS, PING.
    pub const ACK: u8 = 0x1;
    /// HEADERS, CONTINUATION.
    pub const END_HEADERS: u8 = 0x4;
    /// DATA, HEADERS.
    pub const PADDED: u8 = 0x8;
    /// HEADERS.
    pub const PRIORITY: u8 = 0x20;
}

/// What a frame is (RFC 9113 6). Unknown types are to be ignored (RFC 9113 5.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown(u8),
}

impl Kind {
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::RstStream,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            other => Kind::Unknown(other),
        }
    }

    pub const fn code(self) -> u8 {
        match self {
            Kind::Data => 0,
            Kind::Headers => 1,
            Kind::Priority => 2,
            Kind::RstStream => 3,
            Kind::Settings => 4,
            Kind::PushPromise => 5,
            Kind::Ping => 6,
            Kind::GoAway => 7,
            Kind::WindowUpdate => 8,
            Kind::Continuation => 9,
            Kind::Unknown(code) => code,
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Of the payload, bytes, below 2^24.
    pub len: usize,
    pub kind: Kind,
    pub flags: u8,
    /// Without the reserved bit.
    pub stream: u32,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` when there is not enough.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let [l0, l1, l2, kind, flags, stream @ ..] = bytes.first_chunk::<HEADER_LEN>()?;
        Some(Header {
            len: u32::from_be_bytes([0, *l0, *l1, *l2]) as usize,
            kind: Kind::from_code(*kind),
            flags: *flags,
            stream: u32::from_be_bytes(*stream) & 0x7fff_ffff,
        })
    }

    /// The nine bytes.
    #[inline]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [_, l0, l1, l2] = (self.len as u32).to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind.code(), self.flags, s0, s1, s2, s3]
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Why a stream or a connection ends (RFC 9113 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    NoError,
    ProtocolError,
    InternalError,
    FlowControlError,
    SettingsTimeout,
    StreamClosed,
    FrameSizeError,
    RefusedStream,
    Cancel,
    CompressionError,
    ConnectError,
    EnhanceYourCalm,
    InadequateSecurity,
    Http11Required,
    /// Not defined; treated like `InternalError`.
    Unknown(u32),
}

impl ErrorCode {
    pub const fn from_code(code: u32) -> Self {
        match code {
            0x0 => ErrorCode::NoError,
            0x1 => ErrorCode::ProtocolError,
            0x2 => ErrorCode::InternalError,
            0x3 => ErrorCode::FlowControlError,
            0x4 => ErrorCode::SettingsTimeout,
            0x5 => ErrorCode::StreamClosed,
            0x6 => ErrorCode::FrameSizeError,
            0x7 => ErrorCode::RefusedStream,
            0x8 => ErrorCode::Cancel,
            0x9 => ErrorCode::CompressionError,
            0xa => ErrorCode::ConnectError,
            0xb => ErrorCode::EnhanceYourCalm,
            0xc => ErrorCode::InadequateSecurity,
            0xd => ErrorCode::Http11Required,
            other => ErrorCode::Unknown(other),
        }
    }

    pub const fn code(self) -> u32 {
        match self {
            ErrorCode::NoError => 0x0,
            ErrorCode::ProtocolError => 0x1,
            ErrorCode::InternalError => 0x2,
            ErrorCode::FlowControlError => 0x3,
            ErrorCode::SettingsTimeout => 0x4,
            ErrorCode::StreamClosed => 0x5,
            ErrorCode::FrameSizeError => 0x6,
            ErrorCode::RefusedStream => 0x7,
            ErrorCode::Cancel => 0x8,
            ErrorCode::CompressionError => 0x9,
            ErrorCode::ConnectError => 0xa,
            ErrorCode::EnhanceYourCalm => 0xb,
            ErrorCode::InadequateSecurity => 0xc,
            ErrorCode::Http11Required => 0xd,
            ErrorCode::Unknown(code) => code,
        }
    }
}

/// The part of a DATA or HEADERS payload that is left without padding and priority (RFC 9113 6.1, 6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Body<'a> {
    pub bytes: &'a [u8],
    /// The stream a HEADERS frame with priority says it depends on: one that names itself is an error.
    pub depends_on: Option<u32>,
}

/// Takes padding and priority off. `FrameSizeError` when a field is cut, `ProtocolError` when the padding is longer
/// than what is left.
#[inline]
pub fn strip<'a>(header: &Header, payload: &'a [u8]) -> Result<Body<'a>, ErrorCode> {
    let mut bytes = payload;
    let mut padding = 0;
    if header.has(flags::PADDED) {
        let (len, rest) = bytes.split_first().ok_or(ErrorCode::FrameSizeError)?;
        padding = usize::from(*len);
        bytes = rest;
    }
    let mut depends_on = None;
    if header.kind == Kind::Headers && header.has(flags::PRIORITY) {
        let (priority, rest) = bytes.split_first_chunk::<5>().ok_or(ErrorCode::FrameSizeError)?;
        let [d0, d1, d2, d3, _weight] = *priority;
        depends_on = Some(u32::from_be_bytes([d0, d1, d2, d3]) & 0x7fff_ffff);
        bytes = rest;
    }
    let kept = bytes.len().checked_sub(padding).ok_or(ErrorCode::ProtocolError)?;
    Ok(Body {
        bytes: &bytes[..kept],
        depends_on,
    })
}

/// A 31-bit number at the front of a payload: window increment, stream id.
#[inline]
pub fn u31(payload: &[u8]) -> Option<u32> {
    payload
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}

/// What a GOAWAY says (RFC 9113 6.8): the last stream that was or may be processed, and why. `None` when cut.
pub fn goaway(payload: &[u8]) -> Option<(u32, ErrorCode)> {
    let (head, _debug) = payload.split_first_chunk::<8>()?;
    let [s0, s1, s2, s3, code @ ..] = *head;
    Some((
        u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        ErrorCode::from_code(u32::from_be_bytes(code)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back() {
        for code in 0..=20u8 {
            let header = Header {
                len: 0x01_02_03,
                kind: Kind::from_code(code),
                flags: 0x2d,
                stream: 0x7fff_fffe,
            };
            assert_eq!(Header::parse(&header.to_bytes()), Some(header));
            assert_eq!(header.kind.code(), code);
        }
        assert_eq!(Header::parse(&[0; 8]), None);
        assert_eq!(
            Header::parse(&[0, 0, 0, 0, 0, 0xff, 0, 0, 1]).map(|header| header.stream),
            Some(0x7f00_0001)
        );
    }

    #[test]
    fn error_codes_come_back() {
        for code in 0..20 {
            assert_eq!(ErrorCode::from_code(code).code(), code);
        }
    }

    fn header(kind: Kind, flags: u8) -> Header {
        Header {
            len: 0,
            kind,
            flags,
            stream: 1,
        }
    }

    #[test]
    fn padding_and_priority_are_taken_off() {
        let padded = header(Kind::Data, flags::PADDED);
        assert_eq!(strip(&padded, &[2, b'a', 0, 0]).map(|body| body.bytes), Ok(&b"a"[..]));
        assert_eq!(strip(&padded, &[0]).map(|body| body.bytes), Ok(&b""[..]));
        assert_eq!(
            strip(&padded, &[2, 0]),
            Err(ErrorCode::ProtocolError),
            "more padding than payload"
        );
        assert_eq!(strip(&padded, &[]), Err(ErrorCode::FrameSizeError));
        let both = header(Kind::Headers, flags::PADDED | flags::PRIORITY);
        let body = strip(&both, &[1, 0x80, 0, 0, 3, 16, 0x82, 0]).expect("well formed");
        assert_eq!(
            body,
            Body {
                bytes: &[0x82],
                depends_on: Some(3)
            }
        );
        assert_eq!(strip(&both, &[0, 0, 0, 0, 3]), Err(ErrorCode::FrameSizeError));
        let data = header(Kind::Data, flags::PRIORITY);
        assert_eq!(
            strip(&data, b"abc").map(|body| body.bytes),
            Ok(&b"abc"[..]),
            "DATA has no priority"
        );
    }
}
