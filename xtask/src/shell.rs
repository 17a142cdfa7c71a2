//! Running other programs: one way to say what is done, one way to fail.
//!
//! A child's stdout goes to our stderr unless it is captured, so stdout stays free for a verb's result.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A check or a build failed.
pub const EXIT_FAILED: u8 = 1;
/// The command line was wrong.
pub const EXIT_USAGE: u8 = 2;
/// No permission (`EX_NOPERM`).
pub const EXIT_NO_PERMISSION: u8 = 77;

/// Why a verb ended early, in words a person can act on, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub why: String,
    pub exit: u8,
}

impl Failure {
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            exit: EXIT_FAILED,
        }
    }

    pub fn usage(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            exit: EXIT_USAGE,
        }
    }
}

/// Says one thing that is about to be done.
pub fn say(what: &str) {
    eprintln!("xtask: {what}");
}

/// The repository's root, known since compilation.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask/ lies in the repository").to_path_buf()
}

/// The cargo that runs us, never a distribution's beside it, with its own rustc, rustfmt and clippy first in PATH.
pub fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&cargo);
    command.current_dir(root()).stdin(Stdio::null());
    // `cargo run` exports what describes xtask itself; build scripts of others must not see it.
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PKG_NAME",
        "CARGO_PKG_VERSION",
    ] {
        command.env_remove(name);
    }
    if let Some(folder) = Path::new(&cargo)
        .parent()
        .filter(|folder| folder.join("rustc").is_file())
    {
        command.env("PATH", path_with(folder));
    }
    command
}

/// PATH with `folder` in front.
pub fn path_with(folder: &Path) -> OsString {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&old));
    std::env::join_paths(all).unwrap_or(old)
}

/// Runs to the end; stdout goes to our stderr.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let err = std::io::stderr().as_fd().try_clone_to_owned();
    let out = err.map_or_else(|_| Stdio::null(), Stdio::from);
    let status = command.stdout(out).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("`{}` ended with {status}", line_of(command)))),
        Err(error) => Err(Failure::new(format!("`{}` did not start: {error}", line_of(command)))),
    }
}

/// Runs to the end and returns stdout; what it wrote is shown only on failure.
pub fn capture(command: &mut Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| Failure::new(format!("`{}` did not start: {error}", line_of(command))))?;
    if !output.status.success() {
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        return Err(Failure::new(format!(
            "`{}` ended with {}\n{stdout}{stderr}",
            line_of(command),
            output.status
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// A command line as one writes it, for arguments without spaces of their own.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_ascii_whitespace()
}

/// Where a program is found in PATH or the system's own folders.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0")
}

/// Whether `sudo -n` lets us become root without asking.
pub fn can_sudo() -> bool {
    let mut probe = Command::new("sudo");
    probe
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// `program` as root: directly, or through `sudo -n`.
pub fn as_root(program: &str) -> Command {
    let mut command = Command::new(if is_root() { program } else { "sudo" });
    if !is_root() {
        command.args(["-n", program]);
    }
    command.stdin(Stdio::null());
    command
}
