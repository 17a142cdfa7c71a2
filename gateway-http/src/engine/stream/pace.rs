//! How a stream moves (`engine/pace.rs` judges it).

use gateway_core::time::Moment;

/// What a stream had moved at the last look, and when it last moved enough.
#[derive(Clone, Copy, Default)]
pub struct Pace {
    /// Body bytes of the request that came, and of the response that the client's connection took.
    pub(in crate::engine) came: u64,
    pub(in crate::engine) taken: u64,
    /// Since when the client owes body bytes, leaves the response standing, nothing moves at all.
    pub(in crate::engine) owes_since: Moment,
    pub(in crate::engine) stands_since: Moment,
    pub(in crate::engine) still_since: Moment,
}
