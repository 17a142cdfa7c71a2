//! TLS on both sides: rustls over aws-lc-rs, without I/O of its own, between a socket and the engine.
//!
//! [`plans`]: a revision's configurations, made once where it is published, never on a worker. [`session`]: one
//! connection's state. [`identity`]: who a client is. Session tickets are sealed with keys that outlive a revision, so
//! neither a new one nor another worker sends a client back to a full handshake.

mod clients;
pub mod identity;
pub mod keys;
mod names;
pub mod plans;
mod provider;
pub mod session;
pub mod upstream;
pub mod x509;

pub use plans::{Downstream, TlsCompiler, TlsPlans, TlsProblem};
pub use session::{Fed, Session};
pub use upstream::Upstream;
