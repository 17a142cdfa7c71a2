//! What the HTTP tests have in common: endpoints, configurations, bounds.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "what a test cannot go on without")]

use crate::backends::{http1_echo, http2_echo};
use crate::support::{free_addr, http, ir, serve, service};
use gateway_core::ir::UpstreamProtocol::{H2c, Http1};
use gateway_core::ir::{Certificate, Ir, SecretBytes};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// One listener with `/two` on HTTP/2 and `/one` on HTTP/1.1.
pub fn both(certificate: Option<&str>) -> (Ir, SocketAddr) {
    let bind = free_addr();
    let listener = http(bind, certificate, &[("/two", "two", H2c), ("/one", "one", Http1)]);
    let services = vec![
        service("two", &[http2_echo("two")]),
        service("one", &[http1_echo("one")]),
    ];
    (ir(vec![listener], services), bind)
}

/// A certificate for `localhost`, as the configuration and as a client's trusted root.
pub fn certificate_and_root() -> (Certificate, rustls::pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = SecretBytes::new(made.signing_key.serialize_der());
    (
        Certificate {
            chain: vec![made.cert.der().to_vec()],
            key,
        },
        made.cert.der().clone(),
    )
}

pub fn certificate() -> Certificate {
    certificate_and_root().0
}

/// An endpoint that answers with `len` bytes, and how many of them it could send so far.
pub fn fountain(len: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let addr = serve(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n").as_bytes())
            .unwrap();
        let piece = vec![b'x'; 50_000];
        while counter.load(Ordering::Relaxed) < len {
            let piece = &piece[..piece.len().min(len - counter.load(Ordering::Relaxed))];
            if stream.write_all(piece).is_err() {
                return;
            }
            counter.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    (addr, sent)
}

/// Waits until nothing more is taken from the endpoint; returns how much it was.
pub fn settled(sent: &AtomicUsize) -> usize {
    loop {
        let before = sent.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        if before > 0 && before == sent.load(Ordering::Relaxed) {
            return before;
        }
    }
}

pub const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
