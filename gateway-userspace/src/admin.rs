//! The admin: Envoy-shaped read paths and ours under `/api/v1`. On TCP (loopback by default) and Unix sockets.
//!
//! GET never changes anything. Requests over TCP must name an address or `localhost` in `Host` and carry no foreign
//! `Origin`, so that a web page cannot reach a gateway through a browser (DNS rebinding).

pub mod api;
pub mod envoy;
pub mod guard;
pub mod health;
pub mod probe;
pub mod server;
pub mod state;
mod told;
pub mod view;
