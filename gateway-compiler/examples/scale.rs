//! What many routes cost: time and memory of each step from objects to the workers' tables, and of one change.
//!
//! ```text
//! scale [hosts|paths] [ROUTES] [files|cluster]
//! ```
//!
//! `hosts`: each route has its own hostname; `paths`: all are paths of one. `files`: one text, whose places are kept;
//! `cluster`: object by object, as from an API server.

#![allow(
    clippy::disallowed_methods,
    reason = "an instrument: it reads the clock and its own memory"
)]

use gateway_compiler::objects::{Change, Kind};
use gateway_compiler::{Compiler, Objects, Settings, Source, parse};
use gateway_core::control::{ControlOptions, ControlState, Event};
use gateway_core::ir::Ir;
use gateway_core::time::Moment;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut words = std::env::args().skip(1);
    let shape = words.next().unwrap_or("hosts".to_owned());
    let routes: usize = words.next().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let from = words.next().unwrap_or("cluster".to_owned());
    println!(
        "{routes} HTTPRoutes ({shape}, {from}), {} Services; RSS {} MiB",
        routes / 10,
        rss_mib()
    );

    let mut objects = match from.as_str() {
        "files" => {
            let text: Vec<String> = all(&shape, routes).iter().map(ToString::to_string).collect();
            let source = Source::new("all.yaml", text.join("\n---\n"));
            timed("parse", || parse(&[source]))
        }
        _ => timed("read", || {
            let mut objects = Objects::default();
            all(&shape, routes).iter().for_each(|object| put(&mut objects, object));
            objects
        }),
    };
    let settings = Settings::default();
    let mut compiler = Compiler::default();
    let mut state = ControlState::new(ControlOptions::default());
    let mut apply = |objects: &Objects| {
        let (mut findings, mut ir) = (0, Ir::default());
        timed("  compile", || {
            let compiled = compiler.compile(objects, &settings);
            (findings, ir) = (compiled.diagnostics.len(), compiled.ir);
        });
        let effects = timed("  ids, tables, effects", || {
            state.handle(Event::Configured(Arc::new(ir)), Moment::ZERO)
        });
        println!("{:>24} findings, {} effects", findings, effects.len());
    };
    timed("all of it", || apply(&objects));
    timed("nothing changed", || apply(&objects));
    let mut change = |what: &str, object: Value, objects: &mut Objects| {
        timed(what, || {
            put(objects, &object);
            apply(objects);
        });
    };
    if from == "cluster" {
        change("a route changed", route(&shape, 5, "/b"), &mut objects);
        change("a route changed", route(&shape, 77, "/c"), &mut objects);
        change("a route came", route(&shape, routes, "/a"), &mut objects);
        change("endpoints changed", slice(3, 9), &mut objects);
        change("a Service came", service(routes), &mut objects);
        change("a Gateway changed", gateway(8080), &mut objects);
    }
}

fn put(objects: &mut Objects, object: &Value) {
    let kind = match object["kind"].as_str() {
        Some("Gateway") => Kind::Gateway,
        Some("Service") => Kind::Service,
        Some("EndpointSlice") => Kind::EndpointSlice,
        _ => Kind::HttpRoute,
    };
    if let Some(change) = Change::put(kind, object) {
        objects.apply(change);
    }
}

/// Both the time on a CPU, which others on the machine do not lengthen, and the time that passed.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (begun, cpu) = (Instant::now(), cpu_ms());
    let result = work();
    let (cpu, ms) = (cpu_ms() - cpu, begun.elapsed().as_secs_f64() * 1e3);
    let mut line = String::new();
    let _ = write!(
        line,
        "{what:>24} {cpu:9.2} ms of CPU, {ms:9.2} ms   RSS {:4} MiB",
        rss_mib()
    );
    println!("{line}");
    result
}

fn cpu_ms() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = schedstat
        .split_whitespace()
        .next()
        .and_then(|ns| ns.parse::<f64>().ok());
    ns.unwrap_or(0.0) / 1e6
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib / 1024
}

/// A Gateway, a Service with its slice for ten routes each, and the routes.
fn all(shape: &str, routes: usize) -> Vec<Value> {
    let mut all = vec![gateway(80)];
    for n in 0..routes.div_ceil(10) {
        all.extend([service(n), slice(n, 1)]);
    }
    all.extend((0..routes).map(|n| route(shape, n, "/a")));
    all
}

fn gateway(port: u16) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "default", "generation": 1},
        "spec": {"gatewayClassName": "sluice", "addresses": [{"type": "IPAddress", "value": "198.18.0.10"}],
                 "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}]},
    })
}

fn service(n: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{n}"), "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

fn slice(n: usize, last: usize) -> Value {
    let addresses = [1, 2].map(|net| format!("10.{}.{}.{last}", net + n / 250, n % 250));
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("s{n}-x"), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": format!("s{n}")}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": addresses.map(|address| json!({"addresses": [address], "conditions": {"ready": true}})),
    })
}

fn route(shape: &str, n: usize, prefix: &str) -> Value {
    let (host, path) = match shape {
        "paths" => ("app.example.com".to_owned(), format!("{prefix}/{n}")),
        _ => (format!("h{n}.example.com"), prefix.to_owned()),
    };
    // Not in the order of their names.
    let second = n * 7919 % 60;
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": format!("r{n}"), "namespace": "default", "generation": 1,
                     "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"), "labels": {"app": format!("r{n}")}},
        "spec": {
            "parentRefs": [{"name": "web"}], "hostnames": [host],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}],
                       "backendRefs": [{"name": format!("s{}", n / 10), "port": 80}]}],
        },
    })
}
