//! Runs programs and waits for things, with limits.

use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The gateway's binary: `SLUICE_BIN`, else what `cargo build --profile lab` made.
pub fn sluice() -> PathBuf {
    let built = || repository().join("target/lab/sluice");
    std::env::var_os("SLUICE_BIN").map_or_else(built, PathBuf::from)
}

/// Python with grpcio and scapy: `SLUICE_PYTHON` (set by `cargo xtask test`), else the first on the PATH.
pub fn python() -> PathBuf {
    std::env::var_os("SLUICE_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from)
}

/// Root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A program here, or inside the client's namespace.
pub fn in_client(program: impl Into<PathBuf>, args: &[&str]) -> Command {
    let mut command = Command::new(sluice());
    command
        .args(["lab", "exec", "sluice-client", "--"])
        .arg(program.into())
        .args(args);
    command
}

/// A script of `tests/e2e/clients` in a network namespace of its own, where only the loopback is. Its first argument is the
/// gateway's binary.
pub fn alone(script: &str) -> Result<Command> {
    let script = repository().join("tests/e2e/clients").join(script).canonicalize()?;
    let mut command = Command::new("unshare");
    command
        .args(["-n", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(python())
        .arg(script)
        .arg(sluice().canonicalize()?);
    Ok(command)
}

/// Runs such a script, which counts what it checked: not fewer than `least` held.
pub fn holds(command: Command, least: u64, limit: Duration) -> Result<()> {
    let output = run(command, limit).context("a script found what should not be")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    println!("    {text}");
    let told: serde_json::Value = serde_json::from_str(&text)?;
    ensure!(
        told["held"].as_u64() >= Some(least),
        "fewer than {least} checks held: {text}"
    );
    Ok(())
}

/// Runs to the end, at most `limit`; an unsuccessful end is an error with what it printed.
pub fn run(mut command: Command, limit: Duration) -> Result<Output> {
    let shown = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.with_context(|| format!("start {shown}"))?;
    let id = child.id();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if receiver.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let pid = nix::unistd::Pid::from_raw(id.cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    });
    let mut stderr = child.stderr.take().context("stderr is piped")?;
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stderr, &mut text);
        text
    });
    let mut output = child.wait_with_output()?;
    output.stderr = errors.join().unwrap_or_default();
    drop(sender);
    let _ = watchdog.join();
    if !output.status.success() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        bail!(
            "{shown} ended with {} (limit {limit:?}): {}\n{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
    }
    Ok(output)
}

/// Standard output of a program in the client's namespace, trimmed.
pub fn client_text(program: impl Into<PathBuf>, args: &[&str], limit: Duration) -> Result<String> {
    let output = run(in_client(program, args), limit)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Waits until `condition` holds.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let give_up = Instant::now() + limit;
    while !condition()? {
        if Instant::now() > give_up {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
