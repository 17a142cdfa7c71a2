//! From `Ir` to what the planes run: [`Ids`] (names to dense ids that outlive a revision), the [`Snapshot`] of the
//! workers and the [`KernelTables`] of the kernel plane.
//!
//! [`Snapshot`]: crate::snapshot::Snapshot

pub mod ids;
pub mod kernel;
#[cfg(test)]
pub mod sample;
pub mod snapshot;

pub use ids::Ids;
pub use kernel::KernelTables;
