//! Each heavy dependency has one home, so that replacing it is work in one folder. Tests may use any as a peer.

use super::safety::is_in;
use super::{Problem, Source, scan};

/// Where they all live: the rim.
const RIM: &str = "gateway-userspace/src/";
/// A crate's name in code, and the modules of the rim that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("aya", &["kernel"]),
    ("libbpf_rs", &["kernel/inspect"]),
    ("mio", &["worker"]),
    ("rustls", &["worker", "lab"]),
    ("x509_parser", &["worker"]),
    ("rustls_native_certs", &["worker"]),
    ("axum", &["admin"]),
    ("hyper", &["admin", "cli", "lab", "telemetry/spans"]),
    ("hyper_util", &["admin", "cli", "lab", "telemetry/spans"]),
    ("h2", &["lab"]),
    ("tonic", &["lab", "admin", "proto"]),
    ("prost", &["lab", "admin", "proto", "telemetry/spans"]),
    ("kube", &["source/kube"]),
    ("nix", &["sys", "kernel"]),
    ("rcgen", &["lab"]),
    ("notify", &["source"]),
];
/// Never named on a worker's path: it shares nothing and waits for nothing.
const BANNED: &[(&str, &str)] = &[("tokio", "gateway-userspace/src/worker")];
const MEND: &str = "reach it through a function of its home, or argue for a new home in xtask/src/tidy/homes.rs";

pub fn problems(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in source.lines_before_tests().iter().enumerate() {
        for name in roots(&line.code) {
            if let Some((_, homes)) = HOMES.iter().find(|(dependency, _)| *dependency == name)
                && !homes.iter().any(|home| is_in(&source.path, &format!("{RIM}{home}")))
            {
                let what = format!("`{name}` is not at home here (home: {RIM}{})", homes.join(", "));
                problems.push(Problem::error(&source.path, index + 1, what, MEND));
            }
            if let Some((_, place)) = BANNED
                .iter()
                .find(|(dependency, place)| *dependency == name && is_in(&source.path, place))
            {
                let what = format!("`{name}` is banned from {place}");
                problems.push(Problem::error(
                    &source.path,
                    index + 1,
                    what,
                    "send a message to the control runtime",
                ));
            }
        }
    }
    problems
}

/// Names that begin a path: followed by `::`, not preceded by it.
fn roots(code: &str) -> impl Iterator<Item = &str> {
    scan::names(code).filter_map(|(at, name)| {
        let before = code[..at].trim_end();
        let begins = !before.ends_with("::") || before == "::" || before.ends_with(" ::");
        (begins && code[at + name.len()..].starts_with("::")).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        problems(&Source::new(path, text)).len()
    }

    #[test]
    fn a_dependency_away_from_home_is_reported() {
        assert_eq!(count("gateway-userspace/src/admin/stats.rs", "use mio::Poll;\n"), 1);
        assert_eq!(count("gateway-userspace/src/worker.rs", "use mio::Poll;\n"), 0);
        assert_eq!(count("gateway-core/src/ir.rs", "fn f(a: ::nix::Error) {}\n"), 1);
    }

    #[test]
    fn our_own_modules_of_the_same_name_are_not_reported() {
        assert_eq!(
            count(
                "gateway-http/src/engine.rs",
                "use crate::h2::Frame;\nuse super::h2::x;\nlet h2 = 1;\n"
            ),
            0
        );
    }

    #[test]
    fn a_file_s_own_tests_may_use_peers() {
        let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use h2::client;\n}\n";
        assert_eq!(count("gateway-http/src/engine.rs", text), 0);
    }

    #[test]
    fn tokio_on_a_worker_is_reported() {
        assert_eq!(count("gateway-userspace/src/worker/accept.rs", "tokio::spawn(f);\n"), 1);
        assert_eq!(count("gateway-userspace/src/source.rs", "tokio::spawn(f);\n"), 0);
    }
}
