//! docs/conformance.md: one section for each version of the suite, written by a whole run and by nobody else.

use std::fs;

use super::report::{Part, Profile};
use super::transcript::{Outcome, Test};
use crate::shell::{self, Failure, say};

const PAGE: &str = "docs/conformance.md";

/// All that a run found.
pub struct Findings<'a> {
    pub suite: &'a str,
    pub core_only: bool,
    pub seconds: u64,
    pub tests: &'a [Test],
    pub profiles: &'a [Profile],
}

/// The tables, without a heading.
pub fn text(findings: &Findings<'_>) -> String {
    let mut text = format!(
        "{}. The suite took {} s.\n\n{}",
        sum(findings.tests),
        findings.seconds,
        profiles(findings.profiles)
    );
    let missing: Vec<String> = findings
        .profiles
        .iter()
        .filter(|profile| !profile.unsupported.is_empty())
        .map(|profile| {
            format!(
                "* {} does not claim: {}\n",
                profile.name,
                profile.unsupported.join(", ")
            )
        })
        .collect();
    if !missing.is_empty() && !findings.core_only {
        text.push_str(&format!("\n{}", missing.concat()));
    }
    for (outcome, heading) in [(Outcome::Failed, "Failed"), (Outcome::Skipped, "Skipped")] {
        let rows: Vec<String> = findings
            .tests
            .iter()
            .filter(|test| test.outcome == outcome)
            // The suite lists tests of meshes and says that a gateway does not support them.
            .filter(|test| outcome != Outcome::Skipped || !test.name.starts_with("Mesh"))
            .map(|test| format!("| {} | {} |\n", test.name, test.said.replace('|', "\\|")))
            .collect();
        let hidden = findings.core_only && outcome == Outcome::Skipped;
        if !rows.is_empty() && !hidden {
            text.push_str(&format!("\n| {heading} | what it says |\n|---|---|\n{}", rows.concat()));
        }
    }
    text
}

/// Puts the section in its place in the page and the report beside it.
pub fn write(findings: &Findings<'_>, text: &str, report: &str) -> Result<(), Failure> {
    let file = shell::root().join(PAGE);
    let failed = |error: std::io::Error| Failure::new(format!("{PAGE}: {error}"));
    let old = fs::read_to_string(&file).map_err(failed)?;
    let Some(new) = with_section(&old, findings.suite, text) else {
        return Err(Failure::new(format!(
            "{PAGE} has no place for {}: {}",
            findings.suite,
            begin(findings.suite)
        )));
    };
    fs::write(&file, new).map_err(failed)?;
    let kept = kept_report(findings.suite);
    fs::create_dir_all(kept.parent().unwrap_or(&kept)).map_err(failed)?;
    fs::write(&kept, report).map_err(failed)?;
    say(&format!("wrote {PAGE} and {}", kept.display()));
    Ok(())
}

fn begin(suite: &str) -> String {
    format!("<!-- {suite}: written by `cargo xtask conformance --suite {suite}` -->")
}

fn end(suite: &str) -> String {
    format!("<!-- end of {suite} -->")
}

fn with_section(page: &str, suite: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(&begin(suite))?;
    let (_, after) = rest.split_once(&end(suite))?;
    Some(format!("{before}{}\n{text}{}{after}", begin(suite), end(suite)))
}

fn sum(tests: &[Test]) -> String {
    let count = |outcome: Outcome| tests.iter().filter(|test| test.outcome == outcome).count();
    let meshes = tests
        .iter()
        .filter(|test| test.outcome == Outcome::Skipped && test.name.starts_with("Mesh"))
        .count();
    format!(
        "{} tests passed, {} failed, {} skipped, and {meshes} of meshes that no gateway is asked for",
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::Skipped) - meshes
    )
}

fn profiles(profiles: &[Profile]) -> String {
    let mut text = String::from(
        "| profile | core: passed | failed | skipped | extended: passed | failed | skipped | extended features | not claimed |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let part = |part: &Part| format!("{} | {} | {}", part.passed, part.failed, part.skipped);
    for profile in profiles {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            profile.name,
            part(&profile.core),
            part(&profile.extended),
            profile.supported.len(),
            profile.unsupported.len()
        ));
    }
    text
}

/// Where the report of a whole run is kept.
fn kept_report(suite: &str) -> std::path::PathBuf {
    shell::root().join(format!("docs/conformance/experimental-{suite}-default-report.yaml"))
}

#[cfg(test)]
mod tests {
    use super::super::options::SUITES;
    use super::*;

    #[test]
    fn the_page_has_a_place_for_every_suite() {
        let page = fs::read_to_string(shell::root().join(PAGE)).expect("the page is there");
        for suite in SUITES {
            let new = with_section(&page, suite, "measured\n").expect("a place for it");
            assert_eq!(with_section(&new, suite, "measured\n"), Some(new));
        }
    }

    #[test]
    fn a_failed_test_is_told_with_its_words_and_a_mesh_test_is_not() {
        let test = |name: &str, outcome, said: &str| Test {
            name: name.into(),
            outcome,
            seconds: 1.0,
            said: said.into(),
        };
        let tests = [
            test("A", Outcome::Passed, ""),
            test("B", Outcome::Failed, "a | b"),
            test("MeshX", Outcome::Skipped, "Skipping"),
        ];
        let findings = Findings {
            suite: "v1",
            core_only: false,
            seconds: 3,
            tests: &tests,
            profiles: &[],
        };
        let text = text(&findings);
        assert!(
            text.contains("1 tests passed, 1 failed, 0 skipped, and 1 of meshes"),
            "{text}"
        );
        assert!(text.contains("| B | a \\| b |") && !text.contains("| MeshX"), "{text}");
    }
}
