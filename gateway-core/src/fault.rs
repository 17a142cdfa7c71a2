//! The closed sets of what can go wrong with a connection ([`Refusal`]) and a request ([`Fault`]): who is at fault,
//! and from that the HTTP status, the gRPC code, the access-log flag and whether another endpoint may be tried.
//! Packets have `gateway_common::abi::Reason`; configuration has `gateway_compiler::Diagnostic`.

/// Why a connection was not served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal {
    /// Its local address is no listener of this revision.
    NoListener,
    /// The worker holds as many connections as it may.
    TooMany,
    /// Not a ClientHello where one is needed, or none in time.
    NotTls,
    /// No rule or certificate for the server name.
    NoServerName,
    /// The TLS handshake failed.
    Handshake,
    /// The rule's destination is broken configuration.
    Broken,
    /// No endpoint could be reached.
    NoEndpoint,
    /// The gateway is draining.
    Draining,
    /// Nothing was sent in time.
    Silent,
    /// The listener is for other clients (`loadBalancerSourceRanges`).
    NotAllowed,
}

impl Refusal {
    pub const ALL: [Refusal; 10] = [
        Refusal::NoListener,
        Refusal::TooMany,
        Refusal::NotTls,
        Refusal::NoServerName,
        Refusal::Handshake,
        Refusal::Broken,
        Refusal::NoEndpoint,
        Refusal::Draining,
        Refusal::Silent,
        Refusal::NotAllowed,
    ];

    /// Name in metrics and in `docs/faults.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::NoListener => "no_listener",
            Refusal::TooMany => "too_many",
            Refusal::NotTls => "not_tls",
            Refusal::NoServerName => "no_server_name",
            Refusal::Handshake => "handshake",
            Refusal::Broken => "broken",
            Refusal::NoEndpoint => "no_endpoint",
            Refusal::Draining => "draining",
            Refusal::Silent => "silent",
            Refusal::NotAllowed => "not_allowed",
        }
    }
}

/// What went wrong with a request, by whose fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// Downstream: the request is malformed.
    BadRequest,
    /// Downstream: the head is larger than the limit.
    HeadTooLarge,
    /// Downstream: the target is longer than the limit.
    TargetTooLong,
    /// Downstream: went away before the response ended.
    ClientGone,
    /// Downstream: the request's body did not come in time.
    RequestTimeout,
    /// Downstream: it took nothing of the response, or nothing at all moved, for too long.
    Stalled,
    /// Downstream: the name asked for in the handshake and the request's authority belong to different listeners
    /// (RFC 9110 15.5.20, GEP-3567).
    Misdirected,
    /// Downstream: the body, or a gRPC message in it, is larger than the limit.
    BodyTooLarge,
    /// Downstream: the authorization service wants to know who asks (401).
    AuthRequired,
    /// Downstream: the authorization service refused the request.
    AuthDenied,
    /// The authorization service did not answer, or could not be asked: refused too.
    AuthFailed,
    /// Configuration: no route.
    NoRoute,
    /// Configuration: the destination is broken.
    Broken,
    /// Upstream: no endpoint to try.
    NoEndpoint,
    /// Upstream: connecting failed or timed out. Provably unsent.
    ConnectFailed,
    /// Upstream: the TLS handshake failed: another protocol, a certificate that does not hold, or ours refused.
    /// Provably unsent.
    TlsFailed,
    /// Upstream: the stream was refused, or its connection went away with a GOAWAY that excludes it. Provably unprocessed.
    Refused,
    /// Upstream: reset the stream after it may have been processed.
    Reset,
    /// Upstream: the connection broke after the request may have been processed.
    ConnectionLost,
    /// Upstream: what it sent is no valid response.
    BadResponse,
    /// Upstream: it sent a gRPC message larger than the limit.
    MessageTooLarge,
    /// The deadline passed (route timeout or `grpc-timeout`).
    DeadlineExceeded,
    /// Upstream: one attempt took longer than it may (`timeouts.backendRequest`).
    AttemptTimeout,
    /// The gateway is out of room for it.
    Overloaded,
    /// Downstream: nothing went through its open tunnel for too long.
    TunnelIdle,
    /// The gateway made a mistake.
    Internal,
}

impl Fault {
    /// HTTP status of the local reply.
    pub const fn http_status(self) -> u16 {
        match self {
            Fault::BadRequest => 400,
            Fault::HeadTooLarge => 431,
            Fault::TargetTooLong => 414,
            Fault::ClientGone => 499,
            Fault::RequestTimeout | Fault::Stalled | Fault::TunnelIdle => 408,
            Fault::Misdirected => 421,
            Fault::BodyTooLarge => 413,
            Fault::AuthRequired => 401,
            Fault::AuthDenied | Fault::AuthFailed => 403,
            Fault::NoRoute => 404,
            Fault::Broken | Fault::Internal => 500,
            Fault::BadResponse | Fault::MessageTooLarge => 502,
            Fault::NoEndpoint
            | Fault::ConnectFailed
            | Fault::TlsFailed
            | Fault::Refused
            | Fault::Reset
            | Fault::ConnectionLost => 503,
            Fault::DeadlineExceeded | Fault::AttemptTimeout => 504,
            Fault::Overloaded => 503,
        }
    }

    /// gRPC status code of the local reply (grpc/doc/statuscodes.md, http-grpc-status-mapping.md).
    pub const fn grpc_code(self) -> u8 {
        match self {
            Fault::BadRequest | Fault::Internal | Fault::BadResponse => 13,
            Fault::ClientGone => 1,
            Fault::RequestTimeout
            | Fault::Stalled
            | Fault::DeadlineExceeded
            | Fault::AttemptTimeout
            | Fault::TunnelIdle => 4,
            Fault::AuthRequired => 16,
            Fault::AuthDenied | Fault::AuthFailed => 7,
            Fault::NoRoute | Fault::Misdirected => 12,
            // As gRPC's own peers answer metadata that is too large.
            Fault::HeadTooLarge
            | Fault::TargetTooLong
            | Fault::BodyTooLarge
            | Fault::MessageTooLarge
            | Fault::Overloaded => 8,
            Fault::Broken
            | Fault::NoEndpoint
            | Fault::ConnectFailed
            | Fault::TlsFailed
            | Fault::Refused
            | Fault::Reset
            | Fault::ConnectionLost => 14,
        }
    }

    /// Envoy's response flag for the access log.
    pub const fn flag(self) -> &'static str {
        match self {
            Fault::BadRequest | Fault::HeadTooLarge | Fault::TargetTooLong | Fault::BodyTooLarge => "DPE",
            Fault::ClientGone => "DC",
            Fault::RequestTimeout | Fault::Stalled | Fault::TunnelIdle => "SI",
            Fault::AuthRequired | Fault::AuthDenied | Fault::AuthFailed => "UAEX",
            Fault::NoRoute | Fault::Misdirected => "NR",
            Fault::Broken => "NC",
            Fault::NoEndpoint => "UH",
            Fault::ConnectFailed | Fault::TlsFailed => "UF",
            Fault::Refused | Fault::Reset => "UR",
            Fault::ConnectionLost => "UC",
            Fault::BadResponse | Fault::MessageTooLarge => "UPE",
            Fault::DeadlineExceeded | Fault::AttemptTimeout => "UT",
            Fault::Overloaded => "UO",
            Fault::Internal => "LR",
        }
    }

    /// Whether the request provably had no effect, so that another endpoint may be tried.
    pub const fn provably_unprocessed(self) -> bool {
        match self {
            Fault::ConnectFailed | Fault::TlsFailed | Fault::Refused => true,
            Fault::BadRequest
            | Fault::HeadTooLarge
            | Fault::TargetTooLong
            | Fault::ClientGone
            | Fault::RequestTimeout
            | Fault::Stalled
            | Fault::Misdirected
            | Fault::BodyTooLarge
            | Fault::AuthRequired
            | Fault::AuthDenied
            | Fault::AuthFailed
            | Fault::NoRoute
            | Fault::Broken
            | Fault::NoEndpoint
            | Fault::Reset
            | Fault::ConnectionLost
            | Fault::BadResponse
            | Fault::MessageTooLarge
            | Fault::DeadlineExceeded
            | Fault::AttemptTimeout
            | Fault::Overloaded
            | Fault::TunnelIdle
            | Fault::Internal => false,
        }
    }

    /// Name in metrics, in the JSON access log and in `docs/faults.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::BadRequest => "bad_request",
            Fault::HeadTooLarge => "head_too_large",
            Fault::TargetTooLong => "target_too_long",
            Fault::ClientGone => "client_gone",
            Fault::RequestTimeout => "request_timeout",
            Fault::Stalled => "stalled",
            Fault::Misdirected => "misdirected",
            Fault::BodyTooLarge => "body_too_large",
            Fault::AuthRequired => "auth_required",
            Fault::AuthDenied => "auth_denied",
            Fault::AuthFailed => "auth_failed",
            Fault::NoRoute => "no_route",
            Fault::Broken => "broken",
            Fault::NoEndpoint => "no_endpoint",
            Fault::ConnectFailed => "connect_failed",
            Fault::TlsFailed => "tls_failed",
            Fault::Refused => "refused",
            Fault::Reset => "reset",
            Fault::ConnectionLost => "connection_lost",
            Fault::BadResponse => "bad_response",
            Fault::MessageTooLarge => "message_too_large",
            Fault::DeadlineExceeded => "deadline_exceeded",
            Fault::AttemptTimeout => "attempt_timeout",
            Fault::Overloaded => "overloaded",
            Fault::TunnelIdle => "tunnel_idle",
            Fault::Internal => "internal",
        }
    }

    pub const ALL: [Fault; 26] = [
        Fault::BadRequest,
        Fault::HeadTooLarge,
        Fault::TargetTooLong,
        Fault::ClientGone,
        Fault::RequestTimeout,
        Fault::Stalled,
        Fault::Misdirected,
        Fault::BodyTooLarge,
        Fault::AuthRequired,
        Fault::AuthDenied,
        Fault::AuthFailed,
        Fault::NoRoute,
        Fault::Broken,
        Fault::NoEndpoint,
        Fault::ConnectFailed,
        Fault::TlsFailed,
        Fault::Refused,
        Fault::Reset,
        Fault::ConnectionLost,
        Fault::BadResponse,
        Fault::MessageTooLarge,
        Fault::DeadlineExceeded,
        Fault::AttemptTimeout,
        Fault::Overloaded,
        Fault::TunnelIdle,
        Fault::Internal,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_common::abi::{Action, Reason};
    use std::collections::BTreeSet;

    const PAGE: &str = include_str!("../../docs/faults.md");

    /// The rows of the table below a heading, as trimmed cells.
    fn rows(heading: &str) -> Vec<Vec<&'static str>> {
        let section = PAGE
            .split("\n## ")
            .find(|section| section.starts_with(heading))
            .expect(heading);
        let cells = |line: &'static str| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
        };
        section
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| cells(line).collect())
            .collect()
    }

    #[test]
    fn every_fault_maps_to_the_row_of_its_page_and_none_is_missing() {
        let of = |fault: &Fault| {
            let again = if fault.provably_unprocessed() { "again" } else { "" };
            let (status, code) = (fault.http_status().to_string(), fault.grpc_code().to_string());
            [fault.name(), &status, &code, fault.flag(), again]
                .map(str::to_owned)
                .to_vec()
        };
        let coded: BTreeSet<Vec<String>> = Fault::ALL.iter().map(of).collect();
        let told = |row: Vec<&str>| [0, 2, 3, 4, 5].map(|cell| row[cell].to_owned()).to_vec();
        assert_eq!(coded, rows("Faults").into_iter().map(told).collect());
        assert_eq!(coded.len(), Fault::ALL.len());
    }

    #[test]
    fn every_refusal_has_a_row_that_says_what_to_do() {
        let told: Vec<Vec<&str>> = rows("Refusals");
        assert_eq!(
            told.iter().map(|row| row[0]).collect::<Vec<_>>(),
            Refusal::ALL.map(Refusal::name)
        );
        assert!(told.iter().flatten().all(|cell| !cell.is_empty()));
    }

    #[test]
    fn every_reason_has_its_action_and_every_drop_a_remedy() {
        let action = |reason: Reason| match reason.action() {
            Action::Send => "send",
            Action::Pass => "pass",
            Action::Drop => "drop",
            Action::Assign => "assign",
        };
        let coded: BTreeSet<(&str, &str)> = Reason::ALL
            .iter()
            .map(|reason| (reason.name(), action(*reason)))
            .collect();
        let told = rows("Reasons");
        assert_eq!(coded, told.iter().map(|row| (row[0], row[1])).collect());
        assert!(told.iter().all(|row| row[1] != "drop" || !row[3].is_empty()));
    }

    #[test]
    fn only_what_is_the_gateways_or_upstreams_doing_is_a_server_error() {
        for fault in Fault::ALL {
            let by_downstream = matches!(fault.http_status(), 400..=499);
            let blamed: &str = rows("Faults").into_iter().find(|row| row[0] == fault.name()).unwrap()[1];
            assert_eq!(
                by_downstream,
                blamed == "downstream" || matches!(fault, Fault::NoRoute | Fault::AuthFailed),
                "{fault:?}"
            );
        }
    }
}
