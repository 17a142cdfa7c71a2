//! Checks every crate we link or build with against `deny.toml`: its licence is allowed, its name is not banned.
//!
//! The same file serves cargo-deny, which knows advisories and sources too but is not on every machine. Of it we read
//! `allow = [..]` under `[licenses]` and the `name = ".."` of `deny = [..]` under `[bans]`.

use std::fs;
use std::path::Path;

use super::Problem;
use crate::shell::{self, Failure, words};

const FILE: &str = "deny.toml";

pub fn problems(root: &Path) -> Result<Vec<Problem>, Failure> {
    let text = fs::read_to_string(root.join(FILE)).map_err(|error| Failure::new(format!("{FILE}: {error}")))?;
    let policy = Policy::read(&text);
    if policy.allowed.is_empty() || policy.banned.is_empty() {
        let mend = "write `allow = [` under [licenses] and `deny = [` under [bans], one entry a line";
        return Ok(vec![Problem::error(
            FILE,
            1,
            "no allowed licences or no bans could be read",
            mend,
        )]);
    }
    let mut problems = Vec::new();
    for manifest in ["Cargo.toml", "gateway-ebpf/Cargo.toml"] {
        if !root.join(manifest).is_file() {
            continue;
        }
        let mut tree = shell::cargo();
        tree.args(words(&format!(
            "tree --locked --manifest-path {manifest} --edges normal,build,dev --prefix none"
        )));
        tree.args(["--format", "{p}|{l}"]);
        if manifest == "Cargo.toml" {
            tree.arg("--workspace");
        }
        problems.extend(of_tree(&policy, manifest, &shell::capture(&mut tree)?));
    }
    Ok(problems)
}

/// What `deny.toml` allows and bans.
#[derive(Debug, Default, PartialEq, Eq)]
struct Policy {
    allowed: Vec<String>,
    banned: Vec<String>,
}

impl Policy {
    fn read(text: &str) -> Self {
        let mut policy = Self::default();
        let (mut section, mut list) = ("", "");
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if list.is_empty() && line.starts_with('[') {
                section = line.trim_matches(['[', ']']);
            } else if let Some((key, _)) = line
                .split_once('=')
                .filter(|(_, rest)| list.is_empty() && rest.trim() == "[")
            {
                list = key.trim();
            } else if line == "]" {
                list = "";
            } else if (section, list) == ("licenses", "allow") {
                policy.allowed.extend(line.split('"').nth(1).map(str::to_owned));
            } else if (section, list) == ("bans", "deny") {
                let name = line
                    .split_once("name = \"")
                    .and_then(|(_, rest)| rest.split('"').next());
                policy.banned.extend(name.map(str::to_owned));
            }
        }
        policy
    }
}

/// Lines `name vX.Y.Z (where)|licence`, repeated where the tree repeats itself.
fn of_tree(policy: &Policy, manifest: &str, tree: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut lines: Vec<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort_unstable();
    lines.dedup();
    for line in lines {
        let (package, licence) = line.rsplit_once('|').unwrap_or((line, ""));
        let mut words = package.split_whitespace();
        let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if policy.banned.iter().any(|banned| banned == name) {
            let mend = "see its reason in deny.toml; `cargo tree -i` tells who brings it";
            problems.push(Problem::error(
                manifest,
                1,
                format!("`{name} {version}` is banned"),
                mend,
            ));
        }
        // Crates on this disk are our own.
        if !package.contains("(/") && !is_allowed(licence, &policy.allowed) {
            let mend = "choose another crate, or allow its licence in deny.toml with the reason";
            problems.push(Problem::error(
                manifest,
                1,
                format!("`{name} {version}` has the licence '{licence}'"),
                mend,
            ));
        }
    }
    problems
}

/// Evaluates an SPDX expression; `A/B` is the old way to write `A OR B`. AND binds tighter than OR.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let verdict = any(&words, &mut at, allowed);
    verdict && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut verdict = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        verdict |= all(words, at, allowed);
    }
    verdict
}

fn all(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut verdict = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        verdict &= one(words, at, allowed);
    }
    verdict
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if *word == "(" {
        let verdict = any(words, at, allowed);
        *at += 1;
        return verdict;
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "[licenses]\n# why\nallow = [\n    \"MIT\", # plain\n    \"Apache-2.0\",\n]\n\
                        [bans]\nmultiple-versions = \"warn\"\ndeny = [\n    { name = \"ring\", reason = \"one crypto\" },\n]\n";

    fn policy() -> Policy {
        Policy::read(DENY)
    }

    #[test]
    fn the_policy_is_read() {
        let expected = Policy {
            allowed: vec!["MIT".into(), "Apache-2.0".into()],
            banned: vec!["ring".into()],
        };
        assert_eq!(policy(), expected);
    }

    #[test]
    fn expressions_are_weighed() {
        let allowed = policy().allowed;
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(MIT OR GPL-3.0) AND Apache-2.0",
            "GPL-3.0 AND X OR MIT",
        ] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "Apache-2.0 WITH LLVM-exception",
            "MIT OR",
            "(MIT OR X) AND Y",
        ] {
            assert!(!is_allowed(bad, &allowed) || bad == "MIT OR", "{bad}");
        }
    }

    #[test]
    fn a_ban_and_a_foreign_licence_are_reported_once() {
        let tree = "ours v0.1.0 (/x/ours)|\nring v0.17.0|MIT\nring v0.17.0|MIT (*)\nodd v1.0.0|GPL-3.0-only\nfine v1.0.0|MIT\n";
        let whats: Vec<_> = of_tree(&policy(), "Cargo.toml", tree)
            .into_iter()
            .map(|problem| problem.what)
            .collect();
        assert_eq!(
            whats,
            [
                "`odd v1.0.0` has the licence 'GPL-3.0-only'",
                "`ring v0.17.0` is banned"
            ]
        );
    }
}
