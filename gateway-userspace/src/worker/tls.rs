//! TLS of HTTPS listeners: rustls over aws-lc-rs, without I/O of its own, between a socket and the engine.
//!
//! [`plans`]: a revision's configurations, made once where it is published, never on a worker. [`session`]: one
//! connection's state. Session tickets are sealed with keys that live as long as the process, so neither a new revision
//! nor another worker sends a client back to a full handshake.

pub mod plans;
pub mod session;

pub use plans::{TlsCompiler, TlsPlans, TlsProblem};
pub use session::{Fed, Session};
