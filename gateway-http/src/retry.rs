//! Why a request went to an endpoint once more, and why it did not: closed sets, the labels of metrics and access log.

/// What the attempt before came to. Only rules with a `retry` see these; what provably had no effect at an endpoint goes
/// again at once under any rule and is no retry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Retried {
    /// No connection or TLS session was to be had.
    Connect,
    /// The endpoint refused the stream.
    Refused,
    /// It reset the stream, broke the connection or did not speak HTTP.
    Reset,
    /// It took longer than `timeouts.backendRequest`.
    Timeout,
    /// It answered with a status the rule names.
    Status,
    /// It answered with a gRPC status the rule names, and nothing else.
    GrpcStatus,
}

impl Retried {
    pub const ALL: [Retried; 6] = [
        Retried::Connect,
        Retried::Refused,
        Retried::Reset,
        Retried::Timeout,
        Retried::Status,
        Retried::GrpcStatus,
    ];

    /// Name in metrics, in the access log and in `docs/faults.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Retried::Connect => "connect",
            Retried::Refused => "refused",
            Retried::Reset => "reset",
            Retried::Timeout => "timeout",
            Retried::Status => "status",
            Retried::GrpcStatus => "grpc_status",
        }
    }
}

/// Why a failed attempt of a rule with a `retry` was the last one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NotRetried {
    /// It had all its attempts.
    Limit,
    /// Its service had too many retries already (`limits.retryPercent`, `limits.retriesPerSecond`).
    Budget,
    /// More of its body went to the endpoint than is kept (`limits.replayBytes`), or trailers did.
    Body,
    /// The endpoint asked for it (`grpc-retry-pushback-ms`).
    Pushback,
}

impl NotRetried {
    pub const ALL: [NotRetried; 4] = [
        NotRetried::Limit,
        NotRetried::Budget,
        NotRetried::Body,
        NotRetried::Pushback,
    ];

    /// Name in metrics and in `docs/faults.md`.
    pub const fn name(self) -> &'static str {
        match self {
            NotRetried::Limit => "limit",
            NotRetried::Budget => "retry_budget",
            NotRetried::Body => "body",
            NotRetried::Pushback => "pushback",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_stands_on_the_page_of_faults() {
        let page = include_str!("../../docs/faults.md");
        let section = page
            .split("\n## ")
            .find(|section| section.starts_with("Retries"))
            .expect("a section on retries");
        let told: Vec<&str> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let coded = Retried::ALL.map(Retried::name).into_iter();
        let coded: Vec<&str> = coded.chain(NotRetried::ALL.map(NotRetried::name)).collect();
        assert_eq!(told, coded);
    }
}
