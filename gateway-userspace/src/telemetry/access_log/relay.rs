//! Lines for connections that were relayed, or that a stream listener turned away. In Envoy's text format the request
//! is `- - -` and the status 0, as it writes TCP connections.

use super::{json, text};
use gateway_core::fault::Refusal;
use gateway_core::ids::{EndpointId, ListenerId, RuleId};
use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use std::net::SocketAddr;

/// A relay that is over.
#[derive(Clone, Debug)]
pub struct RelayOutcome {
    pub started: Moment,
    pub ended: Moment,
    pub listener: ListenerId,
    pub rule: Option<RuleId>,
    pub endpoint: Option<EndpointId>,
    /// Endpoints tried.
    pub attempts: u8,
    pub peer: SocketAddr,
    /// To the endpoint and to the client.
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub end: RelayEnd,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RelayEnd {
    /// Both sides said that they are done.
    Finished,
    /// The same, but a side ended its TLS without saying so: what it said may be cut short.
    Cut,
    /// It never began.
    Refused(Refusal),
    ClientReset,
    EndpointReset,
    /// Nothing passed for too long.
    Idle,
}

impl RelayEnd {
    /// Envoy's response flag.
    pub const fn flag(self) -> &'static str {
        match self {
            RelayEnd::Finished | RelayEnd::Cut => "-",
            RelayEnd::ClientReset => "DC",
            RelayEnd::EndpointReset => "UC",
            RelayEnd::Idle | RelayEnd::Refused(Refusal::Silent) => "SI",
            RelayEnd::Refused(Refusal::NotTls | Refusal::Handshake) => "DPE",
            RelayEnd::Refused(Refusal::NoListener | Refusal::NoServerName) => "NR",
            RelayEnd::Refused(Refusal::Broken) => "NC",
            RelayEnd::Refused(Refusal::NoEndpoint) => "UF",
            RelayEnd::Refused(Refusal::TooMany | Refusal::Draining) => "UO",
            RelayEnd::Refused(Refusal::NotAllowed) => "UAEX",
        }
    }

    /// `None` when nothing went wrong.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            RelayEnd::Finished => None,
            RelayEnd::Cut => Some("cut"),
            RelayEnd::Refused(refusal) => Some(refusal.name()),
            RelayEnd::ClientReset => Some("client_reset"),
            RelayEnd::EndpointReset => Some("endpoint_reset"),
            RelayEnd::Idle => Some("idle"),
        }
    }
}

/// Appends a line in Envoy's default format.
pub fn text_line(out: &mut Vec<u8>, started: &str, outcome: &RelayOutcome, snapshot: &Snapshot) {
    let endpoint = outcome.endpoint.and_then(|id| snapshot.endpoint(id));
    let endpoint = endpoint.map_or_else(|| "-".to_owned(), |plan| plan.addr.to_string());
    let flag = outcome.end.flag();
    let duration = outcome.ended.since(outcome.started).as_millis();
    let (up, down, peer) = (outcome.bytes_up, outcome.bytes_down, outcome.peer.ip());
    text::put(
        out,
        format_args!(
            "[{started}] \"- - -\" 0 {flag} {up} {down} {duration} - \"{peer}\" \"-\" \"-\" \"-\" \"{endpoint}\"\n"
        ),
    );
}

/// Appends a JSON object.
pub fn json_line(out: &mut Vec<u8>, started: &str, outcome: &RelayOutcome, snapshot: &Snapshot) {
    json::begin(out, started, "splice", outcome.listener, snapshot);
    if let Some(end) = outcome.end.name() {
        json::text(out, "error.type", end);
    }
    json::text(out, "response_flags", outcome.end.flag());
    json::number(out, "bytes_received", outcome.bytes_up);
    json::number(out, "bytes_sent", outcome.bytes_down);
    json::number(out, "duration_ms", json::millis(outcome.ended.since(outcome.started)));
    json::end(out, outcome.peer, outcome.endpoint, outcome.attempts, snapshot);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(end: RelayEnd) -> RelayOutcome {
        RelayOutcome {
            started: Moment::from_millis(100),
            ended: Moment::from_millis(107),
            listener: ListenerId(0),
            rule: None,
            endpoint: None,
            attempts: 2,
            peer: "192.0.2.7:1234".parse().unwrap(),
            bytes_up: 3,
            bytes_down: 5,
            end,
        }
    }

    #[test]
    fn a_relay_reads_as_envoy_writes_a_tcp_connection() {
        let mut out = Vec::new();
        text_line(
            &mut out,
            "T",
            &outcome(RelayEnd::Refused(Refusal::NoEndpoint)),
            &Snapshot::default(),
        );
        let expected = "[T] \"- - -\" 0 UF 3 5 7 - \"192.0.2.7\" \"-\" \"-\" \"-\" \"-\"\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn in_json_it_says_how_it_ended() {
        let object = |end| {
            let mut out = Vec::new();
            json_line(&mut out, "T", &outcome(end), &Snapshot::default());
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()
        };
        let reset = object(RelayEnd::ClientReset);
        assert_eq!(
            (&reset["mode"], &reset["error.type"]),
            (&"splice".into(), &"client_reset".into())
        );
        assert_eq!(
            (&reset["bytes_received"], &reset["upstream_attempts"]),
            (&3.into(), &2.into())
        );
        assert!(object(RelayEnd::Finished).get("error.type").is_none());
    }
}
