//! Decisions: what a configuration means, which endpoint a request goes to, what the kernel tables should hold.
//!
//! Pure: no I/O, no clock, no randomness, no async. Time comes in as [`time::Moment`].

#![forbid(unsafe_code)]

pub mod balance;
pub mod control;
pub mod decide;
pub mod detect;
pub mod fairness;
pub mod fault;
pub mod filter;
pub mod ids;
pub mod ir;
pub mod lower;
pub mod model;
pub mod reconcile;
pub mod route;
pub mod session;
pub mod snapshot;
pub mod time;
