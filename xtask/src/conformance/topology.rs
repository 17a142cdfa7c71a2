//! Namespaces and links of the cluster.
//!
//! ```text
//! control plane 10.244.3.1 ─── control ┐
//! client        10.244.2.1 ─── client  ├ node ─ pods0 (bridge, 10.244.0.1) ─── pods 10.244.0.2 ..
//! ```
//!
//! The node routes between the links, so packets of client and pods pass through it both ways, and what the kernel plane
//! sends on comes back to it. Gateway addresses (10.244.1.0/24) are on no link: the client reaches them through the
//! node. No namespace has a default route, so nothing can leave.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::shell::{self, Failure};

/// Where the suite runs.
pub const CLIENT: &str = "client";
/// Where the gateway, the kubelet and pods of the host's network run.
pub const NODE: &str = "node";
/// The API server's own.
pub const CONTROL_ADDRESS: &str = "10.244.3.1";
/// The node's, and of the bridge.
pub const NODE_ADDRESS: &str = "10.244.0.1";
pub const PODS: &str = "10.244.0.0/24";
pub const PODS_PREFIX: u8 = 24;
/// All of the above and the client: what everyone reaches through the node.
pub const ALL: &str = "10.244.0.0/16";
pub const BRIDGE: &str = "pods0";
/// Addresses that the gateway may give out, one of them, and one that it may not.
pub const POOL: &str = "10.244.1.0/24";
pub const USABLE: &str = "10.244.1.200";
pub const UNUSABLE: &str = "10.245.0.1";
/// The node's interfaces that carry traffic of clients and pods.
pub const NODE_INTERFACES: [&str; 2] = ["client", BRIDGE];

/// A bridge without an address of its own takes the lowest one of its ports', which changes as pods come and go: peers
/// that hold the old one stall for half a minute.
const BRIDGE_MAC: &str = "02:00:0a:f4:00:01";

/// Builds all of it; this namespace is the control plane's.
pub fn build() -> Result<(), Failure> {
    ip(
        None,
        &format!(
            "link set lo up\n\
             netns add {CLIENT}\n\
             netns add {NODE}\n\
             link add node type veth peer name control netns {NODE}\n\
             addr add {CONTROL_ADDRESS}/24 dev node\n\
             link set node up\n"
        ),
    )?;
    ip(
        Some(NODE),
        &format!(
            "link set lo up\n\
             addr add 10.244.3.2/24 dev control\n\
             link set control up\n\
             link add client type veth peer name eth0 netns {CLIENT}\n\
             addr add 10.244.2.254/24 dev client\n\
             link set client up\n\
             link add {BRIDGE} address {BRIDGE_MAC} type bridge\n\
             addr add {NODE_ADDRESS}/{PODS_PREFIX} dev {BRIDGE}\n\
             link set {BRIDGE} up\n"
        ),
    )?;
    ip(
        Some(CLIENT),
        &format!(
            "link set lo up\n\
             addr add 10.244.2.1/24 dev eth0\n\
             link set eth0 up\n\
             route add {ALL} via 10.244.2.254\n"
        ),
    )?;
    ip(None, &format!("route add {ALL} via 10.244.3.2\n"))?;
    shell::capture(command_in(NODE, "sh").args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])).map(|_| ())
}

/// `program` in a namespace. The mounts stay as they are, BPF's file system among them, unlike with `ip netns exec`.
pub fn command_in(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}

/// Lines of the ip command, at once.
fn ip(namespace: Option<&str>, lines: &str) -> Result<(), Failure> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-netns", namespace]);
    }
    command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let failed = |what: String| Failure::new(format!("ip -batch: {what}\n{lines}"));
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let mut stdin = child.stdin.take().expect("stdin was asked to be piped");
    stdin
        .write_all(lines.as_bytes())
        .map_err(|error| failed(error.to_string()))?;
    drop(stdin);
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(status.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}
