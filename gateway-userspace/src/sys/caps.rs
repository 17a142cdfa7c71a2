//! Capabilities and limits of this process, as the kernel reports them.

use std::fs;
use std::io;

/// The capabilities the gateway has a use for (`linux/capability.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// Ports below 1024.
    NetBindService = 10,
    /// Routes, addresses, attaching to interfaces and to the network namespace.
    NetAdmin = 12,
    /// Mounting bpffs; all of BPF before Linux 5.8.
    SysAdmin = 21,
    /// Pointer arithmetic and kernel reads in programs.
    Perfmon = 38,
    /// Loading programs and creating maps.
    Bpf = 39,
}

impl Capability {
    pub const fn name(self) -> &'static str {
        match self {
            Capability::NetBindService => "CAP_NET_BIND_SERVICE",
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::SysAdmin => "CAP_SYS_ADMIN",
            Capability::Perfmon => "CAP_PERFMON",
            Capability::Bpf => "CAP_BPF",
        }
    }
}

/// An effective capability set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Of this thread.
    pub fn current() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/thread-self/status")?;
        effective(&status).ok_or_else(|| io::Error::other("/proc/thread-self/status shows no CapEff"))
    }

    pub const fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u64) != 0
    }

    /// `CAP_SYS_ADMIN` contains the two BPF capabilities (Linux 5.8).
    pub const fn may_load(self) -> bool {
        self.has(Capability::SysAdmin) || (self.has(Capability::Bpf) && self.has(Capability::NetAdmin))
    }
}

fn effective(status: &str) -> Option<Capabilities> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok().map(Capabilities)
}

/// Raises the limit of open files as far as it may go; returns what it is now.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live, exclusively borrowed value of the type the call fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live value of the type the call reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// `major.minor` and the full text of the running kernel.
pub fn kernel_release() -> io::Result<((u32, u32), String)> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let mut numbers = text.split(['.', '-']).map_while(|part| part.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok(((major, minor), text)),
        _ => Err(io::Error::other(format!(
            "kernel release `{text}` begins with no version"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_from_status() {
        let caps = effective("Name:\tx\nCapPrm:\t0\nCapEff:\t0000008000001400\n").unwrap();
        assert!(caps.has(Capability::Bpf) && caps.has(Capability::NetAdmin) && caps.has(Capability::NetBindService));
        assert!(!caps.has(Capability::SysAdmin) && caps.may_load());
        assert_eq!(effective("Name:\tx\n"), None);
    }

    #[test]
    fn the_running_kernel_has_a_version() {
        assert!(kernel_release().unwrap().0 >= (5, 0));
    }
}
