//! Messages between two processes of one host, with open descriptors in them: Unix sockets of type `SEQPACKET`.
//!
//! A message arrives whole or not at all; one that is longer than [`MESSAGE_BYTES_MAX`] or carries more than
//! [`DESCRIPTORS_MAX`] descriptors is an error. Nothing waits longer than it is told to.

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// Longest message.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Most descriptors of one message (the kernel allows 253).
pub const DESCRIPTORS_MAX: usize = 64;
/// Processes that wait to be heard.
const BACKLOG: i32 = 8;

/// Where others knock.
#[derive(Debug)]
pub struct Door(Socket);

/// A conversation.
#[derive(Debug)]
pub struct Line(Socket);

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    pub pid: i32,
    pub uid: u32,
}

impl Door {
    /// Makes the socket at `path`, for this user alone.
    pub fn make(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        // Before bind(2): the file is born with this mode.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        socket.bind(&SockAddr::unix(path)?)?;
        socket.listen(BACKLOG)?;
        Ok(Self(socket))
    }

    /// One that another process made and gave away.
    pub fn of(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }

    /// Waits for a visitor, at most `patience`; `None` when nobody came.
    pub fn wait(&self, patience: Duration) -> io::Result<Option<Line>> {
        self.0.set_read_timeout(Some(patience))?;
        match self.0.accept() {
            Ok((socket, _)) => Ok(Some(Line(socket))),
            Err(error) if timed_out(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }
}

impl Line {
    /// Knocks at the door at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(Self(socket))
    }

    pub fn peer(&self) -> io::Result<Peer> {
        let found = getsockopt(&self.0, sockopt::PeerCredentials)?;
        Ok(Peer {
            pid: found.pid(),
            uid: found.uid(),
        })
    }

    /// Sends one message. The descriptors stay open here.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>], patience: Duration) -> io::Result<()> {
        if message.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
        }
        self.0.set_write_timeout(Some(patience))?;
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
        let parts = [IoSlice::new(message)];
        let sent = sendmsg::<UnixAddr>(self.0.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None)?;
        if sent == message.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// The next message; `None` when the other end is gone. Descriptors are closed on exec.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        self.0.set_read_timeout(Some(patience))?;
        let mut message = vec![0; MESSAGE_BYTES_MAX];
        let mut rights = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let mut parts = [IoSliceMut::new(&mut message)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let got = recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut rights), flags)?;
        let mut descriptors = Vec::new();
        let cut = got.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        for part in got.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has just opened these for this process, and nobody else knows their numbers.
                descriptors.extend(
                    numbers
                        .into_iter()
                        .map(|number| unsafe { OwnedFd::from_raw_fd(number) }),
                );
            }
        }
        let bytes = got.bytes;
        if cut {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
        }
        if bytes == 0 {
            return Ok(None);
        }
        message.truncate(bytes);
        Ok(Some((message, descriptors)))
    }
}

/// Whether a wait ended without its event.
pub fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_message_arrives_whole_with_its_descriptors_and_both_know_who_speaks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door");
        let door = Door::make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let line = Line::open(&path).unwrap();
        let heard = door.wait(SOON).unwrap().unwrap();
        assert_eq!(heard.peer().unwrap().pid.cast_unsigned(), std::process::id());
        let (mut near, far) = UnixStream::pair().unwrap();
        line.send(b"take this", &[far.as_fd()], SOON).unwrap();
        drop(far);
        let (message, descriptors) = heard.receive(SOON).unwrap().unwrap();
        assert_eq!((message.as_slice(), descriptors.len()), (&b"take this"[..], 1));
        let mut given = UnixStream::from(descriptors.into_iter().next().unwrap());
        given.write_all(b"x").unwrap();
        near.read_exact(&mut [0]).unwrap();
        drop(line);
        assert!(heard.receive(SOON).unwrap().is_none());
    }

    #[test]
    fn nothing_waits_longer_than_it_is_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let door = Door::make(&folder.path().join("door")).unwrap();
        assert!(door.wait(Duration::from_millis(10)).unwrap().is_none());
        let line = Line::open(&folder.path().join("door")).unwrap();
        assert!(timed_out(&line.receive(Duration::from_millis(10)).unwrap_err()));
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let _door = Door::make(&folder.path().join("door")).unwrap();
        let line = Line::open(&folder.path().join("door")).unwrap();
        assert!(line.send(&vec![0; MESSAGE_BYTES_MAX + 1], &[], SOON).is_err());
    }
}
