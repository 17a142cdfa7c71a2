//! What the gateway tells about the traffic it served: one line for each request, and counters.

pub mod access_log;
pub mod cluster;
pub mod metrics;
pub mod report;
pub mod spans;
