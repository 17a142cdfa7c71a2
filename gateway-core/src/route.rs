//! Route lookup: hostname, then path, then method, headers and query, in Gateway API precedence. Cost does not
//! depend on the number of routes.

/// The virtual hosts of one Gateway API listener, compiled.
#[derive(Debug, Default)]
pub struct HostTable {}
