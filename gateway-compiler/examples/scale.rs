//! What many routes cost: time and memory of each step from text to the workers' tables, and of one change.
//!
//! ```text
//! scale [hosts|paths] [ROUTES]        each route with its own hostname, or all of them paths of one hostname
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "an instrument: it reads the clock and its own memory"
)]

use gateway_compiler::{Objects, Settings, Source, compile, parse};
use gateway_core::ir::Revision;
use gateway_core::lower::kernel::{self, KernelIndexes};
use gateway_core::lower::{Ids, snapshot};
use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut words = std::env::args().skip(1);
    let shape = words.next().unwrap_or("hosts".to_owned());
    let routes = words.next().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    println!(
        "{routes} HTTPRoutes ({shape}), {} Services; RSS {} MiB",
        routes / 10,
        rss_mib()
    );

    let sources = [
        Source::new("base.yaml", base(routes)),
        Source::new("routes.yaml", text(&shape, routes, "/a")),
    ];
    let settings = Settings::default();
    let objects = timed("parse", || parse(&sources));
    drop(sources);
    told(&objects);
    let compiled = timed("compile", || compile(&objects, &settings));
    println!(
        "{:>24} findings, {} statuses",
        compiled.diagnostics.len(),
        compiled.statuses.len()
    );
    let again = timed("compile again", || compile(&objects, &settings));
    let equal = timed("Ir ==", || again.ir == compiled.ir);
    assert!(equal);
    let clone = timed("Ir clone", || compiled.ir.clone());
    drop(timed("Ir drop", || clone));
    drop(again);
    let (mut ids, mut indexes) = (Ids::default(), KernelIndexes::default());
    timed("Ids::assign", || ids.assign(&compiled.ir));
    timed("Ids::assign again", || ids.assign(&compiled.ir));
    let snapshot = timed("snapshot::lower", || snapshot::lower(&compiled.ir, Revision(1), &ids));
    timed("snapshot::lower_from", || {
        snapshot::lower_from(&compiled.ir, Revision(2), &ids, &snapshot)
    });
    timed("kernel::lower", || kernel::lower(&compiled.ir, &ids, &mut indexes));
    black_box(snapshot);
}

fn told(objects: &Objects) {
    println!("{:>24} objects, {} findings", objects.len(), objects.diagnostics.len());
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    println!(
        "{what:>24} {:9.2} ms   RSS {:4} MiB",
        begun.elapsed().as_secs_f64() * 1e3,
        rss_mib()
    );
    result
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib / 1024
}

/// A Gateway, and a Service with its slice for ten routes each.
fn base(routes: usize) -> String {
    let mut text = String::from(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: default}\nspec:\n  \
         gatewayClassName: sluice\n  addresses: [{type: IPAddress, value: 198.18.0.10}]\n  listeners:\n  \
         - {name: http, port: 80, protocol: HTTP}\n",
    );
    for n in 0..routes.div_ceil(10) {
        let (a, b) = (n / 250, n % 250 + 1);
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: default}}\nspec:\n  ports:\n  \
             - {{name: http, port: 80, targetPort: 8080}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata:\n  name: s{n}-x\n  namespace: default\n  labels: {{kubernetes.io/service-name: s{n}}}\n\
             addressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n\
             - {{addresses: [10.1.{a}.{b}], conditions: {{ready: true}}}}\n\
             - {{addresses: [10.2.{a}.{b}], conditions: {{ready: true}}}}\n"
        );
    }
    text
}

fn text(shape: &str, routes: usize, prefix: &str) -> String {
    let mut text = String::new();
    for n in 0..routes {
        text += &route(shape, n, prefix);
    }
    text
}

fn route(shape: &str, n: usize, prefix: &str) -> String {
    let (host, path) = match shape {
        "paths" => ("app.example.com".to_owned(), format!("{prefix}/{n}")),
        _ => (format!("h{n}.example.com"), prefix.to_owned()),
    };
    let service = n / 10;
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: r{n}\n  namespace: default\n  \
         labels: {{app: r{n}}}\nspec:\n  parentRefs:\n  - name: web\n  hostnames:\n  - {host}\n  rules:\n  - matches:\n    \
         - path:\n        type: PathPrefix\n        value: {path}\n    backendRefs:\n    - name: s{service}\n      port: 80\n"
    )
}
