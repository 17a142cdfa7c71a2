//! System calls for one request, counted by `perf stat` in the kernel: nothing is slowed down by being stopped.

use std::fs;

use super::generator::{Aim, Front, Message, drive, tally};
use super::load::Sample;
use super::proxy::Proxy;
use super::rig::{LOAD_CPU, Rig};
use crate::shell::Failure;

pub const CELL: &str = "system calls a request, gRPC 64 B, h2c, 10 connections of 10 streams";
const EVENT: &str = "raw_syscalls:sys_enter";

/// The figure, or why there is none here.
pub fn run(proxy: &Proxy, rig: &Rig, secs: u32) -> Result<Result<Sample, String>, Failure> {
    let counts = rig.dir.join("calls.csv");
    let _ = fs::remove_file(&counts);
    let ids: Vec<String> = proxy.process.family().iter().map(u32::to_string).collect();
    // perf counts the proxy for as long as the program lives that it starts.
    let fixed = format!(
        "perf stat -x , -o {} -e {EVENT} -p {} -- h2load -t 1 -D {secs} -c 10 -m 10",
        counts.display(),
        ids.join(",")
    );
    let aim = Aim {
        front: Front::H2c,
        message: Message::Small,
    };
    let line = aim.line(&fixed, &proxy.address(Front::H2c), rig);
    let report = drive(&format!("{}, system calls", proxy.name()), &line, secs, LOAD_CPU, rig)?;
    let Some(calls) = counted(&fs::read_to_string(&counts).unwrap_or_default()) else {
        return Ok(Err(format!("perf cannot count {EVENT} here")));
    };
    let (ok, failed) = tally(&report, Message::Small);
    Ok(Ok(Sample {
        proxy: proxy.name(),
        cell: CELL,
        ok,
        failed,
        figure: calls as f64 / ok.max(1) as f64,
        rate: None,
    }))
}

/// The count in a line of `perf stat -x ,`: value, unit, event.
fn counted(csv: &str) -> Option<u64> {
    let line = csv.lines().find(|line| line.contains(EVENT))?;
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_and_its_absence_is_none() {
        let csv = "# started on Sat Nov 21 14:28:27 2026\n\n139728,,raw_syscalls:sys_enter,343279049,100.00,,\n";
        assert_eq!(counted(csv), Some(139_728));
        assert_eq!(counted("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
        assert_eq!(counted(""), None);
    }
}
