//! `cargo xtask fuzz [TARGET..] [--secs N] [--merge]`: builds the targets of `tests/fuzz` with coverage counters and
//! runs them under libFuzzer, two at a time.
//!
//! The stable compiler does it: the counters are an LLVM pass, and code without `unsafe` has nothing to tell a memory
//! sanitizer. Committed inputs (`tests/fuzz/corpus`) are run first, so a mended fault is a regression test; new ones
//! gather in `target/fuzz/corpus`, and `--merge` adds those that reach something new to the committed ones. An input that
//! breaks a law is left among the committed ones and fails the verb.

mod outcome;

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::setup::{self, Need};
use crate::shell::{self, Failure, say, words};
use outcome::Outcome;

/// What a run without `--secs` gives each target, time permitting.
const SECS_DEFAULT: u64 = 60;
/// What a run without `--secs` takes at most, from its start, building included.
const SECS_TOTAL_MAX: u64 = 6 * 60;
/// Each target gets at least so much, however long the build took.
const SECS_MIN: u64 = 10;
const AT_ONCE: usize = 2;
/// A target that does not end by itself is killed so long after its time.
const GRACE: Duration = Duration::from_secs(90);
/// Longest input.
const INPUT_BYTES_MAX: usize = 4096;

/// As cargo-fuzz sets them.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                         -Cllvm-args=-sanitizer-coverage-pc-table \
                         -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// A command line, read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Args {
    targets: Vec<String>,
    secs: Option<u64>,
    merge: bool,
}

pub fn verb(args: &[String]) -> Result<(), Failure> {
    let began = Instant::now();
    let args = parse(args, &targets()?)?;
    setup::ensure(&[Need::Build, Need::Fuzz])?;
    let binaries = build()?;
    if args.merge {
        return args.targets.iter().try_for_each(|target| merge(target, &binaries));
    }
    let secs = args
        .secs
        .unwrap_or_else(|| share(began.elapsed().as_secs(), args.targets.len()));
    say(&format!(
        "fuzzing {} targets, {secs} s each, {AT_ONCE} at a time",
        args.targets.len()
    ));
    let outcomes = run_all(&args.targets, &binaries, secs)?;
    outcomes.iter().for_each(|outcome| println!("{outcome}"));
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|one| !one.is_good())
        .map(|one| &one.target[..])
        .collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "failed: {}; what each printed is in target/fuzz/TARGET.log; an input that broke a law is now in \
             tests/fuzz/corpus/TARGET/ (to run it alone: {}/TARGET tests/fuzz/corpus/TARGET/FILE)",
            failed.join(" "),
            binaries.display()
        ))),
    }
}

fn parse(args: &[String], known: &[String]) -> Result<Args, Failure> {
    let mut parsed = Args::default();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--merge" => parsed.merge = true,
            "--secs" => {
                let secs = words.next().and_then(|secs| secs.parse().ok()).filter(|secs| *secs > 0);
                parsed.secs = Some(secs.ok_or_else(|| Failure::usage("--secs wants a number of seconds"))?);
            }
            name if known.iter().any(|target| target == name) => parsed.targets.push(name.to_owned()),
            other => {
                return Err(Failure::usage(format!(
                    "there is no fuzz target '{other}'; there are: {}",
                    known.join(" ")
                )));
            }
        }
    }
    if parsed.targets.is_empty() {
        parsed.targets = known.to_vec();
    }
    Ok(parsed)
}

/// Seconds for each of `targets`, `spent` seconds after the start.
fn share(spent: u64, targets: usize) -> u64 {
    let rounds = targets.div_ceil(AT_ONCE).max(1) as u64;
    (SECS_TOTAL_MAX.saturating_sub(spent) / rounds).clamp(SECS_MIN, SECS_DEFAULT)
}

/// Names of the targets, from their files.
fn targets() -> Result<Vec<String>, Failure> {
    let folder = shell::root().join("tests/fuzz/targets");
    let entries = std::fs::read_dir(&folder).map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds every target and says where the binaries are.
fn build() -> Result<PathBuf, Failure> {
    let host = shell::capture(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let folder = shell::root().join("target/fuzz");
    say("building the fuzz targets");
    let mut cargo = shell::cargo();
    cargo.args(words("build --release --quiet --manifest-path tests/fuzz/Cargo.toml"));
    // A named target keeps build scripts and macros, which run here, free of counters.
    cargo.args(["--target", host.trim(), "--target-dir"]).arg(&folder);
    cargo.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_BUILD_BUILD_DIR");
    shell::run(&mut cargo)?;
    Ok(folder.join(host.trim()).join("release"))
}

fn committed(target: &str) -> PathBuf {
    shell::root().join("tests/fuzz/corpus").join(target)
}

fn gathered(target: &str) -> PathBuf {
    shell::root().join("target/fuzz/corpus").join(target)
}

fn made(folder: PathBuf) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(&folder).map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    Ok(folder)
}

fn libfuzzer(target: &str, binaries: &Path) -> Command {
    let mut command = Command::new(binaries.join(target));
    command
        .args(words("-rss_limit_mb=1024 -timeout=10"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"));
    command.current_dir(shell::root()).stdin(Stdio::null());
    command
}

fn run_all(targets: &[String], binaries: &Path, secs: u64) -> Result<Vec<Outcome>, Failure> {
    let queue = Mutex::new(targets.iter().collect::<VecDeque<_>>());
    let work = || -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = Vec::new();
        loop {
            let next = queue.lock().expect("nobody panics with it").pop_front();
            let Some(target) = next else { return Ok(outcomes) };
            outcomes.push(run_one(target, binaries, secs)?);
        }
    };
    let mut outcomes = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let ended = workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"));
        ended.collect::<Result<Vec<_>, Failure>>()
    })?
    .concat();
    outcomes.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(outcomes)
}

fn run_one(target: &str, binaries: &Path, secs: u64) -> Result<Outcome, Failure> {
    let (known, new) = (made(committed(target))?, made(gathered(target))?);
    let log = shell::root().join(format!("target/fuzz/{target}.log"));
    let file = File::create(&log).map_err(|error| Failure::new(format!("{}: {error}", log.display())))?;
    let mut command = libfuzzer(target, binaries);
    command.args([
        format!("-max_total_time={secs}"),
        format!("-artifact_prefix={}/", known.display()),
    ]);
    command.arg("-print_final_stats=1").args([&new, &known]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .map_err(|error| Failure::new(format!("{target} did not start: {error}")))?;
    let give_up = Instant::now() + Duration::from_secs(secs) + GRACE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(100)),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let printed = std::fs::read(&log).unwrap_or_default();
    Ok(Outcome::new(target, status, &String::from_utf8_lossy(&printed)))
}

/// Adds to the committed inputs those of the gathered ones that reach something new.
fn merge(target: &str, binaries: &Path) -> Result<(), Failure> {
    let (known, new) = (made(committed(target))?, made(gathered(target))?);
    let before = count(&known);
    let mut command = libfuzzer(target, binaries);
    shell::capture(command.arg("-set_cover_merge=1").args([&known, &new]))?;
    say(&format!("{target}: {before} inputs became {}", count(&known)));
    Ok(())
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Args, Failure> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words, &["path".to_owned(), "hpack".to_owned()])
    }

    #[test]
    fn no_target_is_every_target_and_an_unknown_one_is_named() {
        assert_eq!(read("").unwrap().targets, ["path", "hpack"]);
        assert_eq!(
            read("hpack --secs 5").unwrap(),
            Args {
                targets: vec!["hpack".into()],
                secs: Some(5),
                merge: false
            }
        );
        assert!(read("pth").unwrap_err().why.contains("there are: path hpack"));
        assert!(read("--secs x").is_err() && read("--secs").is_err());
    }

    #[test]
    fn the_whole_run_stays_within_its_bound() {
        assert_eq!(share(0, 14), 51);
        assert_eq!(share(180, 14), 25);
        assert_eq!(share(9999, 14), SECS_MIN);
        assert_eq!(share(0, 1), 60);
    }

    #[test]
    fn every_target_is_a_binary_of_the_crate() {
        let manifest = std::fs::read_to_string(shell::root().join("tests/fuzz/Cargo.toml")).unwrap();
        let targets = targets().unwrap();
        assert!(targets.len() > 10);
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"\n")), "{target}");
        }
    }
}
