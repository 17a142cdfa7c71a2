//! h2load: its command line, and what it says about its own run.
//!
//! A request counts when it was answered with 2xx and the whole body: a proxy that answers by itself or cuts short
//! shows as failed, never as fast.

use std::fs;
use std::time::Duration;

use super::process::Process;
use super::rig::Rig;
use crate::shell::{Failure, say, words};

/// Added to a measurement's length before the load generator is taken for stuck.
const GRACE: Duration = Duration::from_secs(15);

/// A listener of every proxy: the index of its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    H2c,
    Tls,
    H1,
    Tcp,
}

/// What is asked and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A gRPC message of 64 bytes each way.
    Small,
    /// A gRPC message of 64 KB each way.
    Large,
    /// No body there, 64 bytes back.
    Web,
}

impl Message {
    /// Bytes of each answer's body.
    pub const fn answer_bytes(self) -> u64 {
        match self {
            Self::Small => GRPC_HEAD_BYTES + 64,
            Self::Large => GRPC_HEAD_BYTES + 65_536,
            Self::Web => 64,
        }
    }

    /// Name of the file that is sent and, below the endpoints' folder, served.
    pub const fn file(self) -> Option<&'static str> {
        match self {
            Self::Small => Some("Unary"),
            Self::Large => Some("Large"),
            Self::Web => None,
        }
    }
}

/// No compression, and a length of four bytes.
pub const GRPC_HEAD_BYTES: u64 = 5;

/// Where requests go, and which.
#[derive(Clone, Copy)]
pub struct Aim {
    pub front: Front,
    pub message: Message,
}

impl Aim {
    /// `fixed` and all that makes the requests, sent to `address`.
    pub fn line(&self, fixed: &str, address: &str, rig: &Rig) -> Vec<String> {
        let mut line: Vec<String> = words(fixed).map(str::to_owned).collect();
        let scheme = if self.front == Front::Tls { "https" } else { "http" };
        // A name, not an address: routers of hosts and SNI have something to match.
        let host = format!("localhost:{}", address.rsplit_once(':').map_or("80", |(_, port)| port));
        line.push(format!("--connect-to={address}"));
        let path = match self.message.file() {
            Some(file) => {
                line.push(format!("--data={}", rig.served(file).display()));
                for field in ["te: trailers", "content-type: application/grpc", "x-route: a"] {
                    line.push(format!("--header={field}"));
                }
                format!("/echo.Echo/{file}")
            }
            None => "/api/x".to_owned(),
        };
        if self.message == Message::Large {
            // The client's windows must not be what is measured.
            line.extend(["--window-bits=24", "--connection-window-bits=28"].map(str::to_owned));
        }
        line.push(format!("{scheme}://{host}{path}"));
        line
    }
}

/// Runs h2load, or a program that runs it, for about `secs` seconds. Nothing where it hung or was never answered: that
/// is that proxy's failure, and no reason to lose the others' figures.
pub fn drive(what: &str, line: &[String], secs: u32, cpus: &str, rig: &Rig) -> Result<Option<Report>, Failure> {
    let log = rig.dir.join("h2load.log");
    let limit = Duration::from_secs(secs.into()) + GRACE;
    let finished = Process::start("h2load", line, cpus, &log)?.finish(limit);
    let text = fs::read_to_string(&log).unwrap_or_default();
    let report = Report::read(&text).filter(|_| finished.is_ok());
    if report.is_none() {
        let why = finished.err().map_or_else(|| text.clone(), |failure| failure.why);
        say(&format!("{what}: {why}"));
    }
    Ok(report)
}

/// Requests that succeeded and that did not; silence is one failure.
pub fn tally(report: &Option<Report>, message: Message) -> (u64, u64) {
    match report {
        Some(report) => report.judge(message.answer_bytes()),
        None => (0, 1),
    }
}

/// What h2load counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    done: u64,
    failed: u64,
    ok_2xx: u64,
    body_bytes: u64,
}

impl Report {
    fn read(text: &str) -> Option<Self> {
        let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
        let (requests, codes, traffic) = (line("requests: ")?, line("status codes: ")?, line("traffic: ")?);
        Some(Self {
            done: before(requests, " done")?,
            failed: before(requests, " failed")?,
            ok_2xx: before(codes, " 2xx")?,
            body_bytes: in_parentheses(traffic, ") data")?,
        })
    }

    /// Requests that succeeded, and that did not. A body that is short is found in the sum: one failure at least.
    fn judge(&self, answer_bytes: u64) -> (u64, u64) {
        let whole = self.body_bytes / answer_bytes.max(1);
        let ok = self.ok_2xx.min(whole);
        (
            ok,
            self.failed.max(self.done.saturating_sub(ok)).max(u64::from(ok == 0)),
        )
    }
}

/// The number before `what`, as in `12 total, 7 done`.
fn before(text: &str, what: &str) -> Option<u64> {
    text.split(',')
        .find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
}

/// The number in the parentheses that `what` closes, as in `1.2MB (1258291) data`.
fn in_parentheses(text: &str, what: &str) -> Option<u64> {
    text[..text.find(what)?].rsplit_once('(')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
finished in 1.00s, 20411.00 req/s, 2.65MB/s
requests: 20411 total, 20511 started, 20411 done, 20411 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 20411 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.65MB (2776466) total, 199.43KB (204212) headers (space savings 96.50%), 1.34MB (1408359) data
";

    #[test]
    fn a_report_is_read_and_all_answers_were_whole() {
        let report = Report::read(OUTPUT);
        assert!(report.is_some());
        assert_eq!(tally(&report, Message::Small), (20_411, 0));
    }

    #[test]
    fn errors_short_bodies_and_silence_are_failures() {
        let report = |done, failed, ok_2xx, body_bytes| Report {
            done,
            failed,
            ok_2xx,
            body_bytes,
        };
        assert_eq!(report(100, 0, 90, 6900).judge(69), (90, 10));
        assert_eq!(report(100, 0, 100, 6899).judge(69), (99, 1));
        assert_eq!(report(100, 3, 97, 97 * 69).judge(69), (97, 3));
        assert_eq!(report(0, 0, 0, 0).judge(69), (0, 1));
        assert_eq!(tally(&None, Message::Web), (0, 1));
        assert_eq!(Report::read("failed to resolve"), None);
    }
}
