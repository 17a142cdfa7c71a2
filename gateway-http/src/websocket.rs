//! The little of WebSocket (RFC 6455) that a gateway has to know: the two sides of its handshake, which HTTP/2 has no
//! use for (RFC 8441 5), and where a frame ends, so that a word of the gateway's own can stand between two.

mod frames;
mod sha1;

pub use frames::Frames;

/// The protocol's name in `upgrade` and `:protocol`; case does not matter in the former.
pub const NAME: &[u8] = b"websocket";

/// A close frame of a server with code 1001, Going Away (RFC 6455 5.5.1, 7.4.1).
pub const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// What a server hashes behind the client's key (RFC 6455 4.2.2).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// A key is 16 bytes in base64.
const KEY_BYTES_MAX: usize = 64;

/// `sec-websocket-accept` for a key as it was sent. `None` for what is no key.
pub fn accept(key: &[u8]) -> Option<[u8; 28]> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return None;
    }
    let mut text = [0; KEY_BYTES_MAX + GUID.len()];
    text[..key.len()].copy_from_slice(key);
    text[key.len()..key.len() + GUID.len()].copy_from_slice(GUID);
    let mut out = [b'='; 28];
    base64(&sha1::digest(&text[..key.len() + GUID.len()]), &mut out);
    Some(out)
}

/// `sec-websocket-key` from 16 bytes, which should differ from one handshake to the next.
pub fn key(nonce: u128) -> [u8; 24] {
    let mut out = [b'='; 24];
    base64(&nonce.to_be_bytes(), &mut out);
    out
}

/// RFC 4648 4. `out` is as long as the text and filled with padding.
fn base64(bytes: &[u8], out: &mut [u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (group, four) in bytes.chunks(3).zip(out.chunks_mut(4)) {
        let bits = group
            .iter()
            .enumerate()
            .fold(0u32, |bits, (place, byte)| bits | u32::from(*byte) << (16 - 8 * place));
        for (place, letter) in four.iter_mut().enumerate().take(group.len() + 1) {
            *letter = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_the_one_of_the_rfc() {
        let accepted = accept(b"dGhlIHNhbXBsZSBub25jZQ==").expect("a key");
        assert_eq!(&accepted, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accept(b""), None);
        assert_eq!(accept(&[b'a'; KEY_BYTES_MAX + 1]), None);
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        assert_eq!(
            &key(u128::from_be_bytes(*b"the sample nonce")),
            b"dGhlIHNhbXBsZSBub25jZQ=="
        );
        assert_ne!(key(1), key(2));
    }
}
