//! The result as Markdown, and its place in docs/benchmarks.md.

use std::fs;

use super::cell::{Against, Cell};
use super::load::Sample;
use super::machine;
use super::row::Row;
use super::{Absence, Options};
use crate::shell::{self, Failure, say};

/// Between these lines the page belongs to `--write`.
const BEGIN: &str = "<!-- bench l7: written by `cargo xtask bench l7 --write` -->";
const END: &str = "<!-- end of bench l7 -->";

/// All that a run found.
pub struct Findings<'a> {
    pub options: &'a Options,
    /// Those that were measured.
    pub cells: &'a [Cell],
    pub samples: &'a [Sample],
    pub absences: &'a [Absence],
    /// Each proxy and how it names itself.
    pub versions: &'a [(&'static str, String)],
    pub missing: &'a [&'static str],
}

/// The tables with what they were measured on.
pub fn text(result: &Findings<'_>) -> String {
    let mut text = goals(result);
    text.push_str(&figures(result));
    text.push_str(&format!(
        "\nRounds: {}, of {} s for each row, in turn. {}\n\n",
        result.options.rounds,
        result.options.secs,
        machine::line()
    ));
    for (name, version) in result.versions {
        text.push_str(&format!("* {name}: {version}\n"));
    }
    for name in result.missing {
        text.push_str(&format!("* {name}: not installed, not measured\n"));
    }
    text
}

/// One line for each cell: ours by whom it is held against.
fn goals(result: &Findings<'_>) -> String {
    let mut text = String::from("| cell | against | goal, at most | measured |\n|---|---|---|---|\n");
    for cell in result.cells {
        let rows = rows(cell, result.samples);
        let ours = rows.iter().find(|(name, _)| *name == cell.subject).map(|(_, row)| row);
        let peers = rows
            .iter()
            .filter(|(name, row)| result.versions.iter().any(|(known, _)| known == name) && row.failed == 0);
        let best = peers
            .filter(|(name, _)| *name != cell.subject)
            .min_by(|(_, a), (_, b)| a.median().total_cmp(&b.median()));
        let (peer, goal) = match cell.against {
            Against::Peer(name) => (
                rows.iter().find(|(known, _)| *known == name).map(|(_, row)| row),
                format!("{:.2}", cell.goal),
            ),
            Against::BestPeer => (best.map(|(_, row)| row), format!("{:.2}", cell.goal)),
            Against::Figure => (None, format!("{} {}", cell.goal, cell.unit.shown())),
        };
        let against = match cell.against {
            Against::Peer(name) => known(name, result.versions),
            Against::BestPeer => best.map_or_else(
                || "best peer".to_owned(),
                |(name, _)| format!("best peer: {}", known(name, result.versions)),
            ),
            Against::Figure => "-".to_owned(),
        };
        let measured = match cell.against {
            Against::Peer(_) | Against::BestPeer => ours
                .zip(peer)
                .and_then(|(ours, peer)| peer.ratio_of(ours))
                .map(|ratio| (ratio, 2)),
            Against::Figure => ours
                .filter(|row| row.failed == 0)
                .map(|row| (row.median(), cell.unit.decimals())),
        };
        let measured = match measured {
            Some((value, decimals)) if value <= cell.goal => format!("{value:.decimals$}"),
            Some((value, decimals)) => format!("**{value:.decimals$}**, above"),
            None => "could not be measured".to_owned(),
        };
        text.push_str(&format!("| {} | {against} | {goal} | {measured} |\n", cell.name));
    }
    text.push_str("| user instructions a request | - | - | `cargo xtask budget` |\n\n");
    text
}

/// One line for each cell and proxy.
fn figures(result: &Findings<'_>) -> String {
    let mut text = String::from(
        "| cell | proxy | min / median / max | of | requests per s | sluice / this |\n|---|---|---|---|---|---|\n",
    );
    for cell in result.cells {
        let rows = rows(cell, result.samples);
        let ours = rows.iter().find(|(name, _)| *name == cell.subject).map(|(_, row)| row);
        for (name, row) in &rows {
            let ratio = ours
                .filter(|_| *name != cell.subject && *name != super::latency::DIRECT)
                .and_then(|ours| row.ratio_of(ours));
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            text.push_str(&format!(
                "| {} | {name} | {} | {} | {} | {ratio} |\n",
                cell.name,
                row.spread(cell.unit.decimals()),
                if *name == super::latency::DIRECT {
                    "µs in all"
                } else {
                    cell.unit.shown()
                },
                row.rate_shown(),
            ));
        }
        for absence in result.absences.iter().filter(|absence| absence.cell == cell.name) {
            text.push_str(&format!(
                "| {} | {} | {} | - | - | - |\n",
                cell.name, absence.proxy, absence.why
            ));
        }
    }
    text
}

/// The proxies of one cell in the order they were measured.
fn rows(cell: &Cell, samples: &[Sample]) -> Vec<(&'static str, Row)> {
    let mut names: Vec<&'static str> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.cell == cell.name) {
        if !names.contains(&sample.proxy) {
            names.push(sample.proxy);
        }
    }
    let row = |name: &'static str| {
        let of_name = samples.iter().filter(|s| s.cell == cell.name && s.proxy == name);
        Some((name, Row::of(of_name)?))
    };
    names.into_iter().filter_map(row).collect()
}

/// A peer and the number of its version, where one can be found in how it names itself.
fn known(name: &str, versions: &[(&str, String)]) -> String {
    let said = versions
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, said)| said.as_str());
    let number = said.unwrap_or_default().split(['/', ' ', '-', '+']).find(|word| {
        word.contains('.')
            && word
                .split('.')
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    });
    number.map_or_else(|| name.to_owned(), |number| format!("{name} {number}"))
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
    use super::super::cell::Unit;
    use super::*;

    const CELL: Cell = Cell {
        name: "a",
        unit: Unit::CpuUs,
        subject: "sluice",
        against: Against::BestPeer,
        goal: 0.5,
    };

    fn sample(proxy: &'static str, figure: f64, failed: u64) -> Sample {
        Sample {
            proxy,
            cell: "a",
            ok: 100,
            failed,
            figure,
            rate: Some(5.0),
        }
    }

    fn page(samples: &[Sample]) -> String {
        let versions = ["sluice", "peer", "other"].map(|name| (name, "x version: x/1.22.1".to_owned()));
        text(&Findings {
            options: &Options::default(),
            cells: &[CELL],
            samples,
            absences: &[Absence {
                cell: "a",
                proxy: "other",
                why: "has no TCP mode".to_owned(),
            }],
            versions: &versions,
            missing: &[],
        })
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
        let samples = samples.map(|(proxy, figure)| sample(proxy, figure, 0));
        let page = page(&samples);
        for line in [
            "| a | best peer: peer 1.22.1 | 0.50 | 0.44 |",
            "| a | sluice | 3.0 / 4.0 / 9.0 | CPU µs a request | 5 | - |",
            "| a | peer | 8.0 / 9.0 / 10.0 | CPU µs a request | 5 | 0.44 |",
            "| a | other | has no TCP mode | - | - | - |",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_row_with_failures_has_no_figure_and_no_ratio() {
        let page = page(&[sample("sluice", 3.0, 0), sample("peer", 1.0, 7)]);
        for line in [
            "| a | best peer | 0.50 | could not be measured |",
            "| a | peer | **7 of 107 requests failed** | CPU µs a request | 5 | - |",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_goal_that_is_missed_stands_out() {
        let page = page(&[sample("sluice", 3.0, 0), sample("peer", 4.0, 0)]);
        assert!(page.contains("| 0.50 | **0.75**, above |"), "{page}");
    }

    #[test]
    fn a_version_is_the_first_number_with_points() {
        let said = |text: &str| known("p", &[("p", text.to_owned())]);
        assert_eq!(said("HAProxy version 2.6.12-1+deb12u4 2026/10/17"), "p 2.6.12");
        assert_eq!(said("version: 9e55/1.40.0/Clean/RELEASE"), "p 1.40.0");
        assert_eq!(said("unknown"), "p");
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
