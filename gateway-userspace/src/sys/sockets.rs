//! Listening sockets and the options of accepted ones.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// A socket for `sk_lookup` to assign connections to: bound to the loopback and an ephemeral port of its family, so
/// that it takes no address or port from anyone. The other family can never reach it.
pub fn hand_off_listener(ipv6: bool) -> io::Result<TcpListener> {
    let addr: IpAddr = if ipv6 {
        Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    };
    listener(SocketAddr::new(addr, 0), Sharing::Alone)
}

/// Whether several sockets (one per worker) listen on the same address and port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    Alone,
    /// `SO_REUSEPORT`: the kernel spreads new connections over them.
    Spread,
}

/// A non-blocking TCP listener. An IPv6 one takes no IPv4 connections, except on the unspecified address.
pub fn listener(addr: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Spread {
        socket.set_reuse_port(true)?;
    }
    if let SocketAddr::V6(v6) = addr {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    // Accepted sockets inherit it: answers are written whole, waiting for more would only add latency.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Name of the congestion control of a connection.
pub fn congestion<S: AsFd>(socket: &S) -> io::Result<String> {
    let name = socket2::SockRef::from(socket).tcp_congestion()?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// Sets the congestion control of a connection, or of a listener for what it will accept.
pub fn set_congestion<S: AsFd>(socket: &S, name: &str) -> io::Result<()> {
    socket2::SockRef::from(socket).set_tcp_congestion(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_off_listeners_take_no_fixed_port_and_do_not_block() {
        for ipv6 in [false, true] {
            let listener = hand_off_listener(ipv6).unwrap();
            let addr = listener.local_addr().unwrap();
            assert!(addr.ip().is_loopback() && addr.is_ipv6() == ipv6 && addr.port() != 0);
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn sockets_share_a_port_only_when_asked() {
        let first = listener("127.0.0.1:0".parse().unwrap(), Sharing::Spread).unwrap();
        let addr = first.local_addr().unwrap();
        assert!(listener(addr, Sharing::Alone).is_err());
        assert!(listener(addr, Sharing::Spread).is_ok());
    }

    #[test]
    fn congestion_control_has_a_name() {
        let listener = hand_off_listener(false).unwrap();
        let name = congestion(&listener).unwrap();
        assert!(!name.is_empty());
        set_congestion(&listener, &name).unwrap();
    }
}
