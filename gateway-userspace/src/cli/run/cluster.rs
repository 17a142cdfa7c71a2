//! `sluice run --kube`: which cluster is watched, and its start.

use super::super::exit::{Code, Exit};
use crate::control::Message;
use crate::source::kube::{Batch, Cluster, Hooks, KubeOptions};
use crate::worker::Workers;
use clap::Args;
use gateway_compiler::Settings;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A successor that cannot read the cluster within this does not take over.
const READ_MAX: Duration = Duration::from_secs(20);

/// A cluster as a source; beside files both count, and of two objects of one name the file's.
#[derive(Args, Debug)]
pub(super) struct ClusterArgs {
    /// Watch a Kubernetes cluster: the one of KUBECONFIG, else of ~/.kube/config, else of the Pod's service account.
    #[arg(long, env = "SLUICE_KUBE")]
    pub(super) kube: bool,
    /// Namespaces to watch; all without. May be given more than once.
    #[arg(long, env = "SLUICE_KUBE_NAMESPACE", value_name = "NS", value_delimiter = ',')]
    kube_namespace: Vec<String>,
    /// Context of the kubeconfig.
    #[arg(long, env = "SLUICE_KUBE_CONTEXT", value_name = "NAME")]
    kube_context: Option<String>,
    /// Of all processes that watch the cluster one writes statuses, the holder of a Lease in POD_NAMESPACE; with false
    /// every one does.
    #[arg(
        long,
        env = "SLUICE_KUBE_LEADER_ELECTION",
        default_value_t = true,
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    kube_leader_election: bool,
}

impl ClusterArgs {
    /// Begins to watch, if that is asked. `crew`: the workers, as soon as there are some.
    pub(super) fn start(
        &self,
        settings: &Settings,
        sender: &SyncSender<Message>,
        crew: &Arc<OnceLock<Arc<Workers>>>,
    ) -> Result<Option<Arc<Cluster>>, Exit> {
        if !self.kube {
            return Ok(None);
        }
        let options = KubeOptions {
            namespaces: self.kube_namespace.clone(),
            context: self.kube_context.clone(),
            node: settings.node.clone(),
            controller: settings.controller.clone(),
            election: self.kube_leader_election,
        };
        let (nudged, crew) = (sender.clone(), crew.clone());
        let hooks = Hooks {
            nudge: Box::new(move || nudged.try_send(Message::Cluster).is_ok()),
            taken: Box::new(move || crew.get().map_or(0, |workers| workers.taken())),
        };
        let cluster = Cluster::start(options, hooks);
        let cluster = cluster.map_err(|error| Exit::new(Code::Config, format!("--kube: {error:#}")))?;
        Ok(Some(Arc::new(cluster)))
    }
}

/// Waits until everything is read: a successor that has not seen the cluster would serve less than its predecessor.
pub(super) fn whole(cluster: &Cluster) -> Result<Batch, Exit> {
    /// Between two looks.
    const LOOK: Duration = Duration::from_millis(20);
    let until = Instant::now() + READ_MAX;
    while !cluster.complete() {
        if Instant::now() >= until {
            let why = format!("the cluster was not read within {READ_MAX:?}");
            return Err(Exit::new(Code::Config, why));
        }
        std::thread::sleep(LOOK);
    }
    Ok(cluster.take())
}
