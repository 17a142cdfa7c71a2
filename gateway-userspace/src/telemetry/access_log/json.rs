//! One JSON object a line. Names are OpenTelemetry's semantic conventions where those have one (HTTP stable, RPC
//! release candidate), else ours; what is unknown is left out.

use gateway_core::ids::{EndpointId, ListenerId};
use gateway_core::snapshot::Snapshot;
use gateway_http::outcome::Outcome;
use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// Appends the line of one request.
pub fn line(out: &mut Vec<u8>, started: &str, outcome: &Outcome<'_>, snapshot: &Snapshot) {
    begin(out, started, "http", outcome.listener, snapshot);
    if let Some(rule) = outcome.rule.and_then(|id| snapshot.rule(id)) {
        text(out, "http.route", rule.name.as_str());
    }
    let (path, query) = outcome.path.split_once('?').unwrap_or((outcome.path, ""));
    text(out, "http.request.method", outcome.method);
    text(out, "url.path", path);
    optional(out, "url.query", query);
    optional(out, "server.address", outcome.authority);
    let (protocol, version) = outcome.protocol.split_once('/').unwrap_or((outcome.protocol, ""));
    text(out, "network.protocol.name", &protocol.to_ascii_lowercase());
    text(out, "network.protocol.version", version);
    number(out, "http.response.status_code", outcome.status);
    rpc(out, path, outcome.grpc_status);
    if let Some([received, sent]) = outcome.grpc_messages {
        number(out, "grpc_messages_received", received);
        number(out, "grpc_messages_sent", sent);
    }
    if let Some(fault) = outcome.fault {
        text(out, "error.type", fault.name());
    }
    text(out, "response_flags", outcome.fault.map_or("-", |fault| fault.flag()));
    number(out, "bytes_received", outcome.bytes_received);
    number(out, "bytes_sent", outcome.bytes_sent);
    number(out, "duration_ms", millis(outcome.ended.since(outcome.started)));
    if let Some(first) = outcome.first_byte {
        number(out, "first_byte_ms", millis(first.since(outcome.started)));
    }
    if let Some(why) = outcome.retried {
        text(out, "upstream_retried", why.name());
    }
    optional(out, "user_agent.original", outcome.user_agent);
    optional(out, "request_id", outcome.request_id);
    end(out, outcome.peer, outcome.endpoint, outcome.attempts, snapshot);
}

/// What every line begins with.
pub(super) fn begin(out: &mut Vec<u8>, started: &str, mode: &str, listener: ListenerId, snapshot: &Snapshot) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    out.extend_from_slice(started.as_bytes());
    out.push(b'"');
    text(out, "mode", mode);
    if let Some(listener) = snapshot.listener(listener) {
        text(out, "listener", &listener.bind.to_string());
    }
}

/// What every line ends with.
pub(super) fn end(
    out: &mut Vec<u8>,
    peer: SocketAddr,
    endpoint: Option<EndpointId>,
    attempts: u8,
    snapshot: &Snapshot,
) {
    text(out, "client.address", &peer.ip().to_string());
    number(out, "client.port", peer.port());
    if let Some(endpoint) = endpoint.and_then(|id| snapshot.endpoint(id)) {
        text(out, "upstream_host", &endpoint.addr.to_string());
        text(out, "upstream_endpoint", endpoint.name.as_str());
    }
    number(out, "upstream_attempts", attempts);
    out.extend_from_slice(b"}\n");
}

/// A gRPC call's service and method are in its path.
fn rpc(out: &mut Vec<u8>, path: &str, status: Option<u32>) {
    let Some(status) = status else { return };
    text(out, "rpc.system.name", "grpc");
    if let Some((service, method)) = path.trim_start_matches('/').rsplit_once('/') {
        text(out, "rpc.service", service);
        text(out, "rpc.method", method);
    }
    number(out, "grpc_status", status);
}

pub(super) fn millis(duration: Duration) -> impl Display {
    let micros = duration.as_micros();
    std::fmt::from_fn(move |f| write!(f, "{}.{:03}", micros / 1000, micros % 1000))
}

fn optional(out: &mut Vec<u8>, name: &str, value: &str) {
    if !value.is_empty() {
        text(out, name, value);
    }
}

pub(super) fn number(out: &mut Vec<u8>, name: &str, value: impl Display) {
    write!(out, ",\"{name}\":{value}").expect("writing to a vector does not fail");
}

pub(super) fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    write!(out, ",\"{name}\":\"").expect("writing to a vector does not fail");
    for c in value.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\0'..'\u{20}' | '\u{7f}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a vector does not fail");
            }
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::outcome;
    use super::*;
    use serde_json::Value;

    fn object(outcome: &Outcome<'_>) -> Value {
        let mut out = Vec::new();
        line(&mut out, "2026-01-02T03:04:05.006Z", outcome, &Snapshot::default());
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_grpc_call_shows_service_method_and_status() {
        let outcome = Outcome {
            path: "/demo.Echo/Unary",
            grpc_status: Some(14),
            ..outcome()
        };
        let object = object(&outcome);
        assert_eq!(object["rpc.service"], "demo.Echo");
        assert_eq!(object["rpc.method"], "Unary");
        assert_eq!(object["grpc_status"], 14);
        assert_eq!(object["duration_ms"], 7.0);
        assert_eq!(object["network.protocol.version"], "2");
    }

    #[test]
    fn whatever_a_client_sends_stays_one_valid_object() {
        let odd = "q\"\\\n\u{7f}\u{0}é";
        let object = object(&Outcome {
            user_agent: odd,
            ..outcome()
        });
        assert_eq!(object["user_agent.original"], odd);
        assert_eq!(object["url.query"], "b=c");
        assert!(object.get("grpc_status").is_none());
    }
}
