//! Builds the control plane, the kubelet, CoreDNS and the suite from Go modules, each once for its sources.
//!
//! A part lies in a folder of the tools' cache that is named after all it is made of: the files of its module, `go.sum`
//! with the hash of every dependency among them, how it is compiled, and the version of Go. What Go itself keeps
//! (`go env GOCACHE GOMODCACHE`, 3 and 2 GB then) makes another version of a part cheap.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::EXIT_UNAVAILABLE;
use crate::setup::{self, Need, go};
use crate::shell::{self, Failure, say, words};
use crate::tools;

/// With any change of how parts are built: those built before are not taken for new ones.
const RECIPE: &str = "1";
/// Modules in `tests/conformance/cluster`; `suite/VERSION` is one more.
const SOURCES: &str = "tests/conformance/cluster";

/// Folders with what was built, and the gateway.
#[derive(Debug, PartialEq, Eq)]
pub struct Built {
    /// `kube`: etcd, the API server, the controller manager, kubectl.
    pub kube: PathBuf,
    /// `pkubelet` and `mkcerts`.
    pub kubelet: PathBuf,
    /// `coredns`.
    pub coredns: PathBuf,
    /// `conformance.test`, `echo-basic` and `crd/`.
    pub suite: PathBuf,
    /// The binary itself.
    pub gateway: PathBuf,
}

impl Built {
    const PATHS: usize = 5;

    pub fn args(&self) -> [String; Self::PATHS] {
        [&self.kube, &self.kubelet, &self.coredns, &self.suite, &self.gateway].map(|path| path.display().to_string())
    }

    /// Reads [`Built::args`] and returns the words behind them.
    pub fn from_args(args: &[String]) -> Result<(Self, &[String]), Failure> {
        let Some((paths, rest)) = args.split_first_chunk::<{ Self::PATHS }>() else {
            return Err(Failure::usage("only the verb itself starts its inner part"));
        };
        let [kube, kubelet, coredns, suite, gateway] = paths.each_ref().map(PathBuf::from);
        let built = Self {
            kube,
            kubelet,
            coredns,
            suite,
            gateway,
        };
        Ok((built, rest))
    }
}

/// Builds what is missing.
pub fn ensure(suite: &str, gateway: PathBuf) -> Result<Built, Failure> {
    let go = Go::find()?;
    let began = Instant::now();
    let mut warm = true;
    let mut part = |name: &str, parts: &[&str], about: &str, make: Make| {
        let (folder, was) = go.part(name, parts, about, make)?;
        warm &= was;
        Ok::<PathBuf, Failure>(folder)
    };
    let kubelet_parts = ["kube/pkubelet", "kube/mkcerts", "kube/go.mod", "kube/go.sum"];
    let built = Built {
        kube: part(
            "kube",
            &["kube/main.go", "kube/go.mod", "kube/go.sum"],
            KUBE_ABOUT,
            &kube,
        )?,
        kubelet: part("kubelet", &kubelet_parts, "the process kubelet", &kubelet)?,
        coredns: part("coredns", &["coredns"], "CoreDNS (half a minute from cold)", &coredns)?,
        suite: part(
            &format!("suite-{suite}"),
            &[&format!("suite/{suite}")],
            &format!("the suite {suite} (2 to 4 minutes from cold)"),
            &suite_of,
        )?,
        gateway,
    };
    if !warm {
        say(&format!("built in {} s", began.elapsed().as_secs()));
    }
    Ok(built)
}

/// Makes a part: with Go, from its sources, in a folder.
type Make<'a> = &'a dyn Fn(&Go, &Path, &Path) -> Result<(), Failure>;

const KUBE_ABOUT: &str = "etcd, kube-apiserver, kube-controller-manager and kubectl (10 minutes on two cores from cold, \
                          2.4 GB of memory; 800 MB are fetched)";

/// The go tool and what it calls itself.
struct Go {
    program: PathBuf,
    version: String,
}

impl Go {
    fn find() -> Result<Self, Failure> {
        if shell::find_program("go").is_none() {
            // What fetches and unpacks the pinned one.
            setup::packages(&[Need::Test])?;
        }
        let program = go::ensure().map_err(|failure| Failure {
            why: format!(
                "the control plane and the suite are built from Go modules, and there is no Go: {}. Install Go {} or newer \
                 (Debian: apt-get install golang-go from backports; or the tarball of go.dev/dl) and have it in PATH",
                failure.why,
                go::GO
            ),
            // Where nothing may be missing it is a failure like any other.
            exit: if std::env::var_os("CI").is_some() { shell::EXIT_FAILED } else { EXIT_UNAVAILABLE },
        })?;
        let mut asked = Command::new(&program);
        let version = shell::capture(asked.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))?;
        let version = version.trim().to_owned();
        Ok(Self { program, version })
    }

    /// Where `name` is, and whether it was there; if it was not, `make` puts it into a folder that is moved there whole.
    fn part(&self, name: &str, parts: &[&str], about: &str, make: Make) -> Result<(PathBuf, bool), Failure> {
        let sources = shell::root().join(SOURCES);
        let key = key(&sources, parts, &self.version)?;
        let all = tools::folder().join("conformance");
        let folder = all.join(format!("{name}-{key:016x}"));
        if folder.is_dir() {
            return Ok((folder, true));
        }
        say(&format!("building {about}"));
        let began = Instant::now();
        // Another run may build the same: each has its own, the first one in place is as good.
        let beside = all.join(format!("{name}-new-{}", std::process::id()));
        fs::create_dir_all(&beside).map_err(failed(&beside))?;
        let made = make(self, &sources, &beside);
        if made.is_ok() && fs::rename(&beside, &folder).is_err() && !folder.is_dir() {
            return Err(Failure::new(format!("{} cannot be moved into place", beside.display())));
        }
        let _ = fs::remove_dir_all(&beside);
        made?;
        say(&format!("built {name} in {} s", began.elapsed().as_secs()));
        Ok((folder, false))
    }

    /// A go command in a module: no C, so that all modules share compiled packages and binaries run in an empty root.
    fn command(&self, module: &Path) -> Command {
        let jobs = std::thread::available_parallelism().map_or(2, usize::from);
        let mut command = Command::new(&self.program);
        command.current_dir(module).env("CGO_ENABLED", "0").env("GOWORK", "off");
        command.env("GOFLAGS", format!("-trimpath -buildvcs=false -mod=readonly -p={jobs}"));
        // A suite may ask for a newer Go than the machine's: the go tool fetches it from the module proxy.
        command.env("GOTOOLCHAIN", "auto").env_remove("GOROOT");
        command
    }

    fn build(&self, module: &Path, flags: &str, output: &Path, package: &str) -> Result<(), Failure> {
        let mut command = self.command(module);
        command
            .args(["build", "-ldflags", flags, "-o"])
            .arg(output)
            .arg(package);
        shell::capture(&mut command).map(|_| ())
    }

    fn ask(&self, module: &Path, line: &str) -> Result<String, Failure> {
        let told = shell::capture(self.command(module).args(words(line)))?;
        Ok(told.trim().to_owned())
    }
}

fn kube(go: &Go, sources: &Path, into: &Path) -> Result<(), Failure> {
    let module = sources.join("kube");
    let version = go.ask(&module, "list -m -f {{.Version}} k8s.io/kubernetes")?;
    go.build(&module, &version_flags(&version), &into.join("kube"), ".")
}

/// A module build knows no version, and clients and admission policies read it.
fn version_flags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut flags = String::from("-s -w");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        let values = [
            ("gitVersion", version),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
            ("gitCommit", "module"),
            ("buildDate", "1970-01-01T00:00:00Z"),
        ];
        for (name, value) in values {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

fn kubelet(go: &Go, sources: &Path, into: &Path) -> Result<(), Failure> {
    for program in ["pkubelet", "mkcerts"] {
        go.build(
            &sources.join("kube"),
            "-s -w",
            &into.join(program),
            &format!("./{program}"),
        )?;
    }
    Ok(())
}

fn coredns(go: &Go, sources: &Path, into: &Path) -> Result<(), Failure> {
    go.build(&sources.join("coredns"), "-s -w", &into.join("coredns"), ".")
}

fn suite_of(go: &Go, sources: &Path, into: &Path) -> Result<(), Failure> {
    // `suite-v1.7.0-new-PID`
    let name = into.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let version = name.split('-').nth(1).unwrap_or_default();
    let module = sources.join("suite").join(version);
    let backend = fs::read_to_string(module.join("tools.go")).map_err(failed(&module))?;
    let backend = backend
        .lines()
        .find_map(|line| line.strip_prefix("import _ \"")?.strip_suffix('"'));
    let backend = backend.ok_or_else(|| Failure::new(format!("{}/tools.go imports no backend", module.display())))?;
    go.build(&module, "-s -w", &into.join("echo-basic"), backend)?;
    let mut tests = go.command(&module);
    tests
        .args(["test", "-c", "-ldflags", "-s -w", "-o"])
        .arg(into.join("conformance.test"))
        .arg(".");
    shell::capture(&mut tests)?;
    // The CRDs are in the module's zip; kubectl must not meet the kustomization beside them.
    let zip = go.ask(&module, "list -m -f {{.Dir}} sigs.k8s.io/gateway-api")?;
    for channel in ["standard", "experimental"] {
        let (from, to) = (
            Path::new(&zip).join("config/crd").join(channel),
            into.join("crd").join(channel),
        );
        fs::create_dir_all(&to).map_err(failed(&to))?;
        for entry in fs::read_dir(&from).map_err(failed(&from))? {
            let entry = entry.map_err(failed(&from))?;
            let name = entry.file_name();
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("gateway.") && name.ends_with(".yaml"))
            {
                let text = fs::read(entry.path()).map_err(failed(&from))?;
                fs::write(to.join(&name), text).map_err(failed(&to))?;
            }
        }
    }
    Ok(())
}

/// Of every file of `parts`, in order, with its name.
fn key(sources: &Path, parts: &[&str], version: &str) -> Result<u64, Failure> {
    let mut files = Vec::new();
    for part in parts {
        collect(&sources.join(part), &mut files)?;
    }
    files.sort();
    let mut hash = tools::fnv1a(format!("{RECIPE} {version}").as_bytes());
    for file in files {
        let name = file.strip_prefix(sources).unwrap_or(&file).display().to_string();
        hash = tools::fnv1a_more(hash, name.as_bytes());
        hash = tools::fnv1a_more(hash, &fs::read(&file).map_err(failed(&file))?);
    }
    Ok(hash)
}

fn collect(path: &Path, into: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if !path.is_dir() {
        into.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(failed(path))? {
        collect(&entry.map_err(failed(path))?.path(), into)?;
    }
    Ok(())
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::new(format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_by_its_files_and_by_go() {
        let sources = shell::root().join(SOURCES);
        let key = |parts: &[&str], version: &str| key(&sources, parts, version).expect("the sources are there");
        assert_eq!(key(&["coredns"], "go1.26"), key(&["coredns"], "go1.26"));
        assert_ne!(key(&["coredns"], "go1.26"), key(&["coredns"], "go1.27"));
        assert_ne!(key(&["suite/v1.7.0"], "go1.26"), key(&["suite/v1.6.3"], "go1.26"));
    }

    #[test]
    fn the_version_is_told_to_clients_and_servers() {
        let flags = version_flags("v1.36.3");
        assert!(
            flags.contains(" -X k8s.io/client-go/pkg/version.gitMinor=36 "),
            "{flags}"
        );
        assert!(
            flags.contains(" -X k8s.io/component-base/version.gitVersion=v1.36.3 "),
            "{flags}"
        );
    }

    #[test]
    fn what_was_built_is_handed_on_whole() {
        let built = Built {
            kube: "/a".into(),
            kubelet: "/b".into(),
            coredns: "/c".into(),
            suite: "/d e".into(),
            gateway: "/f".into(),
        };
        let args = [built.args().to_vec(), vec!["--keep".to_owned()]].concat();
        let (read, rest) = Built::from_args(&args).expect("its own words");
        assert!(read == built && rest == ["--keep"]);
        assert!(Built::from_args(&args[..3]).is_err());
    }
}
