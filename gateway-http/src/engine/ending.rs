//! How connections end.

/// How a connection is to end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Closing {
    #[default]
    No,
    /// Nothing more is read; what is queued goes out first.
    AfterFlush,
    /// As soon as no connection is out of its slot.
    Now,
}

/// How far the two-step farewell went (RFC 9113 6.8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Farewell {
    #[default]
    None,
    /// GOAWAY with the highest id: open nothing new, what is on its way is still served.
    Announced,
    /// GOAWAY with the last id served.
    Final,
}
