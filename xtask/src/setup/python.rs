//! A virtual environment with the tests' Python peers, pinned.
//!
//! It is made beside its place and moved there when complete is known by a mark, so a broken download is not taken for one.

use std::process::Command;

use crate::shell::{self, Failure, say, words};
use crate::tools;

/// Makes the environment where it is not there yet.
pub fn ensure() -> Result<(), Failure> {
    let folder = tools::python_folder();
    let mark = folder.join("complete");
    if mark.is_file() {
        return Ok(());
    }
    let packages = tools::PYTHON_PACKAGES;
    say(&format!(
        "making a Python environment in {} with {}",
        folder.display(),
        packages.join(" ")
    ));
    // The system's own Python: a version manager's could vanish under the cache.
    let system = if std::path::Path::new("/usr/bin/python3").is_file() {
        "/usr/bin/python3"
    } else {
        "python3"
    };
    shell::run(Command::new(system).args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(tools::python());
    pip.args(words(
        "-m pip install --quiet --disable-pip-version-check --only-binary :all:",
    ));
    shell::run(pip.args(packages))?;
    std::fs::write(&mark, packages.join("\n")).map_err(|error| Failure::new(format!("{}: {error}", mark.display())))
}
