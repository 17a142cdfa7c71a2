//! Debian's cloud kernels: fetched once, kept in the cache, and the first file system that reaches this machine's root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shell::{self, Failure, say};
use crate::tools;

/// What we support beside the kernel of this machine: Debian 12's and Debian 13's.
pub const VERSIONS: &[&str] = &["6.1", "6.12"];
/// What reaches the root folder, before there is one.
const FIRST_MODULES: &[&str] = &["virtio_pci", "virtiofs", "overlay"];
/// What the laboratory needs; a guest has nobody who loads modules on demand.
const GUEST_MODULES: &[&str] = &["veth", "sch_ingress", "cls_bpf"];

/// A kernel in the cache.
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    pub image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    pub fn guest_modules(&self) -> String {
        GUEST_MODULES.join(" ")
    }
}

/// Fetches and unpacks a kernel where the cache has none of this version.
pub fn get(version: &str) -> Result<Kernel, Failure> {
    let meta = match version {
        "6.1" => "linux-image-cloud-amd64",
        "6.12" => "linux-image-6.12-cloud-amd64",
        other => {
            return Err(Failure::usage(format!(
                "no kernel '{other}'; one of {}",
                VERSIONS.join(", ")
            )));
        }
    };
    let folder = tools::folder().join("kernels").join(version);
    if let Some(kernel) = unpacked(&folder) {
        return Ok(kernel);
    }
    let depends = shell::capture(Command::new("apt-cache").args(["depends", "--important", meta]))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.filter(|package| package.starts_with(&format!("linux-image-{version}")));
    let package = package.ok_or_else(|| {
        Failure::new(format!(
            "this Debian's archives have no cloud kernel {version} (`{meta}`); try `apt-get update`"
        ))
    })?;
    say(&format!("fetching {package} into {}", folder.display()));
    let fresh = folder.with_extension("new");
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).map_err(|error| Failure::new(format!("{}: {error}", fresh.display())))?;
    shell::capture(
        Command::new("apt-get")
            .args(["download", "-q", package])
            .current_dir(&fresh),
    )?;
    let archive = fs::read_dir(&fresh)
        .ok()
        .and_then(|mut entries| entries.next())
        .and_then(Result::ok);
    let archive = archive
        .ok_or_else(|| Failure::new(format!("apt-get downloaded nothing for {package}")))?
        .path();
    shell::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&fresh))?;
    // busybox loads only what is not compressed.
    let unpack = "find . -name '*.ko.xz' -print0 | xargs -0 -r busybox unxz";
    shell::run(Command::new("sh").args(["-c", unpack]).current_dir(&fresh))?;
    let moved = fs::remove_file(&archive).and_then(|()| fs::rename(&fresh, &folder));
    moved.map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    unpacked(&folder).ok_or_else(|| Failure::new(format!("{package} has no boot/vmlinuz-*")))
}

fn unpacked(folder: &Path) -> Option<Kernel> {
    let entries = fs::read_dir(folder.join("boot")).ok()?;
    entries.flatten().find_map(|entry| {
        let release = entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        let modules = ["lib/modules", "usr/lib/modules"].map(|place| folder.join(place).join(&release));
        let modules = modules.into_iter().find(|place| place.is_dir())?;
        Some(Kernel {
            release,
            image: entry.path(),
            modules,
        })
    })
}

/// Packs busybox, `init` and the modules into a file the kernel can start from.
pub fn initramfs(kernel: &Kernel, init: &str, scratch: &Path) -> Result<PathBuf, Failure> {
    let tree = scratch.join("first");
    let io = |error: std::io::Error| Failure::new(format!("{}: {error}", tree.display()));
    let modules = tree.join("lib/modules").join(&kernel.release);
    for folder in ["bin", "sbin", "proc", "below", "above", "root", "dev"] {
        fs::create_dir_all(tree.join(folder)).map_err(io)?;
    }
    fs::create_dir_all(&modules).map_err(io)?;
    let busybox = shell::find_program("busybox").ok_or_else(|| Failure::new("busybox is missing"))?;
    fs::copy(&busybox, tree.join("bin/busybox")).map_err(io)?;
    // depmod needs to see all modules to know what needs what; only those are packed.
    shell::run(
        Command::new(&busybox)
            .args(["depmod", "-b"])
            .arg(root_of(&kernel.modules))
            .arg(&kernel.release),
    )?;
    let depends = fs::read_to_string(kernel.modules.join("modules.dep")).map_err(io)?;
    let wanted: Vec<&str> = FIRST_MODULES.iter().chain(GUEST_MODULES).copied().collect();
    for file in with_dependencies(&depends, &wanted) {
        let to = modules.join(&file);
        fs::create_dir_all(to.parent().expect("a file in a folder")).map_err(io)?;
        fs::copy(kernel.modules.join(&file), to).map_err(io)?;
    }
    fs::copy(kernel.modules.join("modules.dep"), modules.join("modules.dep")).map_err(io)?;
    fs::write(tree.join("init"), init).map_err(io)?;
    fs::set_permissions(tree.join("init"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(io)?;
    let archive = scratch.join("initramfs");
    let file = fs::File::create(&archive).map_err(io)?;
    let mut pack = Command::new("sh");
    pack.args(["-c", "find . | busybox cpio -o -H newc"])
        .current_dir(&tree)
        .stdin(Stdio::null());
    let packed = pack.stdout(file).stderr(Stdio::null()).status().map_err(io)?;
    packed
        .success()
        .then_some(archive)
        .ok_or_else(|| Failure::new("packing the first file system failed"))
}

/// `<root>/lib/modules/<release>`, or with `/usr` before it.
fn root_of(modules: &Path) -> &Path {
    modules.ancestors().nth(3).expect("modules lie three folders deep")
}

/// The files of the named modules and of all they need, from the text of modules.dep. Built-in ones have no file.
fn with_dependencies(depends: &str, names: &[&str]) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for line in depends.lines() {
        let Some((file, needed)) = line.split_once(':') else {
            continue;
        };
        let name = file
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .split('.')
            .next()
            .unwrap_or_default();
        if names.contains(&name.replace('-', "_").as_str()) {
            files.push(file.to_owned());
            files.extend(needed.split_whitespace().map(str::to_owned));
        }
    }
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_with_what_they_need() {
        let depends = "kernel/net/stp.ko: kernel/net/llc.ko\nkernel/net/bridge.ko: kernel/net/stp.ko kernel/net/llc.ko\n\
                       kernel/drivers/virtio/virtio-pci.ko.xz: kernel/drivers/virtio/virtio.ko.xz\nkernel/fs/x.ko:\n";
        let files = with_dependencies(depends, &["bridge", "virtio_pci", "built_in"]);
        let expected = [
            "kernel/drivers/virtio/virtio-pci.ko.xz",
            "kernel/drivers/virtio/virtio.ko.xz",
            "kernel/net/bridge.ko",
            "kernel/net/llc.ko",
            "kernel/net/stp.ko",
        ];
        assert_eq!(files, expected);
    }
}
