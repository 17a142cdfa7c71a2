//! A connection: its side, its output, its codec and where it stands in its life.
//!
//! A connection is killed once: its streams end or move on, its slot empties, `Action::Close` is queued; only when
//! the driver took that action may the slot be given again.

pub use super::ending::{Closing, Farewell};
use super::http1::Http1;
use super::http2::Http2;
use super::out::Out;
use super::timer::TimerId;
use super::{Accepted, ConnId, DownstreamProtocol, TlsFacts};
use crate::head::{FieldList, Token};
use crate::limits::Limits;
use gateway_core::fault::Fault;
use gateway_core::ids::{EndpointId, ListenerId};
use gateway_core::ir::UpstreamProtocol;
use gateway_core::model::Side;
use gateway_core::time::Moment;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// What is spoken.
pub enum Codec {
    /// Not enough bytes yet to tell HTTP/2's preface from HTTP/1.1.
    Detecting,
    Http2(Box<Http2>),
    Http1(Box<Http1>),
}

/// What only one side has.
pub enum Role {
    Downstream {
        listener: ListenerId,
        tls: bool,
        /// What the handshake settled; boxed, because most connections of a plain listener have none.
        facts: Option<Box<TlsFacts>>,
        /// What requests are told of the client: `x-forwarded-for` and `x-forwarded-proto`, made once.
        stamp: FieldList,
    },
    Upstream {
        endpoint: EndpointId,
        /// The socket is not connected yet: no stream is opened on it.
        connecting: bool,
        /// Takes no new streams: it was told GOAWAY, its endpoint left, or it is out of ids.
        leaving: bool,
        /// Something came from the endpoint.
        answered: bool,
        /// What it is when it never gets connected.
        unconnected: Fault,
    },
}

/// One connection.
pub struct Connection {
    pub id: ConnId,
    /// Unique in the worker for the life of the process.
    pub serial: u64,
    pub role: Role,
    pub codec: Codec,
    pub out: Out,
    /// The beginning of a frame or head whose rest has not come.
    pub leftover: Vec<u8>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub opened: Moment,
    /// When bytes came last.
    pub active: Moment,
    /// When its streams were looked at last; while it has none it is asleep and nobody looks.
    pub looked: Moment,
    pub asleep: bool,
    /// Upstream: clients' connections (and their serials) whose slots are free once what is queued here is out.
    pub owes_slots: Vec<(ConnId, u64)>,
    pub timer: TimerId,
    pub closing: Closing,
    /// Nothing follows what is in the output: the peer is to be told (the end of one direction of a tunnel).
    pub finishing: bool,
    /// It is gone; the slot stays empty.
    pub dead: bool,
    /// It is in the list of connections to be written.
    pub dirty: bool,
    /// The socket is full, since when nothing at all could be written.
    pub blocked: bool,
    pub stalled_since: Option<Moment>,
    pub farewell: Farewell,
    /// When the farewell began.
    pub told: Moment,
    /// Live streams, waiting ones included, and streams ever opened.
    pub streams: u32,
    pub streams_total: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Connection {
    pub fn downstream(id: ConnId, serial: u64, accepted: Accepted, limits: &Limits, now: Moment) -> Self {
        let codec = match accepted.protocol {
            DownstreamProtocol::Http2 => Codec::Http2(Box::new(Http2::new(Side::Downstream, limits))),
            DownstreamProtocol::Http1 => Codec::Http1(Box::new(Http1::new(Side::Downstream))),
            DownstreamProtocol::Detect => Codec::Detecting,
        };
        let role = Role::Downstream {
            listener: accepted.listener,
            tls: accepted.tls.is_some(),
            stamp: stamp(accepted.peer.ip(), accepted.tls.as_ref()),
            facts: accepted.tls.map(Box::new),
        };
        Self::new(id, serial, role, codec, accepted.peer, accepted.local, now)
    }

    pub fn upstream(
        id: ConnId,
        serial: u64,
        endpoint: EndpointId,
        addr: SocketAddr,
        protocol: UpstreamProtocol,
        limits: &Limits,
        now: Moment,
    ) -> Self {
        let codec = match protocol {
            UpstreamProtocol::H2c => Codec::Http2(Box::new(Http2::new(Side::Upstream, limits))),
            UpstreamProtocol::Http1 => Codec::Http1(Box::new(Http1::new(Side::Upstream))),
        };
        let role = Role::Upstream {
            endpoint,
            connecting: true,
            leaving: false,
            answered: false,
            unconnected: Fault::ConnectFailed,
        };
        let local = SocketAddr::from(([0, 0, 0, 0], 0));
        Self::new(id, serial, role, codec, addr, local, now)
    }

    fn new(
        id: ConnId,
        serial: u64,
        role: Role,
        codec: Codec,
        peer: SocketAddr,
        local: SocketAddr,
        now: Moment,
    ) -> Self {
        Self {
            id,
            serial,
            role,
            codec,
            out: Out::default(),
            leftover: Vec::new(),
            peer,
            local,
            opened: now,
            active: now,
            looked: now,
            asleep: false,
            owes_slots: Vec::new(),
            timer: TimerId::NONE,
            closing: Closing::No,
            finishing: false,
            dead: false,
            dirty: false,
            blocked: false,
            stalled_since: None,
            farewell: Farewell::None,
            told: now,
            streams: 0,
            streams_total: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    #[inline]
    pub fn side(&self) -> Side {
        match self.role {
            Role::Downstream { .. } => Side::Downstream,
            Role::Upstream { .. } => Side::Upstream,
        }
    }

    #[inline]
    pub fn is_downstream(&self) -> bool {
        matches!(self.role, Role::Downstream { .. })
    }

    /// What it means for a stream that was never opened here that the connection is gone.
    pub fn unconnected(&self) -> Fault {
        match self.role {
            Role::Upstream {
                connecting: true,
                unconnected,
                ..
            } => unconnected,
            Role::Upstream { .. } | Role::Downstream { .. } => Fault::ConnectFailed,
        }
    }

    pub fn endpoint(&self) -> Option<EndpointId> {
        match self.role {
            Role::Downstream { .. } => None,
            Role::Upstream { endpoint, .. } => Some(endpoint),
        }
    }

    #[inline]
    pub fn is_connecting(&self) -> bool {
        matches!(self.role, Role::Upstream { connecting: true, .. })
    }

    /// Whether a payload in the chunk may be referenced: it will be written before the chunk is reused.
    #[inline]
    pub fn may_borrow(&self) -> bool {
        !self.blocked && !self.is_connecting()
    }

    /// The HTTP/1.1 state; only called where the codec is known.
    #[inline]
    pub(super) fn http1(&mut self) -> &mut Http1 {
        match &mut self.codec {
            Codec::Http1(http1) => http1,
            Codec::Http2(_) | Codec::Detecting => unreachable!("messages are read from HTTP/1.1 connections alone"),
        }
    }

    pub fn protocol_name(&self) -> &'static str {
        match self.codec {
            Codec::Detecting => "tcp",
            Codec::Http2(_) => "h2",
            Codec::Http1(_) => "h1",
        }
    }
}

/// The client's address, scheme and identity as fields. IPv4-mapped addresses are IPv4.
fn stamp(ip: IpAddr, tls: Option<&TlsFacts>) -> FieldList {
    // The longest textual address has 45 bytes (RFC 4291 2.2 with an embedded IPv4).
    let mut text = [0; 45];
    let mut rest = &mut text[..];
    let _ = write!(rest, "{}", ip.to_canonical());
    let len = 45 - rest.len();
    let mut stamp = FieldList::new();
    stamp.push_known(Token::X_FORWARDED_FOR, &text[..len]);
    stamp.push_known(Token::X_FORWARDED_PROTO, if tls.is_some() { b"https" } else { b"http" });
    let client = tls.and_then(|facts| facts.client.as_ref());
    if let Some(forwarded) = client.and_then(|client| client.forwarded.as_ref()) {
        stamp.push_known(Token::X_FORWARDED_CLIENT_CERT, forwarded.as_bytes());
    }
    stamp
}

#[cfg(test)]
mod tests {
    use super::{TlsFacts, stamp};
    use crate::head::Token;

    #[test]
    fn addresses_are_written_as_clients_know_them() {
        for (ip, text) in [
            ("198.18.1.2", "198.18.1.2"),
            ("::ffff:198.18.1.2", "198.18.1.2"),
            ("2001:2:0:1::2", "2001:2:0:1::2"),
            (
                "1111:2222:3333:4444:5555:6666:7777:8888",
                "1111:2222:3333:4444:5555:6666:7777:8888",
            ),
        ] {
            let stamp = stamp(ip.parse().unwrap(), Some(&TlsFacts::default()));
            assert_eq!(stamp.get(Token::X_FORWARDED_FOR), Some(text.as_bytes()));
            assert_eq!(stamp.get(Token::X_FORWARDED_PROTO), Some(&b"https"[..]));
        }
    }
}
