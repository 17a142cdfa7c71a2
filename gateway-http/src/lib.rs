//! The HTTP engine: bytes in, bytes out. Own HTTP/2 and HTTP/1.1 codecs, two-legged streams, credit-based flow
//! control, guards against floods. No sockets, no clock.
//!
//! A driver owns the sockets and calls [`engine::Engine`]; see `engine.rs` for the order of calls in a turn.

#![forbid(unsafe_code)]

pub mod authorization;
pub mod engine;
pub mod ext_authz;
pub mod flood;
pub mod grpc;
pub mod grpc_web;
pub mod h1;
pub mod h2;
pub mod head;
pub mod limits;
pub mod metrics;
pub mod outcome;
pub mod retry;
pub mod trace;
pub mod websocket;
