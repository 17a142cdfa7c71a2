//! `sluice lab`: up, down, status, run; and the parts it starts itself (`exec`, `backend`, `load`).

use super::exit::{Code, Exit};
use crate::lab::topology::{self, Wires};
use crate::lab::{BACKENDS, CLIENT, GATEWAY, PORT_HTTP, PORT_HTTPS, PORT_L4, PORT_L7, VIP_V4};
use crate::lab::{backend, certificate, compare, load, place, process};
use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct LabArgs {
    #[command(subcommand)]
    verb: LabVerb,
}

#[derive(Subcommand, Debug)]
enum LabVerb {
    /// Build the namespaces and start the backends (root).
    Up(UpArgs),
    /// End everything and remove the namespaces (root).
    Down,
    /// What of the laboratory is there.
    Status,
    /// Bring it up, run the gateway in it, compare L4 and L7, stay up until Ctrl-C (root).
    Run(LabRunArgs),
    /// Enter a namespace and become another program.
    #[command(hide = true)]
    Exec {
        namespace: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// One backend.
    #[command(hide = true)]
    Backend {
        #[arg(long)]
        name: String,
        #[arg(long, default_value_t = PORT_L4)]
        port: u16,
        #[arg(long)]
        count_socket: Option<PathBuf>,
    },
    /// The load of the comparison; prints its result as JSON.
    #[command(hide = true)]
    Load(LoadArgs),
}

#[derive(Args, Debug, Clone, Copy)]
struct UpArgs {
    /// Prepare the links for native XDP on veth (GRO on, transmit checksums off).
    #[arg(long)]
    xdp: bool,
}

#[derive(Args, Debug)]
struct LabRunArgs {
    /// End after the comparison: exit 0 only if both planes carried the traffic and L7 was fair.
    #[arg(long)]
    once: bool,
    /// Print only the LabReport.
    #[arg(long)]
    json: bool,
    #[arg(long, value_enum, default_value = "auto")]
    datapath: crate::kernel::Datapath,
    #[arg(long, default_value_t = 4000)]
    requests: u64,
    /// Calls in flight on the connection.
    #[arg(long, default_value_t = 16)]
    concurrency: u32,
}

#[derive(Args, Debug)]
struct LoadArgs {
    #[arg(long)]
    target: String,
    #[arg(long, default_value_t = 4000)]
    requests: u64,
    #[arg(long, default_value_t = 1)]
    connections: u32,
    #[arg(long, default_value_t = 16)]
    concurrency: u32,
    #[arg(long, default_value_t = 64)]
    payload_bytes: usize,
}

pub fn run(args: LabArgs) -> super::Result {
    match args.verb {
        LabVerb::Up(up_args) => {
            need_root()?;
            up(if up_args.xdp { Wires::Xdp } else { Wires::Bulk })?;
            println!(
                "laboratory up: namespaces {GATEWAY}, {CLIENT}, sluice-be1..4; files in {}",
                place::STATE_DIR
            );
            println!("run the gateway in it: sluice lab run");
        }
        LabVerb::Down => {
            need_root()?;
            down()?;
        }
        LabVerb::Status => status()?,
        LabVerb::Run(run_args) => run_lab(&run_args)?,
        LabVerb::Exec { namespace, command } => process::exec(&namespace, &command)?,
        LabVerb::Backend {
            name,
            port,
            count_socket,
        } => {
            runtime()?.block_on(backend::serve(name, port, count_socket.as_deref()))?;
        }
        LabVerb::Load(load_args) => {
            let load = load::Load {
                target: load_args.target,
                connections: load_args.connections,
                requests: load_args.requests,
                concurrency: load_args.concurrency,
                payload_bytes: load_args.payload_bytes,
            };
            let result = runtime()?.block_on(load::drive(&load))?;
            println!("{}", serde_json::to_string(&result).context("print the result")?);
        }
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start tokio")
}

fn need_root() -> Result<(), Exit> {
    if crate::sys::process::is_root() {
        return Ok(());
    }
    let me = std::env::current_exe()
        .map(|path| path.display().to_string())
        .unwrap_or_else(|_| "sluice".to_owned());
    let words: Vec<String> = std::env::args().skip(1).collect();
    Err(Exit::new(
        Code::NoPermission,
        format!("network namespaces need root; type: sudo {me} {}", words.join(" ")),
    ))
}

fn up(wires: Wires) -> Result<()> {
    process::end_all()?;
    std::fs::create_dir_all(place::STATE_DIR).with_context(|| format!("create {}", place::STATE_DIR))?;
    topology::up(wires)?;
    certificate::write()?;
    std::fs::write(place::state("quickstart.yaml"), place::QUICKSTART)?;
    let mut children = Vec::new();
    for backend in BACKENDS {
        let args = [
            "lab".to_owned(),
            "backend".to_owned(),
            format!("--name={}", backend.name),
            format!("--count-socket={}", place::count_socket(backend.name).display()),
        ];
        children.push((
            backend.name,
            process::start(backend.name, process::sluice_in(backend.namespace, &args)?)?,
        ));
    }
    for (name, child) in &mut children {
        process::wait_until(name, child, Duration::from_secs(10), || {
            place::count_socket(name).exists()
        })?;
    }
    Ok(())
}

fn down() -> Result<()> {
    process::end_all()?;
    topology::down()?;
    crate::kernel::clean(std::path::Path::new(place::PIN_DIR))?;
    match std::fs::remove_dir_all(place::STATE_DIR) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", place::STATE_DIR))
        }
        _ => Ok(()),
    }
}

fn status() -> Result<()> {
    let there = topology::existing()?;
    let mut table = super::table::Table::new(&["NAMESPACE", "THERE", "PROCESS"]);
    let rows = [(CLIENT, None), (GATEWAY, Some("gateway"))]
        .into_iter()
        .chain(BACKENDS.map(|backend| (backend.namespace, Some(backend.name))));
    for (namespace, name) in rows {
        let pid = name.and_then(|name| std::fs::read_to_string(place::state(&format!("{name}.pid"))).ok());
        let known = there.iter().any(|other| other == namespace);
        table.row([
            namespace.to_owned(),
            if known { "yes" } else { "no" }.to_owned(),
            pid.unwrap_or_default(),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

fn run_lab(args: &LabRunArgs) -> super::Result {
    need_root()?;
    // Ctrl-C must leave nothing behind, also in the middle of coming up: signals are caught from here on.
    let runtime = runtime()?;
    let interrupted = runtime.block_on(async {
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let (sender, receiver) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            let _ = sender.send(true);
        });
        anyhow::Ok(receiver)
    })?;
    let outcome = lab_session(args, &runtime, interrupted);
    let cleaned = down();
    let report_is_good = outcome?;
    cleaned?;
    if args.once && !report_is_good {
        Err(Exit::silent(Code::Failed))
    } else {
        Ok(())
    }
}

/// Everything between `up` and `down`; true when the comparison came out as it should.
fn lab_session(
    args: &LabRunArgs,
    runtime: &tokio::runtime::Runtime,
    mut interrupted: tokio::sync::watch::Receiver<bool>,
) -> Result<bool> {
    up(if args.datapath == crate::kernel::Datapath::Xdp {
        Wires::Xdp
    } else {
        Wires::Bulk
    })?;
    let mut gateway = start_gateway(args.datapath)?;
    let client = super::client::AdminClient::unix(place::admin_socket());
    let ready = || runtime.block_on(client.get("/ready")).is_ok();
    process::wait_until("gateway", &mut gateway, Duration::from_secs(20), ready)?;
    let ask = |path: &str| {
        let body = runtime.block_on(client.get(path))?;
        serde_json::from_slice(&body).with_context(|| format!("the admin's answer to {path}"))
    };
    let size = compare::Size {
        requests: args.requests,
        connections: 1,
        concurrency: args.concurrency,
    };
    let report =
        compare::compare(size, &ask).map_err(|error| anyhow!("{error:#}\n{}", process::log_tail("gateway")))?;
    let wrong = report.shortcomings();
    if args.json {
        println!("{}", serde_json::to_string(&report).context("print the report")?);
    } else {
        println!("{}", report.text());
    }
    for line in &wrong {
        eprintln!("sluice: {line}");
    }
    if !args.once {
        if !args.json {
            print!("{}", what_next());
        }
        let _ = runtime.block_on(interrupted.wait_for(|stop| *stop));
    }
    Ok(wrong.is_empty())
}

fn start_gateway(datapath: crate::kernel::Datapath) -> Result<Child> {
    let mut args = vec![
        "run".to_owned(),
        format!("-f={}", place::state("quickstart.yaml").display()),
        format!("-f={}", place::state("lab-tls.yaml").display()),
        format!("--datapath={}", datapath.name()),
        format!("--pin-dir={}", place::PIN_DIR),
        format!("--state-dir={}", place::state("gateway").display()),
        format!("--admin=unix:{}", place::admin_socket().display()),
        format!("--admin={}", crate::settings::ADMIN_DEFAULT),
        "--interface=client".to_owned(),
    ];
    args.extend(BACKENDS.map(|backend| format!("--interface={}", backend.name)));
    process::start("gateway", process::sluice_in(GATEWAY, &args)?)
}

/// Commands that work as printed while the laboratory is up.
fn what_next() -> String {
    let me = std::env::current_exe()
        .map(|path| path.display().to_string())
        .unwrap_or_else(|_| "sluice".to_owned());
    let admin = format!("unix:{}", place::admin_socket().display());
    let client = format!("ip netns exec {CLIENT}");
    let pem = place::state("lab-tls.pem");
    format!(
        "  It stays up until Ctrl-C. Try, from another terminal (as root):\n\n  \
         {me} status --admin {admin}\n  \
         {me} get listeners --admin {admin}\n  \
         {client} curl -s --http2-prior-knowledge -o /dev/null -w '%{{http_code}}\\n' http://{VIP_V4}:{PORT_HTTP}/grpc.health.v1.Health/Check\n  \
         {client} curl -sv --cacert {pem} https://{VIP_V4}:{PORT_HTTPS}/ -o /dev/null\n  \
         {me} lab exec {CLIENT} -- {me} lab load --target {VIP_V4}:{PORT_L7} --requests 20000\n  \
         {me} lab exec {CLIENT} -- {me} lab load --target [2001:2::a]:{PORT_L4} --requests 20000\n  \
         curl -s --unix-socket {} http://admin/api/v1/connections\n\n  \
         The configuration it runs is {}: edit it and watch `status`.\n",
        place::admin_socket().display(),
        place::state("quickstart.yaml").display(),
        pem = pem.display(),
    )
}
