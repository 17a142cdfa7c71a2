//! Exit codes (sysexits.h where it has one) and how an ending error is shown.

use std::fmt;
use std::process::ExitCode;

/// Why the command ends, other than well.
#[derive(Debug)]
pub struct Exit {
    code: Code,
    message: String,
}

/// The codes a script may rely on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// A check or verification failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The admin of a running gateway does not answer.
    Unreachable = 4,
    /// The kernel lacks what was demanded (EX_UNAVAILABLE).
    Unavailable = 69,
    /// Not permitted (EX_NOPERM).
    NoPermission = 77,
    /// Bad configuration (EX_CONFIG).
    Config = 78,
}

impl Exit {
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }

    /// The result was printed already; only the code is left to say.
    pub fn silent(code: Code) -> Self {
        Self {
            code,
            message: String::new(),
        }
    }

    /// Prints the message to stderr and gives the code to the shell.
    pub fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("sluice: {}", self.message);
        }
        ExitCode::from(self.code as u8)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<anyhow::Error> for Exit {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Failed, format!("{error:#}"))
    }
}
