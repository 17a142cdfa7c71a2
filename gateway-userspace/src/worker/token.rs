//! What a poll event is about: a kind and a [`Key`], in one word.

use super::slab::{GENERATION_MASK, Key};
use mio::Token;

/// Whose event it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Commands are waiting.
    Mailbox,
    /// A listening socket.
    Listener(Key),
    /// A socket of the HTTP plane.
    Http(Key),
    /// The client's side of a relay.
    RelayDown(Key),
    /// The endpoint's side of a relay.
    RelayUp(Key),
    /// A socket that clients send datagrams to.
    DatagramDown(Key),
    /// A datagram session's socket to its endpoint.
    DatagramUp(Key),
}

impl Source {
    pub fn token(self) -> Token {
        let (kind, key) = match self {
            Source::Mailbox => (
                0,
                Key {
                    index: 0,
                    generation: 0,
                },
            ),
            Source::Listener(key) => (1, key),
            Source::Http(key) => (2, key),
            Source::RelayDown(key) => (3, key),
            Source::RelayUp(key) => (4, key),
            Source::DatagramDown(key) => (5, key),
            Source::DatagramUp(key) => (6, key),
        };
        Token(kind << KIND_SHIFT | (key.generation as usize) << 32 | key.index as usize)
    }

    /// `None` for a word that no source gave.
    pub fn of(token: Token) -> Option<Self> {
        let key = Key {
            index: token.0 as u32,
            generation: (token.0 >> 32) as u32 & GENERATION_MASK,
        };
        match token.0 >> KIND_SHIFT {
            0 => Some(Source::Mailbox),
            1 => Some(Source::Listener(key)),
            2 => Some(Source::Http(key)),
            3 => Some(Source::RelayDown(key)),
            4 => Some(Source::RelayUp(key)),
            5 => Some(Source::DatagramDown(key)),
            6 => Some(Source::DatagramUp(key)),
            _ => None,
        }
    }
}

const KIND_SHIFT: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_again_what_it_was_made_of() {
        let key = Key {
            index: u32::MAX,
            generation: GENERATION_MASK,
        };
        for source in [
            Source::Mailbox,
            Source::Listener(key),
            Source::Http(key),
            Source::RelayDown(key),
            Source::DatagramDown(key),
            Source::DatagramUp(key),
            Source::RelayUp(Key {
                index: 7,
                generation: 3,
            }),
        ] {
            assert_eq!(Source::of(source.token()), Some(source));
        }
        assert_eq!(Source::of(Token(usize::MAX)), None);
    }
}
