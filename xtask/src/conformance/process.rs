//! A program of the cluster, its log, and whether it still runs. None is ended here: the process namespace's end is theirs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::topology;
use crate::shell::Failure;

const POLL: Duration = Duration::from_millis(50);
/// Lines of its log that tell why it ended.
const LAST_WORDS: usize = 15;

pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` in a namespace (`None`: the control plane's); what it prints goes to `NAME.log` in `out`.
    pub fn start(
        name: &'static str,
        namespace: Option<&str>,
        program: &Path,
        args: &[String],
        env: &[(&str, &str)],
        out: &Path,
    ) -> Result<Self, Failure> {
        let log = out.join(format!("{name}.log"));
        let io = |error: std::io::Error| Failure::new(format!("{}: {error}", log.display()));
        let output = File::create(&log).map_err(io)?;
        let errors = output.try_clone().map_err(io)?;
        let mut command = match namespace {
            Some(namespace) => topology::command_in(namespace, &program.display().to_string()),
            None => Command::new(program),
        };
        command.args(args).envs(env.iter().copied());
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command
            .spawn()
            .map_err(|error| Failure::new(format!("{name} did not start: {error}")))?;
        Ok(Self { name, child, log })
    }

    /// Waits until `ready` says so; its early end, or none within `limit`, is a failure with its last words.
    pub fn wait_until(&mut self, what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<(), Failure> {
        let began = Instant::now();
        while !ready() {
            self.check()?;
            if began.elapsed() > limit {
                return Err(self.failure(&format!("after {} s it is not so that {what}", limit.as_secs())));
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// An error when it has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failure(&format!("ended with {status}"))),
            Err(error) => Err(self.failure(&format!("cannot be waited for: {error}"))),
        }
    }

    /// All it has printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn failure(&self, what: &str) -> Failure {
        let text = self.printed();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
        Failure::new(format!(
            "{}: {what}; its last words in {}:\n{last}",
            self.name,
            self.log.display()
        ))
    }
}
