//! The rim: sockets, threads, files and BPF system calls around the pure crates; the binary `sluice`.

pub mod admin;
pub mod cli;
pub mod control;
pub mod handover;
pub mod kernel;
pub mod lab;
pub mod settings;
pub mod source;
pub mod sys;
pub mod telemetry;
pub mod warden;
pub mod worker;
