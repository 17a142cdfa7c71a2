//! Whether the cost of a request grows with the number of routes: this gateway with few, many and very many.
//!
//! The load is the same for all: as many targets, spread over all routes, in an order that is not the configuration's.

use std::fmt::Write as _;
use std::fs;

use super::generator::{Aim, Front, Message};
use super::load::{Sample, cpu_sample};
use super::proxy::{Kind, Proxy};
use super::rig::{LOAD_CPU, PROXY_CPU, Rig};
use crate::shell::Failure;

pub const CELL: &str = "many routes, HTTP/1.1 64 B, 50 connections";
/// The smallest, which the others are compared with, and the largest.
pub const FEW: &str = "sluice, 32 routes";
pub const MOST: &str = "sluice, 10,000 routes";
const SIZES: [(&str, usize); 3] = [(FEW, 32), ("sluice, 1,000 routes", 1000), (MOST, 10_000)];

/// Targets in one load, and a number that has no factor in common with it.
const TARGETS: usize = 1000;
const STRIDE: usize = 617;

/// One gateway of each size, from `ours` with more routes.
pub fn start(ours: &Kind, rig: &Rig) -> Result<Vec<(Proxy, usize)>, Failure> {
    let mut all = Vec::new();
    for (name, routes) in SIZES {
        let mut kind = ours.clone();
        kind.name = name;
        kind.config.push_str(&objects(routes));
        all.push((
            Proxy::start(&kind, &format!("routes-{routes}"), 1, PROXY_CPU, rig)?,
            routes,
        ));
    }
    Ok(all)
}

/// Loads one of them.
pub fn run(proxy: &Proxy, routes: usize, rig: &Rig, secs: u32) -> Result<Sample, Failure> {
    let address = proxy.address(Front::H1);
    let port = address.rsplit_once(':').map_or("80", |(_, port)| port);
    let file = rig.dir.join("targets");
    fs::write(&file, targets(routes, port)).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    let fixed = format!("h2load -t 1 -D {secs} --h1 -c 50 --input-file={}", file.display());
    let aim = Aim {
        front: Front::H1,
        message: Message::Web,
    };
    let mut line = aim.line(&fixed, &address, rig);
    // The targets are in the file.
    line.pop();
    cpu_sample(CELL, proxy, &line, Message::Web, (rig, secs, LOAD_CPU))
}

/// As many objects as routes, each with a path of its own.
fn objects(routes: usize) -> String {
    let mut text = String::new();
    for route in 0..routes {
        let _ = write!(
            text,
            "---\n\
             apiVersion: gateway.networking.k8s.io/v1\n\
             kind: HTTPRoute\n\
             metadata: {{name: many-{route}}}\n\
             spec:\n\
             \x20 parentRefs: [{{name: bench, sectionName: h1}}]\n\
             \x20 rules:\n\
             \x20 - matches: [{{path: {{type: PathPrefix, value: /many/r{route}}}}}]\n\
             \x20   backendRefs: [{{name: web, port: 80}}]\n"
        );
    }
    text
}

fn targets(routes: usize, port: &str) -> String {
    let mut text = String::new();
    for turn in 0..TARGETS {
        let route = turn * STRIDE % TARGETS * routes / TARGETS;
        let _ = writeln!(text, "http://localhost:{port}/many/r{route}/x");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn targets_are_as_many_for_every_size_and_reach_all_parts_of_it() {
        for (_, routes) in SIZES {
            let text = targets(routes, "1");
            let distinct: HashSet<&str> = text.lines().collect();
            assert_eq!(text.lines().count(), TARGETS);
            assert_eq!(distinct.len(), routes.min(TARGETS));
            assert!(distinct.contains("http://localhost:1/many/r0/x"));
        }
        let last = 9_990;
        assert!(targets(10_000, "1").contains(&format!("/many/r{last}/x")));
    }

    #[test]
    fn each_route_is_an_object() {
        assert_eq!(objects(32).matches("\nkind: HTTPRoute\n").count(), 32);
    }
}
