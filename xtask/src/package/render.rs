//! What Helm makes of the chart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run;
use crate::shell::{self, Failure, say, words};

const CHART: &str = "config/kubernetes/charts/sluice";
const BASE: &str = "config/kubernetes/base/sluice.yaml";
const NAMESPACE: &str = "sluice-system";
/// Folders for `kubectl kustomize`.
pub const KUSTOMIZATIONS: [&str; 4] = [
    "config/kubernetes/base",
    "config/kubernetes/overlays/host-network-lan",
    "config/kubernetes/overlays/kind",
    "config/kubernetes/overlays/no-bpf",
];

/// One way to install.
pub struct Case {
    pub name: &'static str,
    /// Arguments of `helm template`.
    values: &'static str,
    /// What must be in the result.
    shows: &'static [&'static str],
}

pub const CASES: &[Case] = &[
    Case {
        name: "default",
        values: "",
        shows: &["- PERFMON", "hostNetwork: true", "--probe=127.0.0.1:9902"],
    },
    Case {
        // On the topology of `conformance`.
        name: "pool",
        values: "--set addressPool={10.244.1.0/24} --set datapath.interfaces={client,pods0} --set workers=2 --set log.format=text \
                 --set livenessProbe.periodSeconds=1 --set livenessProbe.timeoutSeconds=1 --set livenessProbe.failureThreshold=2 \
                 --set livenessProbe.terminationGracePeriodSeconds=1 --set minReadySeconds=4 \
                 --set updateStrategy.rollingUpdate.maxUnavailable=0 --set updateStrategy.rollingUpdate.maxSurge=1",
        shows: &["--address-pool=10.244.1.0/24", "--interface=pods0"],
    },
    Case {
        name: "lan",
        values: "--set addressPool={192.0.2.0/28,2001:db8::/120} --set announce=true --set datapath.keepKernel=true --set datapath.mode=xdp",
        shows: &["- NET_RAW", "--keep-kernel", "--address-pool=2001:db8::/120"],
    },
    Case {
        name: "lookup",
        values: "--set datapath.mode=lookup --set probe.host=::1 --set settings.accessLog=json",
        shows: &["--probe=[::1]:9902", "--set=accessLog=json"],
    },
    Case {
        name: "pod-network",
        values: "--set hostNetwork=false --set probe.host=0.0.0.0 --set datapath.mode=off --set admin.address=0.0.0.0:9901 \
                 --set networkPolicy.enabled=true --set networkPolicy.adminFrom[0].namespaceSelector.matchLabels.team=ops",
        shows: &["kind: NetworkPolicy", "endPort: 9900", "team: ops"],
    },
    Case {
        name: "namespaces",
        values: "--set watchNamespaces={default,shop} --set gatewayClass.create=false --set fullnameOverride=edge",
        shows: &["--kube-namespace=shop", "name: edge-watch"],
    },
    Case {
        name: "monitored",
        values: "--set podMonitor.enabled=true --set admin.address=0.0.0.0:9901 --set updateStrategy.rollingUpdate.maxUnavailable=0 \
                 --set updateStrategy.rollingUpdate.maxSurge=1",
        shows: &["kind: PodMonitor", "maxSurge: 1"],
    },
];

/// Values that Helm must refuse, and a word of why.
const REFUSED: &[(&str, &str)] = &[
    ("--set datapath.mode=fast", "datapath/mode"),
    ("--set workers=-1", "workers"),
    ("--set adressPool={192.0.2.0/28}", "adressPool"),
    ("--set addressPool={here}", "addressPool"),
    ("--set podMonitor.enabled=true", "admin.address"),
    ("--set hostNetwork=false", "probe.host"),
];

/// Where results lie: `NAME.yaml` of each case.
pub fn folder() -> PathBuf {
    run::target_folder().join("package")
}

/// Lints the chart, renders every case, and sees that wrong values are refused with their names.
pub fn chart(helm: &Path) -> Result<(), Failure> {
    let folder = folder();
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    shell::capture(command(helm).args(["lint", "--strict", CHART]))?;
    for case in CASES {
        let text = template(helm, case.values)?;
        if let Some(missing) = case.shows.iter().find(|word| !text.contains(**word)) {
            return Err(Failure::new(format!(
                "the chart with `{}` shows no {missing}",
                case.values
            )));
        }
        if text.contains("default\"") || text.contains("%!") || text.contains("<no value>") {
            return Err(Failure::new(format!("the chart with `{}` has holes", case.values)));
        }
        let file = folder.join(format!("{}.yaml", case.name));
        fs::write(&file, text).map_err(failed(&file))?;
    }
    for (values, word) in REFUSED {
        match template(helm, values) {
            Ok(_) => return Err(Failure::new(format!("the chart takes `{values}`"))),
            Err(failure) if !failure.why.contains(word) => {
                let why = failure.why;
                return Err(Failure::new(format!(
                    "the chart refuses `{values}` without naming {word}: {why}"
                )));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Compares the base of the kustomizations with the chart, or writes it.
pub fn base(helm: &Path, write: bool) -> Result<(), Failure> {
    let text = format!(
        "# Rendered from the chart with its default values by `cargo xtask package --write`.\n{}",
        plain(&template(helm, "")?)
    );
    let file = shell::root().join(BASE);
    if fs::read_to_string(&file).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if !write {
        return Err(Failure::new(format!(
            "{BASE} is not what the chart gives: cargo xtask package --write"
        )));
    }
    say(&format!("writing {BASE}"));
    fs::write(&file, text).map_err(failed(&file))
}

/// Without the words that say that Helm looks after these objects.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let word = line.trim_start();
        if word.starts_with("helm.sh/chart:") || word.starts_with("# Source:") {
            continue;
        }
        out.push_str(&line.replace("managed-by: Helm", "managed-by: kustomize"));
        out.push('\n');
    }
    out
}

fn template(helm: &Path, values: &str) -> Result<String, Failure> {
    let mut template = command(helm);
    template
        .args(words("template sluice"))
        .arg(CHART)
        .args(["--include-crds", "--namespace", NAMESPACE]);
    shell::capture(template.args(words(values)))
}

/// Without what the user's own Helm has set up.
fn command(helm: &Path) -> Command {
    let mut command = Command::new(helm);
    command.current_dir(shell::root());
    let home = folder().join("helm");
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, &home);
    }
    command.env("KUBECONFIG", "/dev/null");
    command
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::new(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_not_said_to_be_of_helm() {
        let text =
            "# Source: x\nlabels:\n  app.kubernetes.io/managed-by: Helm\n  helm.sh/chart: sluice-0.1.0\nspec: {}\n";
        assert_eq!(
            plain(text),
            "labels:\n  app.kubernetes.io/managed-by: kustomize\nspec: {}\n"
        );
    }
}
