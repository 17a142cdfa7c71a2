//! The control plane and the kubelet, as processes, and the Gateway API's definitions in it.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::build::Built;
use super::process::Process;
use super::topology::{self, ALL, BRIDGE, CLIENT, CONTROL_ADDRESS, NODE, NODE_ADDRESS, PODS, PODS_PREFIX};
use crate::shell::{self, Failure, words};

/// State of the cluster, in memory.
pub const STATE: &str = "/run/cluster";
pub const KUBECONFIG: &str = "/run/cluster/pki/admin.kubeconfig";
/// Holds `kubectl` and `sluice`.
pub const CLIENT_PATH: &str = "/run/cluster/path";
const START_MAX: Duration = Duration::from_secs(60);
/// Programs of images that the suite names are linked into each pod's root from here: one file system.
const IMAGES: &str = "/run/cluster/images";

/// All that the suite needs; the scheduler's work is done by the kubelet.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,daemonset-controller,statefulset-controller,\
    job-controller,endpointslice-controller,endpoints-controller,endpointslice-mirroring-controller,namespace-controller,\
    serviceaccount-controller,root-ca-certificate-publisher-controller,garbage-collector-controller,\
    pod-garbage-collector-controller,clusterrole-aggregation-controller,validatingadmissionpolicy-status-controller";

pub struct Cluster {
    kube: PathBuf,
    processes: Vec<Process>,
}

impl Cluster {
    /// Starts all of it and applies the experimental channel's CRDs with the policy that guards their versions.
    pub fn start(built: &Built, out: &Path) -> Result<Self, Failure> {
        let mut cluster = Self {
            kube: built.kube.join("kube"),
            processes: Vec::new(),
        };
        cluster.place(built)?;
        let server = format!("https://{CONTROL_ADDRESS}:6443");
        let mut certificates = Command::new(built.kubelet.join("mkcerts"));
        certificates.arg(format!("{STATE}/pki")).arg(server);
        let names = "127.0.0.1 10.96.0.1 localhost kubernetes kubernetes.default kubernetes.default.svc";
        certificates.args([CONTROL_ADDRESS, NODE_ADDRESS]).args(words(names));
        shell::capture(&mut certificates)?;
        cluster.start_etcd(out)?;
        cluster.start_api_server(out)?;
        cluster.start_controllers(out)?;
        cluster.start_kubelet(built, out)?;
        let definitions = built.suite.join("crd/experimental");
        cluster.kubectl(&format!("apply --server-side -f {}", definitions.display()))?;
        cluster.kubectl("wait --for=condition=Established crd --all --timeout=30s")?;
        Ok(cluster)
    }

    /// Runs kubectl and returns what it prints.
    pub fn kubectl(&self, line: &str) -> Result<String, Failure> {
        let mut command = Command::new(&self.kube);
        command.arg("kubectl").args(words(line)).env("KUBECONFIG", KUBECONFIG);
        shell::capture(&mut command)
    }

    /// Applies manifests.
    pub fn apply(&self, name: &str, manifests: &str) -> Result<(), Failure> {
        let file = PathBuf::from(STATE).join(name);
        fs::write(&file, manifests).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
        self.kubectl(&format!("apply --server-side -f {}", file.display()))
            .map(|_| ())
    }

    /// A shell line in the client's namespace, with `kubectl` and `sluice` in PATH, on our standard streams.
    pub fn run_in_client(&self, script: &str, built: &Built) -> Result<(), Failure> {
        let mut command = self.client_command("sh");
        command.args(["-c", script]).env("SLUICE_BIN", &built.gateway);
        let status = command.status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::new(format!("`{script}` ended with {status}"))),
            Err(error) => Err(Failure::new(format!("nsenter (util-linux) did not start: {error}"))),
        }
    }

    /// `program` where clients are, with all it needs to use the cluster.
    pub fn client_command(&self, program: &str) -> Command {
        let mut command = topology::command_in(CLIENT, program);
        command.env("KUBECONFIG", KUBECONFIG);
        command.env("PATH", shell::path_with(Path::new(CLIENT_PATH)));
        command
    }

    /// An error when a part of it has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    fn place(&self, built: &Built) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("{STATE}: {error}"));
        for folder in [STATE, CLIENT_PATH, IMAGES] {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        for image in [built.suite.join("echo-basic"), built.coredns.join("coredns")] {
            let name = image.file_name().unwrap_or_default();
            fs::copy(&image, Path::new(IMAGES).join(name)).map_err(failed)?;
        }
        let kubectl = Path::new(CLIENT_PATH).join("kubectl");
        fs::write(
            &kubectl,
            format!("#!/bin/sh\nexec {} kubectl \"$@\"\n", self.kube.display()),
        )
        .map_err(failed)?;
        shell::capture(Command::new("chmod").arg("755").arg(&kubectl))?;
        std::os::unix::fs::symlink(&built.gateway, Path::new(CLIENT_PATH).join("sluice")).map_err(failed)
    }

    fn start_etcd(&mut self, out: &Path) -> Result<(), Failure> {
        let line = format!(
            "etcd --data-dir {STATE}/etcd --unsafe-no-fsync --log-level warn \
             --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
             --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
             --initial-cluster default=http://127.0.0.1:2380"
        );
        let mut etcd = self.launch("etcd", None, &line, out)?;
        etcd.wait_until("127.0.0.1:2379 answers", START_MAX, || {
            TcpStream::connect("127.0.0.1:2379").is_ok()
        })?;
        self.processes.push(etcd);
        Ok(())
    }

    fn start_api_server(&mut self, out: &Path) -> Result<(), Failure> {
        let pki = format!("{STATE}/pki");
        let line = format!(
            "apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address={CONTROL_ADDRESS} --secure-port=6443 \
             --advertise-address={CONTROL_ADDRESS} --endpoint-reconciler-type=none \
             --tls-cert-file={pki}/apiserver.crt --tls-private-key-file={pki}/apiserver.key --client-ca-file={pki}/ca.crt \
             --service-account-key-file={pki}/sa.pub --service-account-signing-key-file={pki}/sa.key \
             --service-account-issuer=https://kubernetes.default.svc.cluster.local \
             --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=RBAC --allow-privileged=true \
             --disable-admission-plugins=TaintNodesByCondition --enable-priority-and-fairness=false \
             --kubelet-certificate-authority={pki}/ca.crt \
             --kubelet-client-certificate={pki}/apiserver-kubelet-client.crt \
             --kubelet-client-key={pki}/apiserver-kubelet-client.key --kubelet-preferred-address-types=InternalIP --v=1"
        );
        let mut server = self.launch("apiserver", None, &line, out)?;
        server.wait_until("it is ready", START_MAX, || self.kubectl("get --raw /readyz").is_ok())?;
        self.processes.push(server);
        Ok(())
    }

    fn start_controllers(&mut self, out: &Path) -> Result<(), Failure> {
        let line = format!(
            "kcm --kubeconfig={STATE}/pki/kcm.kubeconfig --bind-address=127.0.0.1 --leader-elect=false \
             --use-service-account-credentials=true --controllers={CONTROLLERS} --root-ca-file={STATE}/pki/ca.crt \
             --service-account-private-key-file={STATE}/pki/sa.key --kube-api-qps=200 --kube-api-burst=400 --v=1"
        );
        let controllers = self.launch("controllers", None, &line, out)?;
        self.processes.push(controllers);
        Ok(())
    }

    fn start_kubelet(&mut self, built: &Built, out: &Path) -> Result<(), Failure> {
        let line = format!(
            "--kubeconfig={STATE}/pki/pkubelet.kubeconfig --node-ip={NODE_ADDRESS} --pod-cidr={PODS} \
             --prefix={PODS_PREFIX} --pod-routes={ALL} --bridge={BRIDGE} --root-dir={STATE}/pods \
             --pod-api-host={CONTROL_ADDRESS} --host-root={STATE}/host --tls-cert-file={STATE}/pki/kubelet.crt \
             --tls-private-key-file={STATE}/pki/kubelet.key --client-ca-file={STATE}/pki/ca.crt \
             --images=echo-basic={IMAGES}/echo-basic,coredns={IMAGES}/coredns,sluice=+{} --v=1",
            built.gateway.display()
        );
        let args: Vec<String> = words(&line).map(str::to_owned).collect();
        let program = built.kubelet.join("pkubelet");
        let mut kubelet = Process::start("kubelet", Some(NODE), &program, &args, &[], out)?;
        kubelet.wait_until(
            "its node is registered and service accounts are made",
            START_MAX,
            || self.kubectl("get node rig").is_ok() && self.kubectl("get serviceaccount default").is_ok(),
        )?;
        self.processes.push(kubelet);
        Ok(())
    }

    /// A part of the one binary.
    fn launch(&self, name: &'static str, namespace: Option<&str>, line: &str, out: &Path) -> Result<Process, Failure> {
        let args: Vec<String> = words(line).map(str::to_owned).collect();
        Process::start(name, namespace, &self.kube, &args, &[], out)
    }
}
