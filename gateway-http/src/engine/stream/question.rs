//! What a stream keeps for the sake of an authorization service (`auth.rs`).

use super::key::StreamKey;
use crate::authorization::Unanswered;
use crate::ext_authz::answer::Edit;
use crate::head::FieldList;

/// What is asked about whom, and what came back.
pub struct Question {
    pub(in crate::engine) of: StreamKey,
    /// It went to a second endpoint.
    pub(in crate::engine) again: bool,
    /// A refusal: its head, its status, and what came of its body.
    pub(in crate::engine) refusal: Option<FieldList>,
    pub(in crate::engine) status: u16,
    /// Of a refusal over HTTP its body; of a call all of the answer's.
    pub(in crate::engine) body: Vec<u8>,
    /// It is a gRPC call.
    pub(in crate::engine) call: bool,
    /// What ended it without an answer, if it is known before it ends.
    pub(in crate::engine) why: Option<Unanswered>,
}

/// What a stream keeps for the sake of its question.
#[derive(Default)]
pub struct Vetting {
    /// Its body is being gathered ...
    pub(in crate::engine) gathering: bool,
    /// ... and may have so many octets.
    pub(in crate::engine) body_bytes_max: usize,
    /// Of what waits for its upstream leg, the bytes that count as held.
    pub held: usize,
    /// What the service adds to the response's head.
    pub response: Vec<Edit>,
}
