//! The tests' clients for browsers, from npm, exactly as the committed lock file says.
//!
//! Made like the Python environment: complete is known by a mark.

use std::process::Command;

use crate::shell::{self, Failure, say};
use crate::tools;

/// Installs the clients where they are not there yet.
pub fn ensure() -> Result<(), Failure> {
    let folder = tools::web_folder();
    let mark = folder.join("complete");
    if mark.is_file() {
        return Ok(());
    }
    say(&format!(
        "installing clients for gRPC-Web and Connect in {}",
        folder.display()
    ));
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    for (name, text) in [
        ("package.json", tools::WEB_PACKAGE),
        ("package-lock.json", tools::WEB_LOCK),
    ] {
        std::fs::write(folder.join(name), text).map_err(failed)?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    shell::run(npm.current_dir(&folder))?;
    std::fs::write(&mark, tools::WEB_LOCK).map_err(failed)
}
