//! The namespaces and the wires between them, made with `ip` (iproute2).

use super::{BACKENDS, CLIENT, GATEWAY};
use crate::sys::netns;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Whether the laboratory's wires suit TCX (segmentation offload kept) or native XDP on veth, which needs GRO on the
/// peers and transmit checksums off on the ends, or frames vanish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wires {
    Bulk,
    Xdp,
}

/// Makes everything; whatever an earlier laboratory left is removed first.
pub fn up(wires: Wires) -> Result<()> {
    down()?;
    namespace(GATEWAY)?;
    namespace(CLIENT)?;
    wire(CLIENT, "client")?;
    ip_in(GATEWAY, &["addr", "add", "198.18.1.1/24", "dev", "client"])?;
    ip_in(GATEWAY, &["addr", "add", "2001:2:0:1::1/64", "dev", "client", "nodad"])?;
    ip_in(CLIENT, &["addr", "add", "198.18.1.2/24", "dev", "eth0"])?;
    ip_in(CLIENT, &["addr", "add", "2001:2:0:1::2/64", "dev", "eth0", "nodad"])?;
    default_routes(CLIENT, "198.18.1.1", "2001:2:0:1::1")?;
    for backend in BACKENDS {
        let (namespace_name, dev) = (backend.namespace, backend.name);
        namespace(namespace_name)?;
        wire(namespace_name, dev)?;
        // One link per backend: the gateway has the same address on each, and a host route to the one behind it.
        ip_in(GATEWAY, &["addr", "add", "198.18.2.1/32", "dev", dev])?;
        ip_in(GATEWAY, &["addr", "add", "2001:2:0:2::1/128", "dev", dev, "nodad"])?;
        ip_in(
            GATEWAY,
            &[
                "route",
                "add",
                &format!("{}/32", backend.v4),
                "dev",
                dev,
                "src",
                "198.18.2.1",
            ],
        )?;
        ip_in(
            GATEWAY,
            &["-6", "route", "add", &format!("{}/128", backend.v6), "dev", dev],
        )?;
        ip_in(
            namespace_name,
            &["addr", "add", &format!("{}/24", backend.v4), "dev", "eth0"],
        )?;
        ip_in(
            namespace_name,
            &["addr", "add", &format!("{}/64", backend.v6), "dev", "eth0", "nodad"],
        )?;
        default_routes(namespace_name, "198.18.2.1", "2001:2:0:2::1")?;
    }
    if wires == Wires::Xdp {
        for namespace in std::iter::once(CLIENT).chain(BACKENDS.map(|backend| backend.namespace)) {
            command_in(namespace, "ethtool", &["-K", "eth0", "gro", "on", "tx", "off"])?;
        }
    }
    Ok(())
}

/// Removes the namespaces (and with them the links) that exist.
pub fn down() -> Result<()> {
    let there = existing()?;
    let ours = [CLIENT, GATEWAY]
        .into_iter()
        .chain(BACKENDS.map(|backend| backend.namespace));
    for namespace in ours.filter(|name| there.iter().any(|known| known == name)) {
        command("ip", &["netns", "del", namespace])?;
    }
    Ok(())
}

/// Names of the network namespaces on this machine.
pub fn existing() -> Result<Vec<String>> {
    let output = Command::new("ip")
        .args(["netns", "list"])
        .output()
        .context("run `ip` (package iproute2)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

fn namespace(name: &str) -> Result<()> {
    command("ip", &["netns", "add", name])?;
    ip_in(name, &["link", "set", "lo", "up"])
}

/// A veth pair: `dev` in the gateway's namespace, `eth0` in the other.
fn wire(namespace: &str, dev: &str) -> Result<()> {
    let peer = ["peer", "name", "eth0", "netns", namespace];
    ip_in(
        GATEWAY,
        &[&["link", "add", dev, "type", "veth"][..], &peer[..]].concat(),
    )?;
    ip_in(GATEWAY, &["link", "set", dev, "up"])?;
    ip_in(namespace, &["link", "set", "eth0", "up"])
}

fn default_routes(namespace: &str, v4: &str, v6: &str) -> Result<()> {
    ip_in(namespace, &["route", "add", "default", "via", v4])?;
    ip_in(namespace, &["-6", "route", "add", "default", "via", v6])
}

fn ip_in(namespace: &str, args: &[&str]) -> Result<()> {
    command_in(namespace, "ip", args)
}

/// Only the network namespace is entered: `ip -n` makes the mounts its own too, which a plain chroot refuses.
fn command_in(namespace: &str, program: &str, args: &[&str]) -> Result<()> {
    netns::within(namespace, || command(program, args))?.with_context(|| format!("in namespace {namespace}"))
}

fn command(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("run `{program}`"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {}` failed: {}", args.join(" "), error.trim());
    }
    Ok(())
}
