//! `cargo xtask package`: the chart and the kustomizations, as users get them: rendered by real Helm and kubectl, taken by
//! a real API server, and the DaemonSet's pod run from its own manifest by the process kubelet.
//!
//! `--build` only builds what this and `cargo xtask conformance` need from Go modules: from cold the longest part of both.
//!
//! `config/kubernetes/base/sluice.yaml` is the chart with its default values, so that the two ways to install cannot part;
//! `--write` renders it anew.

pub mod render;

use crate::conformance;
use crate::setup::helm;
use crate::shell::{Failure, say};
use render::CASES;

pub fn verb(args: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let write = match words[..] {
        [] => false,
        ["--write"] => true,
        ["--build"] => {
            helm::ensure()?;
            return conformance::build();
        }
        _ => {
            let words = words.join(" ");
            return Err(Failure::usage(format!("package [--write|--build], not '{words}'")));
        }
    };
    let helm = helm::ensure()?;
    render::base(&helm, write)?;
    if write {
        return Ok(());
    }
    render::chart(&helm)?;
    say(&format!(
        "helm has rendered the chart in {} ways and refused what is wrong",
        CASES.len()
    ));
    conformance::verb(&["--package".to_owned()])
}
