//! The pin directory: `<pin-dir>/v<PIN_VERSION>/`, in a bpffs. Maps lie there under their names, links as `tcx_<ifindex>`,
//! `xdp_<ifindex>` and `sk_lookup`, a clsact filter's program as `clsact_<ifindex>` (bpffs allows no dots, and interface names may have some).
//!
//! One process at a time: the directory is locked while it is used, and the kernel drops the lock with the process. A
//! process that hands over lets the lock go first, and from then on touches nothing here.

use super::bpf;
use super::error::KernelError;
use gateway_common::abi::PIN_VERSION;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::statfs;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the lock may stay with a successor that failed.
const TAKE_BACK_MAX: Duration = Duration::from_secs(5);
const TAKE_BACK_STEP: Duration = Duration::from_millis(10);
/// `BPF_FS_MAGIC`.
const BPFFS_MAGIC: i64 = 0xcafe_4a11;
/// Where systemd and everyone else mounts the bpffs.
pub const BPFFS: &str = "/sys/fs/bpf";

/// A pin directory that is ours alone.
pub struct Pins {
    dir: PathBuf,
    base: PathBuf,
    /// A bpffs had to be mounted.
    pub mounted: bool,
    /// None while a successor has it.
    lock: Option<Flock<File>>,
}

impl Pins {
    /// Opens (makes) the directory and locks it; mounts a bpffs where none is.
    pub fn open(base: &Path) -> Result<Self, KernelError> {
        let mounted = ensure_bpffs(base)?;
        let dir = versioned(base);
        make_private(base)?;
        make_private(&dir)?;
        let lock = lock(&dir)?;
        Ok(Self {
            dir,
            base: base.to_owned(),
            mounted,
            lock: Some(lock),
        })
    }

    /// Leaves the directory to a successor.
    pub fn yield_to_successor(&mut self) {
        self.lock = None;
    }

    /// Takes it back from one that failed, whose end may take a moment.
    pub fn take_back(&mut self) -> Result<(), KernelError> {
        let until = Instant::now() + TAKE_BACK_MAX;
        while self.lock.is_none() {
            match lock(&self.dir) {
                Ok(lock) => self.lock = Some(lock),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => sleep(TAKE_BACK_STEP),
            }
        }
        Ok(())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The object pinned under a name, if any.
    pub fn get(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        bpf::pinned(&self.path(name))
    }

    pub fn pin(&self, object: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        bpf::pin(object, &self.path(name))
    }

    /// Nothing happens if nothing is pinned there.
    pub fn unpin(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Names of everything pinned, in order.
    pub fn names(&self) -> io::Result<Vec<String>> {
        names_in(&self.dir)
    }

    /// Removes every pin and the directory. Links go first: no program may run on maps that are half gone.
    pub fn remove_all(&self) -> io::Result<()> {
        let (links, maps): (Vec<_>, Vec<_>) = self.names()?.into_iter().partition(|name| is_link(name));
        for name in links.iter().chain(&maps) {
            self.unpin(name)?;
        }
        fs::remove_dir(&self.dir)?;
        remove_if_empty(&self.base)
    }
}

/// Where the objects of this version lie.
pub fn versioned(base: &Path) -> PathBuf {
    base.join(format!("v{PIN_VERSION}"))
}

/// Whether a pin of this name says where a program is attached.
pub fn is_link(name: &str) -> bool {
    name == "sk_lookup" || ["tcx_", "clsact_", "xdp_"].iter().any(|kind| name.starts_with(kind))
}

/// Names of what is pinned below `base`, without opening or locking anything; empty if there is nothing.
pub fn survey(base: &Path) -> Vec<String> {
    names_in(&versioned(base)).unwrap_or_default()
}

/// Whether `path`, or what of it exists, lies in a bpffs.
pub fn in_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    existing.is_some_and(|path| statfs(path).is_ok_and(|stat| stat.filesystem_type().0 == BPFFS_MAGIC))
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// A bpffs at the usual place if `base` is below it, else on `base` itself. True if it had to be mounted.
fn ensure_bpffs(base: &Path) -> Result<bool, KernelError> {
    if in_bpffs(base) {
        return Ok(false);
    }
    let at = if base.starts_with(BPFFS) {
        Path::new(BPFFS)
    } else {
        base
    };
    if !at.starts_with(BPFFS) {
        fs::create_dir_all(at).map_err(|error| KernelError::from_io(&format!("make {}", at.display()), &error))?;
    }
    mount(Some("bpf"), at, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(|errno| {
        let command = format!("`mount -t bpf bpf {}`", at.display());
        KernelError::from_io(
            &format!(
                "no bpffs at {}, and {command} fails: mount it, or choose --pin-dir",
                at.display()
            ),
            &errno.into(),
        )
    })?;
    Ok(true)
}

/// Makes a directory that only this user may enter. One that someone else made is refused: its owner could put
/// another's maps in the place of ours (a bpffs is commonly writable by all, as `/tmp` is).
fn make_private(dir: &Path) -> Result<(), KernelError> {
    let failed = |error: &io::Error| KernelError::from_io(&format!("make {}", dir.display()), error);
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&error)),
        _ => {}
    }
    let facts = fs::symlink_metadata(dir).map_err(|error| failed(&error))?;
    if !facts.is_dir() || facts.uid() != nix::unistd::Uid::effective().as_raw() {
        let (at, uid) = (dir.display(), facts.uid());
        return Err(KernelError::Failed(format!(
            "{at} belongs to user {uid}, not to this one: remove it"
        )));
    }
    if facts.mode() & 0o077 != 0 {
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(|error| failed(&error))?;
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<Flock<File>, KernelError> {
    let file = File::open(dir).map_err(|error| KernelError::from_io(&format!("open {}", dir.display()), &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            let at = dir.display();
            return KernelError::Failed(format!(
                "{at} is in use by another sluice: stop it, choose another --pin-dir, or take over from it with the same \
                 --state-dir and --admin"
            ));
        }
        KernelError::from_io(&format!("lock {}", dir.display()), &errno.into())
    })
}

/// The directory itself, unless it is a mount point or holds another version.
fn remove_if_empty(base: &Path) -> io::Result<()> {
    match fs::remove_dir(base) {
        Err(error)
            if !matches!(
                error.raw_os_error(),
                Some(libc::ENOTEMPTY | libc::EBUSY | libc::EPERM | libc::EACCES)
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_told_from_maps_by_name() {
        assert!(["tcx_3", "clsact_4", "xdp_12", "sk_lookup"].into_iter().all(is_link));
        assert!(!["VIPS", "RINGS", "LOAD"].into_iter().any(is_link));
    }

    #[test]
    fn a_missing_directory_surveys_as_empty_and_is_no_bpffs() {
        assert!(survey(Path::new("/nonexistent/sluice")).is_empty());
        assert!(!in_bpffs(Path::new("/tmp")));
    }
}
