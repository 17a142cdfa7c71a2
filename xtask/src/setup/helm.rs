//! Helm, which renders the chart for users and so for us, pinned with all it is made of.
//!
//! `helm/go.mod` and `go.sum` name every module by version and hash. Only `package` asks for it.

use std::path::{Path, PathBuf};

use crate::setup::go;
use crate::shell::{self, Failure, say, words};
use crate::tools;

const GO_MOD: &str = include_str!("helm/go.mod");
const GO_SUM: &str = include_str!("helm/go.sum");

/// Where it is; built where it is not in the cache yet: two minutes on two cores.
pub fn ensure() -> Result<PathBuf, Failure> {
    let binary = tools::folder().join(format!("helm-{}/helm", tools::HELM));
    if binary.is_file() {
        return Ok(binary);
    }
    let folder = binary.with_file_name("build");
    say(&format!(
        "building helm {} into {} (two minutes)",
        tools::HELM,
        binary.display()
    ));
    std::fs::create_dir_all(&folder).map_err(failed(&folder))?;
    std::fs::write(folder.join("go.mod"), GO_MOD).map_err(failed(&folder))?;
    std::fs::write(folder.join("go.sum"), GO_SUM).map_err(failed(&folder))?;
    let mut build = go::command()?;
    build.current_dir(&folder);
    build.args(words("build -trimpath -buildvcs=false -mod=readonly -o helm -ldflags"));
    build.args(["-s -w", "helm.sh/helm/v4/cmd/helm"]);
    // The hashes are ours: no other database is asked.
    build.env("GOSUMDB", "off").env("GOFLAGS", "").env("GOWORK", "off");
    shell::capture(&mut build)?;
    std::fs::rename(folder.join("helm"), &binary).map_err(failed(&folder))?;
    std::fs::remove_dir_all(&folder).map_err(failed(&folder))?;
    Ok(binary)
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::new(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_modules_are_of_the_pinned_version() {
        let line = format!("helm.sh/helm/v4 {}", tools::HELM);
        assert!(GO_MOD.contains(&line) && GO_SUM.contains(&format!("{line} ")));
    }
}
