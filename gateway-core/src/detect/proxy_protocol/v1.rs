//! Version 1: a line of text (section 2.1).

use super::{Header, NotProxied, Proxied, Source, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// The longest line, CRLF included (section 2.1).
const LINE_BYTES_MAX: usize = 107;
/// The shortest: `PROXY UNKNOWN` and CRLF.
const LINE_BYTES_MIN: usize = 15;

pub(super) fn parse(bytes: &[u8]) -> Result<Header<'_>, Proxied<'_>> {
    let front = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = front.iter().position(|byte| *byte == b'\n') else {
        return Err(if bytes.len() >= LINE_BYTES_MAX {
            Proxied::Not(NotProxied::TooLong)
        } else {
            Proxied::Incomplete {
                bytes_min: (bytes.len() + 1).max(LINE_BYTES_MIN),
            }
        });
    };
    let source = front[..end]
        .strip_suffix(b"\r")
        .and_then(|line| line.strip_prefix(SIGNATURE))
        .and_then(source)
        .ok_or(Proxied::Not(NotProxied::Malformed))?;
    Ok(Header {
        len: end + 1,
        source,
        extensions: &[],
    })
}

/// What stands behind `PROXY `.
fn source(line: &[u8]) -> Option<Source<'static>> {
    // Whatever follows UNKNOWN is ignored.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Some(Source::Unknown);
    }
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.split(' ');
    let address: fn(&str) -> Option<IpAddr> = match words.next()? {
        "TCP4" => |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let (client, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (client_port, port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then_some(Source::Inet {
        transport: Transport::Stream,
        client: SocketAddr::new(client, client_port),
        destination: SocketAddr::new(destination, port),
    })
}

/// 0 to 65535 without leading zeros.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain)
}
