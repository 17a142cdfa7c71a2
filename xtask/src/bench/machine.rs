//! What the figures were measured on, in one line.

use std::fs;
use std::process::Command;

use crate::shell;

/// Processor, kernel, system, how busy it was, when, and which commit.
pub fn line() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        let line = line.and_then(|line| line.split_once([':', '=']));
        line.map_or("unknown", |(_, value)| value.trim().trim_matches('"'))
            .to_owned()
    };
    let cpuinfo = read("/proc/cpuinfo");
    let said = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        shell::capture(command.args(args).current_dir(shell::root()))
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    format!(
        "{} x {}, Linux {}, {}; load average at the end {}; {}, commit {}.",
        cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        value(&cpuinfo, "model name"),
        read("/proc/sys/kernel/osrelease").trim(),
        value(&read("/etc/os-release"), "PRETTY_NAME"),
        read("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
        said("date", &["-u", "+%F"]),
        said("git", &["describe", "--always", "--dirty"]),
    )
}
