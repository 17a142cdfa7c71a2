//! The command line of `cargo xtask conformance`.

use std::path::PathBuf;

use crate::run;
use crate::shell::Failure;

/// Versions of the suite that `tests/conformance/cluster/suite` has; the first is the one meant where none is named.
pub const SUITES: [&str; 2] = ["v1.7.0", "v1.6.3"];
/// The suite's profiles for gateways, with the prefix `GATEWAY-` left out.
pub const PROFILES: [&str; 5] = ["HTTP", "GRPC", "TLS", "TCP", "UDP"];
const USAGE: &str = "conformance [--profile HTTP|GRPC|TLS|TCP|UDP].. [--run TEST] [--suite v1.7.0|v1.6.3] [--core] \
                     [--then SCRIPT] [--keep] [--out FOLDER]";

#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    pub suite: String,
    /// Of [`PROFILES`]; all where none was named.
    pub profiles: Vec<&'static str>,
    /// One test, shown as it runs.
    pub run: Option<String>,
    /// A shell line to run beside the gateway in place of the suite.
    pub then: Option<String>,
    /// What `cargo xtask package` has rendered, in place of gateway and suite.
    pub package: bool,
    pub keep: bool,
    /// Core features of the stable kinds alone.
    pub core: bool,
    /// Where logs and the report go.
    pub out: PathBuf,
}

impl Options {
    pub fn parse(args: &[String]) -> Result<Self, Failure> {
        let mut options = Self {
            suite: SUITES[0].to_owned(),
            profiles: Vec::new(),
            run: None,
            then: None,
            package: false,
            keep: false,
            core: false,
            out: run::target_folder().join("conformance"),
        };
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words.next().cloned();
                value.ok_or_else(|| Failure::usage(format!("{word} wants a value; {USAGE}")))
            };
            match word.as_str() {
                "--profile" => options.profiles.push(profile(&value()?)?),
                "--run" => options.run = Some(value()?),
                "--suite" => options.suite = value()?,
                "--then" => options.then = Some(value()?),
                "--out" => options.out = PathBuf::from(value()?),
                "--package" => options.package = true,
                "--keep" => options.keep = true,
                "--core" => options.core = true,
                other => return Err(Failure::usage(format!("what is '{other}'? {USAGE}"))),
            }
        }
        if !SUITES.contains(&&*options.suite) {
            let known = SUITES.join(" and ");
            return Err(Failure::usage(format!(
                "there is no suite {}; there are {known}",
                options.suite
            )));
        }
        if options.run.is_some() && options.then.is_some() {
            return Err(Failure::usage("--run and --then exclude each other"));
        }
        if options.profiles.is_empty() {
            options.profiles = PROFILES.to_vec();
        }
        Ok(options)
    }

    /// The words that [`Options::parse`] makes this of.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["--suite".to_owned(), self.suite.clone()];
        words.extend(["--out".to_owned(), self.out.display().to_string()]);
        words.extend(
            self.profiles
                .iter()
                .flat_map(|name| ["--profile".to_owned(), (*name).to_owned()]),
        );
        for (flag, value) in [("--run", &self.run), ("--then", &self.then)] {
            words.extend(value.iter().flat_map(|value| [flag.to_owned(), value.clone()]));
        }
        let flags = [
            ("--package", self.package),
            ("--keep", self.keep),
            ("--core", self.core),
        ];
        words.extend(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| (*flag).to_owned()));
        words
    }

    /// Every test of every profile: what docs/conformance.md tells of.
    pub fn is_whole(&self) -> bool {
        self.run.is_none() && self.then.is_none() && !self.package && !self.core && self.profiles == PROFILES
    }
}

/// `GATEWAY-HTTP`, `HTTP` and `http` are the same.
fn profile(name: &str) -> Result<&'static str, Failure> {
    let upper = name.to_uppercase();
    let short = upper.strip_prefix("GATEWAY-").unwrap_or(&upper);
    let known = PROFILES.iter().find(|known| **known == short);
    known.copied().ok_or_else(|| {
        Failure::usage(format!(
            "there is no profile '{name}'; there are {}",
            PROFILES.join(" ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Failure> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&words)
    }

    #[test]
    fn without_words_the_newest_suite_runs_whole() {
        let options = parse("").expect("nothing is demanded");
        assert!(options.is_whole() && options.suite == SUITES[0] && options.profiles == PROFILES);
        for part in ["--core", "--run A", "--then true", "--profile tcp"] {
            assert!(!parse(part).expect("known").is_whole(), "{part}");
        }
    }

    #[test]
    fn profiles_are_known_by_their_short_and_long_names() {
        let options = parse("--profile gateway-tls --profile UDP").expect("known");
        assert_eq!(options.profiles, ["TLS", "UDP"]);
        assert!(parse("--profile mesh").is_err());
    }

    #[test]
    fn options_become_words_and_options_again() {
        for line in [
            "",
            "--profile GRPC --run A --keep --suite v1.6.3 --out /x",
            "--then true --core",
            "--package",
        ] {
            let options = parse(line).expect("known");
            assert_eq!(Options::parse(&options.words()).expect("its own words"), options);
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for line in ["--suite v1", "--run", "x", "--run A --then b"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
