//! Version 2: binary, with extensions (section 2.2).

use super::{HEADER_BYTES_MAX, Header, NotProxied, Proxied, Source, TLVS_MAX, Tlv, Transport};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_BYTES: usize = 16;
const UNIX_PATH_BYTES: usize = 108;
const TLV_CRC32C: u8 = 0x03;

pub(super) fn parse(bytes: &[u8]) -> Result<Header<'_>, Proxied<'_>> {
    const MALFORMED: Proxied<'static> = Proxied::Not(NotProxied::Malformed);
    let Some(([.., version_command, family, high, low], rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
        return Err(Proxied::Incomplete { bytes_min: FIXED_BYTES });
    };
    let is_proxied = match version_command {
        0x20 => false, // LOCAL
        0x21 => true,  // PROXY
        _ => return Err(MALFORMED),
    };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    if FIXED_BYTES + len > HEADER_BYTES_MAX {
        return Err(Proxied::Not(NotProxied::TooLong));
    }
    let Some(body) = rest.get(..len) else {
        return Err(Proxied::Incomplete {
            bytes_min: FIXED_BYTES + len,
        });
    };
    let (source, extensions) = source(*family, body).ok_or(MALFORMED)?;
    let header = Header {
        len: FIXED_BYTES + len,
        // What stands there for LOCAL is to be skipped, whatever it is.
        source: if is_proxied { source } else { Source::Unknown },
        extensions: if is_proxied { extensions } else { &[] },
    };
    if !is_proxied || (are_whole(extensions) && checksum_holds(&bytes[..header.len], extensions)) {
        Ok(header)
    } else {
        Err(MALFORMED)
    }
}

/// Addresses, and what follows them.
fn source(family: u8, body: &[u8]) -> Option<(Source<'_>, &[u8])> {
    let transport = match family & 0x0f {
        0 => return Some((Source::Unknown, &[])),
        1 => Transport::Stream,
        2 => Transport::Datagram,
        _ => return None,
    };
    let port = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    match family >> 4 {
        // AF_UNSPEC: the receiver ignores what follows.
        0 => Some((Source::Unknown, &[])),
        1 => {
            let ([a, b, c, d, e, f, g, h, p0, p1, q0, q1], rest) = body.split_first_chunk::<12>()?;
            let source = Source::Inet {
                transport,
                client: SocketAddr::from((Ipv4Addr::new(*a, *b, *c, *d), port(*p0, *p1))),
                destination: SocketAddr::from((Ipv4Addr::new(*e, *f, *g, *h), port(*q0, *q1))),
            };
            Some((source, rest))
        }
        2 => {
            let (client, rest) = body.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            let ([p0, p1, q0, q1], rest) = rest.split_first_chunk::<4>()?;
            let source = Source::Inet {
                transport,
                client: SocketAddr::from((Ipv6Addr::from(*client), port(*p0, *p1))),
                destination: SocketAddr::from((Ipv6Addr::from(*destination), port(*q0, *q1))),
            };
            Some((source, rest))
        }
        3 => {
            let (client, rest) = body.split_at_checked(UNIX_PATH_BYTES)?;
            let (destination, rest) = rest.split_at_checked(UNIX_PATH_BYTES)?;
            let source = Source::Unix {
                transport,
                client: path(client),
                destination: path(destination),
            };
            Some((source, rest))
        }
        _ => None,
    }
}

/// Up to the zeros behind it; an abstract name begins with a zero of its own (unix(7)).
fn path(padded: &[u8]) -> &[u8] {
    let len = padded.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &padded[..len]
}

/// Extensions one behind the other; ends where one is cut, which [`are_whole`] has excluded.
pub(super) struct Tlvs<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Tlvs<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        let ([kind, high, low], rest) = self.0.split_first_chunk::<3>()?;
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(Tlv { kind: *kind, value })
    }
}

fn are_whole(extensions: &[u8]) -> bool {
    let mut tlvs = Tlvs(extensions);
    tlvs.by_ref().take(TLVS_MAX).count();
    tlvs.0.is_empty()
}

/// Section 2.2.3: where there is a CRC32c over the header it must be right; it is computed with its own four bytes zero.
fn checksum_holds(header: &[u8], extensions: &[u8]) -> bool {
    let mut tlvs = Tlvs(extensions);
    while let Some(tlv) = tlvs.next() {
        if tlv.kind != TLV_CRC32C {
            continue;
        }
        let Ok(stated) = <[u8; 4]>::try_from(tlv.value) else {
            return false;
        };
        let end = header.len() - tlvs.0.len();
        let parts = [&header[..end - 4], &[0; 4], &header[end..]];
        return crc32c(&parts) == u32::from_be_bytes(stated);
    }
    true
}

/// CRC-32C (RFC 3309, Castagnoli), bit by bit: once a connection, over a few hundred bytes.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720 B.4.
        assert_eq!(super::crc32c(&[b"1234", b"56789"]), 0xe306_9283);
        assert_eq!(super::crc32c(&[&[0; 32]]), 0x8a91_36aa);
    }
}
