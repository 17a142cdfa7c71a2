//! HTTPS listeners on loopback: handshakes good and bad, backpressure and the end of a connection.

#![allow(clippy::unwrap_used, reason = "what a test cannot go on without")]

#[path = "support/backends.rs"]
mod backends;
#[path = "support/workers.rs"]
mod support;
#[path = "support/web.rs"]
mod web;

use gateway_core::ir::UpstreamProtocol::Http1;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{Gateway, connect, free_addr, http, ir, options, serve, service, taken_max, with_certificate};
use web::{GET, both, certificate, certificate_and_root, fountain, settled};

/// A TLS client that trusts `root`.
fn client(bind: SocketAddr, root: &CertificateDer<'static>) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(session, connect(bind))
}

/// An HTTPS gateway in front of one HTTP/1.1 endpoint.
fn https_to(endpoint: SocketAddr) -> (Gateway, SocketAddr, CertificateDer<'static>) {
    let bind = free_addr();
    let (certificate, root) = certificate_and_root();
    let ir = ir(
        vec![http(bind, Some("it"), &[("/", "it", Http1)])],
        vec![service("it", &[endpoint])],
    );
    (
        Gateway::start(&with_certificate(ir, "it", certificate), options()),
        bind,
        root,
    )
}

#[test]
fn tls_clients_come_back_with_a_ticket() {
    let (ir, bind) = both(Some("it"));
    let ir = with_certificate(ir, "it", certificate());
    let mut gateway = Gateway::start(&ir, options());
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session");
    let s_client = |direction: &str| {
        let script = format!(
            "printf 'GET /one HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n' | openssl s_client -connect {bind} \
             -alpn http/1.1 -ign_eof {direction} {} 2>&1",
            session.display()
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let first = s_client("-sess_out");
    assert!(first.contains("HTTP/1.1 200"), "{first}");
    gateway.publish(&ir);
    let second = s_client("-sess_in");
    assert!(second.contains("Reused, TLSv1.3"), "{second}");
    assert!(second.contains("HTTP/1.1 200"), "{second}");
    assert_eq!(gateway.report().tls.resumed_total, 1);
}

#[test]
fn what_is_not_tls_on_an_https_port_is_turned_away_by_name() {
    let (ir, bind) = both(Some("it"));
    let gateway = Gateway::start(&with_certificate(ir, "it", certificate()), options());
    let mut client = connect(bind);
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let _ = client.read_to_end(&mut Vec::new());
    gateway.expect_refused(gateway_core::fault::Refusal::NotTls, 1);
}

#[test]
fn a_silent_handshake_ends_after_its_time() {
    let (ir, bind) = both(Some("it"));
    let mut options = options();
    options.handshake_timeout = std::time::Duration::from_millis(100);
    let gateway = Gateway::start(&with_certificate(ir, "it", certificate()), options);
    let mut client = connect(bind);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    gateway.expect_refused(gateway_core::fault::Refusal::Silent, 1);
    assert_eq!(gateway.workers.live(), 0);
}

#[test]
fn a_client_that_does_not_read_stops_the_endpoint() {
    let len = taken_max() + 16_000_000;
    let (endpoint, sent) = fountain(len);
    let (_gateway, bind, root) = https_to(endpoint);
    let mut client = client(bind, &root);
    client.write_all(GET).unwrap();
    assert!(settled(&sent) < taken_max(), "{} bytes", sent.load(Ordering::Relaxed));
    let mut answer = Vec::new();
    // Ends without an error only if the gateway said close_notify.
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.iter().rev().take_while(|byte| **byte == b'x').count(), len);
}

#[test]
fn an_answer_arrives_though_the_client_has_said_that_it_is_done() {
    let endpoint = serve(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        std::thread::sleep(Duration::from_millis(100));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
            .unwrap();
    });
    let (_gateway, bind, root) = https_to(endpoint);
    let mut client = client(bind, &root);
    client.write_all(GET).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    std::thread::sleep(Duration::from_millis(30));
    client.sock.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"done"), "{}", String::from_utf8_lossy(&answer));
}
