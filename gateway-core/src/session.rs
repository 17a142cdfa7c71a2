//! Sessions: a client that shows the token of one goes to the endpoint it names (Gateway API SessionPersistence).
//!
//! A token is all there is to a session. It holds the endpoint's address and two times, encrypted and authenticated under
//! the rule's key, so that workers, nodes and restarts need nothing in common but that key, a client learns no address
//! from it, and none can be made up. It chooses among the endpoints of the service that weights chose before, never
//! among services (GEP-1619, "Traffic Splitting").

use crate::ir::{SecretBytes, Session, SessionToken};
use crate::route::Fields;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Address, port, and two times of five bytes.
const BODY_BYTES: usize = 16 + 2 + 5 + 5;
const BYTES: usize = 8 + BODY_BYTES;
/// A token as text.
pub const TEXT_BYTES: usize = BYTES / 3 * 4;
/// Seconds that five bytes hold.
const SECONDS_MAX: u64 = (1 << 40) - 1;

/// What a token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    pub endpoint: SocketAddr,
    /// When the session began and when the token was made; seconds since 1970.
    pub began_s: u64,
    pub made_s: u64,
}

impl Token {
    /// As text that may stand in a cookie or a field.
    pub fn seal(&self, key: &SecretBytes) -> [u8; TEXT_BYTES] {
        let mut bytes = [0; BYTES];
        let (tag, body) = bytes.split_at_mut(8);
        let ip = match self.endpoint.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        body[..16].copy_from_slice(&ip.octets());
        body[16..18].copy_from_slice(&self.endpoint.port().to_be_bytes());
        for (at, seconds) in [(18, self.began_s), (23, self.made_s)] {
            body[at..at + 5].copy_from_slice(&seconds.min(SECONDS_MAX).to_be_bytes()[3..]);
        }
        let mac = sip(keys(key), body);
        tag.copy_from_slice(&mac.to_be_bytes());
        mask(key, mac, body);
        encode(&bytes)
    }

    /// What a text says, if it was made under this key.
    pub fn open(key: &SecretBytes, text: &[u8]) -> Option<Self> {
        let mut bytes = decode(text)?;
        let (tag, body) = bytes.split_at_mut(8);
        let mac = u64::from_be_bytes(tag.try_into().ok()?);
        mask(key, mac, body);
        if sip(keys(key), body) != mac {
            return None;
        }
        let octets: [u8; 16] = body[..16].try_into().ok()?;
        let ip = Ipv6Addr::from(octets).to_canonical();
        let port = u16::from_be_bytes([body[16], body[17]]);
        let seconds = |at: usize| body[at..at + 5].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        Some(Self {
            endpoint: SocketAddr::new(ip, port),
            began_s: seconds(18),
            made_s: seconds(23),
        })
    }
}

impl Session {
    /// The session a request belongs to, if it shows one that goes on. `now_s`: seconds since 1970.
    pub fn of<F: Fields>(&self, fields: &F, now_s: u64) -> Option<Token> {
        let text = match &self.token {
            SessionToken::Cookie { name, .. } => fields.cookie(name.as_bytes()),
            SessionToken::Header { name } => fields.field(name.as_bytes()),
        };
        let token = Token::open(&self.key, text?)?;
        let over =
            |since: u64, most: Option<Duration>| most.is_some_and(|most| now_s >= since.saturating_add(most.as_secs()));
        (!over(token.began_s, self.absolute) && !over(token.made_s, self.idle)).then_some(token)
    }

    /// Whether a client that has this token needs another one when `endpoint` answers.
    pub fn renews(&self, had: Option<Token>, endpoint: SocketAddr) -> bool {
        self.idle.is_some() || had.is_none_or(|token| token.endpoint != endpoint)
    }

    /// The field that gives a client its token: name and value, into `value`. `secure`: it speaks TLS.
    pub fn give(&self, token: Token, secure: bool, now_s: u64, value: &mut Vec<u8>) -> &str {
        use std::io::Write;
        let text = token.seal(&self.key);
        value.clear();
        match &self.token {
            SessionToken::Header { name } => {
                value.extend_from_slice(&text);
                name
            }
            SessionToken::Cookie { name, path, permanent } => {
                for part in [name.as_bytes(), b"=", &text, b"; Path=", path.as_bytes()] {
                    value.extend_from_slice(part);
                }
                if let (true, Some(whole)) = (permanent, self.absolute) {
                    let left = token.began_s.saturating_add(whole.as_secs()).saturating_sub(now_s);
                    // Writing to a vector does not fail.
                    let _ = write!(value, "; Max-Age={left}");
                }
                value.extend_from_slice(if secure { b"; Secure" } else { b"" });
                value.extend_from_slice(b"; HttpOnly; SameSite=Strict");
                "set-cookie"
            }
        }
    }
}

/// A key for a rule: `secret` is what nobody outside knows of it.
pub fn key(secret: &str) -> SecretBytes {
    let half = |number: u64| sip([number, 0x736c_7569_6365], secret.as_bytes()).to_be_bytes();
    SecretBytes::new([half(1), half(2)].concat())
}

fn keys(key: &SecretBytes) -> [u64; 2] {
    let word = |at: usize| {
        let bytes = key.expose().get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_be_bytes(bytes.unwrap_or_default())
    };
    [word(0), word(8)]
}

/// The tag is the nonce: the same text has the same token, and no two texts the same mask.
fn mask(key: &SecretBytes, mac: u64, body: &mut [u8]) {
    let [one, two] = keys(key);
    let other = [one.rotate_left(32) ^ 0x6d61_736b, two];
    for (number, word) in (0_u64..).zip(body.chunks_mut(8)) {
        let mut seed = [0; 16];
        seed[..8].copy_from_slice(&mac.to_be_bytes());
        seed[8..].copy_from_slice(&number.to_be_bytes());
        let stream = sip(other, &seed).to_be_bytes();
        word.iter_mut().zip(stream).for_each(|(byte, by)| *byte ^= by);
    }
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012).
fn sip([one, two]: [u64; 2], text: &[u8]) -> u64 {
    let mut v = [
        one ^ 0x736f_6d65_7073_6575,
        two ^ 0x646f_7261_6e64_6f6d,
        one ^ 0x6c79_6765_6e65_7261,
        two ^ 0x7465_6462_7974_6573,
    ];
    let chunks = text.chunks_exact(8);
    let mut last = (text.len() as u64) << 56;
    for (shift, byte) in chunks.remainder().iter().enumerate() {
        last |= u64::from(*byte) << (8 * shift);
    }
    let words = chunks.map(|chunk| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    for word in words.chain([last]) {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

/// base64url without padding (RFC 4648 5); the length needs none.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode(bytes: &[u8; BYTES]) -> [u8; TEXT_BYTES] {
    let mut text = [0; TEXT_BYTES];
    for (group, out) in bytes.chunks(3).zip(text.chunks_mut(4)) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for (at, out) in out.iter_mut().enumerate() {
            *out = ALPHABET[bits >> (18 - 6 * at) & 63];
        }
    }
    text
}

fn decode(text: &[u8]) -> Option<[u8; BYTES]> {
    let text: &[u8; TEXT_BYTES] = text.try_into().ok()?;
    let mut bytes = [0; BYTES];
    for (group, out) in text.chunks(4).zip(bytes.chunks_mut(3)) {
        let mut bits = 0_u32;
        for letter in group {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        out.copy_from_slice(&bits.to_be_bytes()[1..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_siphash_2_4() {
        // The vectors of the reference implementation: key 00..0f, text 00..n.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let text: Vec<u8> = (0..64).collect();
        assert_eq!(sip(key, &text[..0]), 0x726f_db47_dd0e_0e31);
        assert_eq!(sip(key, &text[..8]), 0x93f5_f579_9a93_2462);
        assert_eq!(sip(key, &text[..15]), 0xa129_ca61_49be_45e5);
    }

    fn token(endpoint: &str, began_s: u64, made_s: u64) -> Token {
        Token {
            endpoint: endpoint.parse().unwrap(),
            began_s,
            made_s,
        }
    }

    #[test]
    fn a_token_says_what_was_sealed_and_only_under_its_key() {
        let (one, two) = (key("a"), key("b"));
        for given in [token("10.0.0.1:80", 1, 2), token("[2001:db8::1]:65535", SECONDS_MAX, 0)] {
            let text = given.seal(&one);
            assert_eq!(Token::open(&one, &text), Some(given));
            assert_eq!(Token::open(&two, &text), None);
            assert_eq!(text, given.seal(&one), "the same everywhere");
        }
    }

    proptest! {
        #[test]
        fn no_text_that_was_not_sealed_is_a_token(text in prop::collection::vec(any::<u8>(), 0..60), at in 0..TEXT_BYTES, by in 1_u8..255) {
            let key = key("a");
            prop_assert_eq!(Token::open(&key, &text), None);
            let mut sealed = token("10.0.0.1:80", 7, 7).seal(&key);
            sealed[at] = sealed[at].wrapping_add(by);
            prop_assert_eq!(Token::open(&key, &sealed), None);
        }
    }

    struct Cookie(Vec<u8>);

    impl Fields for Cookie {
        fn field(&self, name: &[u8]) -> Option<&[u8]> {
            (name == b"cookie").then_some(&self.0)
        }
    }

    fn session(absolute: Option<u64>, idle: Option<u64>, permanent: bool) -> Session {
        Session {
            token: SessionToken::Cookie {
                name: "s".to_owned(),
                path: "/a".to_owned(),
                permanent,
            },
            absolute: absolute.map(Duration::from_secs),
            idle: idle.map(Duration::from_secs),
            key: key("a"),
        }
    }

    #[test]
    fn a_session_ends_when_its_time_is_over_or_it_was_not_used() {
        let given = token("10.0.0.1:80", 1000, 1500);
        let shown = |session: &Session, now_s| {
            let mut text = b"a=1; s=".to_vec();
            text.extend_from_slice(&given.seal(&session.key));
            session.of(&Cookie(text), now_s).is_some()
        };
        assert!(shown(&session(None, None, false), u64::MAX));
        assert!(shown(&session(Some(600), None, false), 1599));
        assert!(!shown(&session(Some(600), None, false), 1600));
        assert!(shown(&session(None, Some(60), false), 1559));
        assert!(!shown(&session(None, Some(60), false), 1560));
        assert!(session(None, Some(60), false).renews(Some(given), given.endpoint));
        assert!(!session(None, None, false).renews(Some(given), given.endpoint));
        assert!(session(None, None, false).renews(Some(given), "10.0.0.2:80".parse().unwrap()));
    }

    #[test]
    fn a_cookie_is_kept_from_scripts_and_other_sites_and_a_permanent_one_has_an_age() {
        let given = token("10.0.0.1:80", 1000, 1500);
        let value = |session: &Session, secure| {
            let mut value = Vec::new();
            let name = session.give(given, secure, 1500, &mut value).to_owned();
            (
                name,
                String::from_utf8(value).unwrap().split_once("; ").unwrap().1.to_owned(),
            )
        };
        let (name, attributes) = value(&session(Some(600), None, false), false);
        assert_eq!(
            (name.as_str(), attributes.as_str()),
            ("set-cookie", "Path=/a; HttpOnly; SameSite=Strict")
        );
        let (_, attributes) = value(&session(Some(600), None, true), true);
        assert_eq!(attributes, "Path=/a; Max-Age=100; Secure; HttpOnly; SameSite=Strict");
    }
}
