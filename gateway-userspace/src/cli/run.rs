//! `sluice run`: start-up in order, and the end.

mod cluster;
mod succession;

use super::exit::{Code, Exit};
use super::log::{self, LogFormat};
use crate::admin::server::{self, Doors};
use crate::admin::state::AdminState;
use crate::control::configuration::Configuration;
use crate::control::{Control, Message};
use crate::kernel::{Datapath, Kernel, KernelError, KernelOptions};
use crate::settings::{ADMIN_DEFAULT, AdminAddr, Assignment, Tunables, duration};
use crate::source::file::FileSource;
use crate::source::names::Names;
use crate::sys::caps::raise_open_files;
use crate::telemetry::access_log::{AccessLogOptions, Target};
use crate::telemetry::spans::SpanOptions;
use crate::worker::{RelayOptions, WorkerOptions, Workers};
use anyhow::Context;
use clap::Args;
use cluster::ClusterArgs;
use gateway_core::control::{ControlOptions, ControlState};
use gateway_http::limits::Limits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use succession::Succession;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Args, Debug)]
pub struct RunArgs {
    /// Configuration: a file, a directory, or - for standard input. May be given more than once.
    #[arg(
        short = 'f',
        long = "file",
        env = "SLUICE_FILE",
        value_name = "FILE|DIR|-",
        value_delimiter = ','
    )]
    files: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Interface that packets for kernel listeners come in on, and one for each side endpoints are on.
    #[arg(long, env = "SLUICE_INTERFACE", value_delimiter = ',')]
    interface: Vec<String>,
    /// Kernel programs to use; `auto` takes the best that works and says why not a better one.
    #[arg(long, env = "SLUICE_DATAPATH", value_enum, default_value = "auto")]
    datapath: Datapath,
    /// Worker threads; as many as CPUs by default.
    #[arg(long, env = "SLUICE_WORKERS")]
    workers: Option<u16>,
    /// Where the admin listens: HOST:PORT, unix:PATH or none. May be given more than once.
    #[arg(long, env = "SLUICE_ADMIN", value_delimiter = ',', default_value = ADMIN_DEFAULT)]
    admin: Vec<AdminAddr>,
    /// Where /livez, /readyz and /startupz are answered, and nothing else: HOST:PORT.
    #[arg(long, env = "SLUICE_PROBE", value_name = "HOST:PORT")]
    probe: Option<SocketAddr>,
    /// Addresses for Gateways that ask for none.
    #[arg(long, env = "SLUICE_ADDRESS_POOL", value_name = "CIDR", value_delimiter = ',')]
    address_pool: Vec<ipnet::IpNet>,
    /// Node this runs on: endpoints whose hints are for other nodes are left to them. With --kube its Node says the zone.
    #[arg(long, env = "SLUICE_NODE", value_name = "NAME")]
    node: Option<String>,
    /// Zone this runs in: endpoints whose hints are for other zones are left to them.
    #[arg(long, env = "SLUICE_ZONE", value_name = "ZONE")]
    zone: Option<String>,
    /// Declare that replies of every endpoint come back through this machine.
    #[arg(long, env = "SLUICE_RETURN_PATH", value_parser = ["gateway"])]
    return_path: Option<String>,
    /// Files of this gateway's own.
    #[arg(long, env = "SLUICE_STATE_DIR", default_value = "/var/lib/sluice")]
    state_dir: PathBuf,
    /// Where maps and links are pinned, in a bpffs.
    #[arg(long, env = "SLUICE_PIN_DIR", default_value = "/sys/fs/bpf/sluice")]
    pin_dir: PathBuf,
    /// Leave the kernel programs forwarding after a clean exit.
    #[arg(long, env = "SLUICE_KEEP_KERNEL")]
    keep_kernel: bool,
    /// From SIGTERM to the end, at most.
    #[arg(long, env = "SLUICE_DRAIN_TIME", default_value = "30s", value_parser = duration, value_name = "DUR")]
    drain_time: Duration,
    /// Change a limit or a log setting: PATH=VALUE.
    #[arg(long = "set", env = "SLUICE_SET", value_delimiter = ',', value_name = "PATH=VALUE")]
    assignments: Vec<Assignment>,
    #[arg(long, env = "SLUICE_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// Messages waiting for the control loop.
const MESSAGES_MAX: usize = 1024;

pub fn run(args: RunArgs) -> super::Result {
    let started = Instant::now();
    // The client logs every try at an API server that is away; the source says once that it is.
    log::init(args.log_format, "info,kube_client=off");
    let mut tunables = Tunables::default();
    for assignment in &args.assignments {
        tunables
            .set(assignment)
            .map_err(|error| Exit::new(Code::Usage, error))?;
    }
    if args.files.is_empty() && !args.cluster.kube {
        return Err(Exit::new(
            Code::Usage,
            "nothing to serve: give configuration with -f FILE, -f DIR or -f -, or a cluster with --kube",
        ));
    }
    let source = FileSource::new(args.files.clone()).map_err(|error| Exit::new(Code::Config, format!("{error:#}")))?;
    let mut succession = Succession::claim(&args)?;
    let running = match start(&args, &tunables, source, started, &mut succession) {
        Ok(running) => running,
        Err(exit) => {
            succession.failed(&exit);
            return Err(exit);
        }
    };
    running.serve(&args, &tunables, succession)
}

/// Everything that runs.
struct Running {
    control: Control,
    messages: Receiver<Message>,
    sender: SyncSender<Message>,
    kernel: Arc<Kernel>,
    workers: Arc<Workers>,
    admin: Arc<AdminState>,
    doors: Doors,
    /// It was told to end before it served.
    leaves: bool,
    /// Kept until the end: the admin lives in it.
    _runtime: tokio::runtime::Runtime,
}

/// Starts everything; on the return this process serves. A successor takes the kernel's maps from its predecessor first,
/// and the connections last, when it could not be readier.
fn start(
    args: &RunArgs,
    tunables: &Tunables,
    source: FileSource,
    started: Instant,
    succession: &mut Succession,
) -> Result<Running, Exit> {
    let (sender, messages) = sync_channel(MESSAGES_MAX);
    let settings = gateway_compiler::Settings {
        address_pools: args.address_pool.clone(),
        node: args.node.clone(),
        zone: args.zone.clone(),
        // Kubernetes forbids them, and whoever may write an EndpointSlice would reach what listens on this host alone.
        loopback_endpoints: !args.cluster.kube,
        // With a pool addresses are what it gives, each to one Gateway alone.
        any_address: !args.cluster.kube,
        ..Default::default()
    };
    // Filled in when there are workers; nothing is told of a revision before.
    let crew: Arc<OnceLock<Arc<Workers>>> = Arc::default();
    let cluster = args.cluster.start(&settings, &sender, &crew)?;
    let mut configuration = Configuration::new(source, settings);
    let news = sender.clone();
    // Whoever would hear it has left when nobody does.
    let names = Names::start(move || drop(news.send(Message::Names))).context("start resolving names")?;
    configuration.resolve_by(names);
    if succession.takes_over() {
        if let Some(cluster) = &cluster {
            configuration.receive(cluster::whole(cluster)?);
        }
        configuration.whole().map_err(|why| Exit::new(Code::Config, why))?;
    }
    succession.yielded()?;
    let kernel = Arc::new(start_kernel(args, tunables, &sender)?);
    let status = kernel.status();
    succession.suits(&status)?;
    let workers = Arc::new(start_workers(args, tunables, started)?);
    let _ = crew.set(workers.clone());
    workers.inherit(std::mem::take(&mut succession.inheritance.listeners));
    kernel.watch_load(workers.loads());

    let admin = Arc::new(AdminState::new(workers.clone(), kernel.clone()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .context("start tokio")?;
    runtime.spawn(signals(sender.clone()));
    let serve_admin = |succession: &mut Succession| {
        let inherited = std::mem::take(&mut succession.inheritance.admin);
        let mut doors = runtime.block_on(server::start(&args.admin, inherited, admin.clone()))?;
        if let Some(address) = args.probe {
            doors.open_probe(address, succession.inheritance.probe.take(), admin.clone())?;
        }
        anyhow::Ok(doors)
    };
    // A bad address is an error before anything else; a predecessor answers until this process can.
    let early = (!succession.takes_over())
        .then(|| serve_admin(succession))
        .transpose()?;

    let options = ControlOptions {
        ingress: if status.ingress == "off" {
            Err(status.reasons.join("; "))
        } else {
            Ok(())
        },
        lookup: status.lookup,
        drain_time: args.drain_time,
        keep_kernel: args.keep_kernel,
    };
    let mut control = Control::new(
        ControlState::new(options),
        configuration,
        kernel.clone(),
        workers.clone(),
        admin.clone(),
        started,
        sender.clone(),
    );
    control.watch_workers(tunables.watchdog);
    if let Some(cluster) = cluster {
        admin.join_cluster(cluster.facts());
        control.join_cluster(cluster);
    }
    control.begin();
    let leaves = control.await_cluster(&messages);
    // Not before the first revision is published: a worker must know the listener of a connection it gets.
    control.register_workers();
    workers.drop_inherited();
    admin.set_ready(!leaves);
    let doors = match early {
        Some(doors) => doors,
        None => serve_admin(succession)?,
    };
    Ok(Running {
        control,
        messages,
        sender,
        kernel,
        workers,
        admin,
        doors,
        leaves,
        _runtime: runtime,
    })
}

impl Running {
    /// Serves until the end, and removes what this process made.
    fn serve(mut self, args: &RunArgs, tunables: &Tunables, succession: Succession) -> super::Result {
        let (admin, kernel) = (&self.admin, &self.kernel);
        let path = succession.path.clone();
        let giver = succession.into_giver(tunables, self.sender.clone());
        if let Err(why) = &giver {
            tracing::info!("there can be no hand-over to a successor: {why}");
        }
        self.control.succeed_by(giver, self.doors);
        if !self.leaves {
            announce(admin, kernel.status().word());
            self.control.run(&self.messages);
        }

        admin.set_ready(false);
        if self.control.has_given() {
            self.workers.stop();
            return Ok(());
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        if self.control.failed() {
            // A worker that hangs cannot be waited for. Flows go on in the kernel until a new process adopts them.
            return Err(Exit::new(
                Code::Failed,
                "ended by a fault of its own; the log says which",
            ));
        }
        self.workers.stop();
        let removed = kernel.stop(args.keep_kernel).context("remove what was attached");
        for address in &args.admin {
            if let AdminAddr::Unix(path) = address {
                let _ = std::fs::remove_file(path);
            }
        }
        if let Some(path) = path {
            let _ = std::fs::remove_file(path);
        }
        Ok(removed?)
    }
}

fn start_kernel(args: &RunArgs, tunables: &Tunables, sender: &SyncSender<Message>) -> Result<Kernel, Exit> {
    let idle = sender.clone();
    let options = KernelOptions {
        datapath: args.datapath,
        interfaces: args.interface.clone(),
        pin_dir: args.pin_dir.clone(),
        return_path_gateway: args.return_path.is_some(),
        udp_idle: tunables.limits.udp_idle_timeout,
        on_idle: Box::new(move |endpoints| drop(idle.try_send(Message::EndpointsIdle(endpoints)))),
    };
    Kernel::start(options).map_err(|error| {
        let code = match &error {
            KernelError::Unavailable(_) => Code::Unavailable,
            KernelError::NotPermitted(_) => Code::NoPermission,
            KernelError::Failed(_) => Code::Failed,
        };
        Exit::new(code, error)
    })
}

fn start_workers(args: &RunArgs, tunables: &Tunables, started: Instant) -> Result<Workers, Exit> {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = args.workers.unwrap_or_else(|| u16::try_from(cpus).unwrap_or(u16::MAX));
    let most = u16::try_from(gateway_common::abi::WORKERS_MAX).unwrap_or(u16::MAX);
    if count == 0 || count > most {
        return Err(Exit::new(Code::Usage, format!("--workers {count}: 1 to {most}")));
    }
    let mut access_log = AccessLogOptions::from(tunables.access_log);
    if let Some(path) = &tunables.access_log_path {
        access_log.target = Target::File(path.clone());
    }
    let (limits, relay) = within_descriptors(tunables.limits.clone(), count);
    let options = WorkerOptions {
        workers: count,
        limits,
        relay,
        access_log,
        tls: tunables.tls.clone(),
        spans: SpanOptions::of(tunables).map_err(|error| Exit::new(Code::Usage, error))?,
        started,
        ..WorkerOptions::default()
    };
    Ok(Workers::start(options).context("start the workers")?)
}

/// At most half of the descriptors go to clients: the other half is for endpoints, the log and the admin. A relay takes
/// two, and may take four for its pipes.
fn within_descriptors(mut limits: Limits, workers: u16) -> (Limits, RelayOptions) {
    let mut relay = RelayOptions::default();
    let open_files = raise_open_files().unwrap_or(1024);
    let share = usize::try_from(open_files / 2 / u64::from(workers))
        .unwrap_or(usize::MAX)
        .max(1);
    if limits.connections_max > share && open_files < 200_000 {
        tracing::info!(
            open_files,
            share,
            "connections of a worker are limited by the descriptors there are"
        );
    }
    limits.connections_max = limits.connections_max.min(share);
    relay.relays_max = relay.relays_max.min(share / 2).max(1);
    limits.udp_sessions_max = limits.udp_sessions_max.min(share / 2).max(1);
    (limits, relay)
}

/// One line on stdout, for people and scripts, and the word to systemd.
fn announce(admin: &AdminState, datapath: &str) {
    let published = admin.published();
    println!(
        "ready listeners={} revision={} datapath={datapath}",
        published.ir.listeners.len() - published.unprogrammed.len(),
        published.snapshot.revision.0
    );
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// SIGHUP reloads, SIGTERM drains (the second ends), SIGINT ends, SIGUSR1 opens the access log anew, SIGUSR2 hands over.
async fn signals(sender: SyncSender<Message>) {
    let streams = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::user_defined1()),
        signal(SignalKind::user_defined2()),
    );
    let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt), Ok(mut reopen), Ok(mut upgrade)) = streams else {
        tracing::error!("signals cannot be caught");
        return;
    };
    loop {
        let message = tokio::select! {
            _ = hangup.recv() => Message::Reload,
            _ = terminate.recv() => Message::Drain,
            _ = interrupt.recv() => Message::Stop,
            _ = reopen.recv() => Message::ReopenLog,
            _ = upgrade.recv() => Message::Upgrade,
        };
        // A full queue means the loop is behind by a thousand messages; the signal is not worth blocking for.
        let _ = sender.try_send(message);
    }
}
