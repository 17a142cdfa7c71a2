//! Names the engine knows, as small numbers: a comparison of names is then a comparison of bytes.
//!
//! Tokens 1 to 61 are the first index of the name in HPACK's static table (RFC 7541 appendix A), so that a token is
//! also the name reference of a literal. Names that are not in that table follow from [`EXTRA_FIRST`] on.
//! 0 is any other name. All tables are computed by the compiler.

use crate::h2::hpack::static_table::{ENTRIES, STATIC_LEN};

/// A name the engine knows, or [`Token::OTHER`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Token(u8);

const EXTRA_FIRST: u8 = 64;

/// Known names that HPACK's static table lacks; the token is [`EXTRA_FIRST`] plus the place here.
const EXTRA: [&[u8]; 22] = [
    b":protocol",
    b"connection",
    b"te",
    b"upgrade",
    b"keep-alive",
    b"proxy-connection",
    b"http2-settings",
    b"trailer",
    b"grpc-timeout",
    b"grpc-status",
    b"grpc-message",
    b"grpc-encoding",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-request-id",
    b"forwarded",
    b"traceparent",
    b"tracestate",
    b"origin",
    b"priority",
    b"x-forwarded-client-cert",
];

#[allow(missing_docs, reason = "each is the field of its name")]
impl Token {
    /// Any name without a token of its own.
    pub const OTHER: Token = Token(0);

    pub const AUTHORITY: Token = Token::known(b":authority");
    pub const METHOD: Token = Token::known(b":method");
    pub const PATH: Token = Token::known(b":path");
    pub const SCHEME: Token = Token::known(b":scheme");
    pub const STATUS: Token = Token::known(b":status");
    pub const PROTOCOL: Token = Token::known(b":protocol");

    pub const ACCEPT: Token = Token::known(b"accept");
    pub const AUTHORIZATION: Token = Token::known(b"authorization");
    pub const CACHE_CONTROL: Token = Token::known(b"cache-control");
    pub const CONTENT_LENGTH: Token = Token::known(b"content-length");
    pub const CONTENT_TYPE: Token = Token::known(b"content-type");
    pub const COOKIE: Token = Token::known(b"cookie");
    pub const DATE: Token = Token::known(b"date");
    pub const EXPECT: Token = Token::known(b"expect");
    pub const HOST: Token = Token::known(b"host");
    pub const LOCATION: Token = Token::known(b"location");
    pub const PROXY_AUTHENTICATE: Token = Token::known(b"proxy-authenticate");
    pub const PROXY_AUTHORIZATION: Token = Token::known(b"proxy-authorization");
    pub const REFERER: Token = Token::known(b"referer");
    pub const RETRY_AFTER: Token = Token::known(b"retry-after");
    pub const SERVER: Token = Token::known(b"server");
    pub const SET_COOKIE: Token = Token::known(b"set-cookie");
    pub const TRANSFER_ENCODING: Token = Token::known(b"transfer-encoding");
    pub const USER_AGENT: Token = Token::known(b"user-agent");
    pub const VIA: Token = Token::known(b"via");

    pub const CONNECTION: Token = Token::known(b"connection");
    pub const TE: Token = Token::known(b"te");
    pub const UPGRADE: Token = Token::known(b"upgrade");
    pub const KEEP_ALIVE: Token = Token::known(b"keep-alive");
    pub const PROXY_CONNECTION: Token = Token::known(b"proxy-connection");
    pub const HTTP2_SETTINGS: Token = Token::known(b"http2-settings");
    pub const TRAILER: Token = Token::known(b"trailer");
    pub const GRPC_TIMEOUT: Token = Token::known(b"grpc-timeout");
    pub const GRPC_STATUS: Token = Token::known(b"grpc-status");
    pub const GRPC_MESSAGE: Token = Token::known(b"grpc-message");
    pub const GRPC_ENCODING: Token = Token::known(b"grpc-encoding");
    pub const X_FORWARDED_FOR: Token = Token::known(b"x-forwarded-for");
    pub const X_FORWARDED_PROTO: Token = Token::known(b"x-forwarded-proto");
    pub const X_FORWARDED_HOST: Token = Token::known(b"x-forwarded-host");
    pub const X_REQUEST_ID: Token = Token::known(b"x-request-id");
    pub const FORWARDED: Token = Token::known(b"forwarded");
    pub const TRACEPARENT: Token = Token::known(b"traceparent");
    pub const TRACESTATE: Token = Token::known(b"tracestate");
    pub const ORIGIN: Token = Token::known(b"origin");
    pub const PRIORITY: Token = Token::known(b"priority");
    pub const X_FORWARDED_CLIENT_CERT: Token = Token::known(b"x-forwarded-client-cert");
}

impl Token {
    /// The token of a lower-case name.
    #[inline]
    pub fn of(name: &[u8]) -> Token {
        let mut slot = hash(name) as usize % SLOTS_LEN;
        loop {
            let token = Token(SLOTS[slot]);
            if token.0 == 0 || token.name() == name {
                return token;
            }
            slot = (slot + 1) % SLOTS_LEN;
        }
    }

    /// [`Token::of`] for the compiler.
    const fn of_const(name: &[u8]) -> Token {
        let mut slot = hash(name) as usize % SLOTS_LEN;
        loop {
            let token = Token(SLOTS[slot]);
            if token.0 == 0 || same(token.name(), name) {
                return token;
            }
            slot = (slot + 1) % SLOTS_LEN;
        }
    }

    /// A name that must be known; anything else stops the compilation.
    const fn known(name: &[u8]) -> Token {
        let token = Token::of_const(name);
        assert!(token.0 != 0, "not a known name");
        token
    }

    /// The token of a name in HPACK's static table.
    pub(crate) const fn of_static(index: usize) -> Token {
        Token::of_const(ENTRIES[index].0)
    }

    /// The lower-case name; empty for [`Token::OTHER`].
    pub const fn name(self) -> &'static [u8] {
        if self.0 < EXTRA_FIRST {
            ENTRIES[self.0 as usize].0
        } else {
            EXTRA[(self.0 - EXTRA_FIRST) as usize]
        }
    }

    /// The first index of the name in HPACK's static table; 0 when it is not there.
    pub const fn static_name(self) -> u8 {
        if self.0 <= STATIC_LEN as u8 { self.0 } else { 0 }
    }

    /// Whether a value of this name can be in the static table as well: only these need a look-up.
    pub(crate) const fn may_be_static_whole(self) -> bool {
        self.0 != 0 && self.0 <= 16
    }

    /// A bit for the token. Some share one: an [`EXTRA`] name has that of a static entry sixty-four before it.
    #[inline]
    pub(super) const fn bit(self) -> u64 {
        1u64.wrapping_shl(self.0 as u32)
    }

    /// `:method` and the like.
    pub const fn is_pseudo(self) -> bool {
        // The static table begins with them.
        const LAST: u8 = Token::STATUS.0;
        matches!(self.0, 1..=LAST) || self.0 == Token::PROTOCOL.0
    }

    /// Known names by which proxies say whom they forward for (RFC 7239 and its forerunners).
    pub const fn is_forwarding(self) -> bool {
        matches!(
            self,
            Token::X_FORWARDED_FOR | Token::X_FORWARDED_PROTO | Token::X_FORWARDED_HOST | Token::FORWARDED
        )
    }

    /// Whether a field of this name may stand behind a body: it neither frames nor routes the message, proves no
    /// identity and does not say how to read the content (RFC 9110 6.5.1).
    pub const fn may_trail(self) -> bool {
        let part_of_the_head = matches!(
            self,
            Token::AUTHORIZATION
                | Token::CACHE_CONTROL
                | Token::CONTENT_LENGTH
                | Token::CONTENT_TYPE
                | Token::COOKIE
                | Token::EXPECT
                | Token::HOST
                | Token::PROXY_AUTHENTICATE
                | Token::PROXY_AUTHORIZATION
                | Token::SET_COOKIE
                | Token::TE
                | Token::TRAILER
                | Token::X_REQUEST_ID
        );
        !part_of_the_head && !self.is_forwarding() && !self.is_connection_specific() && !self.is_pseudo()
    }

    /// Fields that speak of one HTTP/1.1 connection and must not be in HTTP/2 (RFC 9113 8.2.2). `te` is not among
    /// them: it is allowed with the value `trailers`.
    pub const fn is_connection_specific(self) -> bool {
        matches!(
            self,
            Token::CONNECTION
                | Token::PROXY_CONNECTION
                | Token::KEEP_ALIVE
                | Token::TRANSFER_ENCODING
                | Token::UPGRADE
                | Token::HTTP2_SETTINGS
        )
    }
}

const SLOTS_LEN: usize = 256;

/// Open addressing by the hash of the name.
static SLOTS: [u8; SLOTS_LEN] = {
    let mut slots = [0u8; SLOTS_LEN];
    let mut index = 1;
    while index <= STATIC_LEN {
        if index == 1 || !same(ENTRIES[index].0, ENTRIES[index - 1].0) {
            place(&mut slots, ENTRIES[index].0, index as u8);
        }
        index += 1;
    }
    let mut extra = 0;
    while extra < EXTRA.len() {
        place(&mut slots, EXTRA[extra], EXTRA_FIRST + extra as u8);
        extra += 1;
    }
    slots
};

const fn place(slots: &mut [u8; SLOTS_LEN], name: &[u8], token: u8) {
    let mut slot = hash(name) as usize % SLOTS_LEN;
    while slots[slot] != 0 {
        slot = (slot + 1) % SLOTS_LEN;
    }
    slots[slot] = token;
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Eight bytes a step, the last step overlapping the one before. No seed: an attacker who makes two fields collide
/// costs himself compression, nothing else.
#[inline]
pub(crate) const fn hash(bytes: &[u8]) -> u32 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut state = bytes.len() as u64 ^ 0x5555;
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER);
        state ^= state >> 29;
        rest = after;
    }
    if !rest.is_empty() {
        state = (state ^ tail(bytes, rest)).wrapping_mul(MULTIPLIER);
    }
    (state >> 32) as u32
}

/// The last one to seven bytes, `rest`, of `bytes`; with bytes before them where that is quicker to load.
#[inline]
const fn tail(bytes: &[u8], rest: &[u8]) -> u64 {
    if let Some(word) = bytes.last_chunk::<8>() {
        u64::from_le_bytes(*word)
    } else if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        u32::from_le_bytes(*first) as u64 | (u32::from_le_bytes(*last) as u64) << 32
    } else {
        // One to three bytes.
        rest[0] as u64 | (rest[rest.len() / 2] as u64) << 8 | (rest[rest.len() - 1] as u64) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_static_name_is_its_first_index() {
        for (index, (name, _)) in ENTRIES.iter().enumerate().skip(1) {
            let token = Token::of_static(index);
            assert_eq!(token.name(), *name);
            assert!(token.static_name() as usize <= index);
            let first = ENTRIES.iter().position(|entry| entry.0 == *name);
            assert_eq!(first, Some(token.static_name() as usize));
        }
    }

    #[test]
    fn every_extra_name_is_found_and_is_no_static_name() {
        for name in EXTRA {
            assert_eq!(Token::of(name).name(), name);
            assert_eq!(Token::of(name).static_name(), 0);
        }
    }

    #[test]
    fn a_stranger_has_no_token() {
        for name in [&b""[..], b"x", b"x-route", b"Content-Type", b"content-typ", b":statu"] {
            assert_eq!(Token::of(name), Token::OTHER, "{name:?}");
        }
    }
}
