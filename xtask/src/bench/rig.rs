//! The endpoints that every proxy is measured with, and the files they share: nothing of it is ours.
//!
//! 127.0.0.11 to .14 each serve HTTP/2 (nghttpd: a gRPC-shaped answer with trailers) and HTTP/1.1 (nginx).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::generator::{GRPC_HEAD_BYTES, Message};
use super::process::Process;
use crate::run;
use crate::shell::{self, Failure, words};

/// The load generator and the endpoints run here.
pub const LOAD_CPU: &str = "0";
/// The proxies run here, one at a time under load.
pub const PROXY_CPU: &str = "1";
/// Proxies with two workers, and the load generator with them.
pub const BOTH_CPUS: &str = "0,1";
pub const ENDPOINTS: [&str; 4] = ["127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14"];
/// Thousands of routes are read before anything listens.
const START_MAX: Duration = Duration::from_secs(30);

pub struct Rig {
    /// Configurations, keys and logs of the last run; below the target folder.
    pub dir: PathBuf,
    grpc_port: u16,
    web_port: u16,
    _endpoints: Vec<Process>,
}

impl Rig {
    pub fn start() -> Result<Self, Failure> {
        require_programs()?;
        let dir = run::target_folder().join("bench-l7");
        let served = dir.join("served/echo.Echo");
        let io = |error: std::io::Error| Failure::new(format!("{}: {error}", dir.display()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&served).map_err(io)?;
        let dir = fs::canonicalize(&dir).map_err(io)?;
        for message in [Message::Small, Message::Large] {
            if let Some(file) = message.file() {
                fs::write(served.join(file), grpc_message(message)).map_err(io)?;
            }
        }
        certificate(&dir)?;
        let mut rig = Self {
            dir,
            grpc_port: free_port(&ENDPOINTS)?,
            web_port: free_port(&ENDPOINTS)?,
            _endpoints: Vec::new(),
        };
        let endpoints = rig.endpoints()?;
        rig._endpoints = endpoints;
        Ok(rig)
    }

    /// A configuration with its places filled in, written where the proxy reads it.
    pub fn configure(&self, name: &str, template: &str, places: &[(&str, String)]) -> Result<PathBuf, Failure> {
        let common = [
            ("@DIR@", self.dir.display().to_string()),
            ("@GRPC@", self.grpc_port.to_string()),
            ("@WEB@", self.web_port.to_string()),
        ];
        let text = common
            .iter()
            .chain(places)
            .fold(template.to_owned(), |text, (place, value)| text.replace(place, value));
        let file = self.dir.join(name);
        fs::write(&file, text).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
        Ok(file)
    }

    /// A message: what the client sends and the endpoints answer.
    pub fn served(&self, file: &str) -> PathBuf {
        self.dir.join("served/echo.Echo").join(file)
    }

    /// One of the endpoints, to be asked with nothing between.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", ENDPOINTS[0], self.grpc_port)
    }

    /// Starts a program and waits until it serves.
    pub fn serve(&self, name: &str, words: &[String], cpus: &str, addresses: &[String]) -> Result<Process, Failure> {
        let log = self.dir.join(format!("{name}.log"));
        let mut process = Process::start(name, words, cpus, &log)?;
        process.wait_listening(addresses, START_MAX, &log)?;
        Ok(process)
    }

    fn endpoints(&self) -> Result<Vec<Process>, Failure> {
        let mut all = Vec::new();
        for address in ENDPOINTS {
            let mut line: Vec<String> = words("nghttpd --no-tls --workers=1 --max-concurrent-streams=1000 -w 24 -W 28")
                .map(str::to_owned)
                .collect();
            line.extend(["--trailer=grpc-status: 0".to_owned(), format!("--address={address}")]);
            line.extend([
                format!("--htdocs={}", self.dir.join("served").display()),
                self.grpc_port.to_string(),
            ]);
            let listens = [format!("{address}:{}", self.grpc_port)];
            all.push(self.serve(&format!("nghttpd-{address}"), &line, LOAD_CPU, &listens)?);
        }
        let file = self.configure("endpoints.conf", include_str!("conf/endpoints.conf"), &[])?;
        let line = [vec!["nginx".to_owned()], super::proxy::nginx_line(&self.dir, &file)].concat();
        let listens = ENDPOINTS.map(|address| format!("{address}:{}", self.web_port));
        all.push(self.serve("endpoints", &line, LOAD_CPU, &listens)?);
        Ok(all)
    }
}

/// A port that nobody uses now on any of `addresses`.
pub fn free_port(addresses: &[&str]) -> Result<u16, Failure> {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        let first = std::net::TcpListener::bind((addresses[0], 0)).and_then(|listener| listener.local_addr());
        let port = first
            .map_err(|error| Failure::new(format!("{}: {error}", addresses[0])))?
            .port();
        if addresses
            .iter()
            .all(|address| std::net::TcpListener::bind((*address, port)).is_ok())
        {
            return Ok(port);
        }
    }
    Err(Failure::new(format!("no port is free on {}", addresses.join(" "))))
}

/// No compression, the length, and that many bytes.
fn grpc_message(message: Message) -> Vec<u8> {
    let bytes = (message.answer_bytes() - GRPC_HEAD_BYTES) as u32;
    let head = [0].into_iter().chain(bytes.to_be_bytes());
    head.chain(std::iter::repeat_n(b'p', bytes as usize)).collect()
}

fn require_programs() -> Result<(), Failure> {
    let needed = [
        ("nginx", "nginx"),
        ("setpriv", "util-linux"),
        ("taskset", "util-linux"),
        ("prlimit", "util-linux"),
    ];
    let missing = needed
        .iter()
        .filter(|(program, _)| shell::find_program(program).is_none());
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        let why = format!("the bench's endpoints need: apt-get install {}", packages.join(" "));
        return Err(Failure::new(why));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if processors < 2 {
        return Err(Failure::new(
            "the bench needs two CPUs: one for the proxy, one for load and endpoints",
        ));
    }
    Ok(())
}

/// An ECDSA certificate for `localhost`, in the three shapes that the proxies read.
fn certificate(dir: &Path) -> Result<(), Failure> {
    let line = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem \
                -out cert.pem -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
                && cat cert.pem key.pem >both.pem";
    shell::capture(Command::new("sh").args(["-c", line]).current_dir(dir)).map(|_| ())
}
