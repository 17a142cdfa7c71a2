//! Where a stream is in its attempts (`engine/retry.rs` decides on another one).

use crate::retry::Retried;
use gateway_core::time::Moment;

/// Where a stream is in its attempts.
#[derive(Clone, Copy, Default)]
pub struct Retrying {
    /// Its rule has retries.
    pub on: bool,
    /// It pauses before the next attempt.
    pub pauses: bool,
    /// Retries so far, and what for the last one was.
    pub count: u8,
    pub why: Option<Retried>,
    /// When the attempt under way must be over, or the pause is.
    pub due: Option<Moment>,
}

impl Retrying {
    /// When an attempt under way must be over.
    pub fn attempt_due(&self) -> Option<Moment> {
        self.due.filter(|_| !self.pauses)
    }
}
