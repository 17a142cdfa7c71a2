//! Processes of the laboratory: started in a namespace, found again by pid file, ended by pid.

use super::place;
use crate::sys::{netns, process};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// This binary, told to enter `namespace` and then become `sluice <args>`. Unlike `ip netns exec` it keeps `/sys`, so
/// that pins under `/sys/fs/bpf` are where they belong.
pub fn sluice_in(namespace: &str, args: &[String]) -> Result<Command> {
    let me = std::env::current_exe().context("this program's own path")?;
    let mut command = Command::new(&me);
    command.args(["lab", "exec", namespace, "--"]).arg(&me).args(args);
    Ok(command)
}

/// Starts it in the background: output to `<name>.log`, pid to `<name>.pid`.
pub fn start(name: &str, mut command: Command) -> Result<Child> {
    let log = place::state(&format!("{name}.log"));
    let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().with_context(|| format!("start {name}"))?;
    fs::write(place::state(&format!("{name}.pid")), child.id().to_string())?;
    Ok(child)
}

/// Enters a namespace for good and becomes another program; returns only on failure.
pub fn exec(namespace: &str, command: &[String]) -> Result<()> {
    netns::enter(namespace).context("is the laboratory up? `sluice lab up`, as root")?;
    let Some((program, args)) = command.split_first() else {
        bail!("no command given")
    };
    Err(Command::new(program).args(args).exec()).with_context(|| format!("run {program}"))
}

/// Ends every process that a pid file names and that is still one of ours.
pub fn end_all() -> Result<()> {
    let Ok(entries) = fs::read_dir(place::STATE_DIR) else {
        return Ok(());
    };
    let mut pids = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "pid") {
            let pid = fs::read_to_string(&path)
                .ok()
                .and_then(|text| text.trim().parse::<i32>().ok());
            if let Some(pid) = pid.filter(|pid| is_ours(*pid)) {
                let _ = process::terminate(pid);
                pids.push(pid);
            }
            let _ = fs::remove_file(&path);
        }
    }
    let give_up = Instant::now() + END_TIMEOUT;
    while pids.iter().any(|pid| is_ours(*pid)) {
        if Instant::now() > give_up {
            for pid in pids.iter().filter(|pid| is_ours(**pid)) {
                let _ = process::end(*pid);
            }
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A pid may have been given to someone else since: only a live `sluice` is ended.
fn is_ours(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = stat
        .rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    !zombie
        && exe
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("sluice"))
}

/// Waits until `ready` says yes; the end of `child` or the time limit is an error that shows the end of its log.
pub fn wait_until(name: &str, child: &mut Child, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let give_up = Instant::now() + limit;
    loop {
        if ready() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("{name} ended with {status}:\n{}", log_tail(name));
        }
        if Instant::now() > give_up {
            bail!("{name} was not ready within {} s:\n{}", limit.as_secs(), log_tail(name));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The last lines of a process's log.
pub fn log_tail(name: &str) -> String {
    let text = fs::read_to_string(Path::new(&place::state(&format!("{name}.log")))).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
