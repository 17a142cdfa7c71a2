//! Why nobody said whether a request may pass.

use gateway_core::fault::Fault;

/// What ended a question to an authorization service without an answer; its request is refused (`auth_failed`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unanswered {
    /// Too many questions are under way, or too many bytes wait.
    NoRoom,
    /// There is no such question, as over HTTP about a CONNECT.
    Unasked,
    /// No endpoint, or none that can be connected to.
    Unreachable,
    TimedOut,
    /// The endpoint reset the question, refused it, or its connection was lost.
    BrokenOff,
    /// The call of a service ended with another status than OK.
    Status,
    /// It is no answer, or what it says of the request's head cannot be done.
    Malformed,
    /// The answer is compressed, which was not offered.
    Compressed,
    TooLarge,
    /// The service says that it could not find out.
    Failed,
}

impl Unanswered {
    pub const ALL: [Unanswered; 10] = [
        Unanswered::NoRoom,
        Unanswered::Unasked,
        Unanswered::Unreachable,
        Unanswered::TimedOut,
        Unanswered::BrokenOff,
        Unanswered::Status,
        Unanswered::Malformed,
        Unanswered::Compressed,
        Unanswered::TooLarge,
        Unanswered::Failed,
    ];

    /// Name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Unanswered::NoRoom => "no_room",
            Unanswered::Unasked => "unasked",
            Unanswered::Unreachable => "unreachable",
            Unanswered::TimedOut => "timed_out",
            Unanswered::BrokenOff => "broken_off",
            Unanswered::Status => "status",
            Unanswered::Malformed => "malformed",
            Unanswered::Compressed => "compressed",
            Unanswered::TooLarge => "too_large",
            Unanswered::Failed => "failed",
        }
    }

    /// What became of the attempt to ask.
    pub const fn of(fault: Fault) -> Self {
        match fault {
            Fault::NoEndpoint | Fault::ConnectFailed | Fault::TlsFailed => Unanswered::Unreachable,
            Fault::DeadlineExceeded | Fault::AttemptTimeout | Fault::Stalled | Fault::RequestTimeout => {
                Unanswered::TimedOut
            }
            Fault::Overloaded => Unanswered::NoRoom,
            Fault::BadResponse => Unanswered::Malformed,
            Fault::MessageTooLarge => Unanswered::TooLarge,
            Fault::BadRequest
            | Fault::HeadTooLarge
            | Fault::TargetTooLong
            | Fault::ClientGone
            | Fault::Misdirected
            | Fault::BodyTooLarge
            | Fault::AuthRequired
            | Fault::AuthDenied
            | Fault::AuthFailed
            | Fault::NoRoute
            | Fault::Broken
            | Fault::Refused
            | Fault::Reset
            | Fault::ConnectionLost
            | Fault::TunnelIdle
            | Fault::Internal => Unanswered::BrokenOff,
        }
    }
}
