//! Runs programs and waits for things, with limits.

use anyhow::{Context, Result, bail, ensure};
use std::os::unix::process::CommandExt;
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

/// Programs are ended with what they started; what outlives its program for so long is ended too.
const GRACE: Duration = Duration::from_secs(3);

/// Runs to the end, at most `limit`; an unsuccessful end is an error with what it printed, and so is one that leaves
/// something running that could still print.
pub fn run(mut command: Command, limit: Duration) -> Result<Output> {
    let shown = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = child.with_context(|| format!("start {shown}"))?;
    let group = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let stdout = Reader::start(child.stdout.take().context("stdout is piped")?);
    let stderr = Reader::start(child.stderr.take().context("stderr is piped")?);
    let began = Instant::now();
    let mut status = child.try_wait()?;
    while status.is_none() && began.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(5));
        status = child.try_wait()?;
    }
    let ended = Instant::now();
    let left = status.is_none() || !stdout.ends(ended + GRACE) || !stderr.ends(ended + GRACE);
    if left {
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
    let output = Output {
        status: child.wait()?,
        stdout: stdout.text(),
        stderr: stderr.text(),
    };
    if left || !output.status.success() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let how = match (status, left) {
            (None, _) => format!("did not end within {limit:?}"),
            (Some(status), true) => format!("ended with {status} and left something running"),
            (Some(status), false) => format!("ended with {status}"),
        };
        bail!("{shown} {how}: {}\n{}", text(&output.stdout), text(&output.stderr));
    }
    Ok(output)
}

/// Reads a pipe to its end, beside everything else.
struct Reader(std::thread::JoinHandle<Vec<u8>>);

impl Reader {
    fn start(mut pipe: impl std::io::Read + Send + 'static) -> Self {
        Self(std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            bytes
        }))
    }

    /// Whether it comes to its end by then.
    fn ends(&self, by: Instant) -> bool {
        while !self.0.is_finished() && Instant::now() < by {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.0.is_finished()
    }

    /// What it read. Of a pipe that somebody in another process group holds open, nothing.
    fn text(self) -> Vec<u8> {
        match self.ends(Instant::now() + GRACE) {
            true => self.0.join().unwrap_or_default(),
            false => b"(its output did not end)".to_vec(),
        }
    }
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
