//! Network namespaces by name, as `ip netns` keeps them under `/run/netns`.
//!
//! Only the network namespace changes: unlike `ip netns exec`, the mounts (and with them `/sys/fs/bpf` and its pins)
//! stay those of the host.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// The file of a named namespace.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// The namespace of this thread.
pub fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Moves this thread into a named namespace. Threads started later begin there.
pub fn enter(name: &str) -> io::Result<()> {
    let file = File::open(path(name)).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("network namespace {name}: {error}; `ip netns list` shows what is there"),
        )
    })?;
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

/// Runs `work` on a thread of its own inside a named namespace and returns what it returned.
pub fn within<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| enter(name).map(|()| work()));
        inside
            .join()
            .map_err(|_| io::Error::other(format!("work inside network namespace {name} panicked")))?
    })
}
