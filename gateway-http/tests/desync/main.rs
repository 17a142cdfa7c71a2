//! Requests and responses that two readers could read in two ways, through every pair of protocols.
//!
//! Law: what an endpoint sees is what was meant, or nothing. It is read back by parsers nobody here wrote (`httparse`,
//! the `h2` crate) and counted by a judge that knows nothing of the engine. The bytes are in `fixtures/`, each row named
//! after what is wrong with it; how a row is written is said in `table.rs`.

#![allow(clippy::disallowed_types, reason = "the endpoint and the test look at one record")]

#[allow(dead_code, reason = "shared by several tests")]
#[path = "../support/config.rs"]
mod config;
#[allow(dead_code, reason = "shared by several tests")]
#[path = "../support/rig.rs"]
mod rig;

mod authority;
mod claims;
mod client;
mod downgrade;
mod endpoint;
mod paths;

mod judge;
mod mutations;

mod requests;
mod responses;

mod table;

use gateway_core::ir::UpstreamProtocol;

/// What endpoints are spoken to in, with its name for messages.
pub const UPSTREAMS: [(UpstreamProtocol, &str); 2] = [(UpstreamProtocol::Http1, "h1"), (UpstreamProtocol::H2c, "h2")];

/// The configuration of all rows: one endpoint behind everything.
pub fn config(protocol: UpstreamProtocol) -> config::Config {
    config::Config::new(1).rule(|rule| rule.destinations[0].to.protocol = protocol)
}

/// The log's line of the one request, if it became one.
pub async fn logged(rig: &rig::Rig) -> Option<rig::Done> {
    rig.with(|driver| driver.done.pop()).await
}
