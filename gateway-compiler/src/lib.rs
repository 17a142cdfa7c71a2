//! Source objects (Gateway API YAML) to [`gateway_core::ir::Ir`], with statuses and diagnostics as values.
//!
//! Total and deterministic: whatever comes in, something can be served, and the same objects in any order give the
//! same result.
//!
//! ```
//! use gateway_compiler::{Settings, compile, objects};
//!
//! let source = objects::Source::new("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n");
//! let compiled = compile(&objects::parse(&[source]), &Settings::default());
//! assert!(compiled.ir.listeners.is_empty() && compiled.diagnostics.is_empty());
//! ```

#![forbid(unsafe_code)]

pub mod diagnostic;
mod gateway_api;
pub mod generated;
mod hash;
pub mod objects;
mod pem;
mod plane;
mod settings;
pub mod status;
pub mod yaml;

use gateway_core::ir::Ir;
use std::sync::Arc;

pub use diagnostic::{Diagnostic, Position, Severity};
pub use objects::{Objects, Source, parse};
pub use settings::Settings;
pub use status::ObjectStatus;

/// What became of the objects: always something to serve, plus what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    pub ir: Ir,
    /// In order of their objects. Those of a [`Compiler`] are the very same as long as they say the same about routes.
    pub statuses: Vec<Arc<ObjectStatus>>,
    /// What should exist in the cluster for each Gateway of ours, oldest first. Of no use without one.
    pub generated: Vec<generated::GatewayService>,
    /// Of reading and of compiling, in order of position.
    pub diagnostics: Vec<Diagnostic>,
}

/// Compiles everything.
pub fn compile(objects: &Objects, settings: &Settings) -> Compiled {
    Compiler::default().compile(objects, settings)
}

/// Compiles again and again: what did not change since the last time is not worked out again, and the parts of the `Ir`
/// that follow from it are the very same ones. The result is that of [`compile`].
#[derive(Clone, Debug, Default)]
pub struct Compiler {
    memo: gateway_api::memo::Memo,
}

impl Compiler {
    pub fn compile(&mut self, objects: &Objects, settings: &Settings) -> Compiled {
        let memo = std::mem::take(&mut self.memo);
        let (compiled, memo) = gateway_api::compile(objects, settings, memo);
        self.memo = memo;
        finish(compiled, objects)
    }
}

fn finish(mut compiled: Compiled, objects: &Objects) -> Compiled {
    compiled.diagnostics.extend(objects.findings().cloned());
    compiled.diagnostics.sort();
    compiled.diagnostics.dedup();
    compiled
}
