//! What many routes cost: time and memory of each step from objects to the workers' tables, and of one change.
//!
//! ```text
//! scale [hosts|paths|zones] [ROUTES] [files|cluster] [CHANGES]
//! ```
//!
//! `hosts`: each route has its own hostname; `paths`: all are paths of one; `zones`: eight listeners share a port, and a
//! hundred routes each hostname. `files`: one text, whose places are kept; `cluster`: object by
//! object, as from an API server. At last CHANGES (1,000) routes change one after the
//! other: what each costs, counted in `one_change` too (`valgrind --tool=callgrind
//! --toggle-collect='*one_change*'`).

#![allow(
    clippy::disallowed_methods,
    reason = "an instrument: it reads the clock and its own memory"
)]

use gateway_compiler::objects::{Change, Kind};
use gateway_compiler::{Compiler, Diagnostic, ObjectStatus, Objects, Settings, Source, parse};
use gateway_core::control::{ControlOptions, ControlState, Effect, Event};
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
    let changes: usize = words.next().and_then(|n| n.parse().ok()).unwrap_or(1_000);
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
    let apply = |compiler: &mut Compiler, state: &mut ControlState, objects: &Objects| {
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
    timed("all of it", || apply(&mut compiler, &mut state, &objects));
    timed("nothing changed", || apply(&mut compiler, &mut state, &objects));
    let mut change = |what: &str, object: Value, objects: &mut Objects| {
        timed(what, || {
            put(objects, &object);
            apply(&mut compiler, &mut state, objects);
        });
    };
    if from == "cluster" {
        change("a route changed", route(&shape, 5, "/b"), &mut objects);
        change("a route changed", route(&shape, 77, "/c"), &mut objects);
        change("a route came", route(&shape, routes, "/a"), &mut objects);
        change("endpoints changed", slice(3, 9), &mut objects);
        change("a Service came", service(routes), &mut objects);
        change("a Gateway changed", gateway(&shape, 8080), &mut objects);
        let (mut costs, mut held) = (Costs::default(), Held::default());
        for n in 0..changes {
            let changed = route(&shape, n * 7919 % routes, ["/b", "/c", "/d"][n % 3]);
            let read = Change::put(Kind::HttpRoute, &changed).expect("it has a name");
            one_change(read, &mut objects, &mut compiler, &mut state, &mut held, &mut costs);
        }
        costs.print();
    }
}

/// What the daemon does with one change; nothing else is in it.
#[inline(never)]
fn one_change(
    change: Change,
    objects: &mut Objects,
    compiler: &mut Compiler,
    state: &mut ControlState,
    held: &mut Held,
    costs: &mut Costs,
) {
    let begun = costs.now();
    objects.apply(change);
    let compiled = compiler.compile(objects, &Settings::default());
    let compiled_at = costs.now();
    let effects = state.handle(Event::Configured(Arc::new(compiled.ir)), Moment::ZERO);
    let handled = costs.now();
    *held = (compiled.statuses, compiled.diagnostics, effects);
    let ended = costs.now();
    costs.note([begun, compiled_at, handled, ended]);
}

/// What is held until the next change.
type Held = (Vec<Arc<ObjectStatus>>, Vec<Diagnostic>, Vec<Effect>);

/// Time on a CPU and time that passed of each step, in ms.
#[derive(Default)]
struct Costs {
    steps: [Vec<(f64, f64)>; 4],
}

type Stamp = (f64, Instant);

impl Costs {
    fn now(&self) -> Stamp {
        (cpu_ms(), Instant::now())
    }

    fn note(&mut self, at: [Stamp; 4]) {
        let between = |from: Stamp, to: Stamp| (to.0 - from.0, (to.1 - from.1).as_secs_f64() * 1e3);
        for step in 0..3 {
            self.steps[step].push(between(at[step], at[step + 1]));
        }
        self.steps[3].push(between(at[0], at[3]));
    }

    fn print(self) {
        let names = ["read, compile", "ids, tables, effects", "drop", "one change"];
        for (name, costs) in names.iter().zip(self.steps) {
            let (mut cpu, mut passed): (Vec<f64>, Vec<f64>) = costs.into_iter().unzip();
            println!("{name:>24} {} ms of CPU, {} ms", shares(&mut cpu), shares(&mut passed));
        }
    }
}

fn shares(times: &mut [f64]) -> String {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        times
            .get((times.len() as f64 * share) as usize)
            .or(times.last())
            .copied()
    };
    let at = |share| at(share).unwrap_or_default();
    format!("p50 {:5.2} p90 {:5.2} p99 {:5.2}", at(0.5), at(0.9), at(0.99))
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
    let mut all = vec![gateway(shape, 80)];
    for n in 0..routes.div_ceil(10) {
        all.extend([service(n), slice(n, 1)]);
    }
    all.extend((0..routes).map(|n| route(shape, n, "/a")));
    all
}

fn gateway(shape: &str, port: u16) -> Value {
    let listener = |name: &str, hostname: Option<String>| {
        let mut listener = json!({"name": name, "port": port, "protocol": "HTTP"});
        if let Some(hostname) = hostname {
            listener["hostname"] = hostname.into();
        }
        listener
    };
    let listeners: Vec<Value> = match shape {
        "zones" => (0..8)
            .map(|n| listener(&format!("z{n}"), Some(format!("*.z{n}.example.com"))))
            .collect(),
        _ => vec![listener("http", None)],
    };
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "default", "generation": 1},
        "spec": {"gatewayClassName": "sluice", "addresses": [{"type": "IPAddress", "value": "198.18.0.10"}],
                 "listeners": listeners},
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
        // A hundred routes share a hostname.
        "zones" => (format!("h{}.z{}.example.com", n / 800, n % 8), format!("{prefix}/{n}")),
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
