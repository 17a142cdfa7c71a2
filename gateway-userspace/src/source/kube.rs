//! Configuration from an API server: every kind we know that it serves is watched, and statuses are written back.
//!
//! A thread of its own turns what the watches show into typed [`Change`]s, gathers them for [`SETTLE`] and tells the
//! control loop; what waits is at most one change per object, the newest. The first word comes when every watch had its
//! whole list, so that nothing is ever compiled from half of the cluster. Losing the API server changes nothing: the
//! last revision stays, the watches try again with growing pauses, and what changed meanwhile comes as changes.
//!
//! Statuses are written by one process of those that run ([`lease`]), after its data plane has the revision that they
//! are about, and only where they differ from what is there.
//!
//! # Rights
//!
//! | group | resources | verbs |
//! |---|---|---|
//! | `gateway.networking.k8s.io` | `gatewayclasses gateways listenersets httproutes grpcroutes tcproutes tlsroutes udproutes referencegrants backendtlspolicies` | `get list watch` |
//! | `gateway.networking.k8s.io` | `gatewayclasses/status gateways/status listenersets/status httproutes/status grpcroutes/status tcproutes/status tlsroutes/status udproutes/status backendtlspolicies/status` | `patch` |
//! | core | `services secrets configmaps namespaces` | `get list watch` |
//! | core | `nodes`; the own one is asked for, by name | `list watch` |
//! | core | `services/status` | `patch` |
//! | core | `services`, for those that stand for Gateways | `create patch delete` |
//! | `discovery.k8s.io` | `endpointslices`, likewise | `create patch delete` |
//! | `sluice.dev` | `gatewayclassconfigs` | `get list watch` |
//! | `certificates.k8s.io` | `clustertrustbundles` | `get list watch` |
//! | `apiextensions.k8s.io` | `customresourcedefinitions` | `get` |
//! | `gateway.envoyproxy.io` | `backends` | `get list watch` |
//! | `discovery.k8s.io` | `endpointslices` | `get list watch` |
//! | `coordination.k8s.io` | `leases`, in the own namespace | `get create update` |
//!
//! Discovery (`/apis`, `/version`) is open to every account. With `--kube-namespace` all but `gatewayclasses`,
//! `namespaces` and `nodes` may be granted in those namespaces alone.

mod discovery;
mod lease;
mod pause;
mod seen;
mod shape;
mod stamp;
mod standing;
mod watch;
mod world;
mod writer;

use crate::telemetry::cluster::ClusterFacts;
use anyhow::{Context, Result};
use gateway_compiler::generated::GatewayService;
use gateway_compiler::objects::{Change, ObjectId};
use gateway_compiler::status::{ObjectStatus, Status};
use kube::Client;
use kube::config::{Config, KubeConfigOptions};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch as latest;
use world::World;

/// Quiet time after a change before it is told: what belongs together comes together.
pub const SETTLE: Duration = Duration::from_millis(5);
/// A change that others keep company is told after so long.
pub const SETTLE_MAX: Duration = Duration::from_millis(50);
/// Who wrote our part of a status, in `metadata.managedFields`.
pub const FIELD_OWNER: &str = "sluice.dev/gateway-controller";
/// Time for giving the lease back at the end.
const RELEASE_MAX: Duration = Duration::from_secs(1);
/// Until the API server takes a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Which cluster, and what of it.
#[derive(Clone, Debug)]
pub struct KubeOptions {
    /// Namespaces that are watched; empty: all.
    pub namespaces: Vec<String>,
    /// Context of the kubeconfig; `None`: the current one, or the service account of the Pod.
    pub context: Option<String>,
    /// The node this runs on: of all Nodes it alone is watched. `None`: none is.
    pub node: Option<String>,
    /// `controllerName` of our entries in statuses.
    pub controller: String,
    /// Of several processes one writes statuses; else every one does.
    pub election: bool,
}

/// What the compiled objects are told about themselves, and when that is true.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The data plane has it when its workers took this revision.
    pub revision: u64,
    /// In order of their objects.
    pub statuses: Arc<Vec<Arc<ObjectStatus>>>,
    /// Objects whose newest version could not be used: what they were told before stays.
    pub broken: Arc<BTreeSet<ObjectId>>,
    /// What stands in the cluster for each Gateway.
    pub generated: Arc<Vec<GatewayService>>,
    /// When the oldest change in it was seen.
    pub since: Option<Instant>,
}

impl Verdict {
    fn status(&self, id: &ObjectId) -> Option<Status> {
        let at = self.statuses.binary_search_by(|one| one.object.cmp(id)).ok()?;
        self.statuses.get(at).map(|one| one.status.clone())
    }
}

/// What the rest of the process does for the cluster's thread.
pub struct Hooks {
    /// Says that changes wait to be taken; false when nobody could be told.
    pub nudge: Box<dyn Fn() -> bool + Send + Sync>,
    /// The newest revision that every worker has.
    pub taken: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// Changes that were gathered.
#[derive(Debug, Default)]
pub struct Batch {
    pub changes: Vec<Change>,
    /// When the oldest was seen.
    pub since: Option<Instant>,
    /// Version of the Gateway API that is installed; `None`: nobody says.
    pub api_version: Option<String>,
}

/// The running source. Dropping it ends the thread.
pub struct Cluster {
    world: Arc<World>,
    facts: Arc<ClusterFacts>,
    verdicts: latest::Sender<Verdict>,
    client: Client,
    /// Where the Lease is, if this process runs for it.
    election: Option<String>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Cluster {
    /// Reads who to talk to, and begins. An API server that does not answer is no error: it may come.
    pub fn start(options: KubeOptions, hooks: Hooks) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kube")
            .enable_all()
            .build()
            .context("start tokio")?;
        let client = runtime.block_on(client(&options))?;
        let facts = Arc::new(ClusterFacts::default());
        facts.set_leader(!options.election);
        let election = options.election.then(|| own_namespace(&client));
        let world = Arc::new(World::new(facts.clone(), options, hooks));
        let (verdicts, newest) = latest::channel(Verdict::default());
        runtime.spawn(world.clone().pace());
        runtime.spawn(discovery::run(world.clone(), client.clone()));
        runtime.spawn(discovery::pulse(world.clone(), client.clone()));
        runtime.spawn(standing::run(world.clone(), client.clone(), newest.clone()));
        runtime.spawn(writer::run(world.clone(), client.clone(), newest));
        if let Some(namespace) = &election {
            runtime.spawn(lease::run(world.clone(), client.clone(), namespace.clone()));
        }
        Ok(Self {
            world,
            facts,
            verdicts,
            client,
            election,
            runtime: Some(runtime),
        })
    }

    /// Every watch had its whole list: what is taken from now on is the whole cluster.
    pub fn complete(&self) -> bool {
        self.facts.complete()
    }

    /// What changed since the last call. Nothing before [`Cluster::complete`].
    pub fn take(&self) -> Batch {
        self.world.take()
    }

    /// Says what the objects came to.
    pub fn tell(&self, verdict: Verdict) {
        self.verdicts.send_replace(verdict);
    }

    pub fn facts(&self) -> Arc<ClusterFacts> {
        self.facts.clone()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            if let Some(namespace) = &self.election
                && self.facts.leader()
            {
                self.facts.set_leader(false);
                let release = lease::release(self.client.clone(), namespace);
                // Nobody waits for a process that ends; the lease runs out by itself.
                let _ = runtime.block_on(async { tokio::time::timeout(RELEASE_MAX, release).await });
            }
            runtime.shutdown_background();
        }
    }
}

/// Where our own things are: `POD_NAMESPACE`, else the service account's or the context's namespace.
fn own_namespace(client: &Client) -> String {
    let told = std::env::var("POD_NAMESPACE")
        .ok()
        .filter(|namespace| !namespace.is_empty());
    told.unwrap_or_else(|| client.default_namespace().to_owned())
}

async fn client(options: &KubeOptions) -> Result<Client> {
    let mut config = match &options.context {
        Some(context) => {
            let options = KubeConfigOptions {
                context: Some(context.clone()),
                ..KubeConfigOptions::default()
            };
            let config = Config::from_kubeconfig(&options).await;
            config.with_context(|| format!("context `{context}` of the kubeconfig"))?
        }
        None => Config::infer().await.context(
            "no cluster is named: set KUBECONFIG, write ~/.kube/config, or run in a Pod with a service account",
        )?,
    };
    config.connect_timeout = Some(CONNECT_MAX);
    Client::try_from(config).context("the kubeconfig cannot be used")
}
