//! TLS that ends at the splice plane, on loopback: what a client says under TLS an endpoint hears, to the last byte and
//! the end, and nobody else does.

#![allow(clippy::unwrap_used, reason = "what a test cannot go on without")]

#[path = "support/tls.rs"]
mod peers;
#[path = "support/workers.rs"]
mod support;

use gateway_core::fault::Refusal;
use gateway_core::ir::{Ir, ListenerTls, Plane, UpstreamProtocol};
use peers::{Authority, Client, connected, ends, rule, sealed, tls_port};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use support::{Gateway, connect, free_addr, http, ir, options, relay, serve, service, taken_max, with_certificate};

const NAME: &str = "a.example";

/// TLS for [`NAME`] ends at the returned address, and is relayed to `endpoint`.
fn ended(authority: &Authority, endpoint: SocketAddr) -> (Ir, SocketAddr) {
    let bind = free_addr();
    let rules = vec![rule(Some(NAME), Some("it"), ends("cert", ListenerTls::default()))];
    let ir = ir(vec![tls_port(bind, rules)], vec![service("it", &[endpoint])]);
    (with_certificate(ir, "cert", authority.certificate(&[NAME])), bind)
}

fn read_all(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Says that nothing follows, as TLS does it.
fn close(client: &mut Client) {
    client.conn.send_close_notify();
    client.flush().unwrap();
}

/// An endpoint that says everything again once it heard the end.
fn echo() -> SocketAddr {
    serve(|mut stream| {
        let asked = read_all(&mut stream);
        stream.write_all(&asked).unwrap();
    })
}

#[test]
fn a_close_notify_is_a_fin_for_the_endpoint_and_its_fin_a_close_notify() {
    let authority = Authority::new();
    let (ir, bind) = ended(&authority, echo());
    let gateway = Gateway::start(&ir, options());
    let mut client = authority.client(bind, NAME);
    client.write_all(b"all of it").unwrap();
    close(&mut client);
    // An error without close_notify.
    assert_eq!(read_all(&mut client), b"all of it");
    gateway.expect("no relay left", |report| {
        report.connections_active == 0 && report.relays.resets_total + report.relays.cut_total == 0
    });
    assert_eq!(gateway.report().tls.handshakes_total, 1);
}

#[test]
fn an_endpoint_that_speaks_first_and_ends_first_is_heard_and_still_hears() {
    let authority = Authority::new();
    let (heard, hearing) = mpsc::channel();
    let endpoint = serve(move |mut stream| {
        stream.write_all(b"welcome").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        heard.send(read_all(&mut stream)).unwrap();
    });
    let (ir, bind) = ended(&authority, endpoint);
    let _gateway = Gateway::start(&ir, options());
    let mut client = authority.client(bind, NAME);
    assert_eq!(read_all(&mut client), b"welcome");
    client.write_all(b"one more thing").unwrap();
    close(&mut client);
    assert_eq!(hearing.recv_timeout(support::PATIENCE).unwrap(), b"one more thing");
}

#[test]
fn what_is_said_without_an_end_arrives_and_is_counted_as_cut() {
    let authority = Authority::new();
    let (heard, hearing) = mpsc::channel();
    let endpoint = serve(move |mut stream| heard.send(read_all(&mut stream)).unwrap());
    let (ir, bind) = ended(&authority, endpoint);
    let gateway = Gateway::start(&ir, options());
    let mut client = authority.client(bind, NAME);
    client.write_all(b"no goodbye").unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hearing.recv_timeout(support::PATIENCE).unwrap(), b"no goodbye");
    gateway.expect("one relay was cut", |report| report.relays.cut_total == 1);
}

#[test]
fn an_endpoint_whose_tls_is_cut_is_not_made_whole_for_the_client() {
    let authority = Authority::new();
    let endpoint = authority.server(&["b.example"], |mut tls| {
        tls.write_all(b"half of").unwrap();
        tls.sock.shutdown(Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_millis(500));
    });
    let (mut ir, bind) = ended(&authority, endpoint);
    let it = sealed(service("it", &[endpoint]), authority.backend_tls("b.example"));
    ir.services.insert(it.name.clone(), it.into());
    let _gateway = Gateway::start(&ir, options());
    let mut client = authority.client(bind, NAME);
    let mut got = Vec::new();
    let ended = client.read_to_end(&mut got);
    assert_eq!(
        (got.as_slice(), ended.unwrap_err().kind()),
        (&b"half of"[..], ErrorKind::UnexpectedEof)
    );
}

/// Bytes that differ from place to place.
fn pattern(at: usize, len: usize) -> Vec<u8> {
    (at..at + len)
        .map(|at| (at ^ at >> 8 ^ at >> 16).wrapping_mul(31) as u8)
        .collect()
}

/// Sends `len` bytes while it reads them back.
fn both_ways(mut client: Client, len: usize) {
    const PIECE: usize = 50_000;
    let mut got = 0;
    let mut buffer = vec![0; PIECE];
    // As much is under way as both sockets hold anyway: neither side waits for the other.
    let mut read = |client: &mut Client, until: usize| {
        while got < until {
            let n = client.read(&mut buffer).unwrap();
            assert!(n > 0, "cut at {got}");
            assert!(buffer[..n] == pattern(got, n), "bytes differ at {got}..{}", got + n);
            got += n;
        }
    };
    for at in (0..len).step_by(PIECE) {
        client.write_all(&pattern(at, PIECE)).unwrap();
        read(&mut client, at.saturating_sub(8 * PIECE));
    }
    close(&mut client);
    read(&mut client, len);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

/// Says everything again as it comes.
fn reflect(mut stream: impl Read + Write) {
    let mut buffer = vec![0; 70_000];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return,
            n => stream.write_all(&buffer[..n]).unwrap(),
        }
    }
}

#[test]
fn a_hundred_megabytes_pass_both_ways_byte_for_byte() {
    const LEN: usize = 100_000_000;
    let authority = Authority::new();
    let (ir, bind) = ended(&authority, serve(reflect));
    let gateway = Gateway::start(&ir, options());
    both_ways(authority.client(bind, NAME), LEN);
    gateway.expect("every byte counted, no relay left", |report| {
        let share = report.relays.listeners[0];
        (share.bytes_up, share.bytes_down, share.connections_active) == (LEN as u64, LEN as u64, 0)
    });
}

#[test]
fn what_was_sealed_is_sealed_again_for_an_endpoint_that_speaks_tls() {
    const LEN: usize = 10_000_000;
    let authority = Authority::new();
    let endpoint = authority.server(&["b.example"], |mut tls| {
        reflect(&mut tls);
        tls.conn.send_close_notify();
        let _ = tls.flush();
    });
    let (mut ir, bind) = ended(&authority, endpoint);
    let it = sealed(service("it", &[endpoint]), authority.backend_tls("b.example"));
    ir.services.insert(it.name.clone(), it.into());
    let gateway = Gateway::start(&ir, options());
    both_ways(authority.client(bind, NAME), LEN);
    gateway.expect("no relay left", |report| report.connections_active == 0);
    assert_eq!(gateway.report().tls.upstream_handshakes_total, 1);
    assert_eq!(gateway.report().relays.cut_total, 0);
}

#[test]
fn a_plain_connection_is_sealed_for_an_endpoint_that_speaks_tls() {
    let authority = Authority::new();
    let endpoint = authority.server(&["b.example"], |mut tls| {
        reflect(&mut tls);
        tls.conn.send_close_notify();
        let _ = tls.flush();
    });
    let bind = free_addr();
    let it = sealed(service("it", &[endpoint]), authority.backend_tls("b.example"));
    let gateway = Gateway::start(&ir(vec![relay(bind, "it")], vec![it]), options());
    let mut client = connect(bind);
    client.write_all(b"in the clear").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"in the clear");
    gateway.expect("no relay left", |report| report.connections_active == 0);
}

#[test]
fn an_endpoint_that_is_somebody_else_is_left_for_another_and_never_spoken_to_in_plain_text() {
    let authority = Authority::new();
    let (heard, hearing) = mpsc::channel();
    let plain = serve(move |mut stream| {
        let mut first = [0; 5];
        let _ = stream.read_exact(&mut first);
        heard.send(first).unwrap();
    });
    let stranger = authority.server(&["c.example"], reflect);
    let right = authority.server(&["b.example"], |mut tls| {
        let _ = tls.write_all(b"it is me");
        tls.conn.send_close_notify();
        let _ = tls.flush();
    });
    let (mut ir, bind) = ended(&authority, right);
    let it = sealed(
        service("it", &[plain, stranger, right]),
        authority.backend_tls("b.example"),
    );
    ir.services.insert(it.name.clone(), it.into());
    let mut options = options();
    options.relay.connect_timeout = Duration::from_secs(1);
    let gateway = Gateway::start(&ir, options);
    for _ in 0..3 {
        assert_eq!(read_all(&mut authority.client(bind, NAME)), b"it is me");
    }
    assert!(gateway.report().tls.upstream_failures_total >= 2);
    let first = hearing.recv_timeout(support::PATIENCE).unwrap();
    assert_eq!(
        first[..2],
        [22, 3],
        "a TLS handshake record, and no word of the client's"
    );
}

#[test]
fn without_an_endpoint_that_can_be_believed_the_client_is_refused() {
    let authority = Authority::new();
    let stranger = authority.server(&["c.example"], reflect);
    let (mut ir, bind) = ended(&authority, stranger);
    let it = sealed(service("it", &[stranger]), authority.backend_tls("b.example"));
    ir.services.insert(it.name.clone(), it.into());
    let gateway = Gateway::start(&ir, options());
    let mut client = authority.client(bind, NAME);
    let _ = client.write_all(b"secret");
    assert!(client.read(&mut [0]).is_err());
    gateway.expect_refused(Refusal::NoEndpoint, 1);
}

#[test]
fn names_of_one_port_end_here_or_pass_through_each_as_its_listener_says() {
    let authority = Authority::new();
    let behind = authority.server(&["pass.example"], |mut tls| {
        let _ = tls.write_all(b"passed through");
        tls.conn.send_close_notify();
        let _ = tls.flush();
    });
    let plain = serve(|mut stream| stream.write_all(b"ended here").unwrap());
    let bind = free_addr();
    let rules = vec![
        rule(Some("a.example"), Some("plain"), ends("cert", ListenerTls::default())),
        rule(Some("pass.example"), Some("behind"), None),
        rule(Some("*.a.example"), None, None),
        rule(None, Some("plain"), ends("cert", ListenerTls::default())),
    ];
    // A policy has no say where TLS passes through.
    let behind = sealed(service("behind", &[behind]), authority.backend_tls("nobody.example"));
    let ir = ir(vec![tls_port(bind, rules)], vec![service("plain", &[plain]), behind]);
    let certificate = authority.certificate(&["a.example", "other.example", "x.a.example"]);
    let gateway = Gateway::start(&with_certificate(ir, "cert", certificate), options());
    assert_eq!(read_all(&mut authority.client(bind, "a.example")), b"ended here");
    assert_eq!(read_all(&mut authority.client(bind, "pass.example")), b"passed through");
    assert_eq!(read_all(&mut authority.client(bind, "other.example")), b"ended here");
    // A listener without a route for its names does not lend them to a less specific one.
    assert!(authority.client(bind, "x.a.example").read(&mut [0]).is_err());
    gateway.expect_refused(Refusal::NoServerName, 1);
}

#[test]
fn a_client_shows_who_it_is_where_that_is_asked() {
    let authority = Authority::new();
    let endpoint = serve(|mut stream| stream.write_all(b"hello").unwrap());
    let bind = free_addr();
    let rules = vec![
        rule(Some(NAME), Some("it"), ends("cert", authority.validation())),
        rule(Some("open.example"), Some("it"), ends("cert", ListenerTls::default())),
    ];
    let ir = ir(vec![tls_port(bind, rules)], vec![service("it", &[endpoint])]);
    let certificate = authority.certificate(&[NAME, "open.example"]);
    let gateway = Gateway::start(&with_certificate(ir, "cert", certificate), options());
    let mut known = connected(authority.client_config(Some("me.example")), bind, NAME);
    assert_eq!(read_all(&mut known), b"hello");
    assert_eq!(read_all(&mut authority.client(bind, "open.example")), b"hello");
    // In TLS 1.3 a client learns it when it reads, and by an alert, not a reset.
    let error = authority.client(bind, NAME).read(&mut [0]).unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    gateway.expect_refused(Refusal::Handshake, 1);
    assert_eq!(gateway.report().relays.endpoints[0].connections_total, 2);
}

#[test]
fn a_handshake_that_stops_ends_after_its_time_and_counts_as_under_way_until_then() {
    let authority = Authority::new();
    let (ir, bind) = ended(&authority, echo());
    let mut options = options();
    options.handshake_timeout = Duration::from_secs(2);
    options.handshakes_max = 1;
    let gateway = Gateway::start(&ir, options);
    let mut silent = connect(bind);
    let mut session = authority.client(bind, NAME).conn;
    session.write_tls(&mut silent).unwrap();
    gateway.expect("a handshake", |report| report.tls.handshakes_active == 1);
    let mut second = authority.client(bind, NAME);
    assert!(second.write_all(b"x").and_then(|()| second.read(&mut [0])).is_err());
    gateway.expect_refused(Refusal::TooMany, 1);
    gateway.expect_refused(Refusal::Silent, 1);
    gateway.expect("none", |report| {
        report.tls.handshakes_active == 0 && report.connections_active == 0
    });
}

#[test]
fn what_is_no_tls_is_turned_away() {
    let authority = Authority::new();
    let (ir, bind) = ended(&authority, echo());
    let gateway = Gateway::start(&ir, options());
    let mut client = connect(bind);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    gateway.expect_refused(Refusal::NotTls, 1);
    assert!(authority.client(bind, "other.example").read(&mut [0]).is_err());
    gateway.expect_refused(Refusal::NoServerName, 1);
}

#[test]
fn a_client_that_does_not_read_stops_the_endpoint_and_loses_nothing() {
    let len = taken_max() + 16_000_000;
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let endpoint = serve(move |mut stream| {
        for at in (0..len).step_by(50_000) {
            stream.write_all(&pattern(at, 50_000.min(len - at))).unwrap();
            SENT.store(at, Ordering::Relaxed);
        }
    });
    let authority = Authority::new();
    let (ir, bind) = ended(&authority, endpoint);
    let _gateway = Gateway::start(&ir, options());
    let mut client = authority.client(bind, NAME);
    client.read_exact(&mut [0]).unwrap();
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
        before < taken_max(),
        "{before} bytes were taken for a client that does not read"
    );
    let rest = read_all(&mut client);
    assert!(rest == pattern(1, len - 1), "bytes differ");
}

#[test]
fn a_renewed_certificate_serves_new_connections_and_touches_no_open_one() {
    let authority = Authority::new();
    let (ir, bind) = ended(&authority, serve(reflect));
    let mut gateway = Gateway::start(&ir, options());
    let mut old = authority.client(bind, NAME);
    old.write_all(b"before").unwrap();
    old.read_exact(&mut [0; 6]).unwrap();
    let renewed = authority.certificate(&[NAME]);
    let expected = renewed.chain[0].clone();
    gateway.publish(&with_certificate(ir, "cert", renewed));
    let mut new = authority.client(bind, NAME);
    new.write_all(b"after").unwrap();
    new.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(new.conn.peer_certificates().unwrap()[0].to_vec(), expected);
    assert_ne!(old.conn.peer_certificates().unwrap()[0].to_vec(), expected);
    old.write_all(b"still").unwrap();
    let mut still = [0; 5];
    old.read_exact(&mut still).unwrap();
    assert_eq!(&still, b"still");
    close(&mut old);
    assert_eq!(read_all(&mut old), b"");
    drop(gateway);
}

#[test]
fn a_drain_leaves_open_connections_alone() {
    let authority = Authority::new();
    let (ir, bind) = ended(&authority, serve(reflect));
    let gateway = Gateway::start(&ir, options());
    let mut client = authority.client(bind, NAME);
    client.write_all(b"one").unwrap();
    client.read_exact(&mut [0; 3]).unwrap();
    gateway.workers.drain();
    gateway.expect("draining", |report| report.draining);
    assert_eq!(
        TcpStream::connect(bind).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    client.write_all(b"two").unwrap();
    close(&mut client);
    assert_eq!(read_all(&mut client), b"two");
    gateway.expect("idle", |report| report.connections_active == 0);
}

#[test]
fn what_is_live_can_be_seen() {
    let authority = Authority::new();
    let bind = free_addr();
    let rules = vec![rule(Some(NAME), Some("it"), ends("cert", authority.validation()))];
    let ir = ir(vec![tls_port(bind, rules)], vec![service("it", &[serve(reflect)])]);
    let gateway = Gateway::start(&with_certificate(ir, "cert", authority.certificate(&[NAME])), options());
    let mut client = connected(authority.client_config(Some("me.example")), bind, NAME);
    client.write_all(b"12345").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    let view = gateway.report().connections.remove(0);
    assert_eq!((view.protocol, view.bytes_in, view.bytes_out), ("tls", 5, 5));
    assert_eq!(
        (view.server_name.as_deref(), view.identity.as_deref()),
        (Some(NAME), Some("me.example"))
    );
    assert_eq!(view.plane, gateway_core::model::LivePlane::Splice);
}

#[test]
fn a_silent_relay_ends_after_its_time() {
    let authority = Authority::new();
    let (ir, bind) = ended(&authority, serve(reflect));
    let mut options = options();
    options.relay.idle_timeout = Duration::from_millis(200);
    let gateway = Gateway::start(&ir, options);
    let mut client = authority.client(bind, NAME);
    let began = Instant::now();
    assert!(client.read(&mut [0]).is_err());
    assert!(began.elapsed() >= Duration::from_millis(190));
    gateway.expect("one idle relay", |report| report.relays.idle_total == 1);
}

// === Beside HTTPS ===

#[test]
fn an_https_port_gives_the_names_of_its_tls_listeners_to_them_and_keeps_its_own() {
    let authority = Authority::new();
    let web = serve(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nweb")
            .unwrap();
    });
    let plain = serve(|mut stream| stream.write_all(b"ended here").unwrap());
    let behind = authority.server(&["pass.example"], |mut tls| {
        let _ = tls.write_all(b"passed through");
        tls.conn.send_close_notify();
        let _ = tls.flush();
    });
    let bind = free_addr();
    let mut listener = http(bind, Some("cert"), &[("/", "web", UpstreamProtocol::Http1)]);
    let Plane::Http(rules) = &mut listener.plane else {
        panic!()
    };
    rules.streams = vec![
        rule(
            Some("tls.example"),
            Some("plain"),
            ends("other", ListenerTls::default()),
        ),
        rule(Some("pass.example"), Some("behind"), None),
        rule(Some("none.example"), None, None),
    ];
    let services = vec![
        service("web", &[web]),
        service("plain", &[plain]),
        service("behind", &[behind]),
    ];
    let ir = with_certificate(
        ir(vec![listener], services),
        "cert",
        authority.certificate(&["web.example"]),
    );
    let ir = with_certificate(ir, "other", authority.certificate(&["tls.example"]));
    let gateway = Gateway::start(&ir, options());
    let ask = |host: &str| {
        let mut client = authority.client(bind, "web.example");
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        String::from_utf8(read_all(&mut client)).unwrap()
    };
    assert!(ask("web.example").ends_with("\r\n\r\nweb"));
    assert_eq!(read_all(&mut authority.client(bind, "tls.example")), b"ended here");
    assert_eq!(read_all(&mut authority.client(bind, "pass.example")), b"passed through");
    assert!(authority.client(bind, "none.example").read(&mut [0]).is_err());
    gateway.expect_refused(Refusal::NoServerName, 1);
    // A request for such a name came to the wrong listener.
    assert!(ask("tls.example").starts_with("HTTP/1.1 421 "));
    gateway.expect("nothing left", |report| report.connections_active == 0);
    assert_eq!(gateway.report().tls.handshakes_active, 0);
}
