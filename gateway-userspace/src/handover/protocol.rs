//! What the two processes say to each other: one JSON object a message, [`VERSION`] in the first.
//!
//! ```text
//! new: hello                     old: welcome, sockets..., (or refuse)
//! new: yield                     old: yielded              nobody but the new one writes the kernel's maps now
//! new: ready (or failed)         old: farewell             the old one drains
//! ```
//! The end of the connection before `ready` is a failure. Fields that a later version adds are ignored by an earlier.

use crate::sys::packets::Line;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// Changes when an older process would misunderstand.
pub const VERSION: u32 = 1;
/// Sockets that are handed over at most.
pub const SOCKETS_MAX: usize = 16 * 1024;
/// Sockets of one message.
const SOCKETS_PER_MESSAGE: usize = crate::sys::packets::DESCRIPTORS_MAX;

/// What can be said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Word {
    /// Who asks, and what it is.
    Hello {
        version: u32,
        pid: u32,
        release: String,
    },
    /// Who answers, how connections reach it, and how many sockets follow.
    Welcome {
        version: u32,
        pid: u32,
        datapath: String,
        sockets: usize,
    },
    /// Places of the descriptors in this message.
    Sockets {
        places: Vec<Place>,
    },
    Refuse {
        why: String,
    },
    Yield,
    Yielded,
    Ready,
    Failed {
        why: String,
    },
    Farewell,
}

/// What a socket is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// A listener's own socket; no address is every address.
    Listener {
        address: Option<IpAddr>,
        port: u16,
    },
    AdminTcp {
        address: std::net::SocketAddr,
    },
    AdminUnix {
        path: PathBuf,
    },
    /// An older process that does not know it refuses to take over; what it would not serve it may not take.
    Probe {
        address: std::net::SocketAddr,
    },
    /// The door that the next successor knocks at.
    Door,
}

/// A socket and its place.
pub type Placed = (Place, OwnedFd);

/// A conversation in these words.
#[derive(Debug)]
pub struct Talk(pub Line);

impl Talk {
    pub fn say(&self, word: &Word, descriptors: &[BorrowedFd<'_>], patience: Duration) -> io::Result<()> {
        let text = serde_json::to_vec(word).map_err(io::Error::other)?;
        self.0.send(&text, descriptors, patience)
    }

    /// The next word; the end of the conversation is an error.
    pub fn hear(&self, patience: Duration) -> io::Result<(Word, Vec<OwnedFd>)> {
        let Some((text, descriptors)) = self.0.receive(patience)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let word = serde_json::from_slice(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("an unknown word: {error}")))?;
        Ok((word, descriptors))
    }

    pub fn give(&self, sockets: &[Placed], patience: Duration) -> io::Result<()> {
        for some in sockets.chunks(SOCKETS_PER_MESSAGE) {
            let places = some.iter().map(|(place, _)| place.clone()).collect();
            let descriptors: Vec<_> = some.iter().map(|(_, socket)| socket.as_fd()).collect();
            self.say(&Word::Sockets { places }, &descriptors, patience)?;
        }
        Ok(())
    }

    pub fn take(&self, count: usize, patience: Duration) -> io::Result<Vec<Placed>> {
        let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        if count > SOCKETS_MAX {
            return Err(wrong("more sockets than can be handed over"));
        }
        let mut taken: Vec<Placed> = Vec::new();
        while taken.len() < count {
            let (Word::Sockets { places }, descriptors) = self.hear(patience)? else {
                return Err(wrong("another word than sockets"));
            };
            if places.is_empty() || places.len() != descriptors.len() {
                return Err(wrong("places and descriptors differ in number"));
            }
            taken.extend(places.into_iter().zip(descriptors));
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::packets::Door;
    use std::net::TcpListener;

    const SOON: Duration = Duration::from_secs(5);

    fn pair() -> (tempfile::TempDir, Talk, Talk) {
        let folder = tempfile::tempdir().unwrap();
        let door = Door::make(&folder.path().join("door")).unwrap();
        let near = Line::open(&folder.path().join("door")).unwrap();
        let far = door.wait(SOON).unwrap().unwrap();
        (folder, Talk(near), Talk(far))
    }

    #[test]
    fn more_sockets_than_fit_one_message_arrive_each_in_its_place() {
        let (_folder, near, far) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let placed = |port: u16| {
            let socket = listener.as_fd().try_clone_to_owned().unwrap();
            (Place::Listener { address: None, port }, socket)
        };
        let sockets: Vec<Placed> = (0..100).map(placed).collect();
        near.give(&sockets, SOON).unwrap();
        let taken = far.take(100, SOON).unwrap();
        for (port, (place, socket)) in (0..).zip(taken) {
            assert_eq!(place, Place::Listener { address: None, port });
            let address = TcpListener::from(socket).local_addr().unwrap();
            assert_eq!(address, listener.local_addr().unwrap());
        }
    }

    #[test]
    fn a_field_that_a_later_version_adds_is_ignored() {
        let later = r#"{"hello":{"version":9,"pid":7,"release":"x","mood":"good"}}"#;
        let word: Word = serde_json::from_str(later).unwrap();
        assert!(matches!(word, Word::Hello { version: 9, pid: 7, .. }));
    }

    #[test]
    fn nonsense_and_silence_are_errors() {
        let (_folder, near, far) = pair();
        near.0.send(b"{", &[], SOON).unwrap();
        assert_eq!(far.hear(SOON).unwrap_err().kind(), io::ErrorKind::InvalidData);
        near.say(&Word::Sockets { places: Vec::new() }, &[], SOON).unwrap();
        assert!(far.take(1, SOON).is_err());
        assert!(far.take(SOCKETS_MAX + 1, SOON).is_err());
        drop(near);
        assert_eq!(far.hear(SOON).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
