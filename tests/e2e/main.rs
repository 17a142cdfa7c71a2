//! The gateway in the laboratory, on the real kernel, with clients that nobody here wrote.
//!
//! Needs root. Without it these tests cannot run: they say so, and fail where CI is set.

mod abuse;
mod balancer;
mod change;
mod clients;
mod desync;
mod grpc;
mod guarded;
mod life;
mod mirror;
mod observe;
mod overload;
mod planes;
mod refuse;
mod retries;
mod spoilt;
mod streams;
mod succeed;
mod terminate;
mod tls;
mod tunnels;
mod udp;

use gateway_tests::rows::{ALL, ANY, Lacks, PACKETS, Row, run};
use std::process::ExitCode;

const ROWS: &[Row] = &[
    Row {
        name: "grpcio makes every kind of call through L7",
        datapaths: ALL,
        run: clients::grpcio_l7,
    },
    Row {
        name: "grpcio makes every kind of call through L4",
        datapaths: ALL,
        run: clients::grpcio_l4,
    },
    Row {
        name: "grpcio makes every kind of call over TLS",
        datapaths: &["off", "tcx"],
        run: clients::grpcio_tls,
    },
    Row {
        name: "curl speaks HTTP/1.1, HTTP/2 and TLS to the VIP",
        datapaths: ALL,
        run: clients::curl,
    },
    Row {
        name: "h2load finishes every request",
        datapaths: &["off", "lookup"],
        run: clients::h2load,
    },
    Row {
        name: "gRPC's interoperability cases pass, over h2c and TLS",
        datapaths: &["off", "lookup"],
        run: grpc::interop,
    },
    Row {
        name: "grpc-web and Connect call through the gateway",
        datapaths: &["lookup"],
        run: grpc::browsers,
    },
    Row {
        name: "calls of one connection spread evenly, at once also after a change",
        datapaths: ANY,
        run: streams::spread,
    },
    Row {
        name: "a silent stream lives as long as its client; a body's limit is each message's",
        datapaths: ANY,
        run: streams::silent,
    },
    Row {
        name: "a slow reader fills no memory and slows down no neighbour",
        datapaths: ANY,
        run: streams::slow,
    },
    Row {
        name: "copies of requests arrive whole and their originals do not notice",
        datapaths: ANY,
        run: mirror::mirrors,
    },
    Row {
        name: "failed attempts are followed by others within time and budget; sessions come back",
        datapaths: &["off"],
        run: retries::retries,
    },
    Row {
        name: "nothing passes an authorization service that did not say yes",
        datapaths: &["off"],
        run: guarded::guarded,
    },
    Row {
        name: "one connection is one endpoint on L4 and every endpoint on L7",
        datapaths: ALL,
        run: planes::fairness,
    },
    Row {
        name: "a Service's load balancer keeps strangers out, clients with their endpoint and nodes to their own",
        datapaths: &["off", "tcx"],
        run: balancer::services,
    },
    Row {
        name: "packets of a kernel listener stay in the kernel",
        datapaths: PACKETS,
        run: planes::packets_stay,
    },
    Row {
        name: "the admin shows each connection on its plane",
        datapaths: ALL,
        run: planes::seen,
    },
    Row {
        name: "bulk transfers arrive byte for byte",
        datapaths: ALL,
        run: planes::bulk,
    },
    Row {
        name: "spans reach a collector and follow the client's trace",
        datapaths: ANY,
        run: observe::traces,
    },
    Row {
        name: "a change of routes, weights and endpoints cuts nothing",
        datapaths: &["off", "tcx", "xdp"],
        run: change::under_load,
    },
    Row {
        name: "a broken file keeps what was good and is reported",
        datapaths: ANY,
        run: change::broken,
    },
    Row {
        name: "hundreds of spoilt manifests are told one by one and nobody else notices",
        datapaths: ANY,
        run: spoilt::mutants,
    },
    Row {
        name: "a change is served within 50 ms",
        datapaths: ANY,
        run: change::fast,
    },
    Row {
        name: "a killed gateway leaves its flows alive and is adopted",
        datapaths: PACKETS,
        run: life::adoption,
    },
    Row {
        name: "a dead endpoint costs no more than what it had in flight",
        datapaths: &["off", "tcx"],
        run: life::dead_endpoint,
    },
    Row {
        name: "a drain lets streams end and refuses new connections",
        datapaths: &["off", "tcx"],
        run: life::drain,
    },
    Row {
        name: "the probe tells alive, started and ready from draining, whoever asks",
        datapaths: &["off"],
        run: life::probe,
    },
    Row {
        name: "upgrades under load fail no request",
        datapaths: &["off", "tcx"],
        run: succeed::upgrades,
    },
    Row {
        name: "a successor that fails leaves the old process serving",
        datapaths: &["lookup"],
        run: succeed::failures,
    },
    Row {
        name: "a drain under load fails no request",
        datapaths: &["off", "tcx"],
        run: succeed::drain,
    },
    Row {
        name: "a gateway killed at any moment starts again and serves",
        datapaths: ANY,
        run: succeed::kills,
    },
    Row {
        name: "the access log goes on in a new file after it was moved away",
        datapaths: &["off"],
        run: succeed::reopened_log,
    },
    Row {
        name: "a hundred changes a second cut no stream",
        datapaths: ANY,
        run: change::flap,
    },
    Row {
        name: "too many requests are turned away at once and served again later",
        datapaths: &["off"],
        run: overload::requests,
    },
    Row {
        name: "without memory the gateway takes nothing and says why",
        datapaths: &["off"],
        run: overload::memory,
    },
    Row {
        name: "a clean exit leaves nothing behind",
        datapaths: ALL,
        run: life::clean_exit,
    },
    Row {
        name: "nginx and Python see what was meant of smuggled requests and disguised paths, or nothing",
        datapaths: &["off"],
        run: desync::tables,
    },
    Row {
        name: "attackers are cut in time, are counted, and harm nobody",
        datapaths: &["off"],
        run: abuse::cut,
    },
    Row {
        name: "a foreign XDP program is refused by name",
        datapaths: &["xdp"],
        run: refuse::foreign_xdp,
    },
    Row {
        name: "TLS that ends at the gateway is relayed, beside what passes through and HTTPS",
        datapaths: &["off", "tcx"],
        run: terminate::relayed,
    },
    Row {
        name: "no client passes for another, and each is told to endpoints as what it is",
        datapaths: ANY,
        run: tls::clients,
    },
    Row {
        name: "an endpoint is believed for its name by its authority, or not spoken to",
        datapaths: ANY,
        run: tls::upstream,
    },
    Row {
        name: "certificates rotate under handshakes and nobody notices",
        datapaths: ANY,
        run: tls::rotation,
    },
    Row {
        name: "a ClientHello of any shape is routed by its name or closed",
        datapaths: ANY,
        run: tls::hello,
    },
    Row {
        name: "WebSocket and other tunnels carry every byte both ways and end half by half",
        datapaths: &["off"],
        run: tunnels::websocket,
    },
    Row {
        name: "datagrams reach their endpoints by packets or by the relay, with the weights asked for",
        datapaths: &["off", "tcx", "xdp"],
        run: udp::carried,
    },
    Row {
        name: "a UDP flow stays while its endpoint drains and goes elsewhere when it leaves",
        datapaths: &["off", "tcx"],
        run: udp::endpoints_change,
    },
    Row {
        name: "UDP flows outlive the process and are adopted",
        datapaths: &["tcx"],
        run: udp::adopted,
    },
    Row {
        name: "relayed UDP clients are answered through a hand-over",
        datapaths: ANY,
        run: udp::handed_over,
    },
    Row {
        name: "without privilege the datapath is off and says why",
        datapaths: ANY,
        run: refuse::unprivileged,
    },
];

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        println!(
            "these tests make network namespaces and load eBPF programs: run them as root (sudo -E cargo xtask test)"
        );
        println!(
            "test result: ok. 0 passed; 0 failed; {} ignored; 0 measured; 0 filtered out",
            ROWS.len()
        );
        return if std::env::var_os("CI").is_some() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    if run(ROWS, &lacks()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What this kernel cannot do, from `sluice doctor`.
fn lacks() -> Lacks {
    let mut lacks = Lacks::new();
    let output = std::process::Command::new(gateway_tests::shell::sluice())
        .args(["doctor", "-o", "json"])
        .output();
    let doctor: serde_json::Value = output
        .ok()
        .and_then(|output| serde_json::from_slice(&output.stdout).ok())
        .unwrap_or_default();
    for datapath in ["lookup", "tcx", "xdp"] {
        if let Some(why) = doctor["datapaths"][datapath]["why"]
            .as_str()
            .filter(|why| !why.is_empty())
        {
            // A machine that is told to be able to must not skip in silence.
            assert!(
                std::env::var_os("SLUICE_DEMAND_DATAPATHS").is_none(),
                "{datapath}: {why}"
            );
            lacks.insert(datapath, why.to_owned());
        }
    }
    lacks
}
