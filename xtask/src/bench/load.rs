//! The loads, all by h2load, and what it says about its own run.
//!
//! A request counts when it was answered with 2xx and the whole body: a proxy that answers by itself or cuts short
//! shows as failed, never as fast.

use std::fs;
use std::time::{Duration, Instant};

use super::process::{Process, TICKS_PER_S};
use super::proxy::Proxy;
use super::rig::{LOAD_CPU, Rig};
use crate::shell::{Failure, say, words};

/// Added to a measurement's length before the load generator is taken for stuck.
const GRACE: Duration = Duration::from_secs(15);

/// One kind of load: a row of the table for each proxy.
pub struct Load {
    pub name: &'static str,
    /// Index of [`Proxy::ports`].
    port: usize,
    line: &'static str,
    url: fn(u16) -> String,
    /// Whether the request is a gRPC message with its fields.
    grpc: bool,
    /// Bytes of each answer's body.
    answer_bytes: u64,
}

pub const LOADS: &[Load] = &[
    Load {
        name: "gRPC 64 B, h2c, 10 connections of 10 streams",
        port: 0,
        line: "-c 10 -m 10",
        url: |port| format!("http://localhost:{port}/echo.Echo/Unary"),
        grpc: true,
        answer_bytes: 69,
    },
    Load {
        name: "gRPC 64 B, TLS 1.3, 10 connections of 10 streams",
        port: 1,
        line: "-c 10 -m 10 --tls13-ciphers=TLS_AES_128_GCM_SHA256",
        url: |port| format!("https://localhost:{port}/echo.Echo/Unary"),
        grpc: true,
        answer_bytes: 69,
    },
    Load {
        name: "HTTP/1.1 64 B, 50 connections",
        port: 2,
        line: "--h1 -c 50",
        url: |port| format!("http://localhost:{port}/api/x"),
        grpc: false,
        answer_bytes: 64,
    },
];

/// One measurement.
#[derive(Clone, Debug)]
pub struct Sample {
    pub proxy: &'static str,
    pub load: &'static str,
    pub ok: u64,
    pub failed: u64,
    /// CPU time of the proxy for each request that succeeded, microseconds.
    pub cpu_us: f64,
    /// Requests in a second.
    pub rate: f64,
}

impl Load {
    /// Loads `proxy` for `secs` seconds.
    pub fn run(&self, proxy: &Proxy, rig: &Rig, secs: u32) -> Result<Sample, Failure> {
        let port = proxy.ports[self.port];
        let mut line: Vec<String> = words(&format!("h2load -t 1 -D {secs} {}", self.line))
            .map(str::to_owned)
            .collect();
        line.push(format!("--connect-to=127.0.0.1:{port}"));
        if self.grpc {
            line.push(format!("--data={}", rig.dir.join("message").display()));
            for field in ["te: trailers", "content-type: application/grpc", "x-route: a"] {
                line.push(format!("--header={field}"));
            }
        }
        line.push((self.url)(port));
        let log = rig.dir.join("h2load.log");
        let (before, began) = (proxy.process.cpu_ticks(), Instant::now());
        let limit = Duration::from_secs(secs.into()) + GRACE;
        let finished = Process::start("h2load", &line, LOAD_CPU, &log)?.finish(limit);
        let took = began.elapsed().as_secs_f64();
        let ticks = proxy.process.cpu_ticks().saturating_sub(before);
        let text = fs::read_to_string(&log).unwrap_or_default();
        // A load that hangs or is never answered is that proxy's failure, and no reason to lose the others' figures.
        let report = Report::read(&text).filter(|_| finished.is_ok()).unwrap_or_else(|| {
            let why = finished.err().map_or_else(|| text.clone(), |failure| failure.why);
            say(&format!("{}, {}: {why}", proxy.kind.name, self.name));
            Report::default()
        });
        let (ok, failed) = report.judge(self.answer_bytes);
        Ok(Sample {
            proxy: proxy.kind.name,
            load: self.name,
            ok,
            failed,
            cpu_us: ticks as f64 / TICKS_PER_S * 1e6 / ok.max(1) as f64,
            rate: ok as f64 / took,
        })
    }
}

/// What h2load counted.
#[derive(Default, Debug, PartialEq, Eq)]
struct Report {
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
        let report = Report::read(OUTPUT).expect("h2load's words");
        assert_eq!(report.judge(69), (20_411, 0));
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
        assert_eq!(Report::read("failed to resolve"), None);
    }
}
