//! The gateway under test, on the node, beside the cluster and told of it by its kubeconfig.

use std::path::Path;
use std::time::Duration;

use super::build::Built;
use super::cluster::{Cluster, KUBECONFIG};
use super::process::Process;
use super::topology::{NODE, NODE_INTERFACES, POOL};
use crate::shell::Failure;

/// The class that tests use, and whose it is.
pub const CLASS: &str = "sluice";
const CONTROLLER: &str = "sluice.dev/gateway-controller";
const START_MAX: Duration = Duration::from_secs(30);

pub struct Gateway(Process);

impl Gateway {
    /// Makes the class, starts the gateway, waits until it serves and has taken the class.
    pub fn start(built: &Built, cluster: &Cluster, out: &Path) -> Result<Self, Failure> {
        cluster.apply(
            "class.yaml",
            &format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {CLASS}}}\n\
                 spec: {{controllerName: {CONTROLLER}}}\n"
            ),
        )?;
        let mut args = ["run", "--kube", "--address-pool", POOL].map(str::to_owned).to_vec();
        args.extend(
            NODE_INTERFACES
                .iter()
                .flat_map(|name| ["--interface".to_owned(), (*name).to_owned()]),
        );
        let env = [("KUBECONFIG", KUBECONFIG)];
        let mut process = Process::start("gateway", Some(NODE), &built.gateway, &args, &env, out)?;
        let log = out.join("gateway.log");
        process.wait_until("it says `ready`", START_MAX, || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.lines().any(|line| line.starts_with("ready ")))
        })?;
        process.wait_until("its GatewayClass is Accepted", START_MAX, || {
            let accepted = "{.status.conditions[?(@.type==\"Accepted\")].status}";
            cluster
                .kubectl(&format!("get gatewayclass {CLASS} -o jsonpath={accepted}"))
                .is_ok_and(|status| status == "True")
        })?;
        Ok(Self(process))
    }

    /// An error when it has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.0.check()
    }
}
