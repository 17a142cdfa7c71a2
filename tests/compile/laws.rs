//! What holds for every configuration, the broken ones above all.

use super::{cases, compiled, lab_secret, read};
use gateway_compiler::{Objects, Settings, Source, compile, parse};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// The documents of a text as sources of their own, so that their order can be changed.
fn documents(text: &str) -> Vec<Source> {
    text.split("\n---\n")
        .enumerate()
        .map(|(n, part)| Source::new(format!("{n:04}.yaml"), part))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_objects_changes_nothing(seed in any::<u64>()) {
        for (name, text) in cases() {
            let mut sources = documents(&text);
            let expected = compiled(&sources);
            shuffle(&mut sources, seed);
            prop_assert_eq!(&compiled(&sources), &expected, "{}", name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_compiler_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), edit()), 1..12),
    ) {
        let cases = cases();
        let (_, text) = &cases[which.index(cases.len())];
        let mut text: Vec<char> = text.chars().collect();
        for (at, edit) in edits {
            let at = at.index(text.len() + 1);
            edit.apply(&mut text, at);
        }
        let source = Source::new("mutated.yaml", text.into_iter().collect::<String>());
        let found = compiled(std::slice::from_ref(&source));
        prop_assert_eq!(&found, &compiled(&[source]));
        for diagnostic in &found.diagnostics {
            prop_assert!(!diagnostic.to_string().contains('\n'));
            prop_assert!(diagnostic.position.is_some());
        }
    }

    #[test]
    fn no_noise_makes_the_compiler_panic(text in "(apiVersion: v1\nkind: |[-:{}\\[\\],&*!|>'\"%@`#? \n\ta-c0-9~]){0,60}") {
        compiled(&[Source::new("noise.yaml", text)]);
    }
}

/// One way to spoil a text.
#[derive(Clone, Debug)]
enum Edit {
    Insert(&'static str),
    Delete(usize),
    Replace(&'static str),
    Repeat(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let words = prop::sample::select(vec![
        "",
        "0",
        "-1",
        "65536",
        "99999999999999999999",
        "null",
        "~",
        "[]",
        "{}",
        "\"\"",
        "'",
        "\"",
        ": ",
        "- ",
        "\n",
        "  ",
        "\t",
        "---\n",
        "...\n",
        "&a ",
        "*a",
        "!!str ",
        "|\n",
        "*.",
        "é",
        "\u{0}",
        "\u{feff}",
        "a: b\n",
        "name: x\n",
        "HTTP",
        "TCP",
        "Exact",
        "(",
        "%2F",
        "../",
        "10.0.0.1",
        "::",
        "kubernetes.io/wss",
    ]);
    prop_oneof![
        words.clone().prop_map(Edit::Insert),
        (1usize..40).prop_map(Edit::Delete),
        words.prop_map(Edit::Replace),
        (1usize..80).prop_map(Edit::Repeat),
    ]
}

impl Edit {
    fn apply(&self, text: &mut Vec<char>, at: usize) {
        let end = |length: usize| (at + length).min(text.len());
        match self {
            Edit::Insert(word) => drop(text.splice(at..at, word.chars())),
            Edit::Delete(length) => drop(text.drain(at..end(*length))),
            Edit::Replace(word) => drop(text.splice(at..end(word.len().max(1)), word.chars())),
            Edit::Repeat(length) => {
                let part = text[at..end(*length)].to_vec();
                drop(text.splice(at..at, part));
            }
        }
    }
}

fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for last in (1..items.len()).rev() {
        // xorshift64*, Vigna 2016.
        seed ^= (seed >> 12) ^ (seed << 25) ^ 0x9e37_79b9_7f4a_7c15;
        seed = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
        items.swap(last, (seed >> 33) as usize % (last + 1));
    }
}

#[test]
fn a_broken_object_keeps_its_last_good_version_and_the_rest_moves_on() {
    let good = std::fs::read_to_string(super::root().join("config/quickstart.yaml")).unwrap();
    let source = |text: &str| [Source::new("quickstart.yaml", text), lab_secret()];
    let first = parse(&source(&good));
    // The GRPCRoute breaks and the Gateway's HTTP port moves in the same change.
    let changed = good
        .replace("port: 8080", "port: 8081")
        .replace("service: sluice.demo.v1.Echo", "service: [1]");
    let second = Objects::update(&first, parse(&source(&changed)));
    let found = compile(&second, &Settings::default());
    let ports: Vec<u16> = found.ir.listeners.keys().map(|bind| bind.port).collect();
    assert!(ports.contains(&8081) && !ports.contains(&8080));
    assert_eq!(found.ir.listeners.len(), 8);
    let lines: Vec<String> = found.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "quickstart.yaml:1:1: warning: GRPCRoute default/echo-l7: its last good version stays in use",
            "quickstart.yaml:64:18: error: GRPCRoute default/echo-l7: spec.rules[0].matches[0].method.service: \
             expected a text, found a list (mend: correct this field)",
        ]
    );
    let before = compile(&first, &Settings::default());
    let l7 = |compiled: &gateway_compiler::Compiled| {
        compiled
            .ir
            .listeners
            .values()
            .find(|l| l.bind.port == 50052)
            .map(|l| l.plane.clone())
    };
    assert_eq!(l7(&before), l7(&found));
    assert!(l7(&found).is_some());
}

#[test]
fn one_bad_object_never_blocks_another() {
    let quickstart = read("config/quickstart.yaml");
    let bad = "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: bad}\n\
               spec: {parentRefs: 3}\n---\n{{{\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
               metadata: {name: bad}\nspec: {gatewayClassName: sluice, listeners: [{name: a, port: 0, protocol: X}]}\n";
    let with_bad = Source::new(quickstart.name.clone(), quickstart.text.clone() + bad);
    let (alone, beside) = (compiled(&[quickstart]), compiled(&[with_bad]));
    assert_eq!(alone.ir, beside.ir);
    assert_eq!(beside.diagnostics.len(), alone.diagnostics.len() + 4);
}

/// Wide of the budget (5 ms): the machine may be busy.
#[test]
fn a_small_configuration_compiles_at_once() {
    let sources = [read("config/quickstart.yaml"), lab_secret()];
    let fastest = (0..20).map(|_| timed(&sources)).min().unwrap();
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
}

#[test]
fn a_thousand_routes_compile_in_a_blink() {
    let mut text = read("config/gateway-api/http.yaml").text;
    for n in 0..1000 {
        text += &format!(
            "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{n}}}\nspec:\n  \
             parentRefs: [{{name: web}}]\n  hostnames: [h{n}.example.com]\n  rules:\n  - matches: [{{path: {{value: \
             /a{n}}}}}]\n    backendRefs: [{{name: web, port: 80}}]\n"
        );
    }
    let sources = [Source::new("many.yaml", text)];
    let fastest = (0..3).map(|_| timed(&sources)).min().unwrap();
    let max = if cfg!(debug_assertions) {
        Duration::from_secs(15)
    } else {
        Duration::from_secs(2)
    };
    assert!(fastest < max, "{fastest:?}");
}

fn timed(sources: &[Source]) -> Duration {
    let begun = Instant::now();
    let found = compiled(sources);
    assert!(!found.ir.listeners.is_empty());
    begun.elapsed()
}
