//! Frames out (RFC 9113 6). All functions append to `out`; field blocks are written in place, their header after.

use super::{ErrorCode, HEADER_LEN, Header, Kind, PAYLOAD_MAX, flags};
use crate::h2::settings::Setting;

#[inline]
fn put(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(
        &Header {
            len: payload.len(),
            kind,
            flags,
            stream,
        }
        .to_bytes(),
    );
    out.extend_from_slice(payload);
}

/// RFC 9113 6.5.
pub fn put_settings(out: &mut Vec<u8>, settings: &[Setting]) {
    out.extend_from_slice(
        &Header {
            len: settings.len() * 6,
            kind: Kind::Settings,
            flags: 0,
            stream: 0,
        }
        .to_bytes(),
    );
    for setting in settings {
        out.extend_from_slice(&setting.to_bytes());
    }
}

pub fn put_settings_ack(out: &mut Vec<u8>) {
    put(out, Kind::Settings, flags::ACK, 0, &[]);
}

/// RFC 9113 6.9; stream 0 is the connection. `increment` is 1 to 2^31-1.
pub fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put(out, Kind::WindowUpdate, 0, stream, &increment.to_be_bytes());
}

/// RFC 9113 6.4.
pub fn put_rst_stream(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    put(out, Kind::RstStream, 0, stream, &code.code().to_be_bytes());
}

/// RFC 9113 6.7.
pub fn put_ping(out: &mut Vec<u8>, opaque: [u8; 8]) {
    put(out, Kind::Ping, 0, 0, &opaque);
}

pub fn put_ping_ack(out: &mut Vec<u8>, opaque: [u8; 8]) {
    put(out, Kind::Ping, flags::ACK, 0, &opaque);
}

/// RFC 9113 6.8. `debug` is for the people at the other end.
pub fn put_goaway(out: &mut Vec<u8>, last_stream: u32, code: ErrorCode, debug: &str) {
    let header = Header {
        len: 8 + debug.len(),
        kind: Kind::GoAway,
        flags: 0,
        stream: 0,
    };
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(&last_stream.to_be_bytes());
    out.extend_from_slice(&code.code().to_be_bytes());
    out.extend_from_slice(debug.as_bytes());
}

/// The header of a DATA frame; `len` payload bytes must follow.
#[inline]
pub fn put_data_header(out: &mut Vec<u8>, stream: u32, len: usize, end: bool) {
    debug_assert!(len <= PAYLOAD_MAX, "a DATA frame is at most the peer's frame size");
    let flags = if end { flags::END_STREAM } else { 0 };
    out.extend_from_slice(
        &Header {
            len,
            kind: Kind::Data,
            flags,
            stream,
        }
        .to_bytes(),
    );
}

/// Where a HEADERS frame whose block is still to be written begins. Made by [`begin_headers`].
#[must_use = "a begun HEADERS frame has no length yet"]
#[derive(Debug)]
pub struct OpenHeaders {
    start: usize,
}

/// Leaves room for a HEADERS frame's header; the field block is then appended to `out` directly.
#[inline]
pub fn begin_headers(out: &mut Vec<u8>) -> OpenHeaders {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    OpenHeaders { start }
}

/// Writes the header of a HEADERS frame begun before; a block longer than `payload_max` (the peer's
/// SETTINGS_MAX_FRAME_SIZE) is split into CONTINUATION frames (RFC 9113 6.10).
#[inline]
pub fn end_headers(out: &mut Vec<u8>, open: OpenHeaders, stream: u32, end_stream: bool, payload_max: usize) {
    let block = open.start + HEADER_LEN;
    let len = out.len() - block;
    let end_stream = if end_stream { flags::END_STREAM } else { 0 };
    if len > payload_max {
        return split_headers(out, open, stream, end_stream, payload_max);
    }
    let header = Header {
        len,
        kind: Kind::Headers,
        flags: end_stream | flags::END_HEADERS,
        stream,
    };
    out[open.start..block].copy_from_slice(&header.to_bytes());
}

#[cold]
fn split_headers(out: &mut Vec<u8>, open: OpenHeaders, stream: u32, end_stream: u8, payload_max: usize) {
    let block = out.split_off(open.start + HEADER_LEN);
    out.truncate(open.start);
    let parts = block.len().div_ceil(payload_max);
    for (part, bytes) in block.chunks(payload_max).enumerate() {
        let (kind, first) = if part == 0 {
            (Kind::Headers, end_stream)
        } else {
            (Kind::Continuation, 0)
        };
        let last = if part + 1 == parts { flags::END_HEADERS } else { 0 };
        put(out, kind, first | last, stream, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::goaway;
    use super::*;

    #[test]
    fn small_frames_are_the_bytes_of_the_rfc() {
        let mut out = Vec::new();
        put_settings(&mut out, &[Setting::MaxConcurrentStreams(100)]);
        put_settings_ack(&mut out);
        put_window_update(&mut out, 3, 65_536);
        put_rst_stream(&mut out, 5, ErrorCode::Cancel);
        put_ping_ack(&mut out, *b"12345678");
        put_goaway(&mut out, 7, ErrorCode::EnhanceYourCalm, "x");
        put_data_header(&mut out, 9, 5, true);
        let want: &[&[u8]] = &[
            &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100],
            &[0, 0, 0, 4, 1, 0, 0, 0, 0],
            &[0, 0, 4, 8, 0, 0, 0, 0, 3, 0, 1, 0, 0],
            &[0, 0, 4, 3, 0, 0, 0, 0, 5, 0, 0, 0, 8],
            &[
                0, 0, 8, 6, 1, 0, 0, 0, 0, b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8',
            ],
            &[0, 0, 9, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 11, b'x'],
            &[0, 0, 5, 0, 1, 0, 0, 0, 9],
        ];
        assert_eq!(out, want.concat());
        assert_eq!(
            goaway(&[0x80, 0, 0, 7, 0, 0, 0, 11, b'x']),
            Some((7, ErrorCode::EnhanceYourCalm))
        );
        assert_eq!(goaway(&[0; 7]), None);
    }

    #[test]
    fn a_long_block_is_split_and_only_the_last_part_ends_it() {
        let mut out = vec![0xee];
        let open = begin_headers(&mut out);
        out.extend((0..250).map(|i| i as u8));
        end_headers(&mut out, open, 11, true, 100);
        let mut rest = &out[1..];
        let mut block = Vec::new();
        let mut seen = Vec::new();
        while let Some(header) = Header::parse(rest) {
            block.extend_from_slice(&rest[HEADER_LEN..HEADER_LEN + header.len]);
            seen.push((header.kind, header.flags, header.len, header.stream));
            rest = &rest[HEADER_LEN + header.len..];
        }
        assert_eq!(
            seen,
            [
                (Kind::Headers, flags::END_STREAM, 100, 11),
                (Kind::Continuation, 0, 100, 11),
                (Kind::Continuation, flags::END_HEADERS, 50, 11)
            ]
        );
        assert_eq!(block, (0..250).map(|i| i as u8).collect::<Vec<_>>());
    }

    #[test]
    fn a_short_block_is_one_frame() {
        let mut out = Vec::new();
        let open = begin_headers(&mut out);
        out.push(0x82);
        end_headers(&mut out, open, 1, false, PAYLOAD_MAX);
        assert_eq!(out, [0, 0, 1, 1, flags::END_HEADERS, 0, 0, 0, 1, 0x82]);
    }
}
