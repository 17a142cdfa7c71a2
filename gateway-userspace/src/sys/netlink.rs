//! A small rtnetlink client: one request, its answers, nothing else (RFC 3549; `man 7 netlink`, `man 7 rtnetlink`).
//!
//! A socket belongs to the network namespace of the thread that made it, whichever thread uses it later.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes of one read; the kernel never sends more than 32 KiB of a dump at once.
const READ_BYTES: usize = 64 * 1024;
/// Messages of one answer; a host with more links or routes than this is told so.
const MESSAGES_MAX: usize = 1 << 20;
const HEADER: usize = 16;

/// A request under construction.
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// `fixed` is the family's fixed header (`ifinfomsg`, `rtmsg`, ...).
    pub fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        Self {
            kind,
            flags,
            body: fixed.to_vec(),
        }
    }

    /// Appends an attribute, padded to four bytes.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let len = (value.len() + 4) as u16;
        self.body.extend(len.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
        self
    }

    pub fn address(self, kind: u16, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => self.attribute(kind, &addr.octets()),
            IpAddr::V6(addr) => self.attribute(kind, &addr.octets()),
        }
    }

    pub fn word(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends the attributes of `inner` as one nested attribute.
    pub fn nest(self, kind: u16, inner: &Message) -> Self {
        self.attribute(kind | libc::NLA_F_NESTED as u16, &inner.body)
    }

    /// Attributes alone, for [`Message::nest`].
    pub fn attributes() -> Self {
        Self::new(0, 0, &[])
    }

    fn encode(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.body.len());
        bytes.extend(((HEADER + self.body.len()) as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

/// One message of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// The attributes after a fixed header of `fixed` bytes.
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes(self.body.get(fixed..).unwrap_or_default())
    }
}

/// Attributes in order: kind (without the nested and byte-order flags) and value.
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16::from_ne_bytes(self.0.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The first four bytes of a value as a native word.
pub fn word(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(0..4)?.try_into().ok()?))
}

/// An address attribute.
pub fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(value)
        .ok()
        .map(|octets| Ipv6Addr::from(octets).into())
}

/// `AF_INET` or `AF_INET6`.
pub fn family(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// Bits of an address.
pub fn bits(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// An open rtnetlink socket.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// In the network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        // SAFETY: no pointers are passed; the result is checked before it is owned.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by the kernel and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends the request and collects its answers. A request without `NLM_F_DUMP` is acknowledged.
    pub fn ask(&mut self, message: &Message) -> io::Result<Vec<Answer>> {
        self.sequence += 1;
        let dump = i32::from(message.flags) & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        let mut bytes = message.encode(self.sequence);
        if !dump {
            let flags = message.flags | libc::NLM_F_ACK as u16;
            bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        }
        // SAFETY: the pointer and the length are those of a live slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        self.collect()
    }

    /// Like [`Netlink::ask`], but what `already` names (an errno such as `EEXIST`) is success too.
    pub fn ask_unless(&mut self, message: &Message, already: &[i32]) -> io::Result<()> {
        match self.ask(message) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error().is_some_and(|errno| already.contains(&errno)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn collect(&mut self) -> io::Result<Vec<Answer>> {
        let mut answers = Vec::new();
        let mut buffer = vec![0u8; READ_BYTES];
        while answers.len() < MESSAGES_MAX {
            // SAFETY: the pointer and the length are those of a live, exclusively borrowed buffer.
            let read = unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let Ok(read) = usize::try_from(read) else {
                return Err(io::Error::last_os_error());
            };
            if split(&buffer[..read], self.sequence, &mut answers)? {
                return Ok(answers);
            }
        }
        Err(io::Error::other(format!(
            "netlink answered with more than {MESSAGES_MAX} messages"
        )))
    }
}

/// Splits what was read into messages; true at the end of the answer.
fn split(mut bytes: &[u8], sequence: u32, answers: &mut Vec<Answer>) -> io::Result<bool> {
    while let Some(header) = bytes.get(..HEADER) {
        let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let len = word(header).map_or(0, |len| len as usize);
        let (kind, of) = (field(4), word(&header[8..]));
        let body = bytes.get(HEADER..len).ok_or(io::ErrorKind::InvalidData)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        if of != Some(sequence) {
            continue;
        }
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let errno = word(body).map_or(libc::EIO, |code| -(code as i32));
                return if errno == 0 {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(errno))
                };
            }
            _ => answers.push(Answer {
                kind,
                body: body.to_vec(),
            }),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let message = Message::new(1, 0, &[7; 4]).attribute(5, b"abc").word(9, 0x0102_0304);
        let answer = Answer {
            kind: 1,
            body: message.body.clone(),
        };
        let read: Vec<_> = answer
            .attributes(4)
            .map(|(kind, value)| (kind, value.to_vec()))
            .collect();
        assert_eq!(read, [(5, b"abc".to_vec()), (9, 0x0102_0304u32.to_ne_bytes().to_vec())]);
    }

    #[test]
    fn a_truncated_attribute_ends_the_list_instead_of_panicking() {
        assert_eq!(Attributes(&[8, 0, 1, 0, 1, 2]).count(), 0);
        assert_eq!(Attributes(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes(&[1]).count(), 0);
    }

    #[test]
    fn an_error_answer_is_an_error_and_a_zero_one_is_the_end() {
        let mut answers = Vec::new();
        let error = |code: i32| {
            let mut bytes = 20u32.to_ne_bytes().to_vec();
            bytes.extend((libc::NLMSG_ERROR as u16).to_ne_bytes());
            bytes.extend([0, 0]);
            bytes.extend(3u32.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        assert!(split(&error(0), 3, &mut answers).unwrap());
        let failed = split(&error(-libc::EEXIST), 3, &mut answers).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(libc::EEXIST));
        assert!(!split(&error(0), 4, &mut answers).unwrap(), "another request's answer");
    }
}
