//! The endpoints that every proxy is measured with, and the files they share: nothing of it is ours.
//!
//! 127.0.0.11 to .14 each serve HTTP/2 (nghttpd: a gRPC-shaped answer with trailers) and HTTP/1.1 (nginx).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::Process;
use crate::run;
use crate::shell::{self, Failure, words};

/// The load generator and the endpoints run here.
pub const LOAD_CPU: u32 = 0;
/// The proxies run here, one at a time under load.
pub const PROXY_CPU: u32 = 1;
pub const ENDPOINTS: [&str; 4] = ["127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14"];
const START_MAX: Duration = Duration::from_secs(10);
/// A gRPC message: no compression, a length of 64, and 64 bytes.
const MESSAGE_BYTES: usize = 69;

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
        let message: Vec<u8> = [0, 0, 0, 0, 64].into_iter().chain([b'p'; MESSAGE_BYTES - 5]).collect();
        fs::write(served.join("Unary"), &message).map_err(io)?;
        fs::write(dir.join("message"), &message).map_err(io)?;
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
    pub fn configure(&self, name: &str, template: &str, ports: &[u16; 3]) -> Result<PathBuf, Failure> {
        let places = [
            ("@DIR@", self.dir.display().to_string()),
            ("@GRPC@", self.grpc_port.to_string()),
            ("@WEB@", self.web_port.to_string()),
            ("@H2C@", ports[0].to_string()),
            ("@TLS@", ports[1].to_string()),
            ("@H1@", ports[2].to_string()),
        ];
        let text = places
            .iter()
            .fold(template.to_owned(), |text, (place, value)| text.replace(place, value));
        let file = self.dir.join(name);
        fs::write(&file, text).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
        Ok(file)
    }

    /// Starts a program and waits until it serves.
    pub fn serve(&self, name: &str, words: &[String], cpu: u32, addresses: &[String]) -> Result<Process, Failure> {
        let log = self.dir.join(format!("{name}.log"));
        let mut process = Process::start(name, words, cpu, &log)?;
        process.wait_listening(addresses, START_MAX, &log)?;
        Ok(process)
    }

    fn endpoints(&self) -> Result<Vec<Process>, Failure> {
        let mut all = Vec::new();
        for address in ENDPOINTS {
            let mut line: Vec<String> = words("nghttpd --no-tls --workers=1 --max-concurrent-streams=1000")
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
        let file = self.configure("endpoints.conf", include_str!("conf/endpoints.conf"), &[0; 3])?;
        let line = super::proxy::nginx_line(&self.dir, &file);
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

fn require_programs() -> Result<(), Failure> {
    let needed = [("nginx", "nginx"), ("setpriv", "util-linux"), ("taskset", "util-linux")];
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
