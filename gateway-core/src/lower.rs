//! From `Ir` to what the planes run: [`Ids`] (names to dense ids that outlive a revision), the [`Snapshot`] of the
//! workers and the [`KernelTables`] of the kernel plane.

pub mod kernel;
pub mod snapshot;

pub use kernel::KernelTables;
