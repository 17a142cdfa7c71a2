//! The proxies: how each is started with equal work on one thread, and its version.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;
use super::rig::{self, Rig};
use crate::shell::{self, Failure};

/// The name of our column, and the base of every ratio.
pub const OURS: &str = "sluice";

/// A kind of proxy that can be measured.
pub struct Kind {
    pub name: &'static str,
    program: PathBuf,
    config: (&'static str, &'static str),
    line: fn(&Path, &Path) -> Vec<String>,
    version: &'static [&'static str],
}

/// One that runs.
pub struct Proxy {
    pub kind: Kind,
    /// Ports on 127.0.0.1: HTTP/2 in clear text, TLS, HTTP/1.1.
    pub ports: [u16; 3],
    pub process: Process,
}

/// Ours and the peers that are installed, and the names of those that are not.
pub fn find(ours: PathBuf) -> (Vec<Kind>, Vec<&'static str>) {
    let mut found = vec![Kind {
        name: OURS,
        program: ours,
        config: ("sluice.yaml", include_str!("conf/sluice.yaml")),
        line: |_, file| {
            let fixed = "run --datapath off --workers 1 --admin none --set accessLog=off -f";
            line(fixed, &[file])
        },
        version: &["version"],
    }];
    let mut missing = Vec::new();
    for (name, config, line, version) in peers() {
        match shell::find_program(name) {
            Some(program) => found.push(Kind {
                name,
                program,
                config,
                line,
                version,
            }),
            None => missing.push(name),
        }
    }
    (found, missing)
}

type Peer = (
    &'static str,
    (&'static str, &'static str),
    fn(&Path, &Path) -> Vec<String>,
    &'static [&'static str],
);

fn peers() -> [Peer; 4] {
    [
        (
            "nghttpx",
            ("nghttpx.conf", include_str!("conf/nghttpx.conf")),
            |_, file| vec![format!("--conf={}", file.display())],
            &["--version"],
        ),
        (
            "haproxy",
            ("haproxy.cfg", include_str!("conf/haproxy.cfg")),
            |_, file| line("-db -f", &[file]),
            &["-v"],
        ),
        (
            "nginx",
            ("nginx.conf", include_str!("conf/nginx.conf")),
            |dir, file| nginx_line(dir, file).split_off(1),
            &["-v"],
        ),
        (
            "envoy",
            ("envoy.yaml", include_str!("conf/envoy.yaml")),
            |_, file| line("--concurrency 1 --log-level error --disable-hot-restart -c", &[file]),
            &["--version"],
        ),
    ]
}

/// nginx in the foreground with its first log beside its configuration, not in /var/log.
pub fn nginx_line(dir: &Path, file: &Path) -> Vec<String> {
    let mut all = line("nginx -p", &[dir]);
    all.extend(line("-e nginx-start.log -c", &[file]));
    all
}

fn line(fixed: &str, paths: &[&Path]) -> Vec<String> {
    let paths = paths.iter().map(|path| path.display().to_string());
    shell::words(fixed).map(str::to_owned).chain(paths).collect()
}

impl Kind {
    /// The first line in which it names itself, without where it lies.
    pub fn version(&self) -> String {
        let output = Command::new(&self.program).args(self.version).output();
        let output = output
            .map(|output| [output.stdout, output.stderr].concat())
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&output).replace(&*self.program.to_string_lossy(), "");
        let first = text.lines().find(|line| !line.trim().is_empty());
        first.unwrap_or("unknown").trim().to_owned()
    }
}

impl Proxy {
    pub fn start(kind: Kind, rig: &Rig) -> Result<Self, Failure> {
        let mut ports = [0; 3];
        for port in &mut ports {
            *port = rig::free_port(&["127.0.0.1"])?;
        }
        let file = rig.configure(kind.config.0, kind.config.1, &ports)?;
        let mut line = vec![kind.program.display().to_string()];
        line.extend((kind.line)(&rig.dir, &file));
        let listens = ports.map(|port| format!("127.0.0.1:{port}"));
        let process = rig.serve(kind.name, &line, rig::PROXY_CPU, &listens)?;
        Ok(Self { kind, ports, process })
    }
}
