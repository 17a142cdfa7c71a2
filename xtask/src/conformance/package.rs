//! The chart and the kustomizations in the cluster: what the API server says of them, and the DaemonSet's pod at work.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, STATE};
use super::topology::NODE_ADDRESS;
use crate::package::render::{CASES, KUSTOMIZATIONS, folder};
use crate::shell::{self, Failure, say, words};

const NAMESPACE: &str = "sluice-system";
const POD: &str = "-l app.kubernetes.io/name=sluice";
const READY_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// By number, those that our manifests may name.
const CAPABILITIES: [(&str, u32); 5] = [
    ("NET_BIND_SERVICE", 10),
    ("NET_ADMIN", 12),
    ("NET_RAW", 13),
    ("PERFMON", 38),
    ("BPF", 39),
];
/// The definition of PodMonitor is the Prometheus operator's; here it only has to be known.
const POD_MONITORS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: PodMonitor, listKind: PodMonitorList, plural: podmonitors, singular: podmonitor}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
const DEMO: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: demo}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
        - name: echo
          image: echo-basic
          env:
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: demo}
spec: {selector: {app: echo}, ports: [{port: 80, targetPort: 3000}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: demo}
spec:
  gatewayClassName: sluice
  listeners: [{name: http, protocol: HTTP, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: echo, namespace: demo}
spec:
  parentRefs: [{name: web}]
  rules: [{backendRefs: [{name: echo, port: 80}]}]
";

/// Everything, with what the API server or the pod did not like.
pub fn prove(cluster: &Cluster) -> Result<(), Failure> {
    let began = Instant::now();
    cluster.apply("podmonitors.yaml", POD_MONITORS)?;
    cluster.apply(
        "namespaces.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {name: sluice-system}\n",
    )?;
    // A definition and objects of it in one file: the objects are judged once it is known.
    let definitions = shell::root().join("config/kubernetes/charts/sluice/crds");
    cluster.kubectl(&format!("apply --server-side -f {}", definitions.display()))?;
    cluster.kubectl("wait --for=condition=Established crd --all --timeout=30s")?;
    for case in CASES {
        let file = folder().join(format!("{}.yaml", case.name));
        cluster.kubectl(&format!(
            "apply --dry-run=server --validate=strict -f {}",
            file.display()
        ))?;
    }
    for name in KUSTOMIZATIONS {
        let file = kustomize(cluster, name)?;
        cluster.kubectl(&format!("apply --dry-run=server --validate=strict -f {file}"))?;
    }
    say(&format!(
        "the API server takes {} renderings of the chart and {} kustomizations ({:.1} s)",
        CASES.len(),
        KUSTOMIZATIONS.len(),
        began.elapsed().as_secs_f64()
    ));
    cluster.apply("demo.yaml", DEMO)?;
    let chart = folder().join("pool.yaml").display().to_string();
    at_work(cluster, "the chart with a pool", &chart, Some("10.244.1."), "STOP")?;
    let without = kustomize(cluster, "config/kubernetes/overlays/no-bpf")?;
    at_work(cluster, "the overlay no-bpf", &without, None, "KILL")?;
    say(&format!(
        "packaging is proven in {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Applies a manifest, sees its pod Ready with exactly the capabilities that it names, a route served at an address of the
/// pool (or of the node), the pod started again after `signal`, and all of it gone when it is deleted.
fn at_work(cluster: &Cluster, what: &str, manifest: &str, pool: Option<&str>, signal: &str) -> Result<(), Failure> {
    let began = Instant::now();
    cluster.kubectl(&format!("apply --server-side --force-conflicts -f {manifest}"))?;
    cluster.kubectl(&format!("-n {NAMESPACE} rollout status daemonset/sluice --timeout=30s"))?;
    let ready = began.elapsed();
    let shown = confined(cluster)?;
    cluster.kubectl("wait gatewayclass/sluice --for=condition=Accepted --timeout=30s")?;
    let address = match pool {
        None => NODE_ADDRESS.to_owned(),
        Some(pool) => wait("the Gateway has an address of the pool", || {
            let told = cluster.kubectl("-n demo get gateway web -o jsonpath={.status.addresses[0].value}");
            told.ok()
                .map(|told| told.trim().to_owned())
                .filter(|told| told.starts_with(pool))
        })?,
    };
    let served = || {
        wait("the route is served", || {
            let mut curl = cluster.client_command("curl");
            curl.args(["-sS", "-f", "-m", "2"]).arg(format!("http://{address}/"));
            shell::capture(&mut curl).ok().filter(|body| body.contains("echo-"))
        })
    };
    served()?;
    let first = began.elapsed();
    // One that hangs is ended by its liveness probe; the next finds what it left in the kernel.
    shell::capture(std::process::Command::new("kill").args(["-s", signal, &pid(cluster)?]))?;
    wait("the container was started again", || {
        let count = "jsonpath={.items[0].status.containerStatuses[0].restartCount}";
        let told = cluster
            .kubectl(&format!("-n {NAMESPACE} get pod {POD} -o {count}"))
            .ok()?;
        (told.trim() == "1").then_some(())
    })?;
    cluster.kubectl(&format!(
        "-n {NAMESPACE} wait pod {POD} --for=condition=Ready --timeout=30s"
    ))?;
    served()?;
    if pool.is_some() {
        replaced(cluster, &address)?;
    }
    let log = cluster.kubectl(&format!("-n {NAMESPACE} logs daemonset/sluice"))?;
    if let Some(line) = log.lines().find(|line| line.to_lowercase().contains("forbidden")) {
        return Err(Failure::new(format!("{what}: it may not do what it does: {line}")));
    }
    cluster.kubectl(&format!("delete -f {manifest} --ignore-not-found --timeout=60s"))?;
    wait("the pod is gone", || {
        let told = cluster.kubectl(&format!("-n {NAMESPACE} get pod {POD} -o name")).ok()?;
        told.trim().is_empty().then_some(())
    })?;
    if Path::new("/sys/fs/bpf/sluice").exists() {
        return Err(Failure::new(format!("{what}: pins are left in /sys/fs/bpf/sluice")));
    }
    say(&format!(
        "{what}: Ready after {:.1} s with {shown}, a route served after {:.1} s, restarted after SIG{signal}, deleted; nothing is left",
        ready.as_secs_f64(),
        first.as_secs_f64()
    ));
    Ok(())
}

/// A rollout that starts the new pod beside the old one, which hands over to it: no request may notice.
fn replaced(cluster: &Cluster, address: &str) -> Result<(), Failure> {
    let over = format!("{STATE}/rolled-out");
    let script = format!(
        "asked=0; lost=0; until [ -e {over} ]; do asked=$((asked + 1)); \
         curl -sf -m 2 -o /dev/null http://{address}/ || lost=$((lost + 1)); done; echo $asked asked, $lost lost"
    );
    let mut client = cluster.client_command("sh");
    client.args(["-c", &script]).stdout(Stdio::piped());
    let client = client
        .spawn()
        .map_err(|error| Failure::new(format!("sh did not start: {error}")))?;
    let rolled = cluster
        .kubectl(&format!("-n {NAMESPACE} rollout restart daemonset/sluice"))
        .and_then(|_| cluster.kubectl(&format!("-n {NAMESPACE} rollout status daemonset/sluice --timeout=40s")));
    // Also when it failed: the client must end.
    let _ = fs::write(&over, "");
    let told = client
        .wait_with_output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    rolled?;
    let told = told.map_err(|error| Failure::new(format!("the client: {error}")))?;
    if !told.ends_with(" 0 lost") || told.starts_with("0 ") {
        return Err(Failure::new(format!("a pod that takes over from another: {told}")));
    }
    say(&format!("a new pod took over from the old one: {told}"));
    Ok(())
}

/// Compares what the kernel says of the process with the manifest.
fn confined(cluster: &Cluster) -> Result<String, Failure> {
    let path = "jsonpath={.items[0].spec.containers[0].securityContext.capabilities.add}";
    let named = cluster.kubectl(&format!("-n {NAMESPACE} get pod {POD} -o {path}"))?;
    let names: Vec<&str> = named
        .trim()
        .trim_matches(['[', ']'])
        .split(',')
        .map(|name| name.trim_matches('"'))
        .collect();
    let mut mask = 0_u64;
    for name in &names {
        let known = CAPABILITIES.iter().find(|(known, _)| known == name);
        let (_, bit) = known.ok_or_else(|| Failure::new(format!("the manifest names {name}, which nobody expects")))?;
        mask |= 1 << bit;
    }
    let pid = pid(cluster)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|error| Failure::new(format!("/proc/{pid}/status: {error}")))?;
    let whole = format!("{mask:016x}");
    let none = format!("{:016x}", 0);
    let wanted = [
        ("CapEff", whole.as_str()),
        ("CapPrm", &whole),
        ("CapBnd", &whole),
        ("CapInh", &none),
        ("CapAmb", &none),
        ("NoNewPrivs", "1"),
    ];
    for (field, value) in wanted {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        if line.map(str::trim) != Some(value) {
            return Err(Failure::new(format!(
                "the pod's {field} is {:?}, and {value} is what its manifest says ({named})",
                line.map(str::trim)
            )));
        }
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"));
    if !root.is_some_and(|line| line.split(' ').nth(5).is_some_and(|flags| flags.starts_with("ro"))) {
        return Err(Failure::new(format!("the pod's root is not read-only: {root:?}")));
    }
    Ok(format!("CapEff {whole} ({})", names.join(" ")))
}

/// Of the pod's process, as this namespace knows it.
fn pid(cluster: &Cluster) -> Result<String, Failure> {
    let path = "jsonpath={.items[0].status.containerStatuses[0].containerID}";
    let told = cluster.kubectl(&format!("-n {NAMESPACE} get pod {POD} -o {path}"))?;
    let pid = told.trim().strip_prefix("process://");
    pid.map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("the pod's container is {told:?}")))
}

/// A kustomization, built into a file.
fn kustomize(cluster: &Cluster, name: &str) -> Result<String, Failure> {
    let text = cluster.kubectl(&format!("kustomize {}", shell::root().join(name).display()))?;
    let last = words(&name.replace('/', " ")).last().unwrap_or_default().to_owned();
    let file = folder().join(format!("kustomize-{last}.yaml"));
    fs::write(&file, text).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    Ok(file.display().to_string())
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if began.elapsed() > READY_MAX {
            return Err(Failure::new(format!(
                "after {} s it is not so that {what}",
                READY_MAX.as_secs()
            )));
        }
        sleep(POLL);
    }
}
