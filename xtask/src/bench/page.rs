//! The result as Markdown, and its place in docs/benchmarks.md.

use std::fs;
use std::process::Command;

use super::Options;
use super::load::{LOADS, Sample};
use super::proxy::OURS;
use crate::shell::{self, Failure, say};

/// Between these lines the page belongs to `--write`.
const BEGIN: &str = "<!-- bench l7: written by `cargo xtask bench l7 --write` -->";
const END: &str = "<!-- end of bench l7 -->";

/// The table with what it was measured on.
pub fn text(options: &Options, samples: &[Sample], versions: &[(&str, String)], missing: &[&str]) -> String {
    let mut text = table(samples);
    text.push_str(&format!(
        "\n{} rounds of {} s for each row, in turn. {}\n\n",
        options.rounds,
        options.secs,
        machine()
    ));
    for (name, version) in versions {
        text.push_str(&format!("* {name}: {version}\n"));
    }
    for name in missing {
        text.push_str(&format!("* {name}: not installed, not measured\n"));
    }
    text
}

fn table(samples: &[Sample]) -> String {
    let mut text = String::from(
        "| load | proxy | CPU µs per request, min / median / max | requests per s | sluice / this |\n\
         |---|---|---|---|---|\n",
    );
    for load in LOADS {
        let mut names: Vec<&str> = Vec::new();
        let of_load = samples.iter().filter(|sample| sample.load == load.name);
        of_load.for_each(|sample| {
            if !names.contains(&sample.proxy) {
                names.push(sample.proxy);
            }
        });
        let row = |name: &str| Row::of(samples.iter().filter(|s| s.load == load.name && s.proxy == name));
        let ours = row(OURS);
        for name in names {
            let this = row(name);
            let ratio = match (&ours, name == OURS) {
                (Some(ours), false) => this.as_ref().and_then(|this| this.ratio_of(ours)),
                _ => None,
            };
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let shown = this.map_or_else(|| "- | -".to_owned(), |this| this.to_string());
            text.push_str(&format!("| {} | {name} | {shown} | {ratio} |\n", load.name));
        }
    }
    text
}

/// All rounds of one proxy under one load.
struct Row {
    /// Sorted.
    cpu_us: Vec<f64>,
    rate: Vec<f64>,
    ok: u64,
    failed: u64,
}

impl Row {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> Option<Self> {
        let sorted = |value: fn(&Sample) -> f64| {
            let mut all: Vec<f64> = samples.clone().map(value).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let (cpu_us, rate) = (sorted(|sample| sample.cpu_us), sorted(|sample| sample.rate));
        (!cpu_us.is_empty()).then(|| Self {
            cpu_us,
            rate,
            ok: samples.clone().map(|sample| sample.ok).sum(),
            failed: samples.clone().map(|sample| sample.failed).sum(),
        })
    }

    /// `ours` by this, in medians. A row with failures has none: what fails costs nothing.
    fn ratio_of(&self, ours: &Row) -> Option<f64> {
        let fair = self.failed == 0 && ours.failed == 0 && median(&self.cpu_us) > 0.0;
        fair.then(|| median(&ours.cpu_us) / median(&self.cpu_us))
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (min, max) = (self.cpu_us[0], self.cpu_us[self.cpu_us.len() - 1]);
        let all = self.ok + self.failed;
        match self.failed {
            0 => write!(
                f,
                "{min:.1} / {:.1} / {max:.1} | {:.0}",
                median(&self.cpu_us),
                median(&self.rate)
            ),
            failed => write!(f, "**{failed} of {all} requests failed** | {:.0}", median(&self.rate)),
        }
    }
}

/// Of sorted values; the mean of the middle two where their number is even.
fn median(sorted: &[f64]) -> f64 {
    let (low, high) = ((sorted.len().max(1) - 1) / 2, sorted.len() / 2);
    (sorted[low] + sorted[high]) / 2.0
}

/// Processor, kernel, system, how busy it was, when, and which commit.
fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        let line = line.and_then(|line| line.split_once([':', '=']));
        line.map_or("unknown", |(_, value)| value.trim().trim_matches('"'))
            .to_owned()
    };
    let cpuinfo = read("/proc/cpuinfo");
    let said = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        shell::capture(command.args(args).current_dir(shell::root()))
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    format!(
        "{} x {}, Linux {}, {}; load average at the end {}; {}, commit {}.",
        cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        value(&cpuinfo, "model name"),
        read("/proc/sys/kernel/osrelease").trim(),
        value(&read("/etc/os-release"), "PRETTY_NAME"),
        read("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
        said("date", &["-u", "+%F"]),
        said("git", &["describe", "--always", "--dirty"]),
    )
}

/// Replaces the last table in docs/benchmarks.md; the words around it are kept.
pub fn write(table: &str) -> Result<(), Failure> {
    let file = shell::root().join("docs/benchmarks.md");
    let io = |error: std::io::Error| Failure::new(format!("{}: {error}", file.display()));
    let old = fs::read_to_string(&file).map_err(io)?;
    let new = replaced(&old, table).ok_or_else(|| {
        let why = format!("{} has lost the lines `{BEGIN}` and `{END}`", file.display());
        Failure::new(why)
    })?;
    fs::write(&file, new).map_err(io)?;
    say(&format!("written to {}", file.display()));
    Ok(())
}

fn replaced(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(proxy: &'static str, cpu_us: f64, failed: u64) -> Sample {
        Sample {
            proxy,
            load: LOADS[0].name,
            ok: 100,
            failed,
            cpu_us,
            rate: 5.0,
        }
    }

    #[test]
    fn a_row_shows_the_spread_and_the_ratio_of_medians() {
        let samples = [
            ("sluice", 3.0),
            ("peer", 10.0),
            ("sluice", 4.0),
            ("peer", 8.0),
            ("sluice", 9.0),
        ];
        let samples: Vec<Sample> = samples.map(|(proxy, cpu_us)| sample(proxy, cpu_us, 0)).into();
        let table = table(&samples);
        assert!(table.contains("| sluice | 3.0 / 4.0 / 9.0 | 5 | - |"), "{table}");
        assert!(table.contains("| peer | 8.0 / 9.0 / 10.0 | 5 | 0.44 |"), "{table}");
    }

    #[test]
    fn a_row_with_failures_has_no_figure_and_no_ratio() {
        let table = table(&[sample("sluice", 3.0, 0), sample("peer", 1.0, 7)]);
        assert!(
            table.contains("| peer | **7 of 107 requests failed** | 5 | - |"),
            "{table}"
        );
    }

    #[test]
    fn only_the_marked_part_of_the_page_is_replaced() {
        let page = format!("# A\n{BEGIN}\nold\n{END}\nB\n");
        assert_eq!(
            replaced(&page, "new\n").expect("marked"),
            format!("# A\n{BEGIN}\n\nnew\n\n{END}\nB\n")
        );
        assert_eq!(replaced("# A\n", "new"), None);
    }
}
