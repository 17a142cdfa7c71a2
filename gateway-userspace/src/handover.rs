//! Hand-over of a running gateway to its successor, without a refused connection: who is whose successor, and the two
//! sides of the conversation. Why it is done this way: `docs/adr/0005-hand-over.md`.
//!
//! A running gateway has a *door*: a Unix socket in its state directory, for its own user alone. Whoever starts with the
//! same identity finds somebody at home and takes over; SIGUSR2 makes the running process start that successor itself.

pub mod giver;
pub mod protocol;
pub mod taker;

use crate::settings::AdminAddr;
use crate::sys::netns;
use crate::sys::packets::{Door, Line};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What makes two processes the same gateway, one after the other. Others never meet: their doors have other names.
pub struct Identity<'a> {
    pub state_dir: &'a Path,
    pub pin_dir: &'a Path,
    pub admin: &'a [AdminAddr],
    /// Files of the configuration; they count only where no admin address tells gateways apart.
    pub files: &'a [PathBuf],
}

/// What a starting process finds.
#[derive(Debug)]
pub enum Claim {
    /// Nobody is there: this is the door to keep.
    First(Door),
    /// Somebody is, and listens.
    Successor(Line),
    /// There can be no hand-over, for this reason.
    Without(String),
}

impl Identity<'_> {
    /// Where the door of this gateway is.
    pub fn door(&self) -> io::Result<PathBuf> {
        let namespace = netns::current()?.metadata()?.ino();
        let mut names: Vec<String> = self
            .admin
            .iter()
            .filter_map(|address| match address {
                AdminAddr::None => None,
                AdminAddr::Tcp(address) => Some(format!("tcp {address}")),
                AdminAddr::Unix(path) => Some(format!("unix {}", path.display())),
            })
            .collect();
        if names.is_empty() {
            names.extend(self.files.iter().map(|file| format!("file {}", file.display())));
        }
        names.sort();
        let pins = std::path::absolute(self.pin_dir)?;
        let text = format!("{namespace}\n{}\n{}", pins.display(), names.join("\n"));
        let state = std::path::absolute(self.state_dir)?;
        Ok(state.join(format!("gateway-{:016x}.sock", fnv1a(text.as_bytes()))))
    }
}

/// Knocks, and becomes the one to knock at if nobody answers.
pub fn claim(door: &Path) -> Claim {
    let without = |doing: &str, error: &io::Error| Claim::Without(format!("{doing} {}: {error}", door.display()));
    match Line::open(door) {
        Ok(line) => return Claim::Successor(line),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => {}
            // What a killed process left.
            Some(libc::ECONNREFUSED) => drop(fs::remove_file(door)),
            _ => return without("knock at", &error),
        },
    }
    if let Some(folder) = door.parent()
        && let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(folder)
    {
        return without("make the folder of", &error);
    }
    match Door::make(door) {
        Ok(made) => Claim::First(made),
        Err(error) => without("make", &error),
    }
}

/// FNV-1a, 64 bits: the same in every build.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(pins: &str, admin: &[&str], file: &str) -> PathBuf {
        let admin: Vec<AdminAddr> = admin.iter().map(|text| text.parse().unwrap()).collect();
        let identity = Identity {
            state_dir: Path::new("/state"),
            pin_dir: Path::new(pins),
            admin: &admin,
            files: &[file.into()],
        };
        identity.door().unwrap()
    }

    #[test]
    fn gateways_with_other_pins_or_admins_never_meet() {
        let one = door("/pins", &["unix:/a", "127.0.0.1:1"], "x");
        assert_eq!(one, door("/pins", &["127.0.0.1:1", "unix:/a"], "y"));
        assert_ne!(one, door("/others", &["unix:/a", "127.0.0.1:1"], "x"));
        assert_ne!(one, door("/pins", &["unix:/b"], "x"));
        assert_ne!(door("/pins", &["none"], "x"), door("/pins", &["none"], "y"));
    }

    #[test]
    fn the_first_keeps_the_door_the_second_knocks_and_a_dead_one_leaves_it_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state").join("door");
        let Claim::First(door) = claim(&path) else {
            panic!("nobody was there")
        };
        assert!(matches!(claim(&path), Claim::Successor(_)));
        drop(door);
        assert!(matches!(claim(&path), Claim::First(_)));
    }

    #[test]
    fn a_state_directory_that_cannot_be_made_is_a_reason_not_an_error() {
        assert!(matches!(claim(Path::new("/proc/none/door")), Claim::Without(why) if why.contains("/proc/none/door")));
    }
}
