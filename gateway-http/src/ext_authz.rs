//! The protocol of Envoy's external authorization over gRPC: `envoy.service.auth.v3.Authorization/Check`, as much of it as
//! is asked here and may be answered.
//!
//! Field numbers are those of Envoy's published descriptors (`envoy/service/auth/v3/external_auth.proto` and
//! `attribute_context.proto`, `envoy/config/core/v3/base.proto` and `address.proto`, `google/rpc/status.proto`).
//!
//! # Laws
//! * What is written here is a message that every Protocol Buffers library reads; a test compares with one.
//! * What is read is bounded by its caller and never trusted: [`answer::read`] is total, and what it does not understand
//!   is not a permission.

pub mod answer;
pub mod query;
pub mod question;
mod wire;

use crate::grpc::message::PREFIX_LEN;

/// The method that is called.
pub const PATH: &[u8] = b"/envoy.service.auth.v3.Authorization/Check";

/// Why a call's body is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unread {
    /// Not one whole message, or not a message of its type.
    Malformed,
    /// The message is compressed, which was not offered.
    Compressed,
}

/// The one message in the body of a unary call (PROTOCOL-HTTP2.md, "Length-Prefixed-Message").
///
/// # Errors
/// [`Unread`]: there is none, it is not whole, it is not the only one, or it is compressed.
pub fn message(body: &[u8]) -> Result<&[u8], Unread> {
    let Some(([compressed, length @ ..], message)) = body.split_first_chunk::<PREFIX_LEN>() else {
        return Err(Unread::Malformed);
    };
    match compressed {
        _ if u32::from_be_bytes(*length) as usize != message.len() => Err(Unread::Malformed),
        0 => Ok(message),
        1 => Err(Unread::Compressed),
        _ => Err(Unread::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::{Unread, message};

    #[test]
    fn a_body_is_one_whole_message_and_nothing_else() {
        assert_eq!(message(b"\0\0\0\0\x02ab"), Ok(&b"ab"[..]));
        assert_eq!(message(b"\0\0\0\0\0"), Ok(&b""[..]));
        assert_eq!(message(b"\x01\0\0\0\x02ab"), Err(Unread::Compressed));
        for body in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x03ab",
            b"\0\0\0\0\x01ab",
            b"\0\0\0\0\0\0\0\0\0\0",
            b"\0\xff\xff\xff\xffab",
            b"\x02\0\0\0\0",
            b"\x01\0\0\0\x03ab",
        ] {
            assert_eq!(message(body), Err(Unread::Malformed), "{body:?}");
        }
    }
}
