//! Namespaces that only this run is in, and its certain end.
//!
//! `unshare` makes them, with this program again as first process of the process namespace: the kernel ends all others
//! with it. It ends with `unshare`, and that with us, so also `kill -9` leaves nothing. What is mounted is mounted in a
//! mount namespace of its own: names of network namespaces in `/run` and pinned BPF objects go with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::INSIDE;
use super::build::Built;
use super::cluster::{CLIENT_PATH, KUBECONFIG};
use super::options::Options;
use super::topology::CLIENT;
use crate::shell::{self, Failure, say, words};

/// Within it `unshare` has made its child.
const START_MAX: Duration = Duration::from_secs(10);
/// Runs a command in the client namespace, from outside.
const ENTER: &str = "enter";

/// Becomes root by `sudo -n`; returns only when that is refused.
pub fn as_root(options: &Options, built: &Built) -> Failure {
    let mut line = vec!["env".to_owned()];
    let handed = ["PATH", "HOME", "CI", "GOFLAGS", "GOPROXY", "CARGO", "CARGO_TARGET_DIR"];
    line.extend(
        handed
            .iter()
            .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?))),
    );
    line.push(format!("SLUICE_TOOLS={}", crate::tools::folder().display()));
    line.push(format!("SLUICE_BIN={}", built.gateway.display()));
    line.extend([this_program(), "conformance".to_owned()]);
    line.extend(options.words());
    if !shell::can_sudo() {
        return Failure {
            why: format!(
                "namespaces need root and `sudo -n` is refused; type: sudo {}",
                line.join(" ")
            ),
            exit: shell::EXIT_NO_PERMISSION,
        };
    }
    let error = Command::new("sudo")
        .arg("-n")
        .args(&line)
        .current_dir(shell::root())
        .exec();
    Failure::new(format!("sudo did not start: {error}"))
}

/// Runs the rest of the verb in namespaces of its own and takes over how it ended.
pub fn enter(options: &Options, built: &Built) -> Result<(), Failure> {
    fs::create_dir_all(&options.out).map_err(failed(&options.out))?;
    let out = fs::canonicalize(&options.out).map_err(failed(&options.out))?;
    let lock_file = out.join("lock");
    let lock = fs::File::create(&lock_file).map_err(failed(&lock_file))?;
    if lock.try_lock().is_err() {
        return Err(Failure::new(format!(
            "another run writes to {}: wait for it, or name another folder by --out",
            out.display()
        )));
    }
    clear(&out)?;
    let mut command = Command::new("setpriv");
    command.args(words(
        "--pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private --",
    ));
    command.args([this_program(), "conformance".to_owned(), INSIDE.to_owned()]);
    command.args(built.args()).args(options.words());
    // The last of two is taken: it is whole.
    command.arg("--out").arg(&out).current_dir(shell::root());
    let mut child = command
        .spawn()
        .map_err(|error| Failure::new(format!("setpriv (util-linux) did not start: {error}")))?;
    write_enter(&out, child.id())?;
    let status = child
        .wait()
        .map_err(|error| Failure::new(format!("waiting for unshare: {error}")))?;
    let _ = fs::remove_file(out.join(ENTER));
    drop(lock);
    match status.code() {
        Some(0) => Ok(()),
        // It has said why.
        Some(code) => std::process::exit(code),
        None => Err(Failure::new(format!("the run ended with {status}"))),
    }
}

/// What the first process finds missing in new namespaces.
pub fn furnish() -> Result<(), Failure> {
    let mounts = [
        "-t tmpfs tmpfs /run",
        // Of this network namespace, and with it places for the two below.
        "-t sysfs sysfs /sys",
        "-t bpf bpf /sys/fs/bpf",
        "-t cgroup2 cgroup2 /sys/fs/cgroup",
    ];
    for mount in mounts {
        shell::capture(Command::new("mount").args(words(mount)))?;
    }
    for folder in ["/run/netns", "/run/lock"] {
        fs::create_dir_all(folder).map_err(failed(Path::new(folder)))?;
    }
    Ok(())
}

pub fn say_how_to_enter(out: &Path) {
    let enter = out.join(ENTER);
    say(&format!(
        "the cluster stays until Ctrl-C. From another shell, in the client's namespace:\n  \
         {enter} kubectl get gateways,httproutes -A\n  {enter} curl http://ADDRESS/\n  {enter} bash\n\
         and in the gateway's:\n  {enter} gateway sluice get listeners\nLogs are in {}",
        out.display(),
        enter = enter.display(),
    ));
}

/// A script beside the logs, for as long as the run lasts.
fn write_enter(out: &Path, unshare: u32) -> Result<(), Failure> {
    let began = Instant::now();
    let children = PathBuf::from(format!("/proc/{unshare}/task/{unshare}/children"));
    let first = loop {
        let text = fs::read_to_string(&children).unwrap_or_default();
        if let Some(first) = text.split_whitespace().next() {
            break first.to_owned();
        }
        if began.elapsed() > START_MAX {
            return Err(Failure::new("unshare (util-linux) did not start its child"));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let script = format!(
        "#!/bin/sh\n\
         # enter [gateway] COMMAND..: runs it in the namespaces of the run, as the client or beside the gateway.\n\
         place={CLIENT}; if [ \"$1\" = gateway ]; then shift; place={}; fi\n\
         exec nsenter --target {first} --mount --pid --net=/proc/{first}/root/run/netns/$place \\\n\
         \x20 env KUBECONFIG={KUBECONFIG} PATH={CLIENT_PATH}:\"$PATH\" \"$@\"\n",
        super::topology::NODE,
    );
    let file = out.join(ENTER);
    fs::write(&file, script).map_err(failed(&file))?;
    fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).map_err(failed(&file))
}

/// Takes away what an earlier run wrote, and nothing else.
fn clear(out: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(out).map_err(failed(out))? {
        let path = entry.map_err(failed(out))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "log" || extension == "yaml")
        {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    Ok(())
}

fn this_program() -> String {
    // Known as long as this runs, also when a build replaces the file.
    std::env::current_exe().map_or_else(|_| "/proc/self/exe".to_owned(), |path| path.display().to_string())
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::new(format!("{path}: {error}"))
}
