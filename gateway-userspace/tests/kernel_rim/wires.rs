//! Namespaces and wires of one test: a client, the gateway, two endpoints.
//!
//! ```text
//! client 10.83.1.2  ---- c | gateway | b1 ---- 10.83.2.11 endpoint 1
//!   2001:db8:83:1::2       |         | b2 ---- 10.83.3.11 endpoint 2
//! ```
//! The VIPs 10.83.0.1 and 2001:db8:83::1 are on no interface: the client has a route to them. Names begin with `slr-` and
//! the process id; dropping a [`Wires`] removes them, after a panic too.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub const VIP4: &str = "10.83.0.1";
pub const VIP6: &str = "2001:db8:83::1";
pub const ENDPOINTS4: [&str; 2] = ["10.83.2.11", "10.83.3.11"];
pub const ENDPOINTS6: [&str; 2] = ["2001:db8:83:2::11", "2001:db8:83:3::11"];

/// What the wires are good for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// TCX: everything as it comes.
    Bulk,
    /// Native XDP on veth: whole checksums, and a NAPI at each far end.
    Xdp,
}

pub struct Wires {
    prefix: String,
    pub pin_dir: String,
    servers: Vec<Child>,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Wires {
    pub fn new(good_for: For) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("slr-{}-{number}", std::process::id());
        let pin_dir = format!("/sys/fs/bpf/{prefix}");
        let wires = Self {
            prefix,
            pin_dir,
            servers: Vec::new(),
        };
        for side in ["c", "g", "b1", "b2"] {
            run(&format!("ip netns add {}", wires.namespace(side)));
            wires.ip(side, "link set lo up");
            // Addresses are usable at once; a host that was up for two seconds has this behind it.
            wires
                .exec(side, &["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"])
                .expect("IPv6 is there");
        }
        wires.wire("c", "10.83.1", "2001:db8:83:1", 2, good_for);
        wires.wire("b1", "10.83.2", "2001:db8:83:2", 11, good_for);
        wires.wire("b2", "10.83.3", "2001:db8:83:3", 11, good_for);
        wires
    }

    pub fn namespace(&self, side: &str) -> String {
        format!("{}-{side}", self.prefix)
    }

    /// `ip ...` inside a side
    pub fn ip(&self, side: &str, args: &str) -> String {
        run(&format!("nsenter --net=/run/netns/{} ip {args}", self.namespace(side)))
    }

    /// A command inside a side; its standard output, or `Err` with both outputs.
    pub fn exec(&self, side: &str, args: &[&str]) -> Result<String, String> {
        let output = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.namespace(side)))
            .args(args)
            .output()
            .expect("ip is installed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("{args:?}: {} {}", text(&output.stdout), text(&output.stderr)))
        }
    }

    /// An HTTP server (Python's) on both endpoints, port 80, whose `/who` answers with the side's name.
    pub fn serve(&mut self) {
        for side in ["b1", "b2"] {
            let dir = std::env::temp_dir().join(format!("{}-{side}", self.prefix));
            std::fs::create_dir_all(&dir).expect("temporary directory");
            std::fs::write(dir.join("who"), side).expect("temporary file");
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", self.namespace(side)));
            command.args(["python3", "-m", "http.server"]);
            command.args(["--bind", "::", "80", "--directory"]).arg(&dir);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            self.servers.push(command.spawn().expect("python3 is installed"));
        }
        for side in ["b1", "b2"] {
            let up = (0..100).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                self.exec(side, &["curl", "-s", "http://127.0.0.1/who"]).is_ok()
            });
            assert!(up, "the server of {side} does not come up");
        }
    }

    /// A veth pair from the gateway (interface named after the side) to a side (interface `eth0`).
    fn wire(&self, side: &str, v4: &str, v6: &str, host: u32, good_for: For) {
        let (gateway, far) = (self.namespace("g"), self.namespace(side));
        run(&format!(
            "nsenter --net=/run/netns/{gateway} ip link add {side} type veth peer name eth0 netns {far}"
        ));
        self.ip("g", &format!("addr add {v4}.1/24 dev {side}"));
        self.ip("g", &format!("addr add {v6}::1/64 dev {side} nodad"));
        self.ip("g", &format!("link set {side} up"));
        self.ip(side, &format!("addr add {v4}.{host}/24 dev eth0"));
        self.ip(side, &format!("addr add {v6}::{host}/64 dev eth0 nodad"));
        self.ip(side, "link set eth0 up");
        self.ip(side, &format!("route add default via {v4}.1"));
        self.ip(side, &format!("-6 route add default via {v6}::1"));
        if good_for == For::Xdp {
            let _ = self.exec(side, &["ethtool", "-K", "eth0", "gro", "on", "tx", "off"]);
        }
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        for side in ["c", "g", "b1", "b2"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.namespace(side)])
                .output();
            let _ = std::fs::remove_dir_all(std::env::temp_dir().join(format!("{}-{side}", self.prefix)));
        }
        let _ = std::fs::remove_dir_all(format!("{}/v1", self.pin_dir));
        let _ = std::fs::remove_dir(&self.pin_dir);
    }
}

fn run(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .expect("ip is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command}: {text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
