//! Other processes and this one: ending by pid, who we are, which kernel.

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use std::io;

/// Asks a process to end (SIGTERM).
pub fn terminate(pid: i32) -> io::Result<()> {
    Ok(kill(Pid::from_raw(pid), Signal::SIGTERM)?)
}

/// Ends a process at once (SIGKILL).
pub fn end(pid: i32) -> io::Result<()> {
    // A process of another process namespace has no number here: it is 0, which would mean all of our own group.
    if pid <= 0 {
        return Err(io::Error::other("it is in another process namespace"));
    }
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

/// From now on a write to a pipe that nobody reads ends this process, as it ends other commands: `... | head`.
pub fn end_with_its_reader() {
    // SAFETY: the default action is no handler of ours, so nothing runs in a signal's context.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// The user this process acts as.
pub fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Whether this process acts as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The running kernel, as `uname -r` says it.
pub fn kernel_release() -> io::Result<String> {
    Ok(nix::sys::utsname::uname()?.release().to_string_lossy().into_owned())
}
