//! When the process is out of descriptors, a client is told so at once, and all is well again when some are free.
//!
//! The limit holds for a whole process, so the gateway runs in another: this test again, under `ulimit -n`.

#![allow(clippy::unwrap_used, reason = "what a test cannot go on without")]

#[path = "support/workers.rs"]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Gateway, connect, free_addr, ir, options, relay, serve, service};

/// Where the gateway relays to; set only for the process with few descriptors.
const ENDPOINT: &str = "SLUICE_TEST_ENDPOINT";
const NAME: &str = "clients_are_turned_away_at_once_when_descriptors_run_out";

#[test]
fn clients_are_turned_away_at_once_when_descriptors_run_out() {
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        return gateway(endpoint.parse().unwrap());
    }
    let endpoint = serve(echo);
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$0\" --exact --nocapture \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(ENDPOINT, endpoint.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Open to the end: the child has a last word.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let bind = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("at ")?.parse().ok())
        .unwrap();
    clients(bind);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

fn echo(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        stream.write_all(&byte).unwrap();
    }
}

/// Serves until its input ends.
fn gateway(endpoint: SocketAddr) {
    let bind = free_addr();
    let _gateway = Gateway::start(
        &ir(vec![relay(bind, "it")], vec![service("it", &[endpoint])]),
        options(),
    );
    println!("\nat {bind}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn asks(client: &mut TcpStream) -> bool {
    client.write_all(b"x").is_ok() && matches!(client.read(&mut [0]), Ok(1))
}

fn clients(bind: SocketAddr) {
    let (mut served, mut refused) = (Vec::new(), 0);
    for _ in 0..40 {
        let mut client = connect(bind);
        let began = Instant::now();
        if asks(&mut client) {
            served.push(client);
        } else {
            refused += 1;
            assert!(began.elapsed() < Duration::from_secs(5), "left waiting");
        }
    }
    assert!(
        served.len() >= 5 && refused >= 5,
        "served {}, refused {refused}",
        served.len()
    );
    drop(served);
    let until = Instant::now() + support::PATIENCE;
    while !asks(&mut connect(bind)) {
        assert!(
            Instant::now() < until,
            "descriptors are free again, and nobody is served"
        );
    }
}
