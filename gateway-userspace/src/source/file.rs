//! Configuration from files: several `-f`, directories read sorted, standard input, watched.
//!
//! The *directories* that hold the files are watched, not the files: editors replace files, and the kubelet swaps a
//! symlink two levels up. Events are gathered for [`SETTLE`] so that a burst of writes is one reload.

use anyhow::{Context, Result};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Quiet time after a change before it is read: half-written files settle, and the whole way to the workers stays
/// under 50 ms.
pub const SETTLE: Duration = Duration::from_millis(5);
/// Largest configuration file, bytes.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most files of one run.
pub const FILES_MAX: usize = 10_000;

/// One text with the name a diagnostic shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    pub name: String,
    pub text: String,
}

/// Everything read in one go; a file that could not be read is a problem, not an end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    pub texts: Vec<Text>,
    pub problems: Vec<String>,
    /// Files and directories that could not be read: what they held before is still in force.
    pub lost: Vec<String>,
}

/// The `-f` arguments of a run.
#[derive(Clone, Debug)]
pub struct FileSource {
    paths: Vec<PathBuf>,
    /// Standard input is read once, at the start.
    stdin: Option<Text>,
}

impl FileSource {
    /// `-` is standard input.
    pub fn new(paths: Vec<PathBuf>) -> Result<Self> {
        let stdin = if paths.iter().any(|path| path.as_os_str() == "-") {
            let mut text = String::new();
            std::io::stdin()
                .take(FILE_BYTES_MAX)
                .read_to_string(&mut text)
                .context("read standard input")?;
            Some(Text {
                name: "<stdin>".to_owned(),
                text,
            })
        } else {
            None
        };
        Ok(Self {
            paths: paths.into_iter().filter(|path| path.as_os_str() != "-").collect(),
            stdin,
        })
    }

    /// Reads everything now, in the order of the arguments; directories in the order of file names.
    pub fn read(&self) -> Reading {
        let mut reading = Reading::default();
        reading.texts.extend(self.stdin.clone());
        for path in &self.paths {
            match files_of(path) {
                Ok(files) => files.iter().for_each(|file| read_one(file, &mut reading)),
                Err(error) => {
                    let name = path.display().to_string();
                    reading.problems.push(format!(
                        "{name}: {error} (mend: give -f a file or directory that exists)"
                    ));
                    reading.lost.push(name);
                }
            }
        }
        reading
    }

    /// Calls `changed` (from a thread of its own) whenever something in the watched directories changed and settled.
    /// `extra`: files beside the configuration, such as certificates on disk. Ends when the returned watch is dropped.
    pub fn watch(&self, extra: &[PathBuf], changed: impl Fn() + Send + 'static) -> Result<Watch> {
        let (sender, receiver) = channel();
        let places = Places::of(self.paths.iter().chain(extra));
        let directories = places.directories.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let matters = |event: notify::Event| {
                !matches!(event.kind, notify::EventKind::Access(_))
                    && event.paths.iter().any(|path| places.matter(path))
            };
            // An error (a queue that overflowed) may hide a change: it counts as one.
            if event.map_or(true, matters) {
                let _ = sender.send(());
            }
        })?;
        for directory in directories {
            let watched = watcher.watch(&directory, RecursiveMode::NonRecursive);
            watched.with_context(|| format!("watch {}", directory.display()))?;
        }
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || settle(&receiver, &changed))?;
        Ok(Watch { _watcher: watcher })
    }
}

/// Keeps the watch alive.
pub struct Watch {
    _watcher: RecommendedWatcher,
}

/// Gathers bursts of events until the watcher is gone.
fn settle(events: &Receiver<()>, changed: &impl Fn()) {
    while events.recv().is_ok() {
        loop {
            match events.recv_timeout(SETTLE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        changed();
    }
}

/// A file itself; of a directory its YAML files, sorted.
fn files_of(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)?.take(FILES_MAX) {
        let file = entry?.path();
        let yaml = file
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_one(file: &Path, reading: &mut Reading) {
    let name = file.display().to_string();
    let text = fs::metadata(file).and_then(|facts| {
        if facts.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        fs::read_to_string(file)
    });
    match text {
        Ok(text) => reading.texts.push(Text { name, text }),
        Err(error) => {
            reading.problems.push(format!("{name}: {error}"));
            reading.lost.push(name);
        }
    }
}

/// What is watched, and which events in it matter: a log file beside the configuration does not.
#[derive(Clone, Debug, Default)]
struct Places {
    /// Watched: every directory given, and those that hold a file or a link on the way to one.
    directories: BTreeSet<PathBuf>,
    /// Given as a directory: every change in it matters.
    whole: BTreeSet<PathBuf>,
    /// Names of files, and of links and folders on the way to them.
    names: BTreeSet<std::ffi::OsString>,
}

impl Places {
    fn of<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Self {
        let mut places = Places::default();
        for path in paths {
            if path.is_dir() {
                places.whole.insert(path.clone());
                places.directories.insert(path.clone());
            }
            places.follow(path);
        }
        places.directories.retain(|directory| directory.is_dir());
        places
    }

    /// Takes in a path and every link on the way to what it names. The kubelet's layout is FILE -> ..data/FILE,
    /// ..data -> ..timestamp; the swap is a rename onto ..data.
    fn follow(&mut self, path: &Path) {
        /// Longest chain of symlinks followed.
        const LINKS_MAX: usize = 8;
        let mut at = path.to_owned();
        for _ in 0..LINKS_MAX {
            let parent = at
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            self.directories.insert(parent.to_owned());
            self.names.extend(at.file_name().map(ToOwned::to_owned));
            if fs::symlink_metadata(parent).is_ok_and(|facts| facts.is_symlink()) {
                self.names.extend(parent.file_name().map(ToOwned::to_owned));
                self.directories.extend(parent.parent().map(Path::to_owned));
            }
            match fs::read_link(&at) {
                Ok(next) => at = parent.join(next),
                Err(_) => return,
            }
        }
    }

    fn matter(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| self.names.contains(name))
            || path.parent().is_some_and(|parent| self.whole.contains(parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn directories_are_read_sorted_and_only_their_yaml() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in [("b.yaml", "b"), ("a.yml", "a"), ("c.txt", "c")] {
            fs::write(dir.path().join(name), text).expect("write");
        }
        let source = FileSource::new(vec![dir.path().to_owned(), dir.path().join("missing.yaml")]).expect("no stdin");
        let reading = source.read();
        assert_eq!(
            reading.texts.iter().map(|text| text.text.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(reading.problems.len(), 1, "{:?}", reading.problems);
    }

    #[test]
    fn a_file_beside_the_configuration_does_not_matter() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("config.yaml");
        fs::write(&config, "a").expect("write");
        let source = FileSource::new(vec![config.clone()]).expect("no stdin");
        let (sender, receiver) = mpsc::channel();
        let told = move || {
            let _ = sender.send(());
        };
        let _watch = source.watch(&[], told).expect("watch");
        fs::write(dir.path().join("log.txt"), "noise").expect("write");
        assert!(
            receiver.recv_timeout(Duration::from_millis(200)).is_err(),
            "a log file is no change"
        );
        fs::write(&config, "b").expect("write");
        receiver
            .recv_timeout(Duration::from_secs(5))
            .expect("the configuration is");
    }

    #[test]
    fn a_symlink_swap_as_the_kubelet_does_it_is_noticed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        for (folder, text) in [("..1", "old"), ("..2", "new")] {
            fs::create_dir(at(folder)).expect("mkdir");
            fs::write(at(folder).join("config.yaml"), text).expect("write");
        }
        std::os::unix::fs::symlink("..1", at("..data")).expect("link");
        std::os::unix::fs::symlink("..data/config.yaml", at("config.yaml")).expect("link");
        let source = FileSource::new(vec![at("config.yaml")]).expect("no stdin");
        assert_eq!(source.read().texts[0].text, "old");
        let (sender, receiver) = mpsc::channel();
        let _watch = source
            .watch(&[], move || sender.send(()).expect("the test listens"))
            .expect("watch");
        std::os::unix::fs::symlink("..2", at("..data_tmp")).expect("link");
        fs::rename(at("..data_tmp"), at("..data")).expect("swap");
        receiver
            .recv_timeout(Duration::from_secs(5))
            .expect("the swap is noticed");
        assert_eq!(source.read().texts[0].text, "new");
    }
}
