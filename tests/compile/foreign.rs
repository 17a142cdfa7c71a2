//! Manifests that others wrote: the Gateway API's own examples and the manifests of its conformance suite, where the Go
//! modules of the suite are (`cargo xtask conformance` fetches them). None is refused for what it is.
//!
//! What was found in the manifests of other implementations, and with which witness: `docs/manifests.md`.

use gateway_compiler::{Settings, Severity, Source, compile, parse};
use std::path::{Path, PathBuf};

/// Where Go keeps modules.
fn modules() -> Option<PathBuf> {
    let set = std::env::var_os("GOMODCACHE").map(PathBuf::from);
    set.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join("go/pkg/mod")))
}

fn manifests(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            manifests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

/// What is wrong with a part of a configuration when the rest of it is elsewhere.
fn is_elsewhere(problem: &str) -> bool {
    ["there is no ", "no ReferenceGrant in namespace"]
        .iter()
        .any(|start| problem.starts_with(start))
}

/// What the suite's manifests are wrong about on purpose.
const ON_PURPOSE: [&str; 21] = [
    "targets it already",
    "NonExistent",
    "InvalidKind",
    "has no ca.crt",
    "is no backend served here",
    "is not served",
    "is no plane",
    "takes no ",
    "names no certificate",
    "no PEM certificate",
    "no listener takes routes",
    "has no such listener",
    "no hostname of the route",
    "is that of",
    "parameters cannot be",
    "has the same port and hostname",
    "speaks another protocol",
    "a certificate cannot be",
    "authorities cannot be",
    "not kubernetes.io/tls",
    "PLACEHOLDER",
];

#[test]
fn manifests_of_the_gateway_api_are_read_without_a_false_error() {
    let Some(modules) = modules() else {
        return absent("HOME is not set");
    };
    let suite = modules.join("sigs.k8s.io/gateway-api/conformance@v1.7.0");
    let mut all = Vec::new();
    manifests(&modules.join("sigs.k8s.io/gateway-api@v1.7.0/examples"), &mut all);
    for folder in ["tests", "base", "mesh"] {
        manifests(&suite.join(folder), &mut all);
    }
    if all.is_empty() {
        return absent(&modules.display().to_string());
    }
    all.sort();
    assert!(all.len() > 150, "{} manifests", all.len());
    // Each Gateway on its own address.
    let settings = Settings {
        address_pools: vec!["198.18.0.0/24".parse().expect("a network")],
        ..Settings::default()
    };
    let mut wrong = Vec::new();
    for path in all {
        let text = std::fs::read_to_string(&path).expect("a readable manifest");
        // The suite fills in the class; elsewhere any class is one of ours, so that everything is looked at.
        let text = text
            .replace("\"{GATEWAY_CLASS_NAME}\"", "sluice")
            .replace("{GATEWAY_CLASS_NAME}", "sluice");
        let name = path.strip_prefix(&modules).unwrap_or(&path).display().to_string();
        let found = compile(&parse(&[Source::new(name, text)]), &settings);
        let errors = found
            .diagnostics
            .iter()
            .filter(|finding| finding.severity == Severity::Error);
        let errors = errors.filter(|finding| !is_elsewhere(&finding.problem));
        wrong.extend(
            errors
                .filter(|one| !ON_PURPOSE.iter().any(|part| one.problem.contains(part)))
                .map(ToString::to_string),
        );
    }
    assert!(wrong.is_empty(), "{} false errors:\n{}", wrong.len(), wrong.join("\n"));
}

fn absent(place: &str) {
    println!("NOT LOOKED AT: the Gateway API's manifests are not in {place}; `cargo xtask conformance` fetches them");
}
