//! What the fuzz targets share: an engine between byte buffers, endpoints that answer, and readers of what comes out
//! that have no line in common with ours.
//!
//! A target panics when a law is broken; libFuzzer keeps the input. `cargo xtask fuzz` builds and runs them.

#[path = "../../../gateway-http/tests/support/config.rs"]
pub mod config;
pub mod cut;
pub mod endpoint;
pub mod frames;
pub mod http1;
#[path = "../../../gateway-http/tests/support/turns.rs"]
pub mod turns;

use gateway_core::ir::UpstreamProtocol;
use gateway_core::snapshot::Snapshot;
use std::sync::{Arc, OnceLock};

/// One endpoint that speaks `protocol`; made once.
pub fn snapshot(protocol: UpstreamProtocol) -> Arc<Snapshot> {
    static HTTP1: OnceLock<Arc<Snapshot>> = OnceLock::new();
    static HTTP2: OnceLock<Arc<Snapshot>> = OnceLock::new();
    let made = match protocol {
        UpstreamProtocol::Http1 => &HTTP1,
        UpstreamProtocol::H2c => &HTTP2,
    };
    let config = || config::Config::new(1).rule(|rule| rule.destinations[0].to.protocol = protocol);
    made.get_or_init(|| config().snapshot()).clone()
}
