//! A gateway on loopback ports of its own, plain and with TLS, and nghttpd as its only endpoint.
//!
//! Both are killed when it is dropped.

use gateway_tests::shell::{sluice, wait_for};
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Streams the gateway advertises: h2spec opens one more than so many and must get them open at once.
const STREAMS: u32 = 100;

pub struct Loopback {
    pub http: u16,
    pub https: u16,
    folder: PathBuf,
    gateway: Child,
    endpoint: Child,
}

impl Loopback {
    /// Starts both and waits until they accept.
    pub fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("sluice-conformance-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("www")).expect("a folder for this test");
        // h2spec looks for DATA in the answer to a GET.
        std::fs::write(folder.join("www/index.html"), "<p>a page\n".repeat(100)).expect("a page");
        certificate(&folder);
        let [http, https, endpoint_port] = free_ports();
        std::fs::write(folder.join("gateway.yaml"), configuration(http, https, endpoint_port))
            .expect("a configuration");
        let endpoint = Command::new("nghttpd")
            .args(["--no-tls", "-d", "www", &endpoint_port.to_string()])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nghttpd starts: cargo xtask setup installs it");
        let log = File::create(folder.join("gateway.log")).expect("a log");
        let gateway = Command::new(sluice())
            .args([
                "run",
                "-f",
                "gateway.yaml",
                "--datapath",
                "off",
                "--workers",
                "1",
                "--admin",
                "none",
            ])
            .args(["--set", "accessLog=off", "--set", &format!("limits.streams={STREAMS}")])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("sluice starts");
        let started = Self {
            http,
            https,
            folder,
            gateway,
            endpoint,
        };
        let accepts = || {
            Ok([endpoint_port, http, https]
                .iter()
                .all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()))
        };
        let ready = wait_for("gateway and endpoint accept", Duration::from_secs(20), accepts);
        assert!(ready.is_ok(), "{ready:?}\n{}", started.log());
        started
    }

    /// What the gateway wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("gateway.log")).unwrap_or_default()
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        for child in [&mut self.gateway, &mut self.endpoint] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("openssl starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Ports that nobody has now; taken together, so they differ.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound socket").port())
}

fn configuration(http: u16, https: u16, endpoint: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: web}}
spec:
  gatewayClassName: sluice
  addresses: [{{type: IPAddress, value: 127.0.0.1}}]
  listeners:
  - {{name: http, protocol: HTTP, port: {http}}}
  - {{name: https, protocol: HTTPS, port: {https}, tls: {{certificateRefs: [{{group: sluice.dev, kind: CertificateFile, name: web}}]}}}}
---
apiVersion: sluice.dev/v1alpha1
kind: CertificateFile
metadata: {{name: web}}
spec: {{certFile: cert.pem, keyFile: key.pem}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web}}
spec:
  parentRefs: [{{name: web}}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /}}}}]
    backendRefs: [{{name: app, port: 80}}]
---
apiVersion: v1
kind: Service
metadata: {{name: app}}
spec: {{ports: [{{port: 80, targetPort: {endpoint}, appProtocol: kubernetes.io/h2c}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: app-1, labels: {{kubernetes.io/service-name: app}}}}
addressType: IPv4
ports: [{{port: {endpoint}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"
    )
}
