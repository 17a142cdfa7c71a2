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
    /// An object as old as another one, which decides who wins.
    Age(prop::sample::Index, u8),
    /// A route with the hostnames of another one, or with its parents.
    Move(prop::sample::Index, prop::sample::Index, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => index().prop_map(Step::Put),
        2 => index().prop_map(Step::Gone),
        3 => (index(), index(), index()).prop_map(|(at, leaf, from)| Step::Spoil(at, leaf, from)),
        2 => (index(), 0..4u8).prop_map(|(at, age)| Step::Age(at, age)),
        3 => (index(), index(), any::<bool>()).prop_map(|(at, to, hosts)| Step::Move(at, to, hosts)),
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
    let (Step::Put(at) | Step::Gone(at) | Step::Spoil(at, ..) | Step::Age(at, _) | Step::Move(at, ..)) = step;
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
        Step::Age(_, age) => object["metadata"]["creationTimestamp"] = format!("2026-01-0{age}T00:00:00Z").into(),
        Step::Move(_, to, hosts) => {
            let field = if *hosts { "hostnames" } else { "parentRefs" };
            let others = to.get(pool).1["spec"].get(field).cloned();
            if let (Some(others), Some(spec)) = (others, object.get_mut("spec")) {
                spec[field] = others;
            }
        }
    }
    if let Some(change) = Change::put(*kind, &object) {
        objects.apply(change);
    }
}

/// Many routes that get into each other's way: at listeners of two Gateways and a set that share a port, under the same
/// few hostnames, with the same few paths, to Services of their own and of another namespace, which are spoken to over TLS
/// where a policy says so, by one Gateway with a certificate, and one of which asks for a load balancer.
fn crowd() -> Vec<(Kind, Json)> {
    let (_, tls) = cases().into_iter().find(|(name, _)| name == "tls").expect("a case");
    let mut all = objects_of(&tls);
    all.retain(|(kind, object)| *kind == Kind::Secret && object["metadata"]["name"] == "me");
    assert_eq!(all.len(), 1, "the certificate of a Gateway");
    all[0].1["metadata"]["namespace"] = "n".into();
    let mut put = |kind, namespace: &str, name: String, spec: Json| {
        let metadata = json!({"name": name, "namespace": namespace});
        all.push((kind, json!({"metadata": metadata, "spec": spec})));
    };
    let listener = |name: &str, port: u16, protocol: &str, hostname: &str| {
        let mut listener = json!({"name": name, "port": port, "protocol": protocol, "hostname": hostname});
        listener["allowedRoutes"] = json!({"namespaces": {"from": if port == 80 { "All" } else { "Same" }}});
        if protocol == "TLS" {
            listener["tls"] = json!({"mode": "Passthrough"});
        }
        listener
    };
    let certificate = json!({"clientCertificateRef": {"name": "me"}});
    let asked = json!({"protocol": "HTTP", "backendRef": {"name": "s2", "port": 80}, "http": {}});
    let guard = json!({"requests": [{"type": "ExternalAuth", "externalAuth": asked}]});
    for (name, more) in [("a", json!({})), ("b", certificate)] {
        let mut listeners = [
            listener("all", 80, "HTTP", ""),
            listener("zone", 80, "HTTP", "*.example.com"),
            listener("tls", 443, "TLS", "*.example.com"),
            json!({"name": "tcp", "port": 90, "protocol": "TCP"}),
        ];
        listeners[1]["filters"] = guard.clone();
        let spec = json!({"gatewayClassName": "sluice", "listeners": listeners, "tls": {"backend": more},
            "allowedListeners": {"namespaces": {"from": "All"}}});
        put(Kind::Gateway, "n", name.to_owned(), spec);
    }
    let set = json!({"parentRef": {"name": "a"}, "listeners": [listener("one", 80, "HTTP", "one.example.com")]});
    put(Kind::ListenerSet, "n", "set".to_owned(), set);
    let parents = [
        json!([{"name": "a"}]),
        json!([{"name": "a", "sectionName": "zone"}, {"name": "b"}]),
        json!([{"name": "b", "sectionName": "all"}, {"name": "set", "kind": "ListenerSet"}]),
    ];
    let hostnames = [
        json!(["one.example.com"]),
        json!(["*.example.com", "two.example.com"]),
        json!([]),
    ];
    for n in 0..12 {
        let (namespace, path) = (["n", "m"][n / 4 % 2], ["/", "/a"][n % 2]);
        let to = json!({"name": format!("s{}", n % 4), "port": 80, "namespace": namespace});
        let rule = |path: &str| json!({"matches": [{"path": {"value": path}}], "backendRefs": [to]});
        let spec = json!({"parentRefs": parents[n % 3], "hostnames": hostnames[n / 2 % 3],
            "rules": [rule(path), rule("/b")]});
        put(Kind::HttpRoute, "n", format!("r{n}"), spec);
    }
    for n in 0..4 {
        let backends = json!([{"backendRefs": [{"name": format!("s{n}"), "port": 80}]}]);
        let mut spec = json!({"parentRefs": parents[n / 3], "rules": backends});
        put(
            [Kind::TcpRoute, Kind::UdpRoute][n % 2],
            "n",
            format!("t{n}"),
            spec.clone(),
        );
        spec["hostnames"] = hostnames[n % 2].clone();
        put(Kind::TlsRoute, "n", format!("t{n}"), spec.clone());
        put(Kind::GrpcRoute, "n", format!("g{n}"), spec);
    }
    for (namespace, n) in ["n", "m"]
        .into_iter()
        .flat_map(|namespace| (0..4).map(move |n| (namespace, n)))
    {
        let kind = if n == 1 { "LoadBalancer" } else { "ClusterIP" };
        let traffic = if namespace == "m" { "Local" } else { "Cluster" };
        let spec = json!({"type": kind, "loadBalancerClass": "sluice.dev/lb", "externalTrafficPolicy": traffic,
            "ports": [{"name": "p", "port": 80, "targetPort": 8080}]});
        put(Kind::Service, namespace, format!("s{n}"), spec);
    }
    let validation = json!({"hostname": "s.example.com", "wellKnownCACertificates": "System"});
    let target = json!([{"group": "", "kind": "Service", "name": "s1"}]);
    let policy = json!({"targetRefs": target, "validation": validation});
    put(Kind::BackendTlsPolicy, "n", "p".to_owned(), policy);
    let group = "gateway.networking.k8s.io";
    let grant = json!({"from": [{"group": group, "kind": "HTTPRoute", "namespace": "n"}],
        "to": [{"group": "", "kind": "Service"}]});
    put(Kind::ReferenceGrant, "m", "grant".to_owned(), grant);
    for (namespace, n) in ["n", "m"]
        .into_iter()
        .flat_map(|namespace| (0..3).map(move |n| (namespace, n)))
    {
        let metadata = json!({"name": format!("s{n}-x"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": format!("s{n}")}});
        let ports = json!([{"name": "p", "port": 8080, "protocol": "TCP"}]);
        let endpoints = json!([{"addresses": [format!("10.0.0.{n}")], "nodeName": "here"}]);
        let slice = json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
        all.push((Kind::EndpointSlice, slice));
    }
    all
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
        goes_on(&objects_of(&case.get(&cases).1), history)?;
    }

    #[test]
    fn so_it_does_where_many_are_in_the_way_of_each_other(
        history in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..24),
    ) {
        goes_on(&crowd(), history)?;
    }
}

/// Where load balancers get addresses, on a node with a name.
fn settings() -> Settings {
    let pools = ["192.0.2.0/24".parse().expect("a network")];
    Settings {
        address_pools: pools.into(),
        node: Some("here".to_owned()),
        ..Settings::default()
    }
}

fn goes_on(pool: &[(Kind, Json)], history: Vec<Vec<Step>>) -> Result<(), TestCaseError> {
    let mut objects = world(pool);
    let settings = settings();
    let (mut compiler, mut ids, mut tables) = (Compiler::default(), Ids::default(), Snapshot::default());
    for (revision, steps) in (1..).zip([vec![]].into_iter().chain(history)) {
        steps.iter().for_each(|step| apply(&mut objects, pool, step));
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
    Ok(())
}

#[test]
fn the_many_are_in_the_way_of_each_other() {
    let settings = settings();
    let told = format!("{:?}", compile(&world(&crowd()), &settings));
    for part in [
        "matches the same first",
        "@n/b",
        "comes first and takes the same ones",
        "Balancer { addresses: [192",
        "Policy { ancestors: [ParentStatus",
        "n/a/n/set/one",
        "guards: [HttpRule",
        "/local",
        "Service(\"m/s",
    ] {
        assert!(told.contains(part), "{part}: {told}");
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
        scopes.flat_map(|scope| scope.hosts.to_vec()).collect::<Vec<_>>()
    };
    let before = hosts(&objects);
    let (kind, moved) = route(7, "/b");
    objects.apply(Change::put(kind, &moved).expect("it has a name"));
    let after = hosts(&objects);
    let same: Vec<bool> = before.iter().zip(&after).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
    assert_eq!(same, (0..10).map(|n| n != 7).collect::<Vec<_>>());
}
