//! Source objects (Gateway API YAML) to [`gateway_core::ir::Ir`], with statuses and diagnostics as values.
//!
//! Total and deterministic: whatever comes in, something can be served, and the same objects in any order give the
//! same result.

#![forbid(unsafe_code)]
