//! Which crate may depend on which: read from the manifests, not from what cargo resolves.

use std::fs;
use std::path::Path;

use super::Problem;
use crate::shell::Failure;

/// A crate's folder, those of ours it may depend on, and whether it is pure.
struct Rule {
    folder: &'static str,
    ours: &'static [&'static str],
    purity: Purity,
}

#[derive(PartialEq, Eq)]
enum Purity {
    /// No I/O, no clock, no randomness: nothing of [`IMPURE`].
    Pure,
    Rim,
    /// Builds in seconds: depends on nothing at all.
    Alone,
}

const RULES: &[Rule] = &[
    Rule {
        folder: "gateway-common",
        ours: &[],
        purity: Purity::Pure,
    },
    Rule {
        folder: "gateway-ebpf",
        ours: &["gateway-common"],
        purity: Purity::Pure,
    },
    Rule {
        folder: "gateway-core",
        ours: &["gateway-common"],
        purity: Purity::Pure,
    },
    Rule {
        folder: "gateway-http",
        ours: &["gateway-core", "gateway-common"],
        purity: Purity::Pure,
    },
    Rule {
        folder: "gateway-compiler",
        ours: &["gateway-core", "gateway-common"],
        purity: Purity::Pure,
    },
    Rule {
        folder: "gateway-userspace",
        ours: ALL,
        purity: Purity::Rim,
    },
    Rule {
        folder: "tests",
        ours: TESTED,
        purity: Purity::Rim,
    },
    Rule {
        folder: "xtask",
        ours: &[],
        purity: Purity::Alone,
    },
];
const ALL: &[&str] = &["gateway-common", "gateway-core", "gateway-http", "gateway-compiler"];
const TESTED: &[&str] = &[
    "gateway-common",
    "gateway-core",
    "gateway-http",
    "gateway-compiler",
    "gateway-userspace",
];
/// What does I/O, reads a clock, draws randomness or needs the kernel; only for tests in a pure crate.
const IMPURE: &[&str] = &[
    "anyhow",
    "async-std",
    "aya",
    "axum",
    "chrono",
    "fastrand",
    "getrandom",
    "hyper",
    "libbpf-rs",
    "libc",
    "mio",
    "nix",
    "notify",
    "rand",
    "rustix",
    "rustls",
    "socket2",
    "time",
    "tokio",
    "tonic",
    "tracing",
    "kube",
];

pub fn problems(root: &Path) -> Result<Vec<Problem>, Failure> {
    let mut problems = Vec::new();
    for rule in RULES {
        let path = format!("{}/Cargo.toml", rule.folder);
        match fs::read_to_string(root.join(&path)) {
            Ok(text) => problems.extend(of_manifest(rule, &path, &text)),
            Err(error) => return Err(Failure::new(format!("{path}: {error}"))),
        }
    }
    let workspace = fs::read_to_string(root.join("Cargo.toml"));
    let workspace = workspace.map_err(|error| Failure::new(format!("Cargo.toml: {error}")))?;
    problems.extend(unruled(&workspace));
    Ok(problems)
}

/// Every member has its rule.
fn unruled(workspace: &str) -> Vec<Problem> {
    let members = workspace
        .lines()
        .enumerate()
        .find(|(_, line)| line.starts_with("members"));
    let Some((index, line)) = members else {
        return vec![Problem::error(
            "Cargo.toml",
            1,
            "no line begins with `members`",
            "write the members in one line",
        )];
    };
    let named = line.split('"').skip(1).step_by(2);
    let unruled = named.filter(|member| !RULES.iter().any(|rule| rule.folder == *member));
    let problem = |member: &str| {
        let mend = "say what it may depend on in xtask/src/tidy/crates.rs";
        Problem::error(
            "Cargo.toml",
            index + 1,
            format!("crate `{member}` has no place in the house"),
            mend,
        )
    };
    unruled.map(problem).collect()
}

fn of_manifest(rule: &Rule, path: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for dependency in dependencies(text) {
        let Dependency { line, name, kind } = dependency;
        let ours = RULES.iter().any(|rule| rule.folder == name);
        // A crate names itself to have more features in its own tests.
        let itself = name == rule.folder && kind == Kind::Dev;
        if ours && !itself && !rule.ours.contains(&name) {
            let what = format!("`{}` may not depend on `{name}`", rule.folder);
            problems.push(Problem::error(
                path,
                line,
                what,
                "every arrow goes down: move what is shared to a lower crate",
            ));
        }
        if kind == Kind::Normal && rule.purity == Purity::Pure && IMPURE.contains(&name) {
            let what = format!("`{}` is pure and `{name}` is not", rule.folder);
            problems.push(Problem::error(
                path,
                line,
                what,
                "pass in what it gives, as an argument",
            ));
        }
        if rule.purity == Purity::Alone {
            let what = format!("`{}` depends on `{name}`", rule.folder);
            problems.push(Problem::error(
                path,
                line,
                what,
                "it must build when all else is broken: use std",
            ));
        }
    }
    problems
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Normal,
    Dev,
    Build,
}

#[derive(PartialEq, Eq, Debug)]
struct Dependency<'a> {
    line: usize,
    name: &'a str,
    kind: Kind,
}

/// The dependency tables of a manifest, read line by line: `name = ..`, `name.workspace = ..` or `[dependencies.name]`.
fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut found = Vec::new();
    let mut kind = None;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let (table, name) = split_header(header);
            kind = table;
            if let (Some(kind), Some(name)) = (kind, name) {
                found.push(Dependency {
                    line: index + 1,
                    name,
                    kind,
                });
            }
            // Inside `[dependencies.name]` are its keys, not further names.
            kind = kind.filter(|_| name.is_none());
        } else if let (Some(kind), Some((name, _))) = (kind, line.split_once(['=', '.'])) {
            let name = name.trim();
            if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_') {
                found.push(Dependency {
                    line: index + 1,
                    name,
                    kind,
                });
            }
        }
    }
    found
}

/// Which kind of dependency table a header opens, and the one dependency it is about.
fn split_header(header: &str) -> (Option<Kind>, Option<&str>) {
    // `target.'cfg(..)'.dependencies` is a dependency table too.
    let header = header.rsplit_once("'.").map_or(header, |(_, rest)| rest);
    let (table, name) = header
        .split_once('.')
        .map_or((header, None), |(table, name)| (table, Some(name)));
    let kind = match table {
        "dependencies" => Some(Kind::Normal),
        "dev-dependencies" => Some(Kind::Dev),
        "build-dependencies" => Some(Kind::Build),
        _ => None,
    };
    (kind, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(folder: &str, manifest: &str) -> Vec<String> {
        let rule = RULES.iter().find(|rule| rule.folder == folder).unwrap();
        of_manifest(rule, "Cargo.toml", manifest)
            .into_iter()
            .map(|problem| problem.what)
            .collect()
    }

    #[test]
    fn an_arrow_up_is_reported_and_one_down_is_not() {
        let up = "[dependencies]\ngateway-http.workspace = true\n";
        assert_eq!(
            whats("gateway-core", up),
            ["`gateway-core` may not depend on `gateway-http`"]
        );
        assert_eq!(whats("gateway-userspace", up), [""; 0]);
        let sideways = "[dev-dependencies]\ngateway-compiler = { path = \"../gateway-compiler\" }\n";
        assert_eq!(
            whats("gateway-http", sideways),
            ["`gateway-http` may not depend on `gateway-compiler`"]
        );
    }

    #[test]
    fn a_pure_crate_takes_what_is_impure_only_for_its_tests() {
        assert_eq!(
            whats("gateway-http", "[dependencies]\ntokio = \"1\"\n"),
            ["`gateway-http` is pure and `tokio` is not"]
        );
        assert_eq!(
            whats("gateway-http", "[dev-dependencies]\ntokio = \"1\"\nh2 = \"0.4\"\n"),
            [""; 0]
        );
    }

    #[test]
    fn xtask_depends_on_nothing() {
        assert_eq!(
            whats("xtask", "[dependencies.serde]\nversion = \"1\"\n"),
            ["`xtask` depends on `serde`"]
        );
    }

    #[test]
    fn every_way_to_write_a_dependency_is_read() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na = \"1\"\nb.workspace = true\n# c = \"1\"\n\
                    [dependencies.d]\nversion = \"1\"\n[target.'cfg(unix)'.dev-dependencies]\ne = \"1\"\n[lints]\nf = 1\n";
        let names: Vec<_> = dependencies(text)
            .iter()
            .map(|found| (found.name, found.kind))
            .collect();
        let normal = Kind::Normal;
        assert_eq!(names, [("a", normal), ("b", normal), ("d", normal), ("e", Kind::Dev)]);
    }

    #[test]
    fn a_member_without_a_rule_is_reported() {
        assert_eq!(unruled("members = [\"xtask\", \"attic\"]\n").len(), 1);
        assert_eq!(unruled("members = [\"xtask\", \"tests\"]\n"), []);
    }
}
