//! Where `unsafe` may stand, and that each one says why it holds there.

use super::{Problem, Source, scan};

/// Files and folders that talk to the kernel or the machine directly.
const ALLOWED: &[&str] = &[
    "gateway-ebpf/src",
    "gateway-userspace/src/kernel",
    "gateway-userspace/src/sys",
    "tests/src/sys",
];
/// Crates whose root must forbid it.
const FORBIDDING: &[&str] = &[
    "gateway-core/src/lib.rs",
    "gateway-http/src/lib.rs",
    "gateway-compiler/src/lib.rs",
];
/// How many lines of one statement may stand between the reason and the word.
const STATEMENT_LINES_MAX: usize = 3;

pub fn problems(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    if FORBIDDING.contains(&source.path.as_str()) && !source.text.contains("#![forbid(unsafe_code)]") {
        let mend = "write `#![forbid(unsafe_code)]` below its head";
        problems.push(Problem::error(
            &source.path,
            1,
            "this crate does not forbid unsafe code",
            mend,
        ));
    }
    for (index, line) in source.lines.iter().enumerate() {
        let count = scan::names(&line.code)
            .filter(|(at, name)| *name == "unsafe" && !is_attribute(&line.code, *at))
            .count();
        if count == 0 {
            continue;
        }
        if !ALLOWED.iter().any(|place| is_in(&source.path, place)) {
            let mend = "move it to gateway-userspace/src/sys or src/kernel behind a safe function";
            problems.push(Problem::error(
                &source.path,
                index + 1,
                "`unsafe` is not at home here",
                mend,
            ));
        } else if !has_reason(&source.lines, index) {
            let mend = "write `// SAFETY: ...` right above it: why it holds here";
            problems.push(Problem::error(
                &source.path,
                index + 1,
                "`unsafe` without its reason",
                mend,
            ));
        }
    }
    problems
}

/// `place` is a module: `place.rs` or anything in `place/`.
pub fn is_in(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// `#[unsafe(no_mangle)]` names a symbol; it is the linker's business.
fn is_attribute(code: &str, at: usize) -> bool {
    code[..at].ends_with("#[")
}

fn has_reason(lines: &[scan::Line], index: usize) -> bool {
    let says = |line: &scan::Line| line.comment.contains("SAFETY") || line.comment.contains("# Safety");
    if says(&lines[index]) {
        return true;
    }
    let mut statement = 0;
    for line in lines[..index].iter().rev() {
        if says(line) {
            return true;
        }
        let code = line.code.trim();
        if line.is_blank() || code.ends_with([';', '{', '}']) {
            return false;
        }
        if !line.is_comment() && !code.starts_with("#[") {
            statement += 1;
            if statement > STATEMENT_LINES_MAX {
                return false;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "gateway-userspace/src/sys/fd.rs";

    fn whats(path: &str, text: &str) -> Vec<String> {
        problems(&Source::new(path, text))
            .into_iter()
            .map(|problem| problem.what)
            .collect()
    }

    #[test]
    fn unsafe_is_reported_outside_its_homes() {
        let text = "//! Law.\n// SAFETY: none.\nunsafe { f() }\n";
        assert_eq!(
            whats("gateway-userspace/src/worker/socket.rs", text),
            ["`unsafe` is not at home here"]
        );
        assert_eq!(
            whats("gateway-userspace/src/system.rs", text),
            ["`unsafe` is not at home here"]
        );
        assert_eq!(whats("gateway-userspace/src/sys.rs", text), [""; 0]);
        assert_eq!(whats("gateway-ebpf/src/maps.rs", text), [""; 0]);
    }

    #[test]
    fn unsafe_needs_a_reason_of_its_own() {
        assert_eq!(
            whats(HOME, "let a =\n    unsafe { f() };\n"),
            ["`unsafe` without its reason"]
        );
        assert_eq!(
            whats(
                HOME,
                "// SAFETY: a.\nlet a = unsafe { f() };\nlet b = unsafe { g() };\n"
            )
            .len(),
            1
        );
        assert_eq!(whats(HOME, "// SAFETY: a.\n\nunsafe { f() }\n").len(), 1);
    }

    #[test]
    fn a_reason_is_found_above_a_statement_an_attribute_or_beside() {
        assert_eq!(
            whats(
                HOME,
                "// SAFETY: the descriptor\n// is ours.\nlet a =\n    unsafe { f() };\n"
            ),
            [""; 0]
        );
        assert_eq!(
            whats(
                HOME,
                "/// # Safety\n/// Caller owns it.\n#[inline]\npub unsafe fn f() {}\n"
            ),
            [""; 0]
        );
        assert_eq!(whats(HOME, "x => unsafe { f() }, // SAFETY: checked.\n"), [""; 0]);
    }

    #[test]
    fn prose_strings_and_attributes_are_not_unsafe_code() {
        let text = "//! No unsafe.\nlet a = \"unsafe\";\n#[unsafe(no_mangle)]\n#![deny(unsafe_code)]\n";
        assert_eq!(whats("a.rs", text), [""; 0]);
    }

    #[test]
    fn pure_crates_must_forbid_it() {
        assert_eq!(
            whats("gateway-core/src/lib.rs", "//! Law.\n"),
            ["this crate does not forbid unsafe code"]
        );
        assert_eq!(
            whats("gateway-core/src/lib.rs", "//! Law.\n#![forbid(unsafe_code)]\n"),
            [""; 0]
        );
    }
}
