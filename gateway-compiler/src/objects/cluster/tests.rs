//! What changes of a cluster do to the objects, and that they are the objects of a file.

use super::*;
use crate::objects::{Source, parse};
use crate::{Settings, compile};
use serde_json::json;

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// As an API server tells it: with what it adds.
fn service(name: &str, port: Json) -> Json {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": "default", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {LAST_APPLIED: "{\"a\": 1}"}, "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"ports": [{"port": port, "name": null}], "clusterIP": "10.0.0.1"},
        "status": {"loadBalancer": {}},
    })
}

fn put(objects: &mut Objects, kind: Kind, object: &Json) {
    objects.apply(Change::put(kind, object).expect("it has a name"));
}

fn port_of(objects: &Objects, name: &str) -> Option<u16> {
    let service = objects.services.get(&super::super::Key::new("default", name))?;
    service.body.spec.ports.first().map(|port| port.port)
}

fn said(objects: &Objects) -> Vec<String> {
    objects.findings().map(ToString::to_string).collect()
}

/// A Gateway with a route to an endpoint, a grant and a broken Service.
fn world() -> Vec<(Kind, Json)> {
    vec![
        (
            Kind::GatewayClass,
            json!({"apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": {"name": "sluice", "generation": 3},
                "spec": {"controllerName": "sluice.dev/gateway-controller"}}),
        ),
        (
            Kind::Gateway,
            json!({"apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": {"name": "g", "namespace": "default", "generation": 2},
                "spec": {"gatewayClassName": "sluice", "addresses": [{"type": "IPAddress", "value": "10.1.1.1"}],
                    "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"},
                                  {"name": "tcp", "port": 81, "protocol": "TCP"}]}}),
        ),
        (
            Kind::HttpRoute,
            json!({"apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "default"},
                "spec": {"parentRefs": [{"name": "g"}], "hostnames": ["a.example"],
                    "rules": [{"matches": [{"path": {"type": "Exact", "value": "/a"}}], "timeouts": {"request": "10s"},
                        "backendRefs": [{"name": "s", "port": 80, "weight": 3}, {"name": "gone", "port": 80}]}]}}),
        ),
        (
            Kind::TcpRoute,
            json!({"apiVersion": GATEWAY_API, "kind": "TCPRoute", "metadata": {"name": "t", "namespace": "default"},
                "spec": {"parentRefs": [{"name": "g", "sectionName": "tcp"}],
                    "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]}}),
        ),
        (Kind::Service, service("s", json!(80))),
        (Kind::Service, service("broken", json!("x"))),
        (
            Kind::EndpointSlice,
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": "s-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "s"}},
                "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
                "endpoints": [{"addresses": ["10.2.0.1"], "conditions": {"ready": true}, "zone": "a", "nodeName": "n"},
                              {"addresses": ["10.2.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}}]}),
        ),
    ]
}

#[test]
fn a_file_and_a_cluster_give_the_same_ir_for_the_same_objects_in_any_order() {
    let world = world();
    let documents: Vec<String> = world.iter().map(|(_, object)| object.to_string()).collect();
    let of_files = parse(&[Source::new("all.yaml", documents.join("\n---\n"))]);
    for turn in 0..world.len() {
        let mut of_cluster = Objects::default();
        for (kind, object) in world.iter().cycle().skip(turn).take(world.len()) {
            put(&mut of_cluster, *kind, object);
        }
        let settings = Settings {
            loopback_endpoints: false,
            ..Settings::default()
        };
        let (files, cluster) = (compile(&of_files, &settings), compile(&of_cluster, &settings));
        assert_eq!(files.ir.listeners.len(), 2);
        assert_eq!(format!("{:?}", files.ir), format!("{:?}", cluster.ir));
        assert_eq!(files.statuses, cluster.statuses);
        let plain = |compiled: &crate::Compiled| {
            let mut lines: Vec<_> = compiled.diagnostics.to_vec();
            lines.iter_mut().for_each(|finding| finding.position = None);
            lines.sort();
            lines
        };
        assert_eq!(plain(&files), plain(&cluster));
        assert!(cluster.diagnostics.iter().all(|finding| finding.position.is_none()));
    }
}

#[test]
fn a_change_is_one_object_and_a_removal_leaves_nothing() {
    let mut objects = Objects::default();
    put(&mut objects, Kind::Service, &service("a", json!(80)));
    put(&mut objects, Kind::Service, &service("b", json!(81)));
    put(&mut objects, Kind::Service, &service("a", json!(82)));
    assert_eq!((port_of(&objects, "a"), port_of(&objects, "b")), (Some(82), Some(81)));
    assert_eq!(said(&objects), Vec::<String>::new());
    for name in ["a", "b"] {
        objects.apply(Change::gone(Kind::Service, Some("default"), name));
    }
    assert_eq!(objects, Objects::default());
}

#[test]
fn a_broken_object_keeps_its_last_good_version_and_blocks_no_other() {
    let mut objects = Objects::default();
    put(&mut objects, Kind::Service, &service("a", json!(80)));
    put(&mut objects, Kind::Service, &service("a", json!("x")));
    put(&mut objects, Kind::Service, &service("b", json!(81)));
    assert_eq!((port_of(&objects, "a"), port_of(&objects, "b")), (Some(80), Some(81)));
    let said = said(&objects);
    assert!(
        said[0].starts_with("error: Service default/a: spec.ports[0].port: expected a whole number"),
        "{said:?}"
    );
    assert!(said[1].ends_with("its last good version stays in use"), "{said:?}");
    assert_eq!(objects.broken().count(), 1);
    put(&mut objects, Kind::Service, &service("a", json!(90)));
    assert_eq!(port_of(&objects, "a"), Some(90));
    assert_eq!((objects.broken().count(), objects.findings().count()), (0, 0));
    put(&mut objects, Kind::Service, &service("a", json!("x")));
    objects.apply(Change::gone(Kind::Service, Some("default"), "a"));
    assert_eq!(
        (
            port_of(&objects, "a"),
            objects.broken().count(),
            objects.findings().count()
        ),
        (None, 0, 0)
    );
}

#[test]
fn the_file_s_object_counts_and_the_cluster_s_waits_behind_it() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n";
    let mut objects = parse(&[Source::new("f.yaml", text)]);
    put(&mut objects, Kind::Service, &service("a", json!(80)));
    put(&mut objects, Kind::Service, &service("b", json!(81)));
    assert_eq!((port_of(&objects, "a"), port_of(&objects, "b")), (Some(1), Some(81)));
    let expected = "f.yaml:3:18: warning: Service default/a: metadata.name: the cluster has this object too";
    assert!(said(&objects)[0].starts_with(expected), "{:?}", said(&objects));

    // The file without it: the cluster's comes forth. And back again.
    let mut without = Objects::update(&objects, parse(&[]));
    without.carry_cluster(objects);
    assert_eq!((port_of(&without, "a"), port_of(&without, "b")), (Some(80), Some(81)));
    assert_eq!(said(&without), Vec::<String>::new());
    let mut with = Objects::update(&without, parse(&[Source::new("f.yaml", text)]));
    with.carry_cluster(without);
    assert_eq!((port_of(&with, "a"), port_of(&with, "b")), (Some(1), Some(81)));
    assert_eq!(said(&with).len(), 1);
    with.apply(Change::gone(Kind::Service, Some("default"), "a"));
    assert_eq!((port_of(&with, "a"), said(&with).len()), (Some(1), 0));
}

#[test]
fn a_file_that_cannot_be_read_does_not_touch_the_cluster() {
    let mut objects = Objects::default();
    put(&mut objects, Kind::Service, &service("b", json!(81)));
    put(&mut objects, Kind::Service, &service("c", json!("x")));
    let mut next = Objects::update(&objects, parse(&[Source::new("f.yaml", "}{")]));
    next.carry_cluster(objects);
    assert_eq!(port_of(&next, "b"), Some(81));
    assert_eq!(said(&next).len(), 2, "the file's and the broken object's");
}

#[test]
fn a_secret_that_lost_its_certificate_keeps_the_last_one() {
    let block = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
    let secret = |certificate: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "default"},
            "stringData": {"tls.crt": certificate, "tls.key": block("PRIVATE KEY")}})
    };
    let mut objects = Objects::default();
    put(&mut objects, Kind::Secret, &secret(&block("CERTIFICATE")));
    let good = objects.secrets.clone();
    put(&mut objects, Kind::Secret, &secret("oops"));
    assert_eq!(objects.secrets, good);
    assert!(said(&objects)[0].contains("no PEM certificate in it: its last good version stays in use"));
}

#[test]
fn an_object_beyond_the_bounds_is_broken_and_says_so() {
    let mut deep = json!(1);
    for _ in 0..DEPTH_MAX + 1 {
        deep = json!([deep]);
    }
    let mut object = service("a", json!(80));
    object["spec"]["ports"] = deep;
    let mut objects = Objects::default();
    put(&mut objects, Kind::Service, &object);
    assert_eq!(port_of(&objects, "a"), None);
    assert!(said(&objects)[0].contains("nested deeper than 64"));
    assert_eq!(Change::put(Kind::Service, &json!({"metadata": {}})), None);
}
