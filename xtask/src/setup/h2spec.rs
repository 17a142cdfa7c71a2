//! h2spec, the conformance tests of HTTP/2 that nobody here wrote, pinned with all it is made of.
//!
//! `h2spec/go.mod` and `go.sum` name every module by version and hash, so the same program is built everywhere.

use crate::setup::go;
use crate::shell::{self, Failure, say, words};
use crate::tools;

const GO_MOD: &str = include_str!("h2spec/go.mod");
const GO_SUM: &str = include_str!("h2spec/go.sum");

/// Builds it where it is not in the cache yet: a minute on two cores.
pub fn ensure() -> Result<(), Failure> {
    let binary = tools::h2spec();
    if binary.is_file() {
        return Ok(());
    }
    let folder = binary.with_file_name("build");
    say(&format!(
        "building h2spec {} into {} (a minute)",
        tools::H2SPEC,
        binary.display()
    ));
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    std::fs::write(folder.join("go.mod"), GO_MOD).map_err(failed)?;
    std::fs::write(folder.join("go.sum"), GO_SUM).map_err(failed)?;
    let mut build = go::command()?;
    build.current_dir(&folder);
    build.args(words(
        "build -trimpath -buildvcs=false -modcacherw -mod=readonly -o h2spec",
    ));
    build.arg("github.com/summerwind/h2spec/cmd/h2spec");
    // What is fetched and compiled stays here and goes when it is done. The hashes are ours: no other database is asked.
    build
        .env("GOPATH", folder.join("path"))
        .env("GOCACHE", folder.join("cache"));
    build
        .env("GOSUMDB", "off")
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .env_remove("GOMODCACHE");
    shell::capture(&mut build)?;
    std::fs::rename(folder.join("h2spec"), &binary).map_err(failed)?;
    std::fs::remove_dir_all(&folder).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_modules_are_of_the_pinned_version() {
        let line = format!("github.com/summerwind/h2spec {} ", tools::H2SPEC);
        assert!(GO_MOD.contains(&line) && GO_SUM.contains(&line));
    }
}
