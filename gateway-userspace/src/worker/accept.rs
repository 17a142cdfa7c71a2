//! Listening sockets, and connections as they come out of them.
//!
//! A worker listens in two ways. Own sockets are bound to a listener's address, one for each worker (SO_REUSEPORT).
//! Lookup sockets, one for each address family, are bound to loopback and an ephemeral port; the kernel's socket lookup
//! program assigns connections to any address we own to them. In both cases the accepted socket's own local address
//! says which listener it is for.
//!
//! When descriptors run out, a reserve is spent to take a connection and close it at once: a client that is told
//! "no" is better off than one that waits in the queue.

use super::slab::{Key, Slab};
use super::token::Source;
use gateway_core::fault::Refusal;
use gateway_core::ids::ListenerId;
use gateway_core::ir::{Bind, Transport};
use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

/// Connections taken from one listening socket in one turn.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Length of a listening socket's queue; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;
/// How long a listening socket rests when the process is out of descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Opens the listening sockets of one worker for a bind: one, or one for each family when every address is meant.
/// A host without IPv6 is served over IPv4 alone in that case.
pub fn open_listener(bind: &Bind) -> io::Result<Vec<std::net::TcpListener>> {
    match bind.transport {
        Transport::Tcp => {}
        Transport::Udp => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "nothing listens on UDP: its sockets are `datagrams::open`'s",
            ));
        }
    }
    match bind.addr {
        Some(addr) => Ok(vec![open(SocketAddr::new(addr, bind.port))?]),
        None => {
            let four = open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, bind.port)))?;
            match open(SocketAddr::from((Ipv6Addr::UNSPECIFIED, bind.port))) {
                Ok(six) => Ok(vec![four, six]),
                Err(error) if no_ipv6(&error) => Ok(vec![four]),
                Err(error) => Err(error),
            }
        }
    }
}

/// Sockets of a bind for each of `workers`, beginning with those a predecessor listened on: whatever waits in their
/// queues is served. Workers that come away empty open their own.
pub fn share_out(
    bind: &Bind,
    inherited: Vec<std::net::TcpListener>,
    workers: usize,
) -> io::Result<Vec<Vec<std::net::TcpListener>>> {
    if inherited.is_empty() {
        return (0..workers).map(|_| open_listener(bind)).collect();
    }
    let mut shares: Vec<Vec<std::net::TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for socket in inherited {
        let given = counts.entry(socket.local_addr()?).or_default();
        shares[*given % workers].push(socket);
        *given += 1;
    }
    for (addr, given) in counts {
        for share in shares.iter_mut().skip(given) {
            share.push(open(addr)?);
        }
    }
    Ok(shares)
}

/// Opens a worker's lookup sockets: IPv4, and IPv6 where the host has it.
pub fn open_lookup() -> io::Result<Vec<std::net::TcpListener>> {
    let four = open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    match open(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))) {
        Ok(six) => Ok(vec![four, six]),
        Err(error) if no_ipv6(&error) => Ok(vec![four]),
        Err(error) => Err(error),
    }
}

fn open(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
        // A local route suffices for bind(2) on IPv4, not on IPv6. Whether the address really is local is the
        // kernel rim's to say; a listener whose address is not is reported as not programmed.
        socket.set_freebind_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(addr.port() != 0)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it: a client whose host is gone is found though nobody writes to it.
    socket.set_tcp_keepalive(&keepalive())?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A peer whose host does not answer is given up after about 30 seconds.
pub fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3)
}

/// Why a bind is not served and what to do about it, in one line.
pub fn remedy(bind: &Bind, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it, or choose another port",
        io::ErrorKind::AddrNotAvailable => {
            "the address is on no interface: add it, or run with privileges so that the gateway makes it local"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or choose a port from 1024 on"
        }
        _ => return format!("cannot listen on {bind}: {error}"),
    };
    format!("cannot listen on {bind}: {error}; {advice}")
}

pub fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// A connection whose listener is known.
#[derive(Debug)]
pub struct Incoming {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub listener: ListenerId,
}

/// What one go at a listening socket came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// The queue is empty.
    Empty,
    /// There may be more: come again next turn.
    More,
    /// Out of descriptors or memory: come again after [`ACCEPT_PAUSE`].
    Pause,
}

/// A worker's listening sockets.
#[derive(Debug, Default)]
pub struct Acceptors {
    sockets: Slab<Acceptor>,
    reserve: Option<File>,
    /// `accept` calls that failed for want of descriptors or memory.
    pub failures_total: u64,
}

#[derive(Debug)]
struct Acceptor {
    socket: TcpListener,
    /// `None`: a lookup socket.
    bind: Option<Bind>,
}

impl Acceptors {
    /// Takes a listening socket into service; `bind` is `None` for a lookup socket.
    pub fn add(&mut self, registry: &Registry, bind: Option<Bind>, socket: std::net::TcpListener) -> io::Result<Key> {
        self.refill();
        let key = self.sockets.insert(Acceptor {
            socket: TcpListener::from_std(socket),
            bind,
        });
        let acceptor = self.sockets.get_mut(key).expect("it was just inserted");
        let registered = registry.register(&mut acceptor.socket, Source::Listener(key).token(), Interest::READABLE);
        if let Err(error) = registered {
            self.sockets.remove(key);
            return Err(error);
        }
        Ok(key)
    }

    /// Keys of the sockets of a bind.
    pub fn of_bind(&self, bind: &Bind) -> Vec<Key> {
        self.sockets
            .iter()
            .filter(|(_, acceptor)| acceptor.bind.as_ref() == Some(bind))
            .map(|(key, _)| key)
            .collect()
    }

    /// Keys of the own sockets, or of the lookup sockets.
    pub fn keys(&self, lookup: bool) -> Vec<Key> {
        self.sockets
            .iter()
            .filter(|(_, acceptor)| acceptor.bind.is_none() == lookup)
            .map(|(key, _)| key)
            .collect()
    }

    /// Closes a listening socket; what its queue still holds is reset by the kernel, unless another process has the socket
    /// too. Then closing alone would leave it in this poll.
    pub fn close(&mut self, registry: &Registry, key: Key) {
        if let Some(mut acceptor) = self.sockets.remove(key) {
            let _ = registry.deregister(&mut acceptor.socket);
        }
    }

    /// Duplicates of the own sockets; one that cannot be duplicated for want of descriptors is left out.
    pub fn lend(&self) -> Vec<(Bind, std::net::TcpListener)> {
        let own = self.sockets.iter().filter_map(|(_, acceptor)| {
            let bind = acceptor.bind?;
            let socket = acceptor.socket.as_fd().try_clone_to_owned().ok()?;
            Some((bind, socket.into()))
        });
        own.collect()
    }

    /// Takes the next connection, unless the queue is empty. `Ok(None)`: one was taken and could not be kept.
    pub fn next(&mut self, key: Key) -> Result<Option<(TcpStream, SocketAddr)>, Turn> {
        let Some(acceptor) = self.sockets.get(key) else {
            return Err(Turn::Empty);
        };
        match acceptor.socket.accept() {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Turn::Empty),
            Err(error) if exhausted(&error) => {
                self.failures_total += 1;
                self.spend_reserve(key)
            }
            // The connection died in the queue (ECONNABORTED and the network errors of accept(2)): the next one, then.
            Err(_) => Ok(None),
        }
    }

    fn spend_reserve(&mut self, key: Key) -> Result<Option<(TcpStream, SocketAddr)>, Turn> {
        if self.reserve.take().is_none() {
            return Err(Turn::Pause);
        }
        let turned_away = self
            .sockets
            .get(key)
            .is_some_and(|acceptor| acceptor.socket.accept().is_ok());
        self.refill();
        if turned_away { Ok(None) } else { Err(Turn::Pause) }
    }

    fn refill(&mut self) {
        if self.reserve.is_none() {
            self.reserve = File::open("/dev/null").ok();
        }
    }
}

fn exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Which listener a fresh connection is for.
pub fn identify(stream: TcpStream, peer: SocketAddr, snapshot: &Snapshot) -> Result<Incoming, Refusal> {
    let local = unmapped(stream.local_addr().map_err(|_| Refusal::NoListener)?);
    let (listener, _) = snapshot.listener_at(local).ok_or(Refusal::NoListener)?;
    // Small answers must not wait for an acknowledgement; without it everything works, only slower.
    let _ = stream.set_nodelay(true);
    Ok(Incoming {
        stream,
        peer: unmapped(peer),
        local,
        listener,
    })
}

/// An IPv4-mapped IPv6 address as the IPv4 address it is.
pub fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => SocketAddr::new(four.into(), addr.port()),
            None => addr,
        },
        IpAddr::V4(_) => addr,
    }
}

/// A worker's lookup socket, for the kernel's table of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookupSocket {
    pub worker: u16,
    pub ipv6: bool,
    /// Its own address: loopback, and a port of the kernel's choice.
    pub addr: SocketAddr,
    /// Open as long as the workers run.
    pub fd: RawFd,
}

impl LookupSocket {
    pub fn of(worker: u16, socket: &std::net::TcpListener) -> io::Result<Self> {
        let addr = socket.local_addr()?;
        Ok(Self {
            worker,
            ipv6: addr.is_ipv6(),
            addr,
            fd: socket.as_raw_fd(),
        })
    }
}

/// When a resting listening socket is tried again.
pub fn rested(now: Moment) -> Moment {
    now + ACCEPT_PAUSE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_mapped_address_is_an_ipv4_address() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(unmapped(mapped), "192.0.2.1:80".parse().unwrap());
        let six: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(unmapped(six), six);
    }

    #[test]
    fn two_workers_bind_the_same_address_and_a_stranger_port_fails_by_name() {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = probe.local_addr().unwrap();
        let error = open_listener(&Bind::tcp(taken)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(probe);
        let first = open_listener(&Bind::tcp(taken)).unwrap();
        let second = open_listener(&Bind::tcp(taken)).unwrap();
        assert_eq!(first[0].local_addr().unwrap(), second[0].local_addr().unwrap());
    }

    #[test]
    fn inherited_sockets_are_all_served_and_every_worker_has_one() {
        let bind = Bind::tcp("127.0.0.1:0".parse().unwrap());
        let first = open_listener(&bind).unwrap().remove(0);
        let bind = Bind::tcp(first.local_addr().unwrap());
        // Only sockets that were opened for sharing can be joined.
        socket2::SockRef::from(&first).set_reuse_port(true).unwrap();
        let second = open_listener(&bind).unwrap().remove(0);
        let counts = |shares: Vec<Vec<std::net::TcpListener>>| -> Vec<usize> { shares.iter().map(Vec::len).collect() };
        let again = |sockets: &[&std::net::TcpListener]| -> Vec<std::net::TcpListener> {
            sockets.iter().map(|socket| socket.try_clone().unwrap()).collect()
        };
        assert_eq!(counts(share_out(&bind, again(&[&first, &second]), 1).unwrap()), [2]);
        assert_eq!(
            counts(share_out(&bind, again(&[&first, &second]), 3).unwrap()),
            [1, 1, 1]
        );
        assert_eq!(counts(share_out(&bind, Vec::new(), 2).unwrap()), [1, 1]);
    }

    #[test]
    fn nothing_listens_on_udp() {
        let bind = Bind {
            addr: None,
            port: 53,
            transport: Transport::Udp,
        };
        assert_eq!(open_listener(&bind).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
