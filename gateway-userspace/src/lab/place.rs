//! Where the laboratory keeps its files: pids, logs, the configuration it runs, the admin socket.

use std::path::PathBuf;

/// Removed by `sluice lab down`.
pub const STATE_DIR: &str = "/run/sluice-lab";
/// Pins of the laboratory's gateway, apart from those of a real one on the same machine.
pub const PIN_DIR: &str = "/sys/fs/bpf/sluice-lab";
/// The configuration the laboratory runs; also a sample to start from.
pub const QUICKSTART: &str = include_str!("../../../config/quickstart.yaml");

pub fn state(file: &str) -> PathBuf {
    PathBuf::from(STATE_DIR).join(file)
}

/// The gateway's admin, reachable from outside the namespaces.
pub fn admin_socket() -> PathBuf {
    state("admin.sock")
}

/// Where a backend tells how many requests it has answered.
pub fn count_socket(backend: &str) -> PathBuf {
    state(&format!("{backend}.count.sock"))
}
