//! The rim.
pub mod lab;
pub mod settings;
pub mod source;
pub mod sys;
pub mod telemetry;
pub mod worker;
