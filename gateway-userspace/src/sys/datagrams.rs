//! UDP sockets, and datagrams by the batch: recvmmsg(2) and sendmmsg(2), with the address of ours that a datagram was
//! sent to and leaves from (IP_PKTINFO, IPV6_PKTINFO).

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams taken, and sent, by one system call.
pub const BATCH: usize = 16;
/// Room for the longest datagram there is.
pub const DATAGRAM_BYTES: usize = 65_535;
/// What a listening socket may hold; the kernel caps it at `net.core.rmem_max`.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Words of ancillary data; one IPV6_PKTINFO takes 36 bytes.
const CONTROL_WORDS: usize = 8;

/// A socket that answers from its own address and port; one for each worker may be bound to the same.
pub fn listener(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
        // As for TCP: a local route does not suffice for bind(2) on IPv6.
        socket.set_freebind_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Less room loses datagrams sooner, and nothing else.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    if addr.ip().is_unspecified() {
        let (level, name) = match addr {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        };
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open, and the option's value is an int that outlives the call.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                name,
                (&raw const on).cast(),
                mem::size_of_val(&on) as libc::socklen_t,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Takes a listening socket out of the kernel's choice for new datagrams: connected to a peer that does not exist, it
/// still sends from its address.
pub fn retire(socket: &impl AsRawFd, ipv6: bool) -> io::Result<()> {
    const DISCARD: u16 = 9;
    let nobody = match ipv6 {
        false => SocketAddr::from((Ipv4Addr::LOCALHOST, DISCARD)),
        true => SocketAddr::from((Ipv6Addr::LOCALHOST, DISCARD)),
    };
    let (name, length) = raw(nobody);
    // SAFETY: the descriptor is open, and the address is as long as it says.
    match unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Room for [`BATCH`] datagrams and what the kernel says of them.
pub struct Batch {
    bytes: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    control: Vec<[u64; CONTROL_WORDS]>,
    pieces: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    taken: usize,
}

// SAFETY: the pointers in `pieces` and `messages` are written anew by every call that uses them, and point into the
// batch's own vectors.
unsafe impl Send for Batch {}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

impl Default for Batch {
    fn default() -> Self {
        // SAFETY: all three are plain C structures, for which zeros are a value.
        let (name, piece, message) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            bytes: vec![0; BATCH * DATAGRAM_BYTES],
            names: vec![name; BATCH],
            control: vec![[0; CONTROL_WORDS]; BATCH],
            pieces: vec![piece; BATCH],
            messages: vec![message; BATCH],
            taken: 0,
        }
    }
}

impl Batch {
    /// Takes what is there, at most [`BATCH`]; how many came.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.taken = 0;
        for at in 0..BATCH {
            self.pieces[at] = libc::iovec {
                iov_base: self.bytes[at * DATAGRAM_BYTES..].as_mut_ptr().cast(),
                iov_len: DATAGRAM_BYTES,
            };
            let message = &mut self.messages[at];
            message.msg_len = 0;
            let head = &mut message.msg_hdr;
            head.msg_name = (&raw mut self.names[at]).cast();
            head.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            head.msg_iov = &raw mut self.pieces[at];
            head.msg_iovlen = 1;
            head.msg_control = self.control[at].as_mut_ptr().cast();
            head.msg_controllen = mem::size_of_val(&self.control[at]) as _;
            head.msg_flags = 0;
        }
        // SAFETY: every pointer above points into this batch, which is borrowed for the call, with the length it has.
        let came = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        match usize::try_from(came) {
            Ok(came) => {
                self.taken = came;
                Ok(came)
            }
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Datagram `at` of those that came.
    pub fn payload(&self, at: usize) -> &[u8] {
        let length = self.messages.get(at).map_or(0, |message| message.msg_len as usize);
        &self.bytes[at * DATAGRAM_BYTES..][..length.min(DATAGRAM_BYTES)]
    }

    /// Who sent it; `None` of another family than IP.
    pub fn sender(&self, at: usize) -> Option<SocketAddr> {
        let name = self.names.get(at)?;
        match libc::c_int::from(name.ss_family) {
            libc::AF_INET => {
                // SAFETY: the kernel wrote a name of this family into the storage, which is long enough for all.
                let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(name.sin6_port), 0, name.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    /// The address of ours it was sent to, where the socket was asked to tell.
    pub fn local(&self, at: usize) -> Option<IpAddr> {
        let head = &self.messages.get(at)?.msg_hdr;
        // SAFETY: the head and its control data are as the kernel left them, and this batch holds both.
        unsafe {
            let part = libc::CMSG_FIRSTHDR(head).as_ref()?;
            let data = libc::CMSG_DATA(part);
            match (part.cmsg_level, part.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into())
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
                }
                _ => None,
            }
        }
    }

    /// Sends every datagram that came on to one peer, from an address of ours if one is named. How many went; those
    /// after the first that could not are left out.
    pub fn send_to(&mut self, socket: BorrowedFd<'_>, peer: SocketAddr, from: Option<IpAddr>) -> usize {
        if self.taken == 0 {
            return 0;
        }
        let (mut name, length) = raw(peer);
        let (mut control, used) = source(from);
        for at in 0..self.taken {
            self.pieces[at] = libc::iovec {
                iov_base: self.bytes[at * DATAGRAM_BYTES..].as_mut_ptr().cast(),
                iov_len: self.messages[at].msg_len as usize,
            };
            let head = &mut self.messages[at].msg_hdr;
            head.msg_name = (&raw mut name).cast();
            head.msg_namelen = length;
            head.msg_iov = &raw mut self.pieces[at];
            head.msg_iovlen = 1;
            head.msg_control = if used == 0 {
                std::ptr::null_mut()
            } else {
                control.as_mut_ptr().cast()
            };
            head.msg_controllen = used as _;
            head.msg_flags = 0;
        }
        // SAFETY: every pointer points into this batch or this frame, both alive for the call, with the length it has.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                self.taken as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        usize::try_from(sent).unwrap_or(0)
    }
}

/// Ancillary data that names the source, and how many of its bytes are used.
fn source(from: Option<IpAddr>) -> ([u64; CONTROL_WORDS], usize) {
    fn put<T>(control: &mut [u64; CONTROL_WORDS], level: libc::c_int, kind: libc::c_int, value: T) -> usize {
        const { assert!(mem::size_of::<T>() + 32 <= CONTROL_WORDS * 8) };
        // SAFETY: the buffer is aligned for a header, and the assertion above says that header and value fit in it.
        unsafe {
            let part = control.as_mut_ptr().cast::<libc::cmsghdr>();
            (*part).cmsg_level = level;
            (*part).cmsg_type = kind;
            (*part).cmsg_len = libc::CMSG_LEN(mem::size_of::<T>() as libc::c_uint) as _;
            libc::CMSG_DATA(part).cast::<T>().write_unaligned(value);
            libc::CMSG_SPACE(mem::size_of::<T>() as libc::c_uint) as usize
        }
    }
    let mut control = [0; CONTROL_WORDS];
    let used = match from {
        None => 0,
        Some(IpAddr::V4(ip)) => {
            let spec = libc::in_addr {
                s_addr: u32::from_ne_bytes(ip.octets()),
            };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: spec,
                ipi_addr: spec,
            };
            put(&mut control, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        Some(IpAddr::V6(ip)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
                ipi6_ifindex: 0,
            };
            put(&mut control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    };
    (control, used)
}

/// An address as system calls take it.
fn raw(addr: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    let addr = socket2::SockAddr::from(addr);
    // SAFETY: zeros are a value of it, and socket2's storage holds no more than the length it says.
    unsafe {
        let mut storage: libc::sockaddr_storage = mem::zeroed();
        std::ptr::copy_nonoverlapping(
            addr.as_ptr().cast::<u8>(),
            (&raw mut storage).cast::<u8>(),
            addr.len() as usize,
        );
        (storage, addr.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::time::Duration;

    fn client(to: SocketAddr) -> UdpSocket {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let client = UdpSocket::bind((any, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.connect(to).unwrap();
        client
    }

    fn take(batch: &mut Batch, socket: &UdpSocket) -> usize {
        for _ in 0..500 {
            match batch.receive(socket.as_fd()) {
                Ok(came) => return came,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nothing comes");
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        for (bound, asked) in [
            ("0.0.0.0:0", "127.0.0.7"),
            ("[::]:0", "::1"),
            ("127.0.0.9:0", "127.0.0.9"),
        ] {
            let socket = listener(bound.parse().unwrap()).unwrap();
            let to = SocketAddr::new(asked.parse().unwrap(), socket.local_addr().unwrap().port());
            let client = client(to);
            client.send(b"one").unwrap();
            let mut batch = Batch::default();
            assert_eq!(take(&mut batch, &socket), 1);
            assert_eq!(batch.payload(0), b"one");
            assert_eq!(batch.sender(0), Some(client.local_addr().unwrap()));
            let wild = bound != "127.0.0.9:0";
            assert_eq!(batch.local(0), wild.then_some(to.ip()));
            assert_eq!(
                batch.send_to(socket.as_fd(), client.local_addr().unwrap(), batch.local(0)),
                1
            );
            // Connected: from any other address it would not be read.
            assert_eq!(client.recv(&mut [0; 8]).unwrap(), 3);
        }
    }

    #[test]
    fn a_retired_socket_hears_nobody_and_still_answers() {
        for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let old = listener(bound.parse().unwrap()).unwrap();
            let at = old.local_addr().unwrap();
            let to = if at.ip().is_unspecified() {
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), at.port())
            } else {
                at
            };
            let client = client(to);
            client.send(b"x").unwrap();
            let mut batch = Batch::default();
            assert_eq!(take(&mut batch, &old), 1);
            retire(&old, at.is_ipv6()).unwrap();
            let new = listener(at).unwrap();
            for _ in 0..20 {
                client.send(b"y").unwrap();
            }
            let from = batch.local(0);
            assert_eq!(batch.send_to(old.as_fd(), client.local_addr().unwrap(), from), 1);
            assert_eq!(client.recv(&mut [0; 8]).unwrap(), 1);
            let mut heard = 0;
            while heard < 20 {
                heard += take(&mut batch, &new);
            }
        }
    }
}
