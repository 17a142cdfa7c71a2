//! The proxies: how each is started with equal work, and its version.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::generator::Front;
use super::process::Process;
use super::rig::{self, Rig};
use crate::shell::{self, Failure};
use crate::tools;

/// The name of our column, and the base of every ratio.
pub const OURS: &str = "sluice";

/// A kind of proxy that can be measured.
#[derive(Clone)]
pub struct Kind {
    pub name: &'static str,
    program: PathBuf,
    config_file: &'static str,
    pub config: String,
    /// Whether it relays TCP.
    pub tcp: bool,
    /// Its words after the program: folder, configuration, workers.
    line: fn(&Path, &Path, u32) -> Vec<String>,
    version: &'static [&'static str],
}

/// One that runs.
pub struct Proxy {
    pub kind: Kind,
    /// Ports on 127.0.0.1, by [`Front`].
    ports: [u16; 4],
    pub process: Process,
}

/// Ours and the peers that are installed, and the names of those that are not.
pub fn find(ours: PathBuf) -> (Vec<Kind>, Vec<&'static str>) {
    let mut found = vec![Kind {
        name: OURS,
        program: ours,
        config_file: "sluice.yaml",
        config: include_str!("conf/sluice.yaml").to_owned(),
        tcp: true,
        line: |_, file, workers| {
            let fixed = format!("run --datapath off --workers {workers} --admin none --set accessLog=off -f");
            line(&fixed, &[file])
        },
        version: &["version"],
    }];
    let mut missing = Vec::new();
    for mut kind in peers() {
        let Some(program) = program(kind.name) else {
            missing.push(kind.name);
            continue;
        };
        kind.program = program;
        if kind.name == "nginx" {
            kind.config = kind.config.replace("@LOAD_STREAM@", load_stream(&kind.program));
        }
        found.push(kind);
    }
    (found, missing)
}

/// `SLUICE_NGINX` and the like where set, the pinned Envoy, else what PATH has.
fn program(name: &str) -> Option<PathBuf> {
    let chosen = std::env::var_os(format!("SLUICE_{}", name.to_uppercase())).filter(|value| !value.is_empty());
    if let Some(chosen) = chosen {
        return Some(PathBuf::from(chosen));
    }
    let pinned = Some(tools::envoy()).filter(|file| name == "envoy" && file.is_file());
    pinned.or_else(|| shell::find_program(name))
}

/// Debian's nginx has its TCP mode in a module; others have it inside.
fn load_stream(nginx: &Path) -> &'static str {
    let output = Command::new(nginx).arg("-V").output();
    let said = output.map(|output| output.stderr).unwrap_or_default();
    match String::from_utf8_lossy(&said).contains("--with-stream=dynamic") {
        true => "load_module /usr/lib/nginx/modules/ngx_stream_module.so;",
        false => "",
    }
}

fn peers() -> [Kind; 4] {
    let peer = |name, config_file, config: &str, line, version| Kind {
        name,
        program: PathBuf::new(),
        config_file,
        config: config.to_owned(),
        tcp: true,
        line,
        version,
    };
    let nghttpx = peer(
        "nghttpx",
        "nghttpx.conf",
        include_str!("conf/nghttpx.conf"),
        |_, file, _| vec![format!("--conf={}", file.display())],
        &["--version"],
    );
    [
        Kind { tcp: false, ..nghttpx },
        peer(
            "haproxy",
            "haproxy.cfg",
            include_str!("conf/haproxy.cfg"),
            |_, file, _| line("-db -f", &[file]),
            &["-v"],
        ),
        peer(
            "nginx",
            "nginx.conf",
            include_str!("conf/nginx.conf"),
            |dir, file, _| nginx_line(dir, file),
            &["-v"],
        ),
        peer(
            "envoy",
            "envoy.yaml",
            include_str!("conf/envoy.yaml"),
            |_, file, workers| {
                let fixed = format!("--concurrency {workers} --log-level error --disable-hot-restart -c");
                line(&fixed, &[file])
            },
            &["--version"],
        ),
    ]
}

/// nginx in the foreground with its first log beside its configuration, not in /var/log.
pub fn nginx_line(dir: &Path, file: &Path) -> Vec<String> {
    let mut all = line("-p", &[dir]);
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
    /// Starts one on `cpus`; `role` tells it from others of its kind that run beside it.
    pub fn start(kind: &Kind, role: &str, workers: u32, cpus: &str, rig: &Rig) -> Result<Self, Failure> {
        let mut ports = [0; 4];
        for index in 0..ports.len() {
            let mut port = rig::free_port(&["127.0.0.1"])?;
            while ports.contains(&port) {
                port = rig::free_port(&["127.0.0.1"])?;
            }
            ports[index] = port;
        }
        let label = format!("{}-{role}", kind.config_file);
        let places = [
            ("@NAME@", label.clone()),
            ("@WORKERS@", workers.to_string()),
            ("@H2C@", ports[0].to_string()),
            ("@TLS@", ports[1].to_string()),
            ("@H1@", ports[2].to_string()),
            ("@TCP@", ports[3].to_string()),
        ];
        // Its kind's ending comes last: Envoy and sluice go by it.
        let file = rig.configure(&format!("{role}-{}", kind.config_file), &kind.config, &places)?;
        let mut line = vec![kind.program.display().to_string()];
        line.extend((kind.line)(&rig.dir, &file, workers));
        let served = if kind.tcp { &ports[..] } else { &ports[..3] };
        let listens: Vec<String> = served.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let process = rig.serve(&label, &line, cpus, &listens)?;
        let kind = kind.clone();
        Ok(Self { kind, ports, process })
    }

    pub fn name(&self) -> &'static str {
        self.kind.name
    }

    pub fn address(&self, front: Front) -> String {
        format!("127.0.0.1:{}", self.ports[front as usize])
    }
}
