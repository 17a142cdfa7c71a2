//! `cargo xtask bench l7`: what a request costs in this gateway and in the proxies that are installed beside it.
//!
//! Measures CPU time of the proxy's processes, not throughput: on a small machine the load generator is the bottleneck,
//! and CPU time survives a busy neighbour. Ours and the peers take turns (A B C A B C), so that drift meets all of them.
//! Loopback only; every process is ended when we end, also on failure, Ctrl-C or a kill.

mod load;
mod page;
mod process;
mod proxy;
mod rig;

use std::path::PathBuf;

use crate::setup::Need;
use crate::shell::{self, Failure, say, words};
use crate::{run, setup};

use load::{LOADS, Sample};
use proxy::Proxy;

/// Bounds of `--rounds` and `--secs`: the whole run stays within minutes.
const ROUNDS_MAX: u32 = 50;
const SECS_MAX: u32 = 30;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    rounds: u32,
    /// Length of one measurement, seconds.
    secs: u32,
    /// Whether the table goes into docs/benchmarks.md.
    write: bool,
}

pub fn verb(args: &[String]) -> Result<(), Failure> {
    match args.split_first() {
        Some((what, rest)) if what == "l7" => l7(&options(rest)?),
        _ => Err(Failure::usage("bench l7 [--rounds N] [--secs S] [--write]")),
    }
}

fn options(args: &[String]) -> Result<Options, Failure> {
    let mut options = Options {
        rounds: 5,
        secs: 2,
        write: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => options.rounds = number(arg, args.next(), ROUNDS_MAX)?,
            "--secs" => options.secs = number(arg, args.next(), SECS_MAX)?,
            "--write" => options.write = true,
            other => return Err(Failure::usage(format!("bench l7 knows no '{other}'"))),
        }
    }
    Ok(options)
}

fn number(name: &str, value: Option<&String>, max: u32) -> Result<u32, Failure> {
    let number = value.and_then(|value| value.parse().ok());
    let number = number.filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| Failure::usage(format!("{name} takes a number from 1 to {max}")))
}

fn l7(options: &Options) -> Result<(), Failure> {
    setup::ensure(&[Need::Build, Need::Test])?;
    let ours = our_binary()?;
    let rig = rig::Rig::start()?;
    let (found, missing) = proxy::find(ours);
    for name in &missing {
        say(&format!("{name} is not installed and not measured"));
    }
    let mut proxies = Vec::new();
    for kind in found {
        say(&format!("starting {}", kind.name));
        proxies.push(Proxy::start(kind, &rig)?);
    }
    // One short load each: connections to the endpoints stand, lazy start-up work is over, and what fails is known early.
    for (proxy, load) in proxies
        .iter()
        .flat_map(|proxy| LOADS.iter().map(move |load| (proxy, load)))
    {
        load.run(proxy, &rig, 1)?;
    }
    let mut samples: Vec<Sample> = Vec::new();
    for round in 1..=options.rounds {
        say(&format!("round {round} of {}", options.rounds));
        for (load, proxy) in LOADS
            .iter()
            .flat_map(|load| proxies.iter().map(move |proxy| (load, proxy)))
        {
            samples.push(load.run(proxy, &rig, options.secs)?);
        }
    }
    let versions: Vec<(&str, String)> = proxies
        .iter()
        .map(|proxy| (proxy.kind.name, proxy.kind.version()))
        .collect();
    let text = page::text(options, &samples, &versions, &missing);
    print!("{text}");
    if options.write {
        page::write(&text)?;
    }
    let failed: u64 = samples.iter().map(|sample| sample.failed).sum();
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{failed} requests failed; see the table"))),
    }
}

/// `SLUICE_BIN` where it is set, else built in the profile that users get.
fn our_binary() -> Result<PathBuf, Failure> {
    if let Some(binary) = std::env::var_os("SLUICE_BIN").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(binary));
    }
    run::prepare(&[Need::Build, Need::Ebpf])?;
    say("building the profile `release` (minutes: one unit, fat LTO)");
    shell::run(shell::cargo().args(words("build --release --package gateway-userspace --bin sluice")))?;
    Ok(run::target_folder().join("release/sluice"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_bounded_numbers() {
        let read = |line: &str| options(&words(line).map(str::to_owned).collect::<Vec<_>>());
        let expected = Options {
            rounds: 7,
            secs: 1,
            write: true,
        };
        assert_eq!(read("--secs 1 --write --rounds 7").ok(), Some(expected));
        for wrong in ["--rounds", "--rounds 0", "--secs 31", "--secs x", "--peers a"] {
            let failure = read(wrong).expect_err(wrong);
            assert_eq!(failure.exit, shell::EXIT_USAGE, "{wrong}");
        }
    }
}
