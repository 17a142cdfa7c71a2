//! Headers as the specification's sections 2.1 and 2.2 write them, and what is none.

use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(version_command: u8, family: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[version_command, family], &len, &body].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind][..], &len, value].concat()
}

fn source(bytes: &[u8]) -> Source<'_> {
    match parse(bytes) {
        Proxied::Complete(header) => header.source,
        other => panic!("{other:?}"),
    }
}

fn inet(transport: Transport, client: &str, destination: &str) -> Source<'static> {
    Source::Inet {
        transport,
        client: client.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

const IPV4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 4, 210, 0, 80];

#[test]
fn lines_of_version_1_are_read() {
    let stream = |client, destination| inet(Transport::Stream, client, destination);
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\nGET /";
    assert_eq!(source(line), stream("192.0.2.1:1234", "192.0.2.2:80"));
    let Proxied::Complete(header) = parse(line) else {
        panic!()
    };
    assert_eq!(&line[header.len..], b"GET /");
    assert_eq!(
        source(b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"),
        stream("[2001:db8::1]:0", "[::1]:65535")
    );
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 x 1 2\r\n"] {
        assert_eq!(source(line.as_bytes()), Source::Unknown);
    }
}

#[test]
fn lines_against_the_grammar_are_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1234 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1234\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01234 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 80\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 80\r\n",
        "PROXY TCP4 ::1 ::1 1 80\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 80\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 80\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY \r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Proxied::Not(NotProxied::Malformed), "{line:?}");
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!(longest.len(), 107);
    assert_eq!(source(longest.as_bytes()), Source::Unknown);
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(parse(longer.as_bytes()), Proxied::Not(NotProxied::TooLong));
}

#[test]
fn headers_of_version_2_are_read() {
    let udp = inet(Transport::Datagram, "192.0.2.1:1234", "192.0.2.2:80");
    assert_eq!(source(&v2(0x21, 0x12, &[&IPV4])), udp);
    let mut ipv6 = [0; 36];
    (ipv6[15], ipv6[31], ipv6[33], ipv6[35]) = (1, 2, 7, 8);
    let tcp = inet(Transport::Stream, "[::1]:7", "[::2]:8");
    assert_eq!(source(&v2(0x21, 0x21, &[&ipv6])), tcp);
    let mut unix = [0; 216];
    unix[..6].copy_from_slice(b"/tmp/a");
    unix[108..111].copy_from_slice(b"\0ab");
    let named = Source::Unix {
        transport: Transport::Stream,
        client: b"/tmp/a",
        destination: b"\0ab",
    };
    assert_eq!(source(&v2(0x21, 0x31, &[&unix])), named);
}

#[test]
fn local_and_unspecified_say_nothing_whatever_follows() {
    for bytes in [
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &[&IPV4, b"rubbish"]),
        v2(0x21, 0x00, &[b"rubbish"]),
        v2(0x21, 0x10, &[b"rubbish"]),
    ] {
        assert_eq!(source(&bytes), Source::Unknown);
        let Proxied::Complete(header) = parse(&bytes) else {
            panic!()
        };
        assert_eq!((header.len, header.tlvs().count()), (bytes.len(), 0));
    }
}

#[test]
fn extensions_are_read_bounded_and_whole() {
    let (alpn, name) = (tlv(0x01, b"h2"), tlv(0x02, b"example.com"));
    let bytes = v2(0x21, 0x11, &[&IPV4, &alpn, &name]);
    let Proxied::Complete(header) = parse(&bytes) else {
        panic!()
    };
    let got: Vec<(u8, &[u8])> = header.tlvs().map(|tlv| (tlv.kind, tlv.value)).collect();
    assert_eq!(got, [(1, &b"h2"[..]), (2, b"example.com")]);

    let refused = Proxied::Not(NotProxied::Malformed);
    assert_eq!(parse(&v2(0x21, 0x11, &[&IPV4, &alpn[..4]])), refused, "cut");
    let noop = tlv(0x04, b"");
    assert!(matches!(
        parse(&v2(0x21, 0x11, &[&IPV4, &noop.repeat(TLVS_MAX)])),
        Proxied::Complete(_)
    ));
    assert_eq!(parse(&v2(0x21, 0x11, &[&IPV4, &noop.repeat(TLVS_MAX + 1)])), refused);
}

/// Of the header below with zeros in place of the sum, by a program of its own.
const CHECKSUM: u32 = 0x2169_c096;

#[test]
fn a_checksum_must_be_right_where_there_is_one() {
    let with = |sum: u32| v2(0x21, 0x11, &[&IPV4, &tlv(0x03, &sum.to_be_bytes()), &tlv(0x04, b"x")]);
    assert!(matches!(parse(&with(CHECKSUM)), Proxied::Complete(_)));
    assert_eq!(parse(&with(CHECKSUM ^ 1)), Proxied::Not(NotProxied::Malformed));
    let short = v2(0x21, 0x11, &[&IPV4, &tlv(0x03, b"abc")]);
    assert_eq!(parse(&short), Proxied::Not(NotProxied::Malformed));
}

#[test]
fn other_versions_commands_families_and_lengths_are_refused() {
    for bytes in [
        v2(0x11, 0x11, &[&IPV4]),
        v2(0x22, 0x11, &[&IPV4]),
        v2(0x21, 0x13, &[&IPV4]),
        v2(0x21, 0x41, &[&IPV4]),
        v2(0x21, 0x11, &[&IPV4[..11]]),
        v2(0x21, 0x21, &[&IPV4]),
        v2(0x21, 0x31, &[&IPV4]),
    ] {
        assert_eq!(parse(&bytes), Proxied::Not(NotProxied::Malformed), "{bytes:02x?}");
    }
    let long = v2(0x21, 0x11, &[&IPV4, &[0; HEADER_BYTES_MAX]]);
    assert_eq!(parse(&long[..16]), Proxied::Not(NotProxied::TooLong));
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PROXX", b"\r\n\r\nx"] {
        assert_eq!(parse(bytes), Proxied::Not(NotProxied::NoSignature));
    }
}

#[test]
fn a_front_asks_for_more_and_never_for_too_much() {
    for whole in [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n".to_vec(),
        v2(0x21, 0x11, &[&IPV4, &tlv(1, b"h2")]),
        v2(0x20, 0, &[]),
    ] {
        for len in 0..whole.len() {
            match parse(&whole[..len]) {
                Proxied::Incomplete { bytes_min } => assert!((len + 1..=whole.len()).contains(&bytes_min), "{len}"),
                other => panic!("{len}: {other:?}"),
            }
        }
    }
}
