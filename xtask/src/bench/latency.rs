//! Open loop: requests are due at fixed times whatever the answers do, and what the proxy adds to a direct run's time.
//!
//! h2load's own timers go no finer than 10 ms for a connection, so the rate is made of many slow connections that start
//! 1 ms apart. A request's time starts when it is written: with streams to spare none waits for another's answer.

use std::fs;

use super::generator::{Aim, Front, Message, drive, tally};
use super::load::Sample;
use super::proxy::Proxy;
use super::rig::{LOAD_CPU, Rig};
use super::row::Row;
use crate::shell::Failure;

pub const P50: &str = "added p50, open loop of 4,000 requests a second, gRPC 64 B, h2c";
pub const P99: &str = "added p99, open loop of 4,000 requests a second, gRPC 64 B, h2c";
/// The run without a proxy.
pub const DIRECT: &str = "no proxy";

const CONNECTIONS: u32 = 40;
const RATE_OF_ONE: u32 = 100;
/// Shortest run, seconds: its slowest hundredth is 80 requests.
const SECS_MIN: u32 = 2;

/// Asks an endpoint with nothing between.
pub fn direct(rig: &Rig, secs: u32) -> Result<[Sample; 2], Failure> {
    run(DIRECT, &rig.endpoint(), rig, secs)
}

/// Asks through `proxy`. The figures are whole times until [`subtract_direct`].
pub fn through(proxy: &Proxy, rig: &Rig, secs: u32) -> Result<[Sample; 2], Failure> {
    run(proxy.name(), &proxy.address(Front::H2c), rig, secs)
}

/// Takes the direct runs' median from every proxy's times: one disturbed direct run does not spoil a whole round.
pub fn subtract_direct(samples: &mut [Sample]) {
    for cell in [P50, P99] {
        let of_direct = samples.iter().filter(|s| s.cell == cell && s.proxy == DIRECT);
        let Some(direct) = Row::of(of_direct).map(|row| row.median()) else {
            continue;
        };
        for sample in samples.iter_mut().filter(|s| s.cell == cell && s.proxy != DIRECT) {
            sample.figure -= direct;
        }
    }
}

fn run(name: &'static str, address: &str, rig: &Rig, secs: u32) -> Result<[Sample; 2], Failure> {
    let secs = secs.max(SECS_MIN);
    let times = rig.dir.join("times.tsv");
    // h2load appends.
    let _ = fs::remove_file(&times);
    let fixed = format!(
        "h2load -t 1 -n {} -c {CONNECTIONS} -m 100 -r 1 --rate-period=1ms --rps={RATE_OF_ONE} --log-file={}",
        CONNECTIONS * RATE_OF_ONE * secs,
        times.display()
    );
    let aim = Aim {
        front: Front::H2c,
        message: Message::Small,
    };
    let report = drive(
        &format!("{name}, open loop"),
        &aim.line(&fixed, address, rig),
        secs,
        LOAD_CPU,
        rig,
    )?;
    let (ok, failed) = tally(&report, Message::Small);
    let sorted = times_us(&fs::read_to_string(&times).unwrap_or_default());
    Ok([(P50, 0.50), (P99, 0.99)].map(|(cell, part)| Sample {
        proxy: name,
        cell,
        ok,
        failed,
        figure: within(&sorted, part),
        rate: None,
    }))
}

/// Sorted times of the answered requests in h2load's log: start, status and microseconds a line, with tabs between.
pub fn times_us(log: &str) -> Vec<u64> {
    let time = |line: &str| {
        let mut fields = line.split('\t').skip(1);
        let status = fields.next()?;
        fields.next().filter(|_| status == "200")?.parse().ok()
    };
    let mut times: Vec<u64> = log.lines().filter_map(time).collect();
    times.sort_unstable();
    times
}

/// The smallest time that `part` of all are within (nearest rank).
fn within(sorted: &[u64], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.max(1) - 1).map_or(0.0, |time| *time as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answered_requests_have_a_time() {
        let log = "1795271302332064\t200\t70\n1795271302333476\t-1\t3\n1795271302334898\t503\t9\n1795271302334886\t200\t29\n17952";
        assert_eq!(times_us(log), [29, 70]);
    }

    #[test]
    fn the_median_of_direct_runs_is_subtracted_once_from_each_proxy() {
        let sample = |proxy, cell, figure| Sample {
            proxy,
            cell,
            ok: 1,
            failed: 0,
            figure,
            rate: None,
        };
        let mut samples = [
            sample(DIRECT, P50, 10.0),
            sample(DIRECT, P50, 900.0),
            sample(DIRECT, P50, 12.0),
            sample("a", P50, 40.0),
            sample("a", P99, 7.0),
        ];
        subtract_direct(&mut samples);
        assert_eq!(samples.map(|sample| sample.figure), [10.0, 900.0, 12.0, 28.0, 7.0]);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((within(&hundred, 0.5), within(&hundred, 0.99)), (50.0, 99.0));
        assert_eq!((within(&[7], 0.5), within(&[], 0.99)), (7.0, 0.0));
    }
}
