//! What an idle connection holds: the proxy's memory before and after thousands of them, each after one request.
//!
//! Of a proxy that was started for this alone and has answered a few requests: what earlier loads left in its pools
//! would hide what the connections take. The kernel's socket buffers belong to no process and are not in the figure.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::generator::{Aim, Front, Message, drive, tally};
use super::latency::times_us;
use super::load::Sample;
use super::process::Process;
use super::proxy::{Kind, Proxy};
use super::rig::{LOAD_CPU, PROXY_CPU, Rig};
use crate::shell::{Failure, say};

/// The cells, by what the connections are.
pub const CELLS: [(&str, Front); 2] = [
    ("idle connection after one request, h2c", Front::H2c),
    ("idle connection after one request, TLS 1.3", Front::Tls),
];
/// More rounds say nothing more: memory is not noisy.
pub const ROUNDS_MAX: u32 = 2;

/// Many, so that what is taken once weighs little.
const CONNECTIONS: usize = 4000;
/// How long all of them may take to be answered.
const ANSWERED_MAX: Duration = Duration::from_secs(15);
/// Until work behind the last answer is over.
const SETTLE: Duration = Duration::from_millis(700);
const POLL: Duration = Duration::from_millis(20);

/// Starts `kind` anew and measures it.
pub fn run(cell: &'static str, front: Front, kind: &Kind, rig: &Rig) -> Result<Sample, Failure> {
    let proxy = Proxy::start(kind, "idle", 1, PROXY_CPU, rig)?;
    let aim = Aim {
        front,
        message: Message::Small,
    };
    let address = proxy.address(front);
    let few = aim.line("h2load -t 1 -n 20 -c 2 -m 1", &address, rig);
    let what = format!("{}, {cell}", kind.name);
    let (_, mut failed) = tally(&drive(&what, &few, 1, LOAD_CPU, rig)?, Message::Small);
    sleep(SETTLE);
    let before = proxy.process.memory_bytes();
    let times = rig.dir.join("idle.tsv");
    let _ = fs::remove_file(&times);
    // Each connection asks at once and again after 50 s: by then it was ended. Not all at one moment: a proxy must not
    // need a connection upstream for each.
    let fixed = format!(
        "h2load -t 1 -n {} -c {CONNECTIONS} -m 1 -r 40 --rate-period=10ms --rps=0.02 --log-file={}",
        CONNECTIONS * 2,
        times.display()
    );
    let log = rig.dir.join("idle-h2load.log");
    let _held = Process::start("h2load", &aim.line(&fixed, &address, rig), LOAD_CPU, &log)?;
    let began = Instant::now();
    let answered = || times_us(&fs::read_to_string(&times).unwrap_or_default()).len();
    while answered() < CONNECTIONS && began.elapsed() < ANSWERED_MAX {
        sleep(POLL);
    }
    sleep(SETTLE);
    let after = proxy.process.memory_bytes();
    let ok = answered();
    failed += CONNECTIONS.saturating_sub(ok) as u64;
    if failed > 0 {
        say(&format!("{what}: {ok} of {CONNECTIONS} connections were answered"));
    }
    Ok(Sample {
        proxy: kind.name,
        cell,
        ok: ok as u64,
        failed,
        figure: after.saturating_sub(before) as f64 / CONNECTIONS as f64,
        rate: None,
    })
}
