//! A compiler that goes on from what it did before gives what one that begins gives, whatever was edited in between:
//! and so do the tables of the workers.

use super::cases;
use gateway_compiler::objects::{Change, Kind};
use gateway_compiler::yaml::{self, Node, Scalar, Value as Yaml};
use gateway_compiler::{Compiler, Objects, Settings, compile};
use gateway_core::ir::{Plane, Revision};
use gateway_core::lower::{Ids, snapshot};
use gateway_core::snapshot::Snapshot;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// The objects of a case, as an API server would tell them.
fn objects_of(text: &str) -> Vec<(Kind, Json)> {
    let mut found = Vec::new();
    for document in yaml::documents(text).into_iter().flatten() {
        let kind = Kind::all().find(|kind| document.get("kind").and_then(Node::text) == Some(kind.name()));
        let object = kind.map(|kind| (kind, json_of(&document)));
        // What has no name is nothing that a cluster can hold.
        found.extend(object.filter(|(kind, object)| Change::put(*kind, object).is_some()));
    }
    found
}

pub fn json_of(node: &Node) -> Json {
    match &node.value {
        Yaml::Scalar(Scalar { text, plain: true }) => serde_json::from_str(text).unwrap_or_else(|_| text[..].into()),
        Yaml::Scalar(Scalar { text, plain: false }) => text[..].into(),
        Yaml::Sequence(items) => items.iter().map(json_of).collect(),
        Yaml::Mapping(entries) => Json::Object(
            entries
                .iter()
                .map(|(key, node)| (key.text.to_string(), json_of(node)))
                .collect(),
        ),
    }
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Put(prop::sample::Index),
    Gone(prop::sample::Index),
    /// An object with one of its leaves replaced by one of another object's.
    Spoil(prop::sample::Index, prop::sample::Index, prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => index().prop_map(Step::Put),
        2 => index().prop_map(Step::Gone),
        3 => (index(), index(), index()).prop_map(|(at, leaf, from)| Step::Spoil(at, leaf, from)),
    ]
}

fn leaves(json: &mut Json) -> Vec<&mut Json> {
    match json {
        Json::Array(items) => items.iter_mut().flat_map(leaves).collect(),
        Json::Object(fields) => fields.values_mut().flat_map(leaves).collect(),
        leaf => vec![leaf],
    }
}

fn apply(objects: &mut Objects, pool: &[(Kind, Json)], step: &Step) {
    let (Step::Put(at) | Step::Gone(at) | Step::Spoil(at, ..)) = step;
    let (kind, object) = at.get(pool);
    let mut object = object.clone();
    match step {
        Step::Put(_) => {}
        Step::Gone(_) => {
            let field = |name: &str| object["metadata"][name].as_str();
            objects.apply(Change::gone(
                *kind,
                field("namespace"),
                field("name").unwrap_or_default(),
            ));
            return;
        }
        Step::Spoil(_, leaf, from) => {
            let mut other = from.get(pool).1.clone();
            let others: Vec<Json> = leaves(&mut other).into_iter().map(|leaf| leaf.clone()).collect();
            if let (false, Some(spec)) = (others.is_empty(), object.get_mut("spec")) {
                let mut own = leaves(spec);
                if !own.is_empty() {
                    let at = leaf.index(own.len());
                    *own[at] = leaf.get(&others).clone();
                }
            }
        }
    }
    if let Some(change) = Change::put(*kind, &object) {
        objects.apply(change);
    }
}

fn world(objects: &[(Kind, Json)]) -> Objects {
    let mut world = Objects::default();
    for (kind, object) in objects {
        world.apply(Change::put(*kind, object).expect("it has a name"));
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn going_on_gives_what_beginning_gives(
        case in any::<prop::sample::Index>(),
        history in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..16),
    ) {
        let cases = cases();
        let pool = objects_of(&case.get(&cases).1);
        let mut objects = world(&pool);
        let settings = Settings::default();
        let (mut compiler, mut ids, mut tables) = (Compiler::default(), Ids::default(), Snapshot::default());
        for (revision, steps) in (1..).zip([vec![]].into_iter().chain(history)) {
            steps.iter().for_each(|step| apply(&mut objects, &pool, step));
            let (on, anew) = (compiler.compile(&objects, &settings), compile(&objects, &settings));
            prop_assert!(on == anew, "{steps:?}");
            ids.assign(&on.ir);
            let (on, anew) = (
                snapshot::lower_from(&on.ir, Revision(revision), &ids, &tables),
                snapshot::lower(&anew.ir, Revision(revision), &ids),
            );
            prop_assert!(format!("{on:?}") == format!("{anew:?}"), "{steps:?}");
            tables = on;
        }
    }
}

#[test]
fn a_route_that_changed_leaves_the_hosts_of_the_others_as_they_are() {
    let mut all: Vec<(Kind, Json)> = vec![(
        Kind::Gateway,
        json!({"metadata": {"name": "g"}, "spec": {"gatewayClassName": "sluice", "listeners":
              [{"name": "http", "port": 80, "protocol": "HTTP"}]}}),
    )];
    let route = |n: usize, path: &str| {
        let rule = json!({"matches": [{"path": {"value": path}}], "backendRefs": [{"name": "s", "port": 80}]});
        let spec = json!({"parentRefs": [{"name": "g"}], "hostnames": [format!("h{n}.example")], "rules": [rule]});
        (
            Kind::HttpRoute,
            json!({"metadata": {"name": format!("r{n}")}, "spec": spec}),
        )
    };
    all.extend((0..10).map(|n| route(n, "/a")));
    let mut objects = world(&all);
    let (mut compiler, settings) = (Compiler::default(), Settings::default());
    let mut hosts = |objects: &Objects| {
        let compiled = compiler.compile(objects, &settings);
        let planes = compiled.ir.listeners.into_values().map(|listener| listener.plane);
        let scopes = planes.flat_map(|plane| match plane {
            Plane::Http(rules) => rules.scopes,
            Plane::Kernel(_) | Plane::Splice(_) => Vec::new(),
        });
        scopes.flat_map(|scope| scope.hosts).collect::<Vec<_>>()
    };
    let before = hosts(&objects);
    let (kind, moved) = route(7, "/b");
    objects.apply(Change::put(kind, &moved).expect("it has a name"));
    let after = hosts(&objects);
    let same: Vec<bool> = before.iter().zip(&after).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
    assert_eq!(same, (0..10).map(|n| n != 7).collect::<Vec<_>>());
}
