//! How much memory this process may use, and how much it does: its cgroup (version 2 or 1), or its resident set.

use std::fs;
use std::path::{Path, PathBuf};

/// A cgroup limit from here on is none.
const UNLIMITED_BYTES: u64 = 1 << 60;
const PAGE_BYTES: u64 = 4096;

/// Where the figures are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemorySource {
    /// A limit of the process's own: against its resident set.
    Resident { limit: u64 },
    /// The cgroup's directory, and the names its version gives to limit, use, and what of it is file cache.
    Cgroup {
        dir: PathBuf,
        limit: &'static str,
        used: &'static str,
        cache: &'static str,
    },
}

/// Bytes used, of bytes allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryUse {
    pub used: u64,
    pub limit: u64,
}

impl MemorySource {
    /// The process's own `limit`, else its cgroup's; `None` when there is neither.
    pub fn find(limit: Option<u64>) -> Option<Self> {
        match limit {
            Some(limit) => Some(MemorySource::Resident { limit }),
            None => Self::of_cgroups(
                &fs::read_to_string("/proc/self/cgroup").ok()?,
                Path::new("/sys/fs/cgroup"),
            ),
        }
    }

    /// The innermost cgroup of `/proc/self/cgroup` that has a limit. In a container its own is the mount's root.
    fn of_cgroups(text: &str, mount: &Path) -> Option<Self> {
        for line in text.lines() {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let (root, [limit, used, cache]) = if controllers.is_empty() {
                let two = ["memory.max", "memory.current", "inactive_file"];
                (mount.to_owned(), two)
            } else if controllers.split(',').any(|name| name == "memory") {
                let one = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"];
                (mount.join("memory"), one)
            } else {
                continue;
            };
            let inner = root.join(path.trim_start_matches('/'));
            for dir in inner.ancestors().take_while(|dir| dir.starts_with(&root)) {
                let source = MemorySource::Cgroup {
                    dir: dir.to_owned(),
                    limit,
                    used,
                    cache,
                };
                if source.sample().is_some() {
                    return Some(source);
                }
            }
        }
        None
    }

    /// The figures of now; `None` when they cannot be read, or there is no limit (any more).
    pub fn sample(&self) -> Option<MemoryUse> {
        match self {
            MemorySource::Resident { limit } => {
                let pages = fs::read_to_string("/proc/self/statm").ok()?;
                let resident: u64 = pages.split(' ').nth(1)?.parse().ok()?;
                Some(MemoryUse {
                    used: resident * PAGE_BYTES,
                    limit: *limit,
                })
            }
            MemorySource::Cgroup {
                dir,
                limit,
                used,
                cache,
            } => {
                let number = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
                let limit = number(limit).filter(|limit| *limit < UNLIMITED_BYTES)?;
                let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
                let cached = stat
                    .lines()
                    .find_map(|line| line.strip_prefix(cache)?.trim().parse::<u64>().ok());
                let used = number(used)?.saturating_sub(cached.unwrap_or(0));
                Some(MemoryUse { used, limit })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let mount = std::env::temp_dir().join(format!("sluice-memory-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = mount.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        mount
    }

    #[test]
    fn the_innermost_cgroup_with_a_limit_counts_without_file_cache() {
        let mount = cgroup(
            "two",
            &[
                ("a/memory.max", "1000000\n"),
                ("a/memory.current", "700000\n"),
                ("a/memory.stat", "anon 1\ninactive_file 100000\n"),
                ("a/b/memory.max", "max\n"),
            ],
        );
        let source = MemorySource::of_cgroups("0::/a/b\n", &mount).unwrap();
        let wanted = MemoryUse {
            used: 600_000,
            limit: 1_000_000,
        };
        assert_eq!(source.sample(), Some(wanted));
        fs::remove_dir_all(mount).unwrap();
    }

    #[test]
    fn version_one_is_read_and_no_limit_is_none() {
        let mount = cgroup(
            "one",
            &[
                ("memory/x/memory.limit_in_bytes", "500\n"),
                ("memory/x/memory.usage_in_bytes", "100\n"),
            ],
        );
        let text = "9:cpu:/x\n5:memory:/x\n";
        assert_eq!(
            MemorySource::of_cgroups(text, &mount).unwrap().sample(),
            Some(MemoryUse { used: 100, limit: 500 })
        );
        fs::write(mount.join("memory/x/memory.limit_in_bytes"), "9223372036854771712").unwrap();
        assert_eq!(MemorySource::of_cgroups(text, &mount), None);
        fs::remove_dir_all(mount).unwrap();
    }

    #[test]
    fn a_limit_of_ones_own_is_held_against_the_resident_set() {
        let found = MemorySource::find(Some(1 << 40)).unwrap().sample().unwrap();
        assert!(found.used > 1 << 20 && found.limit == 1 << 40);
    }
}
