//! The splice plane on loopback: what goes in on one side comes out on the other, to the last byte and the FIN.

#![allow(clippy::unwrap_used, reason = "what a test cannot go on without")]

#[path = "support/workers.rs"]
mod support;

use gateway_core::fault::Refusal;
use gateway_core::ir::Ir;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use sluice::telemetry::access_log::{AccessLogOptions, Format, Target};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use support::{Gateway, connect, free_addr, ir, options, passthrough, relay, serve, service};

/// A gateway whose listener at the returned address relays to `endpoints`.
fn relay_to(endpoints: &[SocketAddr]) -> (Gateway, SocketAddr) {
    let (ir, bind) = relay_ir(endpoints);
    (Gateway::start(&ir, options()), bind)
}

fn relay_ir(endpoints: &[SocketAddr]) -> (Ir, SocketAddr) {
    let bind = free_addr();
    (ir(vec![relay(bind, "it")], vec![service("it", endpoints)]), bind)
}

fn read_all(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Bytes that differ from place to place.
fn pattern(at: usize, buffer: &mut [u8]) {
    for (offset, byte) in buffer.iter_mut().enumerate() {
        let at = at + offset;
        *byte = (at ^ at >> 8 ^ at >> 16).wrapping_mul(31) as u8;
    }
}

fn send_pattern(stream: &mut TcpStream, len: usize) {
    let mut buffer = vec![0; 100_000];
    let mut at = 0;
    while at < len {
        let piece = buffer.len().min(len - at);
        pattern(at, &mut buffer[..piece]);
        stream.write_all(&buffer[..piece]).unwrap();
        at += piece;
    }
}

fn check_pattern(stream: &mut TcpStream, len: usize) {
    let (mut buffer, mut expected) = (vec![0; 100_000], vec![0; 100_000]);
    let mut at = 0;
    loop {
        let n = stream.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        pattern(at, &mut expected[..n]);
        assert!(buffer[..n] == expected[..n], "bytes differ at {at}..{}", at + n);
        at += n;
    }
    assert_eq!(at, len);
}

#[test]
fn an_answer_given_after_the_clients_fin_still_arrives() {
    let endpoint = serve(|mut stream| {
        let asked = read_all(&mut stream);
        stream.write_all(&asked).unwrap();
        stream.write_all(b" and the end").unwrap();
    });
    let (gateway, bind) = relay_to(&[endpoint]);
    let mut client = connect(bind);
    client.write_all(b"all of it").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"all of it and the end");
    gateway.expect("no relay left", |report| {
        report.connections.is_empty() && report.relays.resets_total == 0
    });
}

#[test]
fn a_server_that_finishes_first_still_hears_the_client() {
    let (heard, hearing) = mpsc::channel();
    let endpoint = serve(move |mut stream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        heard.send(read_all(&mut stream)).unwrap();
    });
    let (_gateway, bind) = relay_to(&[endpoint]);
    let mut client = connect(bind);
    assert_eq!(read_all(&mut client), b"bye");
    client.write_all(b"one more thing").unwrap();
    drop(client);
    assert_eq!(hearing.recv_timeout(support::PATIENCE).unwrap(), b"one more thing");
}

#[test]
fn a_fin_that_comes_with_data_is_never_lost() {
    let endpoint = serve(|mut stream| {
        let mut asked = [0; 3];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(&asked).unwrap();
    });
    let (_gateway, bind) = relay_to(&[endpoint]);
    for _ in 0..300 {
        let mut client = connect(bind);
        client.write_all(b"abc").unwrap();
        assert_eq!(read_all(&mut client), b"abc");
    }
}

#[test]
fn a_hundred_megabytes_pass_both_ways_at_once_byte_for_byte() {
    const LEN: usize = 100_000_000;
    let endpoint = serve(|stream| {
        let mut sender = stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            send_pattern(&mut sender, LEN);
            sender.shutdown(Shutdown::Write).unwrap();
        });
        check_pattern(&mut { stream }, LEN);
        sending.join().unwrap();
    });
    let (gateway, bind) = relay_to(&[endpoint]);
    let mut client = connect(bind);
    let mut sender = client.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        send_pattern(&mut sender, LEN);
        sender.shutdown(Shutdown::Write).unwrap();
    });
    check_pattern(&mut client, LEN);
    sending.join().unwrap();
    gateway.expect("every byte counted, no relay left", |report| {
        let share = report.relays.listeners[0];
        (share.bytes_up, share.bytes_down, share.connections_active) == (LEN as u64, LEN as u64, 0)
    });
}

#[test]
fn a_receiver_that_does_not_read_stops_the_sender_and_loses_nothing() {
    let taken_max = support::taken_max();
    let len = taken_max + 16_000_000;
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let endpoint = serve(move |mut stream| {
        let mut buffer = vec![0; 50_000];
        let mut at = 0;
        while at < len {
            buffer.truncate(len - at);
            pattern(at, &mut buffer);
            stream.write_all(&buffer).unwrap();
            at += buffer.len();
            SENT.store(at, Ordering::Relaxed);
        }
    });
    let (_gateway, bind) = relay_to(&[endpoint]);
    let mut client = connect(bind);
    let mut first = [0; 1];
    client.read_exact(&mut first).unwrap();
    let mut before = 0;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = SENT.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(
        before < taken_max,
        "{before} bytes were taken for a client that does not read"
    );
    let mut expected = vec![0; 100_000];
    let (mut at, mut buffer) = (1, vec![0; 100_000]);
    while at < len {
        let n = client.read(&mut buffer).unwrap();
        assert!(n > 0, "cut at {at}");
        pattern(at, &mut expected[..n]);
        assert!(buffer[..n] == expected[..n], "bytes differ at {at}");
        at += n;
    }
}

#[test]
fn a_dead_endpoint_costs_a_try_and_not_the_connection() {
    let alive = serve(|mut stream| stream.write_all(b"alive").unwrap());
    let (gateway, bind) = relay_to(&[free_addr(), alive, free_addr()]);
    for _ in 0..6 {
        assert_eq!(read_all(&mut connect(bind)), b"alive");
    }
    assert!(gateway.report().relays.connect_failures_total >= 2);
    assert_eq!(gateway.report().refusals.of(Refusal::NoEndpoint), 0);
}

#[test]
fn without_any_endpoint_the_client_is_reset() {
    let (gateway, bind) = relay_to(&[free_addr()]);
    let mut client = connect(bind);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    gateway.expect_refused(Refusal::NoEndpoint, 1);
}

#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other() {
    let (ended, ending) = mpsc::channel();
    let endpoint = serve(move |mut stream| {
        stream.write_all(b"go").unwrap();
        ended
            .send(stream.read(&mut [0; 16]).map_err(|error| error.kind()))
            .unwrap();
    });
    let (gateway, bind) = relay_to(&[endpoint]);
    let mut client = connect(bind);
    client.read_exact(&mut [0; 2]).unwrap();
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    assert_eq!(
        ending.recv_timeout(support::PATIENCE).unwrap(),
        Err(ErrorKind::ConnectionReset)
    );
    gateway.expect("no relay left", |report| {
        report.connections_active == 0 && report.relays.resets_total == 1
    });
}

#[test]
fn a_relay_without_traffic_ends_after_its_time() {
    let endpoint = serve(|mut stream| drop(stream.read(&mut [0])));
    let (ir, bind) = relay_ir(&[endpoint]);
    let mut options = options();
    options.relay.idle_timeout = Duration::from_millis(100);
    let gateway = Gateway::start(&ir, options);
    let mut client = connect(bind);
    let began = Instant::now();
    assert!(client.read(&mut [0]).is_err());
    assert!(began.elapsed() >= Duration::from_millis(90));
    gateway.expect("one idle relay", |report| report.relays.idle_total == 1);
}

#[test]
fn a_connection_to_no_listener_is_closed_and_counted() {
    let (gateway, _) = relay_to(&[free_addr()]);
    // A lookup socket, reached directly: its own address is nobody's listener.
    let lookup = gateway.workers.lookup_sockets()[0];
    assert!(!lookup.ipv6);
    let addr = lookup.addr;
    let mut client = connect(addr);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    gateway.expect_refused(Refusal::NoListener, 1);
}

#[test]
fn what_is_live_can_be_seen() {
    let endpoint = serve(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let (gateway, bind) = relay_to(&[endpoint]);
    let mut client = connect(bind);
    client.write_all(b"12345").unwrap();
    gateway.expect("a view", |report| {
        report.connections.iter().any(|view| view.bytes_in == 5)
    });
    let view = gateway.report().connections.remove(0);
    assert_eq!(
        (view.protocol, view.peer, view.local),
        ("tcp", client.local_addr().unwrap(), bind)
    );
    assert_eq!(gateway.workers.live(), 1);
    assert_eq!(gateway.report().relays.endpoints[0].connections_active, 1);
}

#[test]
fn the_access_log_has_a_line_for_each_connection() {
    let endpoint = serve(|mut stream| {
        let asked = read_all(&mut stream);
        stream.write_all(&asked).unwrap();
    });
    let (bind, dead) = (free_addr(), free_addr());
    let services = vec![service("it", &[endpoint]), service("dead", &[free_addr()])];
    let ir = ir(vec![relay(bind, "it"), relay(dead, "dead")], services);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut options = options();
    options.access_log = AccessLogOptions {
        format: Format::Text,
        target: Target::File(path.clone()),
        ..AccessLogOptions::default()
    };
    let gateway = Gateway::start(&ir, options);
    let mut client = connect(bind);
    client.write_all(b"12345").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"12345");
    assert!(connect(dead).read(&mut [0]).is_err());
    gateway.expect_refused(Refusal::NoEndpoint, 1);
    gateway.expect("no relay left", |report| report.connections_active == 0);
    drop(gateway);
    let text = std::fs::read_to_string(path).unwrap();
    let [served, refused] = text.lines().collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    assert!(
        served.contains("\"- - -\" 0 - 5 5 ") && served.ends_with(&format!("\"{endpoint}\"")),
        "{served}"
    );
    assert!(refused.contains("\"- - -\" 0 UF 0 0 "), "{refused}");
}

#[test]
fn a_drain_refuses_new_connections_and_leaves_the_open_ones() {
    let endpoint = serve(|mut stream| {
        let asked = read_all(&mut stream);
        stream.write_all(&asked).unwrap();
    });
    let (gateway, bind) = relay_to(&[endpoint]);
    let mut client = connect(bind);
    client.write_all(b"still").unwrap();
    gateway.expect("the relay", |report| report.connections_active == 1);
    gateway.workers.drain();
    gateway.expect("draining", |report| report.draining);
    assert_eq!(
        TcpStream::connect(bind).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"still");
    gateway.expect("idle", |report| report.connections_active == 0);
}

// === TLS passthrough ===

/// A TLS server that answers with its own name.
fn tls_endpoint(name: &'static str) -> (SocketAddr, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let addr = serve(move |stream| {
        let mut tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        let _ = tls.write_all(name.as_bytes());
        tls.conn.send_close_notify();
        let _ = tls.flush();
    });
    (addr, made.cert.der().clone())
}

fn tls_client(name: &'static str, trusted: &CertificateDer<'static>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap()
}

#[test]
fn a_server_name_leads_to_its_endpoint_and_the_handshake_is_with_the_endpoint() {
    let ((one, one_certificate), (two, two_certificate)) = (tls_endpoint("one.example"), tls_endpoint("x.two.example"));
    let bind = free_addr();
    let listener = passthrough(bind, &[("one.example", "one"), ("*.two.example", "two")]);
    let gateway = Gateway::start(
        &ir(vec![listener], vec![service("one", &[one]), service("two", &[two])]),
        options(),
    );
    for (name, certificate) in [("one.example", &one_certificate), ("x.two.example", &two_certificate)] {
        let mut tls = StreamOwned::new(tls_client(name, certificate), connect(bind));
        assert_eq!(read_all(&mut tls), name.as_bytes());
    }
    let mut stranger = StreamOwned::new(tls_client("three.example", &one_certificate), connect(bind));
    assert!(stranger.read(&mut [0]).is_err());
    gateway.expect_refused(Refusal::NoServerName, 1);
}

#[test]
fn a_hello_that_comes_byte_by_byte_is_read_and_passed_on_whole() {
    let (endpoint, certificate) = tls_endpoint("one.example");
    let bind = free_addr();
    let listener = passthrough(bind, &[("one.example", "one")]);
    let _gateway = Gateway::start(&ir(vec![listener], vec![service("one", &[endpoint])]), options());
    let (mut client, mut tls) = (connect(bind), tls_client("one.example", &certificate));
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    for byte in &hello {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_all(&mut StreamOwned::new(tls, client)), b"one.example");
}

#[test]
fn what_is_not_tls_is_turned_away_and_so_is_silence() {
    let bind = free_addr();
    let listener = passthrough(bind, &[("one.example", "one")]);
    let mut options = options();
    options.relay.hello_timeout = Duration::from_millis(100);
    let gateway = Gateway::start(&ir(vec![listener], vec![service("one", &[free_addr()])]), options);
    let mut client = connect(bind);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    gateway.expect_refused(Refusal::NotTls, 1);
    let mut silent = connect(bind);
    assert!(matches!(silent.read(&mut [0]), Ok(0) | Err(_)));
    gateway.expect_refused(Refusal::Silent, 1);
}

#[test]
fn every_address_of_both_families_is_served_by_one_listener() {
    let endpoint = serve(|mut stream| stream.write_all(b"hi").unwrap());
    let (mut ir, bind) = relay_ir(&[endpoint]);
    let (_, mut listener) = ir.listeners.pop_first().unwrap();
    listener.bind.addr = None;
    ir.listeners.insert(listener.bind, listener);
    let _gateway = Gateway::start(&ir, options());
    for address in ["127.0.0.1", "127.0.0.2", "::1"] {
        let addr = SocketAddr::new(address.parse().unwrap(), bind.port());
        assert_eq!(read_all(&mut connect(addr)), b"hi", "{addr}");
    }
}

#[test]
fn a_listener_that_leaves_is_closed_and_one_that_cannot_be_had_is_reported() {
    let endpoint = serve(|mut stream| stream.write_all(b"hi").unwrap());
    let (old, new) = (free_addr(), free_addr());
    let services = || vec![service("it", &[endpoint])];
    let mut gateway = Gateway::start(&ir(vec![relay(old, "it")], services()), options());
    assert_eq!(read_all(&mut connect(old)), b"hi");
    gateway.publish(&ir(vec![relay(new, "it")], services()));
    assert_eq!(read_all(&mut connect(new)), b"hi");
    gateway.report();
    assert_eq!(
        TcpStream::connect(old).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );

    let taken = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let _holder = std::net::TcpListener::bind(taken).unwrap();
    let stranger = gateway_core::ir::Bind::tcp("192.0.2.123:80".parse().unwrap());
    let failed = gateway.workers.listen(&[
        gateway_core::ir::Bind::tcp(new),
        gateway_core::ir::Bind::tcp(taken),
        stranger,
    ]);
    assert_eq!(failed.len(), 2);
    assert!(failed[&gateway_core::ir::Bind::tcp(taken)].contains("another process listens there"));
    assert!(failed[&stranger].contains("the address is on no interface"));
    assert_eq!(read_all(&mut connect(new)), b"hi");
}

#[test]
fn two_workers_share_a_listener() {
    let endpoint = serve(|mut stream| stream.write_all(b"hi").unwrap());
    let (ir, bind) = relay_ir(&[endpoint]);
    let mut options = options();
    options.workers = 2;
    let gateway = Gateway::start(&ir, options);
    for _ in 0..64 {
        assert_eq!(read_all(&mut connect(bind)), b"hi");
    }
    let reports = gateway.workers.inspect(false, support::PATIENCE);
    let counts: Vec<_> = reports
        .iter()
        .map(|report| report.relays.listeners[0].connections_total)
        .collect();
    assert_eq!(counts.iter().sum::<u64>(), 64);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
