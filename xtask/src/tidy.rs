//! `cargo xtask tidy`: the house rules that a compiler does not know.
//!
//! A rule is a function from text to problems, so its test is a text that breaks it and one that does not.
//! Every problem says where, what, and how to mend it; a warning is shown and does not fail.

mod crates;
mod edges;
mod homes;
mod licences;
mod safety;
mod scan;
mod shape;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::{self, Failure};

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// From the repository's root.
    pub file: String,
    /// From 1; 0 is the file as a whole.
    pub line: usize,
    pub what: String,
    pub mend: &'static str,
    pub weight: Weight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Warning,
    Error,
}

impl Problem {
    pub fn error(file: &str, line: usize, what: impl Into<String>, mend: &'static str) -> Self {
        Self {
            file: file.to_owned(),
            line,
            what: what.into(),
            mend,
            weight: Weight::Error,
        }
    }

    pub fn warning(file: &str, line: usize, what: impl Into<String>, mend: &'static str) -> Self {
        Self {
            weight: Weight::Warning,
            ..Self::error(file, line, what, mend)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.weight {
            Weight::Warning => "warning: ",
            Weight::Error => "",
        };
        write!(
            f,
            "{}:{}: {mark}{}; {}",
            self.file,
            self.line.max(1),
            self.what,
            self.mend
        )
    }
}

/// One Rust source: its path from the root with `/`, its text, and its text taken apart.
pub struct Source {
    pub path: String,
    pub text: String,
    pub lines: Vec<scan::Line>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            lines: scan::lines(text),
        }
    }

    /// The lines before the file's own tests, which may reach further than the code they test: none of a test's file.
    pub fn lines_before_tests(&self) -> &[scan::Line] {
        if self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs") {
            return &[];
        }
        let tests = self.lines.windows(2).position(|pair| {
            pair[0].code.trim() == "#[cfg(test)]" && pair[1].code.trim_start().starts_with("mod tests")
        });
        &self.lines[..tests.unwrap_or(self.lines.len())]
    }
}

pub fn verb(args: &[String]) -> Result<(), Failure> {
    if let Some(arg) = args.first() {
        return Err(Failure::usage(format!("tidy takes no arguments, not '{arg}'")));
    }
    let root = shell::root();
    let mut problems = Vec::new();
    let files = rust_files(&root)?;
    for (path, text) in &files {
        problems.extend(of_source(&Source::new(path, text)));
    }
    problems.extend(crates::problems(&root)?);
    problems.extend(licences::problems(&root)?);
    for problem in &problems {
        eprintln!("{problem}");
    }
    let errors = problems
        .iter()
        .filter(|problem| problem.weight == Weight::Error)
        .count();
    match errors {
        0 => {
            shell::say(&format!("tidy: {} files keep the house rules", files.len()));
            Ok(())
        }
        _ => Err(Failure::new(format!("tidy: {errors} problems"))),
    }
}

fn of_source(source: &Source) -> Vec<Problem> {
    let mut problems = shape::problems(source);
    problems.extend(safety::problems(source));
    problems.extend(edges::problems(source));
    problems.extend(homes::problems(source));
    problems
}

/// Every Rust source of ours with its path from `root`, in order.
fn rust_files(root: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut paths = Vec::new();
    walk(root, &mut paths).map_err(|error| Failure::new(format!("reading the tree: {error}")))?;
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        // A file that vanished between the listing and now is somebody's edit, not a broken rule.
        if let Ok(text) = fs::read_to_string(&path) {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            files.push((name, text));
        }
    }
    Ok(files)
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(&path, into)?;
            }
        } else if name.ends_with(".rs") {
            into.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_where_what_and_how_to_mend() {
        let problem = Problem::error("a/b.rs", 7, "it is crooked", "straighten it");
        assert_eq!(problem.to_string(), "a/b.rs:7: it is crooked; straighten it");
        let warning = Problem::warning("a/b.rs", 0, "it is long", "split it");
        assert_eq!(warning.to_string(), "a/b.rs:1: warning: it is long; split it");
    }

    #[test]
    fn our_own_sources_are_found_and_keep_the_rules() {
        let files = rust_files(&shell::root()).unwrap();
        let ours: Vec<_> = files.iter().filter(|(path, _)| path.starts_with("xtask/")).collect();
        assert!(ours.iter().any(|(path, _)| path == "xtask/src/tidy.rs"));
        let problems: Vec<_> = ours
            .iter()
            .flat_map(|(path, text)| of_source(&Source::new(path, text)))
            .collect();
        assert_eq!(problems, []);
    }
}
