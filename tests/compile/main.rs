//! Configurations and what they compile to.
//!
//! Each `<case>.in.yaml` here has its `<case>.out.txt`: the IR, the statuses and the diagnostics as text. After a
//! wanted change: `BLESS=1 cargo test -p gateway-tests --test compile`, then read the difference.

mod certificates;
mod foreign;
mod histories;
mod laws;
mod mutants;
mod render;

use gateway_compiler::{Compiled, Settings, Severity, Source, compile, parse};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cases of this folder as (name, text), in order of name.
fn cases() -> Vec<(String, String)> {
    let folder = root().join("tests/compile");
    let mut cases: Vec<(String, String)> = std::fs::read_dir(&folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".in.yaml")?.to_owned();
            Some((name, std::fs::read_to_string(&path).expect("a readable case")))
        })
        .collect();
    cases.sort();
    assert!(cases.len() > 5, "the cases are where they should be");
    cases
}

fn read(path: &str) -> Source {
    Source::new(
        path,
        std::fs::read_to_string(root().join(path)).expect("a readable sample"),
    )
}

/// A Secret with a certificate and key that are PEM, if not X.509.
fn lab_secret() -> Source {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: lab-tls}\ntype: kubernetes.io/tls\nstringData:\n  \
                tls.crt: |\n    -----BEGIN CERTIFICATE-----\n    MAA=\n    -----END CERTIFICATE-----\n  \
                tls.key: |\n    -----BEGIN PRIVATE KEY-----\n    MAA=\n    -----END PRIVATE KEY-----\n";
    Source::new("lab-tls.yaml", text)
}

fn compiled(sources: &[Source]) -> Compiled {
    compile(&parse(sources), &Settings::default())
}

/// The first line of a case may say how it is compiled: `# --address-pool 192.0.2.0/24 --cluster`.
fn settings(line: &str) -> Settings {
    let mut settings = Settings::default();
    let mut words = line.strip_prefix("# --").map_or("", |_| &line[2..]).split(' ');
    while let Some(word) = words.next().filter(|word| !word.is_empty()) {
        match word {
            "--address-pool" => settings
                .address_pools
                .push(words.next().expect("a pool").parse().expect("a block of addresses")),
            "--node" => settings.node = words.next().map(str::to_owned),
            "--cluster" => {
                settings.any_address = false;
                settings.loopback_endpoints = false;
                settings.api_version = Some("v1.7.0".to_owned());
            }
            other => panic!("{other} says nothing about how a case is compiled"),
        }
    }
    settings
}

fn bless(path: &Path, text: &str, differ: &mut Vec<String>) {
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected == text {
        return;
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, text).expect("the golden text to be written");
        return;
    }
    let line = expected.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or(expected.lines().count().min(text.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
    differ.push(format!(
        "{}:{}\n  expected: {}\n  got:      {}",
        path.display(),
        line + 1,
        at(&expected),
        at(text)
    ));
}

#[test]
fn each_case_compiles_to_its_golden_text() {
    let mut differ = Vec::new();
    for (name, text) in cases() {
        let settings = settings(text.lines().next().unwrap_or_default());
        let mut objects = parse(&[Source::new(format!("{name}.in.yaml"), text.clone())]);
        // `# b.example.com resolves to 192.0.2.20 2001:db8::20` says what the rim would have found.
        let told = text
            .lines()
            .filter_map(|line| line.strip_prefix("# ")?.split_once(" resolves to "));
        let names = told.map(|(host, addresses)| {
            let addresses = addresses.split(' ').map(|address| address.parse().unwrap());
            (host.to_owned(), Ok(addresses.collect()))
        });
        objects.resolve(names.collect());
        let found = compile(&objects, &settings);
        let path = root().join(format!("tests/compile/{name}.out.txt"));
        bless(&path, &render::compiled(&found), &mut differ);
    }
    let quickstart = compiled(&[read("config/quickstart.yaml"), lab_secret()]);
    bless(
        &root().join("tests/compile/quickstart.out.txt"),
        &render::compiled(&quickstart),
        &mut differ,
    );
    assert!(differ.is_empty(), "BLESS=1 if this is meant:\n{}", differ.join("\n"));
}

#[test]
fn every_sample_compiles_without_a_finding() {
    let mut samples: Vec<String> = std::fs::read_dir(root().join("config/gateway-api"))
        .unwrap()
        .map(|entry| format!("config/gateway-api/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    samples.sort();
    assert!(samples.len() >= 4);
    for sample in samples {
        let found = compiled(&[read(&sample)]);
        let lines: Vec<String> = found.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(lines, Vec::<String>::new(), "{sample}");
        assert!(!found.ir.listeners.is_empty(), "{sample}");
    }
}

#[test]
fn quickstart_misses_nothing_but_the_secret_of_the_laboratory() {
    let without = compiled(&[read("config/quickstart.yaml")]);
    let errors: Vec<_> = without
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(
        errors[0].to_string(),
        "config/quickstart.yaml:36:15: error: Gateway default/lab: spec.listeners[3].tls.certificateRefs[0].name: \
         there is no Secret default/lab-tls (mend: add it or correct the name)"
    );
    // The listener without a certificate does not take the others with it.
    assert_eq!(without.ir.listeners.len(), 6);
    let with = compiled(&[read("config/quickstart.yaml"), lab_secret()]);
    assert_eq!((with.ir.listeners.len(), with.diagnostics), (8, vec![]));
}
