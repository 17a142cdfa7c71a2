//! How the kernel plane fails.

use std::{fmt, io};

/// Why the kernel plane did not start, or did not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// The kernel, the device or this build lacks it.
    Unavailable(String),
    /// It is there, but not for this process.
    NotPermitted(String),
    /// It should have worked.
    Failed(String),
}

impl KernelError {
    /// `EPERM` and `EACCES` are a matter of permission, `ENOSYS` and `EOPNOTSUPP` of what is there.
    pub fn from_io(doing: &str, error: &io::Error) -> Self {
        let text = format!("{doing}: {error}");
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => KernelError::NotPermitted(text),
            Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::ENODEV) => KernelError::Unavailable(text),
            _ => KernelError::Failed(text),
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Unavailable(text) | KernelError::NotPermitted(text) | KernelError::Failed(text) => {
                f.write_str(text)
            }
        }
    }
}

impl std::error::Error for KernelError {}
