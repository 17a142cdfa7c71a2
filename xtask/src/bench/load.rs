//! The loads whose cost is CPU time, all by h2load.

use std::time::Instant;

use super::cell::Against;
use super::generator::{Aim, Front, Message, drive, tally};
use super::process::TICKS_PER_S;
use super::proxy::Proxy;
use super::rig::{BOTH_CPUS, LOAD_CPU, Rig};
use crate::shell::Failure;

/// One kind of load: a row of the table for each proxy.
pub struct Load {
    pub name: &'static str,
    aim: Aim,
    /// What h2load is told besides: connections and streams.
    shape: &'static str,
    /// Threads of the proxy. Two get both CPUs, and so does the load generator.
    pub workers: u32,
    /// Shortest run, seconds: some peers open a connection upstream for each of thousands of requests first.
    secs_min: u32,
    pub against: Against,
    /// The most that the ratio should be.
    pub goal: f64,
}

const TLS: &str = "-c 10 -m 10 --tls13-ciphers=TLS_AES_128_GCM_SHA256";
const NGHTTPX: Against = Against::Peer("nghttpx");
const NGINX: Against = Against::Peer("nginx");

pub const LOADS: &[Load] = &[
    Load {
        name: "gRPC 64 B, h2c, 10 connections of 10 streams",
        goal: 0.45,
        ..BASE
    },
    Load {
        name: "gRPC 64 B, h2c, 50 connections of 100 streams",
        shape: "-c 50 -m 100",
        secs_min: 2,
        goal: 0.20,
        ..BASE
    },
    Load {
        name: "gRPC 64 KB, h2c, 10 connections of 10 streams",
        aim: aim(Front::H2c, Message::Large),
        against: Against::BestPeer,
        goal: 0.60,
        ..BASE
    },
    Load {
        name: "gRPC 64 B, h2c, 1 connection of 1 stream",
        shape: "-c 1 -m 1",
        goal: 0.75,
        ..BASE
    },
    Load {
        name: "gRPC 64 B, TLS 1.3, 10 connections of 10 streams",
        aim: aim(Front::Tls, Message::Small),
        shape: TLS,
        goal: 0.45,
        ..BASE
    },
    Load {
        name: "gRPC 64 KB, TLS 1.3, 10 connections of 10 streams",
        aim: aim(Front::Tls, Message::Large),
        shape: TLS,
        against: Against::BestPeer,
        goal: 0.65,
        ..BASE
    },
    Load {
        name: "HTTP/1.1 64 B, 50 connections",
        aim: aim(Front::H1, Message::Web),
        shape: "--h1 -c 50",
        against: NGINX,
        goal: 0.85,
        ..BASE
    },
    Load {
        name: "TCP relay, gRPC 64 B in 10 connections of 10 streams",
        aim: aim(Front::Tcp, Message::Small),
        against: NGINX,
        goal: 1.0,
        ..BASE
    },
    Load {
        name: "two workers, gRPC 64 B, h2c, 10 connections of 10 streams",
        workers: 2,
        goal: 0.40,
        ..BASE
    },
];

/// What most of them are.
const BASE: Load = Load {
    name: "",
    aim: aim(Front::H2c, Message::Small),
    shape: "-c 10 -m 10",
    workers: 1,
    secs_min: 1,
    against: NGHTTPX,
    goal: 1.0,
};

const fn aim(front: Front, message: Message) -> Aim {
    Aim { front, message }
}

/// One measurement of one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub proxy: &'static str,
    pub cell: &'static str,
    pub ok: u64,
    pub failed: u64,
    /// In the cell's unit.
    pub figure: f64,
    /// Requests in a second, where that says anything.
    pub rate: Option<f64>,
}

impl Load {
    /// Why `proxy` has no figure in this row.
    pub fn absence(&self, proxy: &Proxy) -> Option<&'static str> {
        (self.aim.front == Front::Tcp && !proxy.kind.tcp).then_some("has no TCP mode")
    }

    /// Loads `proxy` for `secs` seconds or what the row needs.
    pub fn run(&self, proxy: &Proxy, rig: &Rig, secs: u32) -> Result<Sample, Failure> {
        let secs = secs.max(self.secs_min);
        let fixed = format!("h2load -t 1 -D {secs} {}", self.shape);
        let line = self.aim.line(&fixed, &proxy.address(self.aim.front), rig);
        let cpus = if self.workers > 1 { BOTH_CPUS } else { LOAD_CPU };
        cpu_sample(self.name, proxy, &line, self.aim.message, (rig, secs, cpus))
    }
}

/// Runs `line` against `proxy` and divides the CPU time that went by among the requests that succeeded.
pub fn cpu_sample(
    cell: &'static str,
    proxy: &Proxy,
    line: &[String],
    message: Message,
    (rig, secs, cpus): (&Rig, u32, &str),
) -> Result<Sample, Failure> {
    let (before, began) = (proxy.process.cpu_ticks(), Instant::now());
    let report = drive(&format!("{}, {cell}", proxy.name()), line, secs, cpus, rig)?;
    let took = began.elapsed().as_secs_f64();
    let ticks = proxy.process.cpu_ticks().saturating_sub(before);
    let (ok, failed) = tally(&report, message);
    Ok(Sample {
        proxy: proxy.name(),
        cell,
        ok,
        failed,
        figure: ticks as f64 / TICKS_PER_S * 1e6 / ok.max(1) as f64,
        rate: Some(ok as f64 / took),
    })
}
