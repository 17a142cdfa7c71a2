//! What a connection speaks, told from its first bytes.

pub mod client_hello;
pub mod proxy_protocol;
