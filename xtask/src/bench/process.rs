//! A program pinned to a CPU, with all it forks: its CPU time, and its certain end.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::shell::{self, Failure};

/// `USER_HZ`, the unit of times in /proc/PID/stat: 100 on every architecture we support, whatever the kernel's HZ.
pub const TICKS_PER_S: f64 = 100.0;
/// How long a process may take to end itself before it is killed.
const END_MAX: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(5);

/// A running program. Dropped, it is ended with its descendants.
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `words` on `cpus` (a list as taskset takes it); what it prints goes to `log`.
    pub fn start(name: &str, words: &[String], cpus: &str, log: &Path) -> Result<Self, Failure> {
        let io = |error: std::io::Error| Failure::new(format!("{}: {error}", log.display()));
        let out = File::create(log).map_err(io)?;
        let err = out.try_clone().map_err(io)?;
        // The kernel ends it when we are gone, however that came. All of them replace themselves: the id stays.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if shell::is_root() {
            // Compilers of a neighbour are preempted.
            command.args(["nice", "-n", "-10"]);
        }
        // Thousands of connections do not fit in the usual 1,024 descriptors.
        if let Some(most) = descriptors_max() {
            command.args(["prlimit".to_owned(), format!("--nofile={most}:{most}")]);
        }
        command.args(["taskset", "-c", cpus]).args(words);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn();
        let child = child.map_err(|error| Failure::new(format!("setpriv (util-linux) did not start: {error}")))?;
        let name = name.to_owned();
        Ok(Self { name, child })
    }

    /// CPU time, user and system, of the process and its descendants since their start, in ticks.
    pub fn cpu_ticks(&self) -> u64 {
        let times = self.family().into_iter().filter_map(Stat::of);
        times.map(|stat| stat.cpu_ticks).sum()
    }

    /// Waits until something listens on every one of `addresses`, or says what the log's end is.
    pub fn wait_listening(&mut self, addresses: &[String], limit: Duration, log: &Path) -> Result<(), Failure> {
        let began = Instant::now();
        for address in addresses {
            while std::net::TcpStream::connect(address).is_err() {
                let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
                if ended || began.elapsed() > limit {
                    let text = fs::read_to_string(log).unwrap_or_default();
                    let what = if ended { "ended" } else { "does not listen" };
                    let why = format!("{} {what} ({address}); its last words:\n{}", self.name, tail(&text));
                    return Err(Failure::new(why));
                }
                sleep(POLL);
            }
        }
        Ok(())
    }

    /// Waits for its end; what runs longer than `limit` is an error and is ended.
    pub fn finish(mut self, limit: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(_)) => return Ok(()),
                Ok(None) if began.elapsed() < limit => sleep(POLL),
                Ok(None) => {
                    let why = format!("{} still runs after {} s and is ended", self.name, limit.as_secs());
                    return Err(Failure::new(why));
                }
                Err(error) => return Err(Failure::new(format!("waiting for {}: {error}", self.name))),
            }
        }
    }

    /// Memory of the process and its descendants, bytes; what they share counts once in the sum (proc(5), `Pss`).
    pub fn memory_bytes(&self) -> u64 {
        let of = |id: u32| pss_bytes(&fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?);
        self.family().into_iter().filter_map(of).sum()
    }

    /// Its id and those of all its descendants.
    pub fn family(&self) -> Vec<u32> {
        let mut all = Vec::new();
        let mut due = vec![self.child.id()];
        while let Some(id) = due.pop() {
            let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
            for thread in threads {
                let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                due.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
            all.push(id);
        }
        all
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        // An id is only ours together with its start: it may be given to another process meanwhile.
        let family: HashSet<(u32, u64)> = self
            .family()
            .into_iter()
            .filter_map(|id| Some((id, Stat::of(id)?.started)))
            .collect();
        let alive = || {
            let same = |(id, started): &&(u32, u64)| {
                Stat::of(*id).is_some_and(|stat| stat.started == *started && stat.state != 'Z')
            };
            family
                .iter()
                .filter(same)
                .map(|(id, _)| id.to_string())
                .collect::<Vec<_>>()
        };
        signal("TERM", &alive());
        let began = Instant::now();
        while !alive().is_empty() && began.elapsed() < END_MAX {
            sleep(POLL);
        }
        signal("KILL", &alive());
        // Collects the child; its end was seen or forced above.
        let _ = self.child.wait();
    }
}

/// A soft limit that we may set: the hard one, within what a program that closes all of them can bear.
fn descriptors_max() -> Option<u64> {
    const DESCRIPTORS_MAX: u64 = 20_000;
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    Some(
        line.split_whitespace()
            .nth(1)?
            .parse()
            .map_or(DESCRIPTORS_MAX, |hard: u64| hard.min(DESCRIPTORS_MAX)),
    )
}

fn pss_bytes(smaps_rollup: &str) -> Option<u64> {
    let line = smaps_rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// By the shell's own `kill`: the program of that name may be missing.
fn signal(name: &str, ids: &[String]) {
    if !ids.is_empty() {
        let line = format!("kill -{name} {} 2>/dev/null", ids.join(" "));
        // One that ended in between is as good.
        let _ = Command::new("sh").args(["-c", &line]).status();
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// What we read from /proc/PID/stat, proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    /// User and system time of all its threads, also of ended ones.
    cpu_ticks: u64,
    /// Ticks after boot.
    started: u64,
}

impl Stat {
    fn of(id: u32) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        // The name may hold spaces and parentheses; the state is field 3.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            cpu_ticks: number(14)? + number(15)?,
            started: number(22)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194304 10 0 0 0 120 34 0 0 20 0 5 0 98765 1 2\n";
        let expected = Stat {
            state: 'S',
            cpu_ticks: 154,
            started: 98_765,
        };
        assert_eq!(Stat::read(text), Some(expected));
    }

    #[test]
    fn memory_is_the_proportional_share() {
        let text = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:    2048 kB\nPss:    1536 kB\nPss_Dirty:  12 kB\n";
        assert_eq!(pss_bytes(text), Some(1_572_864));
        assert_eq!(pss_bytes(""), None);
    }

    #[test]
    fn dropping_a_process_ends_what_it_forked() {
        let log = std::env::temp_dir().join(format!("xtask-process-{}", std::process::id()));
        let line = ["sh", "-c", "sleep 60 & echo $!; wait"].map(str::to_owned);
        let process = Process::start("sh", &line, "0", &log).expect("util-linux is essential");
        let began = Instant::now();
        while fs::read_to_string(&log).unwrap_or_default().is_empty() && began.elapsed() < END_MAX {
            sleep(POLL);
        }
        let text = fs::read_to_string(&log).expect("written");
        let forked: u32 = text.trim().parse().expect("the id of sleep");
        assert!(process.family().contains(&forked));
        drop(process);
        assert!(Stat::of(forked).is_none_or(|stat| stat.state == 'Z'));
        fs::remove_file(&log).expect("ours");
    }
}
