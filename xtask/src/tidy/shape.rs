//! How a file looks: its head, its size, its names.

use super::{Problem, Source, scan};

/// Above this a file is asked whether it is one subject.
const LINES_WARNED: usize = 500;
/// Above this its head must say why, in a line that starts with [`SIZE_REASON`].
const LINES_MAX: usize = 800;
const SIZE_REASON: &str = "//! Size:";

/// Words that say nothing about what a thing is.
const EMPTY_WORDS: &[&str] = &["manager", "managers", "helper", "helpers", "util", "utils"];
/// What names an item: the word after one of these is judged. Names from other crates are not ours to choose.
const DEFINERS: &[&str] = &[
    "struct",
    "enum",
    "union",
    "trait",
    "fn",
    "mod",
    "type",
    "const",
    "static",
    "macro_rules",
];
/// Marks of unfinished work; an issue is the place for it.
const UNFINISHED: &[&str] = &["TODO", "FIXME", "XXX"];

pub fn problems(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    head(source, &mut problems);
    size(source, &mut problems);
    path(source, &mut problems);
    for (index, line) in source.lines.iter().enumerate() {
        words(source, index + 1, line, &mut problems);
    }
    problems
}

fn head(source: &Source, problems: &mut Vec<Problem>) {
    let first = source
        .text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    if !first.starts_with("//!") {
        let mend = "begin it with `//!` lines: what this file is, and its law";
        problems.push(Problem::error(&source.path, 1, "the file has no head", mend));
    }
}

fn size(source: &Source, problems: &mut Vec<Problem>) {
    let count = source.text.lines().count();
    let argued = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.starts_with(SIZE_REASON));
    let mend = "split it by subject, or say in its head why it is one: `//! Size: ...`";
    if count > LINES_MAX && !argued {
        problems.push(Problem::error(
            &source.path,
            count,
            format!("{count} lines (at most {LINES_MAX})"),
            mend,
        ));
    } else if count > LINES_WARNED && !argued {
        problems.push(Problem::warning(
            &source.path,
            count,
            format!("{count} lines (ask at {LINES_WARNED})"),
            mend,
        ));
    }
}

fn path(source: &Source, problems: &mut Vec<Problem>) {
    if source.path.ends_with("/mod.rs") {
        let mend = "name it after its folder, beside it: `foo.rs` and `foo/`";
        problems.push(Problem::error(
            &source.path,
            1,
            "mod.rs says nothing in a list of open files",
            mend,
        ));
    }
    for part in source.path.trim_end_matches(".rs").split('/') {
        if let Some(word) = empty_word(part) {
            problems.push(Problem::error(
                &source.path,
                1,
                format!("'{word}' in a path says nothing"),
                RENAME,
            ));
        }
    }
}

/// The one good reason: it is no test but the process that another test starts, and kills.
const STARTED_BY_TESTS: &str = "#[ignore = \"run by ";
const RENAME: &str = "name it after what it is or does";

fn words(source: &Source, number: usize, line: &scan::Line, problems: &mut Vec<Problem>) {
    let names: Vec<&str> = scan::names(&line.code).map(|(_, name)| name).collect();
    for pair in names.windows(2) {
        if let Some(word) = empty_word(pair[1]).filter(|_| DEFINERS.contains(&pair[0])) {
            problems.push(Problem::error(
                &source.path,
                number,
                format!("'{word}' in `{}` says nothing", pair[1]),
                RENAME,
            ));
        }
    }
    if let Some(word) = scan::names(&line.comment)
        .map(|(_, name)| name)
        .find(|name| UNFINISHED.contains(name))
    {
        problems.push(Problem::error(
            &source.path,
            number,
            format!("a {word} is left"),
            "do it now, or write an issue",
        ));
    }
    let text = || source.text.lines().nth(number - 1).unwrap_or_default();
    if line.code.contains("#[ignore") && !text().contains(STARTED_BY_TESTS) {
        let mend = "mend or remove the test; one that cannot run here says its reason at run time";
        problems.push(Problem::error(
            &source.path,
            number,
            "an ignored test guards nothing",
            mend,
        ));
    }
}

/// The first part of a name (snake or camel case) that is an empty word.
fn empty_word(name: &str) -> Option<String> {
    let mut parts = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || c == '-' || (c.is_uppercase() && before.is_lowercase()) {
            parts.push(String::new());
        }
        if c != '_' && c != '-' {
            let part = parts.last_mut().expect("there is always a last part");
            part.extend(c.to_lowercase());
        }
        before = c;
    }
    parts.into_iter().find(|part| EMPTY_WORDS.contains(&part.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        problems(&Source::new(path, text))
            .into_iter()
            .map(|problem| problem.what)
            .collect()
    }

    #[test]
    fn a_clean_file_is_not_reported() {
        let text = "//! Law.\n\nuse hyper_util::rt::TokioIo;\n// what util means\nfn pick() { helper(\"Manager\") }\n";
        assert_eq!(whats("a/src/pick.rs", text), [""; 0]);
    }

    #[test]
    fn a_file_without_a_head_is_reported() {
        assert_eq!(whats("a.rs", "\n// plain\nfn f() {}\n"), ["the file has no head"]);
    }

    #[test]
    fn size_is_asked_then_refused_unless_argued() {
        let text = |lines: usize, head: &str| format!("//! Law.\n{head}{}", "fn f() {}\n".repeat(lines));
        assert_eq!(whats("a.rs", &text(499, "")), [""; 0]);
        assert_eq!(whats("a.rs", &text(500, "")), ["501 lines (ask at 500)"]);
        assert_eq!(whats("a.rs", &text(800, "")), ["801 lines (at most 800)"]);
        assert_eq!(whats("a.rs", &text(900, "//! Size: one table.\n")), [""; 0]);
    }

    #[test]
    fn mod_rs_is_reported() {
        assert_eq!(
            whats("a/src/b/mod.rs", "//! Law.\n"),
            ["mod.rs says nothing in a list of open files"]
        );
    }

    #[test]
    fn names_that_say_nothing_are_reported_where_they_are_given() {
        assert_eq!(
            whats("a.rs", "//! Law.\nstruct FlowManager;\n"),
            ["'manager' in `FlowManager` says nothing"]
        );
        assert_eq!(
            whats("a.rs", "//! Law.\nmod test_utils;\n"),
            ["'utils' in `test_utils` says nothing"]
        );
        assert_eq!(whats("a/util/b.rs", "//! Law.\n"), ["'util' in a path says nothing"]);
        assert_eq!(whats("a.rs", "//! Law.\nfn utilisation() {}\n"), [""; 0]);
    }

    #[test]
    fn unfinished_marks_are_reported_in_comments() {
        assert_eq!(
            whats("a.rs", &format!("//! Law.\n// {}: later\n", UNFINISHED[0])),
            ["a TODO is left"]
        );
    }

    #[test]
    fn an_ignored_test_is_reported() {
        assert_eq!(
            whats("a.rs", "//! Law.\n#[ignore = \"slow\"]\nfn f() {}\n"),
            ["an ignored test guards nothing"]
        );
    }
}
