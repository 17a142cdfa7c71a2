//! What `config/kubernetes` and the container's build file say is checked against the program they are for. Rendering
//! and applying them is `cargo xtask package`.

use super::Cli;
use crate::admin::probe;
use clap::{CommandFactory, Parser};
use gateway_compiler::objects::Kind;
use gateway_compiler::yaml::{self, Node, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const BASE: &str = "config/kubernetes/base/sluice.yaml";
const CHART: &str = "config/kubernetes/charts/sluice";

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parsed(path: &str) -> Vec<Node> {
    let documents = yaml::documents(&read(path)).into_iter();
    documents
        .map(|document| document.unwrap_or_else(|error| panic!("{path}: {error:?}")))
        .collect()
}

/// The object of a kind in the base.
fn object(kind: &str) -> Node {
    let mut all = parsed(BASE).into_iter();
    let found = all.find(|node| node.get("kind").and_then(Node::text) == Some(kind));
    found.unwrap_or_else(|| panic!("{BASE} has no {kind}"))
}

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        Some(Value::Sequence(items)) => items,
        Some(Value::Scalar(_) | Value::Mapping(_)) | None => &[],
    }
}

fn texts(node: Option<&Node>) -> Vec<String> {
    items(node).iter().filter_map(Node::text).map(str::to_owned).collect()
}

fn at<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(node, |node, key| match key.parse::<usize>() {
        Ok(index) => items(Some(node)).get(index),
        Err(_) => node.get(key),
    })
}

fn container() -> Node {
    at(&object("DaemonSet"), "spec.template.spec.containers.0")
        .expect("a container")
        .clone()
}

/// Words of the chart and the overlays that begin like flags.
fn flags(path: &str) -> Vec<String> {
    let text = read(path);
    let words = text.lines().filter_map(|line| {
        let word = line.trim().trim_start_matches("- ").trim_start_matches("value: ");
        word.starts_with("--")
            .then(|| word.split(['=', ' ']).next().unwrap_or_default().to_owned())
    });
    words.filter(|word| word.len() > 3).collect()
}

#[test]
fn the_arguments_of_every_manifest_are_understood() {
    let mut line = vec!["sluice".to_owned()];
    line.extend(texts(container().get("args")));
    assert!(line.len() > 5, "{line:?}");
    if let Err(error) = Cli::try_parse_from(&line) {
        panic!("{BASE}: {error}");
    }
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("run is a verb");
    let known: BTreeSet<String> = run
        .get_arguments()
        .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
        .collect();
    let overlays =
        ["host-network-lan", "kind", "no-bpf"].map(|name| format!("config/kubernetes/overlays/{name}/daemonset.yaml"));
    for path in overlays
        .into_iter()
        .chain([format!("{CHART}/templates/daemonset.yaml")])
    {
        let used = flags(&path);
        assert!(!used.is_empty(), "{path} has no flags");
        for flag in used {
            assert!(known.contains(&flag), "{path}: `sluice run` has no {flag}");
        }
    }
}

/// Group and resource, and what may be done with it.
type Rights = BTreeMap<(String, String), BTreeSet<String>>;

fn granted(kind: &str) -> Rights {
    let role = object(kind);
    let mut rights = Rights::new();
    for rule in items(role.get("rules")) {
        for group in texts(rule.get("apiGroups")) {
            for resource in texts(rule.get("resources")) {
                let verbs = texts(rule.get("verbs"));
                rights.entry((group.clone(), resource)).or_default().extend(verbs);
            }
        }
    }
    rights
}

/// What `source/kube.rs` says that it needs.
fn needed() -> Rights {
    let text = read("gateway-userspace/src/source/kube.rs");
    let words = |cell: &str| -> Vec<String> {
        let quoted = cell.split('`').skip(1).step_by(2);
        quoted.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let mut rights = Rights::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_end_matches(" |")).collect();
        let [group, resources, verbs] = cells[..] else {
            panic!("not three cells: {line}");
        };
        if group == "group" {
            continue;
        }
        let group = words(group).first().cloned().unwrap_or_default();
        for resource in words(resources) {
            rights
                .entry((group.clone(), resource))
                .or_default()
                .extend(words(verbs));
        }
    }
    rights
}

#[test]
fn the_roles_grant_what_the_source_needs_and_nothing_else() {
    let mut all = granted("ClusterRole");
    all.extend(granted("Role"));
    assert_eq!(all, needed());
    let template = read(&format!("{CHART}/templates/rbac.yaml"));
    for (_, resource) in all.keys() {
        assert!(
            template.contains(resource.as_str()),
            "the chart grants nothing on {resource}"
        );
    }
}

#[test]
fn every_kind_that_is_watched_may_be_read() {
    let granted = granted("ClusterRole");
    for kind in Kind::all().filter(|kind| *kind != Kind::CertificateFile) {
        let lower = kind.name().to_lowercase();
        let plural = match lower.strip_suffix("cy") {
            Some(stem) => format!("{stem}cies"),
            None if lower.ends_with("ss") => format!("{lower}es"),
            None => format!("{lower}s"),
        };
        let verbs = granted.get(&(kind.group().to_owned(), plural.clone()));
        let verbs = verbs.unwrap_or_else(|| panic!("{plural} of {:?} may not be read", kind.group()));
        // The own Node is asked for by a list of one.
        let needed = if kind == Kind::Node {
            &["list", "watch"][..]
        } else {
            &["get", "list", "watch"]
        };
        for verb in needed.iter().copied() {
            assert!(verbs.contains(verb), "{plural}: {verb}");
        }
    }
}

#[test]
fn the_pod_has_the_capabilities_of_the_service_and_nothing_else_of_root() {
    let context = container().get("securityContext").expect("a security context").clone();
    let says = |path: &str| at(&context, path).and_then(Node::text).map(str::to_owned);
    for (path, value) in [
        ("privileged", "false"),
        ("allowPrivilegeEscalation", "false"),
        ("readOnlyRootFilesystem", "true"),
    ] {
        assert_eq!(says(path).as_deref(), Some(value), "{path}");
    }
    assert_eq!(texts(at(&context, "capabilities.drop")), ["ALL"]);
    let added: BTreeSet<String> = texts(at(&context, "capabilities.add")).into_iter().collect();
    let unit = read("config/systemd/sluice.service");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("a bounding set");
    let service: BTreeSet<String> = line
        .split(' ')
        .map(|name| name.trim_start_matches("CAP_").to_owned())
        .collect();
    assert_eq!(added, service);
    let pod = object("DaemonSet");
    let pod = at(&pod, "spec.template.spec").expect("a pod");
    assert_eq!(
        at(pod, "securityContext.seccompProfile.type").and_then(Node::text),
        Some("RuntimeDefault")
    );
    for shared in ["hostPID", "hostIPC", "shareProcessNamespace"] {
        assert!(pod.get(shared).is_none(), "{shared}");
    }
}

#[test]
fn the_probes_ask_what_the_probe_answers_and_a_drain_has_its_time() {
    let container = container();
    let args = texts(container.get("args"));
    let flag = |name: &str| {
        args.iter()
            .find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
            .expect("the flag")
            .to_owned()
    };
    for (name, path) in [
        ("startupProbe", "/startupz"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        let asked = at(&container, &format!("{name}.httpGet")).expect("an HTTP probe");
        let says = |key: &str| asked.get(key).and_then(Node::text).unwrap_or_default().to_owned();
        assert_eq!(says("path"), path);
        assert!(probe::PATHS.contains(&path), "{path}");
        assert_eq!(format!("{}:{}", says("host"), says("port")), flag("--probe"));
    }
    let drain = crate::settings::duration(&flag("--drain-time"))
        .expect("a duration")
        .as_secs();
    let pod = object("DaemonSet");
    let grace = at(&pod, "spec.template.spec.terminationGracePeriodSeconds").and_then(Node::text);
    let grace: u64 = grace.and_then(|text| text.parse().ok()).expect("seconds");
    assert!(grace >= drain + 10, "{grace} s for a drain of {drain} s");
}

/// `a.b` of every value that is no mapping, or an empty one.
fn leaves(node: &Node, path: &str, into: &mut Vec<String>) {
    match &node.value {
        Value::Mapping(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                let path = if path.is_empty() {
                    key.text.to_string()
                } else {
                    format!("{path}.{}", key.text)
                };
                leaves(value, &path, into);
            }
        }
        Value::Mapping(_) | Value::Scalar(_) | Value::Sequence(_) => into.push(path.to_owned()),
    }
}

#[test]
fn every_value_of_the_chart_is_in_its_schema_and_in_the_documentation() {
    let schema: serde_json::Value = serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).expect("JSON");
    let page = read("docs/kubernetes.md");
    let mut values = Vec::new();
    leaves(&parsed(&format!("{CHART}/values.yaml"))[0], "", &mut values);
    assert!(values.len() > 40, "{values:?}");
    for value in values {
        let mut place = &schema;
        for key in value.split('.') {
            // Kubernetes' own shapes are the API server's to judge.
            let Some(properties) = place.get("properties") else {
                break;
            };
            place = &properties[key];
        }
        assert!(place.is_object(), "values.schema.json does not know {value}");
        // Groups of a kind that the page names as one.
        let group = value.split('.').next().unwrap_or_default();
        let told = [value.as_str(), group, &format!("{group}.*")]
            .iter()
            .any(|name| page.contains(&format!("`{name}`")));
        assert!(told, "docs/kubernetes.md does not tell of {value}");
    }
}

#[test]
fn the_container_is_built_from_what_is_there() {
    let text = read("Containerfile").replace("\\\n", " ");
    let mut stages = BTreeSet::new();
    let mut steps = Vec::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (step, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        steps.push(step.to_owned());
        match step {
            "FROM" => {
                // A tag other than latest, of a registry by its name.
                assert!(words[0].contains('.') && words[0].contains('/'), "{line}");
                assert!(words.get(1) == Some(&"AS"), "{line}");
                stages.insert(words[2].to_owned());
            }
            "COPY" => match words[0].strip_prefix("--from=") {
                Some(stage) => assert!(stages.contains(stage), "{line}: there is no such stage before it"),
                None => {
                    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(words[0]);
                    assert!(root.exists(), "{line}: there is no {}", root.display());
                }
            },
            "WORKDIR" | "ARG" | "ENV" | "RUN" | "USER" | "ENTRYPOINT" | "CMD" => {}
            other => panic!("what is {other}?"),
        }
    }
    assert_eq!(steps.first().map(String::as_str), Some("FROM"));
    assert!(text.contains("COPY --from=build /src/target/release/sluice /usr/bin/sluice"));
    assert!(text.contains("ENTRYPOINT [\"/usr/bin/sluice\"]"));
    let version = format!("rust:{}", env!("CARGO_PKG_RUST_VERSION"));
    assert!(text.contains(&version), "the image is not {version}");
    for ignored in read(".dockerignore").lines().filter(|line| !line.is_empty()) {
        assert!(
            !["Cargo.lock", "proto", "xtask", "config", "docs"].contains(&ignored),
            "{ignored} is needed"
        );
    }
}
