//! Valid objects, each spoilt in one way: whatever is wrong with one is said of it, with a remedy, and what the others
//! serve stays as it was.

use super::histories::json_of;
use super::read;
use gateway_compiler::objects::{Kind, Source};
use gateway_compiler::yaml::{self, Node};
use gateway_compiler::{Compiled, Diagnostic, Objects, Settings, Severity, compile, parse};
use gateway_core::ir::{Ir, Plane};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// What one mutant may take of a CPU to be read and compiled, in a debug build.
const TIME_MAX: Duration = Duration::from_secs(2);
/// And one of 10 MB, which has to be read before it can be refused.
const LARGE_TIME_MAX: Duration = Duration::from_secs(15);
const NO_NAME: &str = "No Name!";
const FILE: &str = "mutant.yaml";

/// Samples whose objects are spoilt, one after the other.
const SAMPLES: [&str; 4] = [
    "config/gateway-api/http.yaml",
    "config/gateway-api/filters.yaml",
    "config/gateway-api/weights.yaml",
    "config/quickstart.yaml",
];

/// Those who must not notice: a Gateway of another address with routes of three kinds.
const WITNESS: &str = r#"
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: witness, namespace: witness}, spec: {gatewayClassName: sluice,
 addresses: [{type: IPAddress, value: 203.0.113.9}], listeners: [{name: http, port: 80, protocol: HTTP}, {name: tcp, port: 81, protocol: TCP}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: witness, namespace: witness}, spec: {parentRefs: [{name: witness}],
 hostnames: [witness.example], rules: [{backendRefs: [{name: witness, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: witness, namespace: witness}, spec: {parentRefs: [{name: witness}],
 hostnames: [rpc.example], rules: [{backendRefs: [{name: witness, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {name: witness, namespace: witness}, spec: {parentRefs: [{name: witness}],
 rules: [{backendRefs: [{name: witness, port: 80}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: witness, namespace: witness}, spec: {ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: witness, namespace: witness, labels: {kubernetes.io/service-name: witness}},
 addressType: IPv4, ports: [{port: 8080}], endpoints: [{addresses: [10.9.9.9]}]}
"#;

/// A spoilt object: what was done, and the text that stands in its place.
struct Mutant {
    what: String,
    text: String,
}

/// One object of a sample.
struct Victim {
    sample: &'static str,
    index: usize,
    kind: Kind,
    name: String,
    namespace: String,
    json: Json,
}

#[test]
fn what_is_wrong_with_one_object_is_said_of_it_and_costs_no_other() {
    let (mut count, mut wrong) = (0, Vec::new());
    for sample in SAMPLES {
        let documents = documents(sample);
        for victim in victims(sample, &documents) {
            let texts = |own: &str| -> Vec<Source> {
                let mut all: Vec<&str> = documents.iter().map(String::as_str).collect();
                all[victim.index] = own;
                vec![
                    Source::new(FILE, all.join("\n---\n")),
                    Source::new("witness.yaml", WITNESS),
                    super::lab_secret(),
                ]
            };
            let good = parse(&texts(&documents[victim.index]));
            let before = compile(&good, &Settings::default());
            for mutant in mutants(&victim) {
                count += 1;
                let time_max = if mutant.what == "10 MB" {
                    LARGE_TIME_MAX
                } else {
                    TIME_MAX
                };
                let begun = on_cpu();
                let next = Objects::update(&good, parse(&texts(&mutant.text)));
                let after = compile(&next, &Settings::default());
                let took = on_cpu().saturating_sub(begun);
                let label = format!("{sample}: {} {}: {}", victim.kind, victim.name, mutant.what);
                if took > time_max {
                    wrong.push(format!("{label}: took {took:?}"));
                }
                if served(&before.ir, &victim) != served(&after.ir, &victim) {
                    wrong.push(format!("{label}: others are served differently"));
                }
                if !is_told(&victim, &mutant, &before, &after) {
                    let told: Vec<String> = fresh(&before, &after).map(ToString::to_string).collect();
                    wrong.push(format!("{label}: not said of it with a remedy; said: {told:#?}"));
                }
            }
        }
    }
    println!("{count} mutants");
    assert!(count >= 200, "{count} mutants are too few");
    let shown = wrong.iter().take(400).fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    });
    assert!(wrong.is_empty(), "{} of {count} mutants:\n{shown}", wrong.len());
}

/// Time of this thread on a CPU: what else the machine does is no concern of a mutant's.
fn on_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux says it");
    let ns = stat.split_whitespace().next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("nanoseconds on a CPU"))
}

fn documents(sample: &str) -> Vec<String> {
    read(sample).text.split("\n---\n").map(str::to_owned).collect()
}

fn victims(sample: &'static str, documents: &[String]) -> Vec<Victim> {
    let mut victims = Vec::new();
    for (index, text) in documents.iter().enumerate() {
        for node in yaml::documents(text).into_iter().flatten() {
            let kind = Kind::all().find(|kind| node.get("kind").and_then(Node::text) == Some(kind.name()));
            let json = json_of(&node);
            let field = |name: &str| json["metadata"][name].as_str().map(str::to_owned);
            let (name, namespace) = (field("name").unwrap_or_default(), field("namespace"));
            victims.extend(kind.map(|kind| Victim {
                sample,
                index,
                kind,
                name,
                namespace: namespace.unwrap_or("default".to_owned()),
                json,
            }));
        }
    }
    victims
}

/// What others have of the configuration: the witness's listeners and services, and every rule of another route that
/// names no other object of the victim's sample.
fn served(ir: &Ir, victim: &Victim) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    for (bind, listener) in &ir.listeners {
        if bind.addr.is_some_and(|addr| addr.to_string() == "203.0.113.9") {
            parts.insert(bind.to_string(), format!("{listener:?}"));
        }
        // A route leaves the rules of all other routes alone; anything else may stand behind them.
        let route = matches!(
            victim.kind,
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute | Kind::TlsRoute | Kind::UdpRoute
        );
        if let (true, Plane::Http(http)) = (route, &listener.plane) {
            let own = format!("{}/{}/{}/", victim.kind, victim.namespace, victim.name);
            for (scope, host) in http
                .scopes
                .iter()
                .flat_map(|scope| scope.hosts.iter().map(move |host| (scope, host)))
            {
                for rule in host.rules.iter().filter(|rule| !rule.name.as_str().starts_with(&own)) {
                    parts.insert(
                        format!("{bind} {} {} {}", scope.listener, host.hostname, rule.name),
                        format!("{rule:?}"),
                    );
                }
            }
        }
    }
    let witness = ir
        .services
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("witness/"));
    parts.extend(witness.map(|(name, service)| (name.to_string(), format!("{service:?}"))));
    parts
}

fn fresh<'a>(before: &'a Compiled, after: &'a Compiled) -> impl Iterator<Item = &'a Diagnostic> {
    // Lines move; what is said does not.
    let said = |finding: &Diagnostic| (finding.object.clone(), finding.field.clone(), finding.problem.clone());
    let known: Vec<_> = before.diagnostics.iter().map(said).collect();
    after
        .diagnostics
        .iter()
        .filter(move |finding| !known.contains(&said(finding)))
}

/// Whether something new is said of the object, or of its document when it has no name any more, with a remedy. What was
/// valid before and points elsewhere now is told to whoever points.
fn is_told(victim: &Victim, mutant: &Mutant, before: &Compiled, after: &Compiled) -> bool {
    let first = read(victim.sample)
        .text
        .split("\n---\n")
        .take(victim.index)
        .map(|text| text.lines().count() + 1)
        .sum::<usize>();
    let last = first + mutant.text.lines().count();
    fresh(before, after).any(|finding| {
        let own = match &finding.object {
            Some(object) => {
                object.kind == victim.kind && [victim.name.as_str(), NO_NAME].contains(&object.name.as_str())
            }
            None => finding.position.as_ref().is_some_and(|position| {
                &*position.file == FILE && (first..=last + 1).contains(&(position.line as usize))
            }),
        };
        let moved = mutant.what.starts_with("moved") && finding.problem.contains(&victim.name);
        (own || moved) && finding.severity < Severity::Note && !finding.remedy.is_empty()
    })
}

fn mutants(victim: &Victim) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    let mut add = |what: &str, json: Json| {
        mutants.push(Mutant {
            what: what.to_owned(),
            text: json.to_string(),
        });
    };
    let with = |change: &dyn Fn(&mut Json)| {
        let mut json = victim.json.clone();
        change(&mut json);
        json
    };
    let body = if victim.json.get("spec").is_some() { "/spec" } else { "" };

    add(
        "unknown field",
        with(&|it| it.pointer_mut(body).expect("a body")["bogusField"] = json!(1)),
    );
    add(
        "kind misspelled",
        with(&|it| it["kind"] = json!(format!("{}s", victim.kind))),
    );
    add(
        "version that never was",
        with(&|it| it["apiVersion"] = json!(it["apiVersion"].as_str().unwrap_or_default().replace("v1", "v9"))),
    );
    add("no kind", with(&|it| it["kind"] = Json::Null));
    add("empty name", with(&|it| it["metadata"]["name"] = json!("")));
    add(
        "name of another type",
        with(&|it| it["metadata"]["name"] = json!(["a"])),
    );
    add("name that is none", with(&|it| it["metadata"]["name"] = json!(NO_NAME)));
    add(
        "labels of another type",
        with(&|it| it["metadata"]["labels"] = json!([1])),
    );
    add(
        "annotations of another type",
        with(&|it| it["metadata"]["annotations"] = json!({"a": {"b": 1}})),
    );
    add(
        "unknown annotation of ours",
        with(&|it| it["metadata"]["annotations"] = json!({"sluice.dev/plain": "http"})),
    );
    if victim.kind != Kind::EndpointSlice {
        add("body of another type", with(&|it| it["spec"] = json!("text")));
        add("body a list", with(&|it| it["spec"] = json!([1, 2])));
    }
    if victim.index == 1 && victim.sample == SAMPLES[0] {
        let large = json!({"a": "x".repeat(10 << 20)});
        add("10 MB", with(&|it| it["metadata"]["annotations"] = large.clone()));
    }
    let mut deep = json!(1);
    (0..100).for_each(|_| deep = json!([deep.take()]));
    add(
        "nested deeply",
        with(&|it| it.pointer_mut(body).expect("a body")["deep"] = deep.clone()),
    );

    for (pointer, what, value) in typed(victim) {
        let mut json = victim.json.clone();
        if let Some(at) = json.pointer_mut(&pointer) {
            *at = value;
            add(&format!("{what} at {pointer}"), json);
        }
    }

    let plain = victim.json.to_string();
    let mut text = |what: &str, text: String| {
        mutants.push(Mutant {
            what: what.to_owned(),
            text,
        });
    };
    text("a key twice", plain.replacen("{\"", "{\"kind\": \"Again\", \"", 1));
    text("NUL bytes", plain.replacen("metadata", "meta\u{0}data", 1));
    text("cut off", plain[..plain.len() / 2].to_owned());
    text("no YAML", "}{".to_owned());
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let _ = writeln!(bomb, "a{n}: &a{n} [{}]", vec![format!("*a{}", n - 1); 10].join(", "));
    }
    text("alias bomb", format!("{bomb}object: {plain}"));
    text("alias of itself", format!("a: &a [*a]\nobject: {plain}"));
    text("twice", format!("{plain}\n---\n{plain}"));
    text(
        "two bytes of Latin-1",
        plain.replacen("metadata", "met\u{80}\u{81}ata", 1),
    );
    mutants
}

/// Values that do not fit where they stand, by what stands there.
fn typed(victim: &Victim) -> Vec<(String, String, Json)> {
    let mut found = Vec::new();
    walk(&victim.json, String::new(), &mut |pointer, value| {
        let key = pointer.rsplit('/').next().unwrap_or_default();
        let mut add = |what: &str, value: Json| found.push((pointer.to_owned(), what.to_owned(), value));
        // Nobody reads what an endpoint stands for, but its name.
        if pointer.contains("/targetRef/") {
            return;
        }
        let kind = pointer
            .strip_suffix("/value")
            .and_then(|path| victim.json.pointer(&format!("{path}/type")));
        let pattern = kind.is_some_and(|kind| kind == "RegularExpression");
        if !pointer.contains("/spec/") && !pointer.starts_with("/endpoints") && !pointer.starts_with("/ports") {
            return;
        }
        match value {
            Json::Number(_) => {
                add("text for a number", json!("many"));
                add(
                    "huge number",
                    serde_json::from_str("99999999999999999999999").expect("a number"),
                );
                add("negative number", json!(-1));
            }
            Json::String(_) => {
                add("list for a text", json!([]));
                add("mapping for a text", json!({"a": 1}));
            }
            Json::Array(_) => add("text for a list", json!("one")),
            Json::Object(_) => add("list for a mapping", json!([1])),
            Json::Bool(_) | Json::Null => {}
        }
        let texts: &[&str] = match key {
            "port" if !pointer.contains("endpoints") => {
                add("no port", json!(0));
                add("port beyond all", json!(65_536));
                &[]
            }
            "weight" => {
                add("weight beyond all", json!(1_000_001));
                &[]
            }
            "hostname" => &[
                "exa mple",
                "*.*.com",
                "a..b",
                "-a.example",
                "http://a.example",
                "1.2.3.4:80",
            ],
            "protocol" if victim.kind == Kind::Gateway => &["HTTPX", "http", ""],
            "gatewayClassName" => &["", "no-such-class"],
            "type" if pointer.contains("filters") || pointer.contains("path") => &["Nothing", ""],
            "value" if pattern => &["(", "a{1,", "((a{1,1000}){1,1000}){1,1000}"],
            "value" if pointer.contains("/path/") => &["no-slash", "", "/a/../b", "/a//b", "/%zz"],
            "method" if !pointer.contains("/method/") && victim.kind == Kind::HttpRoute => &["get", "FLY"],
            "name" if pointer.contains("backendRefs") || pointer.contains("parentRefs") => {
                &["", "nobody", "Not A Name"]
            }
            "request" | "backendRequest" => &["soon", "-1s", "10", "99999999h"],
            _ if pointer.contains("/hostnames/") => &["exa mple", "*", "a.*.b", ""],
            _ if pointer.contains("/addresses/") && victim.kind == Kind::EndpointSlice => {
                &["nowhere", "0.0.0.0", "300.1.1.1"]
            }
            "addressType" => &["FQDN", ""],
            _ => &[],
        };
        texts.iter().for_each(|text| add(&format!("{text:?}"), json!(text)));
    });
    if matches!(victim.kind, Kind::HttpRoute | Kind::GrpcRoute) && victim.json.pointer("/spec/rules/0").is_some() {
        let rule = |value: Json| ("/spec/rules/0".to_owned(), format!("rule {value}"), value);
        let backend = json!([{"name": "nobody", "port": 80}]);
        found.push(rule(json!({"backendRefs": backend, "matches": (0..65).map(|n| json!({"path": {"value": format!("/{n}")}})).collect::<Vec<_>>()})));
        found.push(rule(
            json!({"backendRefs": [{"name": "web", "port": 80, "namespace": "elsewhere"}]}),
        ));
        found.push(rule(
            json!({"backendRefs": [{"kind": "HTTPRoute", "group": "gateway.networking.k8s.io", "name": victim.name}]}),
        ));
        let path = |value: &str| json!({"matches": [{"path": {"type": "RegularExpression", "value": value}}], "backendRefs": backend});
        for pattern in [
            "(",
            "((a{1,1000}){1,1000}){1,1000}",
            "(?=a)b",
            "\\1",
            "[z-a]",
            "(a|b|c){5000}",
        ] {
            found.push(rule(path(pattern)));
        }
    }
    if let Some(parents) = victim.json.pointer("/spec/parentRefs/0") {
        let mut own = parents.clone();
        own["kind"] = json!(victim.kind.name());
        own["name"] = json!(victim.name);
        found.push(("/spec/parentRefs/0".to_owned(), "its own parent".to_owned(), own));
        let mut elsewhere = parents.clone();
        elsewhere["namespace"] = json!("elsewhere");
        found.push((
            "/spec/parentRefs/0".to_owned(),
            "a parent elsewhere".to_owned(),
            elsewhere,
        ));
        let mut section = parents.clone();
        section["sectionName"] = json!("no-such-section");
        found.push(("/spec/parentRefs/0".to_owned(), "no such section".to_owned(), section));
    }
    found
}

fn walk(json: &Json, pointer: String, see: &mut dyn FnMut(&str, &Json)) {
    see(&pointer, json);
    match json {
        Json::Array(items) => items
            .iter()
            .enumerate()
            // The third is as the second.
            .take(2)
            .for_each(|(n, item)| walk(item, format!("{pointer}/{n}"), see)),
        Json::Object(fields) => {
            for (key, value) in fields {
                walk(
                    value,
                    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")),
                    see,
                );
            }
        }
        _ => {}
    }
}
