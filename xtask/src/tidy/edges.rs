//! Which module of a crate may name which other: a house of floors, every arrow down.
//!
//! A module is a file at the top of `src` with its folder. What is not in the table may name nothing of its crate;
//! the table has no circle, which a test holds.

use super::{Problem, Source, scan};

/// A module and what it may name.
type Room = (&'static str, &'static [&'static str]);

/// A crate's `src` folder and its rooms, lowest floor first.
struct House {
    src: &'static str,
    rooms: &'static [Room],
}

const HOUSES: &[House] = &[
    House {
        src: "gateway-core/src/",
        rooms: &[
            ("time", &[]),
            ("ids", &[]),
            ("fairness", &[]),
            ("fault", &[]),
            ("ir", &[]),
            ("detect", &[]),
            ("filter", &["ir"]),
            ("model", &["ids", "ir", "time"]),
            ("route", &["ids", "ir"]),
            ("session", &["ir", "route"]),
            ("snapshot", &["ids", "ir", "route", "filter"]),
            ("lower", &["ids", "ir", "route", "snapshot", "filter"]),
            ("balance", &["ids", "ir", "lower", "snapshot", "time", "fault"]),
            (
                "decide",
                &[
                    "balance", "fault", "filter", "ids", "ir", "route", "session", "snapshot", "time",
                ],
            ),
            ("reconcile", &["ids", "ir", "lower"]),
            (
                "control",
                &["ids", "ir", "lower", "model", "reconcile", "snapshot", "time", "fault"],
            ),
        ],
    },
    House {
        src: "gateway-userspace/src/",
        rooms: &[
            ("settings", &[]),
            ("proto", &[]),
            ("sys", &[]),
            ("telemetry", &["settings", "sys"]),
            ("kernel", &["sys", "telemetry", "settings"]),
            ("worker", &["sys", "telemetry", "settings"]),
            ("source", &["settings", "sys", "telemetry"]),
            ("handover", &["settings", "sys"]),
            (
                "admin",
                &[
                    "handover",
                    "kernel",
                    "proto",
                    "settings",
                    "source",
                    "sys",
                    "telemetry",
                    "worker",
                ],
            ),
            (
                "control",
                &[
                    "admin",
                    "handover",
                    "kernel",
                    "settings",
                    "source",
                    "sys",
                    "telemetry",
                    "worker",
                ],
            ),
            ("lab", &["kernel", "proto", "settings", "source", "sys", "telemetry"]),
            (
                "cli",
                &[
                    "admin",
                    "control",
                    "handover",
                    "kernel",
                    "lab",
                    "settings",
                    "source",
                    "sys",
                    "telemetry",
                    "worker",
                ],
            ),
        ],
    },
];
/// Modules that count as part of another: `kernel/` asks the warden, which acts through `kernel/` with the privileges.
const ANNEXES: &[(&str, &str)] = &[("warden", "kernel")];
const MEND: &str = "move what is shared down a floor, or argue for the edge in xtask/src/tidy/edges.rs";

pub fn problems(source: &Source) -> Vec<Problem> {
    let Some((house, room)) = place(&source.path) else {
        return Vec::new();
    };
    let Some((_, allowed)) = house.rooms.iter().find(|(name, _)| *name == room) else {
        let what = format!("module `{room}` has no place in the house");
        return vec![Problem::error(
            &source.path,
            1,
            what,
            "give it one in xtask/src/tidy/edges.rs",
        )];
    };
    let mut problems = Vec::new();
    for (line, module) in named_modules(source) {
        let named = room_of(&module);
        let known = house.rooms.iter().any(|(name, _)| *name == named);
        if known && named != room && !allowed.contains(&named) {
            problems.push(Problem::error(
                &source.path,
                line,
                format!("`{room}` may not name `{named}`"),
                MEND,
            ));
        }
    }
    problems
}

/// The house and the room a file belongs to; the crate's own root files name everything.
fn place(path: &str) -> Option<(&'static House, &str)> {
    let house = HOUSES.iter().find(|house| path.starts_with(house.src))?;
    let inside = &path[house.src.len()..];
    let room = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    (!matches!(room, "lib" | "main")).then_some((house, room_of(room)))
}

/// The room a module belongs to.
fn room_of(module: &str) -> &str {
    ANNEXES
        .iter()
        .find(|(annex, _)| *annex == module)
        .map_or(module, |(_, room)| room)
}

/// First names after `crate::`, with their lines; a group `crate::{a::x, b}` has several.
fn named_modules(source: &Source) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    let lines = source.lines_before_tests();
    for (index, line) in lines.iter().enumerate() {
        for (at, _) in line.code.match_indices("crate::") {
            // `$crate::` and `other_crate::` are no business of ours.
            if line.code[..at].ends_with(|c: char| c == '$' || c == '_' || c.is_alphanumeric()) {
                continue;
            }
            let rest = &line.code[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let following = lines[index + 1..].iter().map(|line| line.code.as_str());
                named.extend(group_heads(std::iter::once(group).chain(following), index + 1));
            } else if let Some((0, name)) = scan::names(rest).next() {
                named.push((index + 1, name.to_owned()));
            }
        }
    }
    named
}

/// The first name of each member of a `{..}` group whose opening brace is already taken.
fn group_heads<'a>(text: impl Iterator<Item = &'a str>, first_line: usize) -> Vec<(usize, String)> {
    let mut heads = Vec::new();
    let (mut depth, mut at_head) = (1_u32, true);
    for (offset, line) in text.enumerate() {
        let mut name = String::new();
        for c in line.chars().chain(std::iter::once(' ')) {
            if at_head && (c.is_alphanumeric() || c == '_') {
                name.push(c);
                continue;
            }
            if !name.is_empty() {
                heads.push((first_line + offset, std::mem::take(&mut name)));
                at_head = false;
            }
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => at_head = true,
                _ => {}
            }
            if depth == 0 {
                return heads;
            }
        }
    }
    heads
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
    fn an_arrow_up_is_reported_and_one_down_is_not() {
        assert_eq!(
            whats("gateway-core/src/ir/http.rs", "use crate::lower::x;\n"),
            ["`ir` may not name `lower`"]
        );
        assert_eq!(
            whats(
                "gateway-core/src/lower/kernel.rs",
                "use crate::ir::Ir;\nuse crate::lower::y;\n"
            ),
            [""; 0]
        );
        assert_eq!(whats("gateway-userspace/src/lib.rs", "use crate::lab::x;\n"), [""; 0]);
    }

    #[test]
    fn paths_in_code_and_groups_over_lines_are_seen() {
        assert_eq!(
            whats("gateway-core/src/ir.rs", "fn f(x: crate::control::X) {}\n"),
            ["`ir` may not name `control`"]
        );
        let text = "use crate::{\n    ids::{control, A},\n    snapshot::B, balance,\n};\nlet control = 1;\n";
        let lines: Vec<usize> = problems(&Source::new("gateway-core/src/route.rs", text))
            .iter()
            .map(|p| p.line)
            .collect();
        assert_eq!(lines, [3, 3]);
    }

    #[test]
    fn prose_tests_and_macros_are_not_arrows() {
        let text =
            "// crate::control::X\n$crate::control::y!();\n#[cfg(test)]\nmod tests {\n    use crate::control::Z;\n}\n";
        assert_eq!(whats("gateway-core/src/ir.rs", text), [""; 0]);
    }

    #[test]
    fn an_annex_counts_as_its_room() {
        assert_eq!(
            whats("gateway-userspace/src/kernel/apply.rs", "use crate::warden::Request;\n"),
            [""; 0]
        );
        assert_eq!(
            whats("gateway-userspace/src/warden.rs", "use crate::worker::X;\n"),
            ["`kernel` may not name `worker`"]
        );
    }

    #[test]
    fn a_module_without_a_place_is_reported() {
        assert_eq!(
            whats("gateway-core/src/attic.rs", ""),
            ["module `attic` has no place in the house"]
        );
    }

    #[test]
    fn no_house_has_a_circle() {
        for house in HOUSES {
            for (floor, (name, allowed)) in house.rooms.iter().enumerate() {
                let below: Vec<&str> = house.rooms[..floor].iter().map(|(name, _)| *name).collect();
                for other in *allowed {
                    assert!(
                        below.contains(other),
                        "{}: `{name}` names `{other}`, which is not below it",
                        house.src
                    );
                }
            }
        }
    }
}
