//! A Go toolchain: the one on the PATH if it is new enough, else the pinned one from the Go module proxy.
//!
//! Go publishes its toolchains as modules (go.dev/ref/mod#toolchains): one zip, whose hash is pinned here, so it does not
//! matter which proxy it comes from. Whoever needs a Go tool asks [`command`].

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Failure, say};
use crate::tools;

/// The pinned version.
pub const GO: &str = "1.26.8";
/// The oldest minor version of Go 1 that is good enough.
const MINOR_MIN: u32 = 26;
const PROXY_DEFAULT: &str = "https://proxy.golang.org";

/// Platform and SHA-256 of the zip.
const ZIPS: [(&str, &str); 2] = [
    (
        "linux-amd64",
        "30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7",
    ),
    (
        "linux-arm64",
        "02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99",
    ),
];

/// A `go` that works, installed where there was none: no other toolchain is fetched behind our back, no C is compiled.
pub fn command() -> Result<Command, Failure> {
    let program = ensure()?;
    let mut command = Command::new(program);
    command
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .env_remove("GOROOT");
    Ok(command)
}

/// Where `go` is.
pub fn ensure() -> Result<PathBuf, Failure> {
    if let Some(found) = shell::find_program("go").filter(|program| is_new_enough(program)) {
        return Ok(found);
    }
    let folder = tools::folder().join(format!("go-{GO}"));
    let program = folder.join("bin/go");
    if program.is_file() {
        return Ok(program);
    }
    install(&folder)?;
    Ok(program)
}

fn is_new_enough(program: &Path) -> bool {
    let told = shell::capture(
        Command::new(program)
            .args(["env", "GOVERSION"])
            .env("GOTOOLCHAIN", "local"),
    );
    told.is_ok_and(|version| minor(&version).is_some_and(|minor| minor >= MINOR_MIN))
}

/// 26 of `go1.26.8`.
fn minor(version: &str) -> Option<u32> {
    let rest = version.trim().strip_prefix("go1.")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The first proxy of a GOPROXY list that serves files; `None` where it forbids any.
fn proxy(list: &str) -> Option<&str> {
    if list.is_empty() {
        return Some(PROXY_DEFAULT);
    }
    let entries = list.split([',', '|']).map(str::trim);
    entries
        .map(|entry| entry.trim_end_matches('/'))
        .find(|entry| entry.contains("://"))
}

fn install(folder: &Path) -> Result<(), Failure> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "linux-amd64",
        "aarch64" => "linux-arm64",
        other => other,
    };
    let (_, hash) = ZIPS.iter().find(|(platform, _)| *platform == arch).ok_or_else(|| {
        Failure::new(format!(
            "there is no pinned Go for {arch}: install Go 1.{MINOR_MIN} or newer"
        ))
    })?;
    let list = std::env::var("GOPROXY").unwrap_or_default();
    let proxy = proxy(&list).ok_or_else(|| {
        Failure::new(format!(
            "GOPROXY={list} names no proxy to get Go from: name one, or install Go 1.{MINOR_MIN} or newer"
        ))
    })?;
    let module = format!("v0.0.1-go{GO}.{arch}");
    let url = format!("{proxy}/golang.org/toolchain/@v/{module}.zip");
    say(&format!(
        "installing Go {GO} from {url} into {} (70 MB)",
        folder.display()
    ));
    // Made beside its place and moved there whole.
    let beside = folder.with_extension("new");
    let _ = std::fs::remove_dir_all(&beside);
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", beside.display()));
    std::fs::create_dir_all(&beside).map_err(failed)?;
    let zip = beside.join("go.zip");
    shell::capture(
        Command::new("curl")
            .args(["-sSfL", "--retry", "3", "-o"])
            .arg(&zip)
            .arg(&url),
    )?;
    let sum = shell::capture(Command::new("sha256sum").arg(&zip))?;
    if !sum.starts_with(hash) {
        return Err(Failure::new(format!(
            "{url} has another SHA-256 than the pinned {hash}: {sum}"
        )));
    }
    // Python is there for the tests' peers; unzip need not be.
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(&zip).arg(&beside);
    shell::capture(&mut unzip)?;
    let root = beside.join(format!("golang.org/toolchain@{module}"));
    make_executable(&root.join("bin"))?;
    make_executable(&root.join("pkg/tool"))?;
    let _ = std::fs::remove_dir_all(folder);
    std::fs::rename(&root, folder).map_err(failed)?;
    std::fs::remove_dir_all(&beside).map_err(failed)
}

/// A module's zip carries no modes.
fn make_executable(folder: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            make_executable(&path)?;
        } else {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_compared_by_their_minor_number() {
        assert_eq!(minor("go1.26.8\n"), Some(26));
        assert_eq!(minor("go1.27rc1"), Some(27));
        assert_eq!(minor("devel"), None);
    }

    #[test]
    fn the_proxy_is_the_first_that_serves_files() {
        assert_eq!(proxy(""), Some(PROXY_DEFAULT));
        assert_eq!(proxy("direct"), None);
        assert_eq!(proxy("off"), None);
        assert_eq!(proxy("direct,https://a.b/c/|https://d"), Some("https://a.b/c"));
        assert_eq!(proxy("file:///var/goproxy,direct"), Some("file:///var/goproxy"));
    }
}
