//! The HTTP plane on loopback, with clients that nobody here wrote: curl, h2load, grpcio.

#![allow(clippy::unwrap_used, reason = "what a test cannot go on without")]

#[path = "support/backends.rs"]
mod backends;
#[path = "support/workers.rs"]
mod support;
#[path = "support/web.rs"]
mod web;

use backends::{http1_echo, http2_echo};
use gateway_core::ir::UpstreamProtocol::{H2c, Http1};
use gateway_core::ir::{Certificate, SecretBytes};
use sluice::telemetry::access_log::{AccessLogOptions, Format, Target};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::Ordering;
use support::{Gateway, connect, free_addr, http, ir, options, service, taken_max, with_certificate};
use web::{GET, both, certificate, fountain, settled};

/// What curl printed: the body, then the status, the protocol version and some fields.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    body: String,
    status: u16,
    version: String,
    endpoint: String,
}

#[track_caller]
fn curl(arguments: &[&str], url: &str) -> Answer {
    let format = "\n%{http_code} %{http_version} %header{x-endpoint}";
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--write-out", format])
        .args(arguments)
        .arg(url)
        .output()
        .expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "curl {url}: {} {text}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (body, rest) = text.rsplit_once('\n').unwrap();
    let mut words = rest.split(' ').map(str::to_owned);
    Answer {
        body: body.to_owned(),
        status: words.next().unwrap().parse().unwrap(),
        version: words.next().unwrap(),
        endpoint: words.next().unwrap_or_default(),
    }
}

#[track_caller]
fn check_every_pairing(scheme: &str, bind: SocketAddr, tls: &[&str], protocols: &[(&[&str], &str)]) {
    for (protocol, version) in protocols {
        for endpoint in ["two", "one"] {
            let url = format!("{scheme}://localhost:{}/{endpoint}/x", bind.port());
            let resolve = format!("localhost:{}:127.0.0.1", bind.port());
            let mut arguments = vec!["--resolve", &resolve, "--data-binary", "hello"];
            arguments.extend_from_slice(tls);
            arguments.extend_from_slice(protocol);
            let expected = Answer {
                body: "hello".to_owned(),
                status: 200,
                version: (*version).to_owned(),
                endpoint: endpoint.to_owned(),
            };
            assert_eq!(curl(&arguments, &url), expected, "{protocol:?} to {endpoint}");
        }
    }
}

#[test]
fn curl_speaks_every_protocol_to_every_endpoint() {
    let (ir, bind) = both(None);
    let _gateway = Gateway::start(&ir, options());
    check_every_pairing(
        "http",
        bind,
        &[],
        &[(&["--http2-prior-knowledge"], "2"), (&["--http1.1"], "1.1")],
    );
}

#[test]
fn curl_speaks_every_protocol_over_tls() {
    let (ir, bind) = both(Some("it"));
    let gateway = Gateway::start(&with_certificate(ir, "it", certificate()), options());
    let protocols: &[(&[&str], &str)] = &[
        (&["--http2"], "2"),
        (&["--http1.1"], "1.1"),
        (&["--no-alpn", "--http1.1"], "1.1"),
        (&["--tls-max", "1.2"], "2"),
    ];
    check_every_pairing("https", bind, &["--insecure"], protocols);
    assert_eq!(gateway.report().tls.handshakes_total, 8);
}

#[test]
fn what_no_route_matches_is_404() {
    let (ir, bind) = both(None);
    let _gateway = Gateway::start(&ir, options());
    let answer = curl(&["--http2-prior-knowledge"], &format!("http://{bind}/other"));
    assert_eq!((answer.status, answer.version.as_str()), (404, "2"));
    let answer = curl(&["--http1.1"], &format!("http://{bind}/other"));
    assert_eq!((answer.status, answer.version.as_str()), (404, "1.1"));
}

#[test]
fn a_service_without_a_living_endpoint_is_503() {
    let bind = free_addr();
    let listener = http(bind, None, &[("/", "dead", H2c)]);
    let _gateway = Gateway::start(&ir(vec![listener], vec![service("dead", &[free_addr()])]), options());
    for _ in 0..3 {
        assert_eq!(
            curl(&["--http2-prior-knowledge"], &format!("http://{bind}/")).status,
            503
        );
    }
}

#[test]
fn twenty_megabytes_come_back_as_they_went() {
    let (ir, bind) = both(Some("it"));
    let plain = free_addr();
    let mut ir = with_certificate(ir, "it", certificate());
    let listener = http(plain, None, &[("/two", "two", H2c), ("/one", "one", Http1)]);
    ir.listeners.insert(listener.bind, listener);
    let _gateway = Gateway::start(&ir, options());
    let folder = tempfile::tempdir().unwrap();
    let (sent, got) = (folder.path().join("sent"), folder.path().join("got"));
    let bytes: Vec<u8> = (0..20_000_000u32)
        .map(|n| (n ^ n >> 8 ^ n >> 16).wrapping_mul(31) as u8)
        .collect();
    std::fs::write(&sent, &bytes).unwrap();
    for (scheme, bind, protocol) in [
        ("http", plain, "--http2-prior-knowledge"),
        ("http", plain, "--http1.1"),
        ("https", bind, "--http2"),
        ("https", bind, "--http1.1"),
    ] {
        for endpoint in ["two", "one"] {
            let (data, out) = (format!("@{}", sent.display()), got.display().to_string());
            let arguments = [
                "--insecure",
                protocol,
                "--data-binary",
                &data,
                "--output",
                &out,
                "-H",
                "Expect:",
            ];
            let answer = curl(&arguments, &format!("{scheme}://{bind}/{endpoint}"));
            assert_eq!(answer.status, 200);
            assert!(
                std::fs::read(&got).unwrap() == bytes,
                "{scheme} {protocol} {endpoint}: bytes differ"
            );
        }
    }
}

#[test]
fn h2load_finds_every_request_answered_and_the_endpoints_evenly_used() {
    let bind = free_addr();
    let endpoints = [http2_echo("a"), http2_echo("b"), http2_echo("c"), http2_echo("d")];
    let listener = http(bind, None, &[("/", "it", H2c)]);
    let gateway = Gateway::start(&ir(vec![listener], vec![service("it", &endpoints)]), options());
    let output = Command::new("h2load")
        .args(["-n", "4000", "-c", "4", "-m", "10", &format!("http://{bind}/x")])
        .output()
        .expect("h2load is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("4000 succeeded, 0 failed, 0 errored"), "{text}");
    let report = gateway.report();
    let counts: Vec<_> = report
        .http
        .endpoints
        .iter()
        .map(|endpoint| endpoint.requests_total)
        .collect();
    assert_eq!(counts.iter().sum::<u64>(), 4000);
    assert!(counts.iter().all(|count| (950..=1050).contains(count)), "{counts:?}");
}

#[test]
fn a_fin_right_behind_a_request_does_not_lose_the_answer() {
    let (ir, bind) = both(None);
    let _gateway = Gateway::start(&ir, options());
    for _ in 0..50 {
        let mut client = connect(bind);
        client
            .write_all(b"GET /one HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn a_new_revision_is_served_by_connections_that_are_open() {
    let bind = free_addr();
    let (old, new) = (http1_echo("old"), http1_echo("new"));
    let config = |endpoint| {
        ir(
            vec![http(bind, None, &[("/", "it", Http1)])],
            vec![service("it", &[endpoint])],
        )
    };
    let mut gateway = Gateway::start(&config(old), options());
    let mut client = connect(bind);
    let mut ask = || {
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        String::from_utf8(answer).unwrap().to_ascii_lowercase()
    };
    assert!(ask().contains("x-endpoint: old"));
    gateway.publish(&config(new));
    gateway.expect("the revision", |_| true);
    assert!(ask().contains("x-endpoint: new"));
}

/// Runs grpcio; `SLUICE_PYTHON` is set by `cargo xtask test`.
#[track_caller]
fn grpcio(arguments: &[&str]) {
    let python = std::env::var("SLUICE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/grpc_echo.py");
    let output = Command::new(&python)
        .arg(script)
        .args(arguments)
        .output()
        .expect("python is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("every call answered"),
        "{python} (needs grpcio: `cargo xtask test` has it): {text}"
    );
}

#[test]
fn grpcio_makes_every_kind_of_call() {
    let bind = free_addr();
    let listener = http(bind, None, &[("/two.Echo", "two", H2c)]);
    let gateway = Gateway::start(
        &ir(vec![listener], vec![service("two", &[http2_echo("two")])]),
        options(),
    );
    grpcio(&[&bind.to_string()]);
    gateway.expect("nothing left open", |report| {
        report.streams_active == 0 && report.connections_active == 0
    });
}

#[test]
fn grpcio_makes_every_kind_of_call_over_tls() {
    let (bind, folder) = (free_addr(), tempfile::tempdir().unwrap());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = SecretBytes::new(made.signing_key.serialize_der());
    let certificate = Certificate {
        chain: vec![made.cert.der().to_vec()],
        key,
    };
    let listener = http(bind, Some("it"), &[("/two.Echo", "two", H2c)]);
    let ir = ir(vec![listener], vec![service("two", &[http2_echo("two")])]);
    let gateway = Gateway::start(&with_certificate(ir, "it", certificate), options());
    grpcio(&[&bind.to_string(), &ca.display().to_string()]);
    gateway.expect("nothing left open", |report| {
        report.streams_active == 0 && report.connections_active == 0
    });
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    let (ir, bind) = both(None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut options = options();
    options.access_log = AccessLogOptions {
        format: Format::Json,
        target: Target::File(path.clone()),
        ..AccessLogOptions::default()
    };
    let gateway = Gateway::start(&ir, options);
    curl(
        &["--http2-prior-knowledge", "--data-binary", "12345", "-A", "it/1"],
        &format!("http://{bind}/two/x?y=z"),
    );
    curl(&["--http1.1"], &format!("http://{bind}/nowhere"));
    gateway.workers.stop();
    drop(gateway);
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [two, nowhere] = &lines[..] else { panic!("{text}") };
    assert_eq!((&two["url.path"], &two["url.query"]), (&"/two/x".into(), &"y=z".into()));
    assert_eq!(
        (&two["http.response.status_code"], &two["network.protocol.version"]),
        (&200.into(), &"2".into())
    );
    assert_eq!((&two["bytes_received"], &two["bytes_sent"]), (&5.into(), &5.into()));
    assert_eq!(two["http.route"], "HTTPRoute/default/two//two");
    assert_eq!(two["user_agent.original"], "it/1");
    assert_eq!(
        (&nowhere["http.response.status_code"], &nowhere["response_flags"]),
        (&404.into(), &"NR".into())
    );
}

#[test]
fn writes_of_many_streams_share_a_system_call() {
    let bind = free_addr();
    let listener = http(bind, None, &[("/", "it", H2c)]);
    let gateway = Gateway::start(&ir(vec![listener], vec![service("it", &[http2_echo("it")])]), options());
    let output = Command::new("h2load")
        .args(["-n", "20000", "-c", "10", "-m", "10", &format!("http://{bind}/x")])
        .output()
        .expect("h2load is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("20000 succeeded"), "{text}");
    let turns = gateway.report().turns;
    println!("{turns:?}");
    // Two per request, one to each side, if every stream were written by itself.
    assert!(turns.writes_total < 20_000, "{turns:?}");
}

#[test]
fn a_client_that_does_not_read_stops_the_endpoint() {
    let len = taken_max() + 16_000_000;
    let (endpoint, sent) = fountain(len);
    let bind = free_addr();
    let ir = ir(
        vec![http(bind, None, &[("/", "it", Http1)])],
        vec![service("it", &[endpoint])],
    );
    let _gateway = Gateway::start(&ir, options());
    let mut client = connect(bind);
    client.write_all(GET).unwrap();
    assert!(settled(&sent) < taken_max(), "{} bytes", sent.load(Ordering::Relaxed));
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.iter().rev().take_while(|byte| **byte == b'x').count(), len);
}
