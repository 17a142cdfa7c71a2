//! Envoy's default format (envoyproxy.io, "Default Format String"), so that tools which read it read ours:
//!
//! ```text
//! [START] "METHOD PATH PROTOCOL" STATUS FLAGS BYTES_RECEIVED BYTES_SENT DURATION UPSTREAM_TIME "XFF" "USER-AGENT"
//! "REQUEST-ID" "AUTHORITY" "UPSTREAM_HOST"
//! ```
//!
//! The forwarded-for place holds the peer's address. Quotes, backslashes and control characters from clients are
//! written as `\xNN`: a request cannot forge a line.

use gateway_core::snapshot::Snapshot;
use gateway_http::outcome::Outcome;
use std::io::Write;

/// Appends the line of one request.
pub fn line(out: &mut Vec<u8>, started: &str, outcome: &Outcome<'_>, snapshot: &Snapshot) {
    let flag = outcome.fault.map_or("-", |fault| fault.flag());
    let duration = outcome.ended.since(outcome.started).as_millis();
    put(out, format_args!("[{started}] \""));
    escaped(out, outcome.method);
    out.push(b' ');
    escaped(out, outcome.path);
    put(
        out,
        format_args!(
            " {}\" {} {flag} {} {} {duration} ",
            outcome.protocol, outcome.status, outcome.bytes_received, outcome.bytes_sent
        ),
    );
    match (outcome.endpoint, outcome.first_byte) {
        (Some(_), Some(first)) => put(out, format_args!("{}", first.since(outcome.started).as_millis())),
        _ => out.push(b'-'),
    }
    put(out, format_args!(" \"{}\" \"", outcome.peer.ip()));
    for text in [outcome.user_agent, outcome.request_id, outcome.authority] {
        escaped(out, if text.is_empty() { "-" } else { text });
        out.extend_from_slice(b"\" \"");
    }
    match outcome.endpoint.and_then(|id| snapshot.endpoint(id)) {
        Some(endpoint) => put(out, format_args!("{}\"\n", endpoint.addr)),
        None => out.extend_from_slice(b"-\"\n"),
    }
}

pub(super) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a vector does not fail");
}

fn escaped(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f => put(out, format_args!("\\x{byte:02x}")),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use gateway_core::fault::Fault;
    use gateway_core::ids::ListenerId;
    use gateway_core::time::Moment;

    pub fn outcome() -> Outcome<'static> {
        Outcome {
            started: Moment::from_millis(100),
            ended: Moment::from_millis(107),
            listener: ListenerId(0),
            rule: None,
            endpoint: None,
            attempts: 1,
            retried: None,
            peer: "192.0.2.7:1234".parse().unwrap(),
            protocol: "HTTP/2",
            method: "GET",
            authority: "example.com",
            path: "/a?b=c",
            user_agent: "curl/8",
            request_id: "id-1",
            status: 200,
            grpc_status: None,
            grpc_messages: None,
            fault: None,
            bytes_received: 3,
            bytes_sent: 5,
            first_byte: None,
            trace: None,
        }
    }

    fn text(outcome: &Outcome<'_>) -> String {
        let mut out = Vec::new();
        line(&mut out, "2026-01-02T03:04:05.006Z", outcome, &Snapshot::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_reads_as_envoy_writes_it() {
        assert_eq!(
            text(&outcome()),
            "[2026-01-02T03:04:05.006Z] \"GET /a?b=c HTTP/2\" 200 - 3 5 7 - \"192.0.2.7\" \"curl/8\" \"id-1\" \
             \"example.com\" \"-\"\n"
        );
    }

    #[test]
    fn a_fault_shows_its_flag() {
        let outcome = Outcome {
            status: 404,
            fault: Some(Fault::NoRoute),
            ..outcome()
        };
        assert!(text(&outcome).contains("\" 404 NR 3"), "{}", text(&outcome));
    }

    #[test]
    fn a_client_cannot_forge_a_line() {
        let outcome = Outcome {
            user_agent: "x\"\n[fake]",
            ..outcome()
        };
        let text = text(&outcome);
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(r#""x\x22\x0a[fake]""#), "{text}");
    }
}
