//! `Ir` to [`Snapshot`](crate::snapshot::Snapshot).
