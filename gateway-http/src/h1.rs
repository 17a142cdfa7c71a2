//! HTTP/1.1 (RFC 9112): heads, bodies and chunks. Pure functions over slices.
//!
//! What is read becomes a [`crate::head::FieldList`] in HTTP/2's vocabulary and what is written comes from one, so
//! that routing, logging and translation know one form. The reader is strict where two readers of the same bytes
//! could disagree (RFC 9112 11.2): line ends are CRLF, there is one length, no folding, no space before a colon.

pub mod body;
pub mod chunked;
pub mod head;
pub mod write;

use crate::head::facts::Malformed;

/// The version in a start line. What is older or newer is not spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    Http10,
    Http11,
}

/// How the end of a body is known (RFC 9112 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// No body, and nothing says so: 1xx, 204, 304, a response to HEAD, a request without length.
    None,
    Length(u64),
    Chunked,
    /// Responses only.
    UntilClose,
}

/// Whether the connection may carry another message (RFC 9112 9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    KeepAlive,
    Close,
}

/// Why a head or a body is not taken. The connection cannot be used any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// 400.
    Malformed(Malformed),
    /// 431: too many bytes.
    TooLarge,
    /// 431: too many fields.
    TooMany,
    /// 501: understood, and not done.
    NotImplemented,
}

impl Rejected {
    /// The status of the answer to a request.
    pub const fn status(self) -> u16 {
        match self {
            Rejected::Malformed(_) => 400,
            Rejected::TooLarge | Rejected::TooMany => 431,
            Rejected::NotImplemented => 501,
        }
    }
}

impl From<Malformed> for Rejected {
    fn from(why: Malformed) -> Self {
        Rejected::Malformed(why)
    }
}

/// Whether every LF has its CR: the parser underneath takes a bare LF for a line end, an endpoint may not
/// (RFC 9112 2.2).
fn has_bare_lf(head: &[u8]) -> bool {
    // No early exit: the loop is straight and vectorised.
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    let bare = pairs.fold(false, |bad, (before, byte)| {
        bad | ((*byte == b'\n') & (*before != b'\r'))
    });
    bare || head.first() == Some(&b'\n')
}
