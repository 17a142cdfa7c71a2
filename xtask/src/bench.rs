//! `cargo xtask bench l7`: what a request costs in this gateway and in the proxies that are installed beside it.
//!
//! Measures CPU time of the proxy's processes, not throughput: on a small machine the load generator is the bottleneck,
//! and CPU time survives a busy neighbour. Ours and the peers take turns (A B C A B C), so that drift meets all of them.
//! Loopback only; every process is ended when we end, also on failure, Ctrl-C or a kill.

mod calls;
mod cell;
mod field;
mod generator;
mod idle;
mod latency;
mod load;
mod machine;
mod page;
mod process;
mod proxy;
mod rig;
mod routes;
mod row;

use std::path::PathBuf;

use crate::setup::Need;
use crate::shell::{self, Failure, say, words};
use crate::{run, setup};

use cell::Cell;

/// Bounds of `--rounds` and `--secs`: the whole run stays within minutes.
const ROUNDS_MAX: u32 = 50;
const SECS_MAX: u32 = 30;

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    rounds: u32,
    /// Length of one measurement, seconds.
    secs: u32,
    /// Part of a cell's name; all cells where it is empty.
    only: String,
    /// Whether the table goes into docs/benchmarks.md.
    write: bool,
}

/// A cell that one proxy has no figure in, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Absence {
    cell: &'static str,
    proxy: &'static str,
    why: String,
}

pub fn verb(args: &[String]) -> Result<(), Failure> {
    match args.split_first() {
        Some((what, rest)) if what == "l7" => l7(&options(rest)?),
        _ => Err(Failure::usage(
            "bench l7 [--only PART-OF-A-CELL'S-NAME] [--rounds N] [--secs S] [--write]",
        )),
    }
}

fn options(args: &[String]) -> Result<Options, Failure> {
    let mut options = Options {
        rounds: 5,
        secs: 1,
        ..Options::default()
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => options.rounds = number(arg, args.next(), ROUNDS_MAX)?,
            "--secs" => options.secs = number(arg, args.next(), SECS_MAX)?,
            "--only" => {
                let part = args.next().filter(|part| !part.is_empty());
                options.only = part
                    .ok_or_else(|| Failure::usage("--only takes a part of a cell's name"))?
                    .clone();
            }
            "--write" => options.write = true,
            other => return Err(Failure::usage(format!("bench l7 knows no '{other}'"))),
        }
    }
    if options.write && !options.only.is_empty() {
        return Err(Failure::usage("--write takes the whole table: leave --only out"));
    }
    Ok(options)
}

fn number(name: &str, value: Option<&String>, max: u32) -> Result<u32, Failure> {
    let number = value.and_then(|value| value.parse().ok());
    let number = number.filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| Failure::usage(format!("{name} takes a number from 1 to {max}")))
}

fn l7(options: &Options) -> Result<(), Failure> {
    let cells = chosen(options)?;
    setup::ensure(&[Need::Build, Need::Test, Need::Bench])?;
    let ours = our_binary()?;
    let rig = rig::Rig::start()?;
    let (kinds, missing) = proxy::find(ours);
    for name in &missing {
        say(&format!("{name} is not installed and not measured"));
    }
    let versions: Vec<_> = kinds.iter().map(|kind| (kind.name, kind.version())).collect();
    let mut field = field::Field::start(&kinds, &cells, &rig)?;
    field.warm_up()?;
    for round in 1..=options.rounds {
        say(&format!("round {round} of {}", options.rounds));
        field.round(round, options.secs)?;
    }
    latency::subtract_direct(&mut field.samples);
    let text = page::text(&page::Findings {
        options,
        cells: &cells,
        samples: &field.samples,
        absences: &field.absences,
        versions: &versions,
        missing: &missing,
    });
    print!("{text}");
    if options.write {
        page::write(&text)?;
    }
    // A peer's failures are its own, and stand in the table.
    let ours = field
        .samples
        .iter()
        .filter(|sample| sample.proxy.starts_with(proxy::OURS));
    match ours.map(|sample| sample.failed).sum::<u64>() {
        0 => Ok(()),
        failed => Err(Failure::new(format!(
            "{failed} requests through sluice failed; see the table"
        ))),
    }
}

/// The cells that `--only` leaves.
fn chosen(options: &Options) -> Result<Vec<Cell>, Failure> {
    let part = options.only.to_lowercase();
    let (chosen, others): (Vec<Cell>, Vec<Cell>) = cell::all()
        .into_iter()
        .partition(|cell| cell.name.to_lowercase().contains(&part));
    if chosen.is_empty() {
        let names: Vec<&str> = others.iter().map(|cell| cell.name).collect();
        let why = format!(
            "no cell's name holds '{}'; they are:\n{}",
            options.only,
            names.join("\n")
        );
        return Err(Failure::usage(why));
    }
    Ok(chosen)
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
            secs: 2,
            write: true,
            ..Options::default()
        };
        assert_eq!(read("--secs 2 --write --rounds 7").ok(), Some(expected));
        for wrong in [
            "--rounds",
            "--rounds 0",
            "--secs 31",
            "--secs x",
            "--peers a",
            "--only",
            "--only x --write",
        ] {
            let failure = read(wrong).expect_err(wrong);
            assert_eq!(failure.exit, shell::EXIT_USAGE, "{wrong}");
        }
    }

    #[test]
    fn a_part_of_the_name_chooses_cells_and_an_unknown_one_names_them_all() {
        let only = |part: &str| {
            chosen(&Options {
                only: part.to_owned(),
                ..Options::default()
            })
        };
        let names = |cells: Vec<Cell>| cells.iter().map(|cell| cell.name).collect::<Vec<_>>();
        assert_eq!(only("ADDED").map(names).ok(), Some(vec![latency::P50, latency::P99]));
        assert_eq!(only("").map(|cells| cells.len()).ok(), Some(cell::all().len()));
        let failure = only("nothing like it").err().expect("no such cell");
        assert!(failure.why.contains(routes::CELL));
    }
}
