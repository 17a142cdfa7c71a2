//! `cargo xtask vm KERNEL [COMMAND..]`: the same tree on another kernel that we support.
//!
//! Boots Debian's cloud kernel under QEMU with this machine's own root, read-only, below a layer in memory: the guest
//! sees our binaries, tools and Python at their paths, and what it writes is gone with it. Nothing is installed in it.
//! Without a command `sluice doctor` and the kernel and end-to-end tests run there.

mod kernel;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::setup::{self, Ebpf, Need};
use crate::shell::{self, Failure, say, words};
use crate::tally::Tally;
use crate::{ebpf, run, test, tools};

/// How long the file server may take to open its socket.
const SERVER_START_MAX: Duration = Duration::from_secs(5);
/// A guest that hangs is ended; all tests take a few minutes.
const LIFE_MAX: Duration = Duration::from_secs(1800);
/// The guest's last words, before the exit code of its command.
const EXIT_MARK: &str = "sluice-vm-exit=";
const MEMORY: &str = "3G";
const PROCESSORS: &str = "2";

pub fn verb(args: &[String]) -> Result<(), Failure> {
    let Some((version, command)) = args.split_first() else {
        return Err(Failure::usage(format!(
            "vm KERNEL [COMMAND..]; KERNEL is one of {}",
            kernel::VERSIONS.join(", ")
        )));
    };
    if !shell::is_root() {
        return Err(Failure {
            why: "sharing the root folder needs root".into(),
            exit: shell::EXIT_NO_PERMISSION,
        });
    }
    setup::ensure(&[Need::Build, Need::Vm])?;
    let kernel = kernel::get(version)?;
    let command = if command.is_empty() {
        tests()?
    } else {
        command.join(" ")
    };
    let scratch = std::env::temp_dir().join(format!("sluice-vm-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).map_err(|error| Failure::new(format!("{}: {error}", scratch.display())))?;
    let result = boot(&kernel, &command, &scratch);
    // Its contents are the guest's first file system and a socket.
    let _ = std::fs::remove_dir_all(&scratch);
    match result? {
        0 => Ok(()),
        code => Err(Failure::new(format!(
            "on Linux {} the command ended with {code}",
            kernel.release
        ))),
    }
}

/// Builds what the tests need and returns the shell line that shows what this kernel allows and runs them all. In the
/// guest nothing may be missing, which `CI` says to the tests; what its kernel cannot do they count as skipped.
fn tests() -> Result<String, Failure> {
    if run::prepare(&[Need::Build, Need::Ebpf, Need::Lab, Need::Test])? != Ebpf::Ready {
        return Err(Failure::new(
            "without the kernel programs there is nothing to test on another kernel",
        ));
    }
    let binary = run::build_lab_binary()?;
    let mut line = format!(
        "export CI=1 SLUICE_BIN={binary} SLUICE_BPF={} SLUICE_PYTHON={} SLUICE_H2SPEC={} SLUICE_WEB={}; code=0; {binary} doctor -o json || code=1",
        ebpf::object().display(),
        tools::python().display(),
        tools::h2spec().display(),
        tools::web_folder().display(),
        binary = binary.display(),
    );
    for test in test::binaries("gateway-tests")? {
        line.push_str(&format!("; {} || code=1", test.display()));
    }
    Ok(format!("{line}; exit $code"))
}

/// Runs `command` in the guest, its output on our stdout, and returns its exit code.
fn boot(kernel: &kernel::Kernel, command: &str, scratch: &Path) -> Result<u8, Failure> {
    let initramfs = kernel::initramfs(kernel, &init(kernel, command), scratch)?;
    let socket = scratch.join("root.sock");
    let mut server = Running(serve_root(&socket)?);
    let began = Instant::now();
    while !socket.exists() {
        if began.elapsed() > SERVER_START_MAX || server.0.try_wait().is_ok_and(|ended| ended.is_some()) {
            return Err(Failure::new("virtiofsd did not open its socket"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // Emulation works wherever we are, also where /dev/kvm is there but a nested guest dies of it.
    let accelerator = std::env::var("SLUICE_VM_ACCEL").unwrap_or_else(|_| "tcg".to_owned());
    say(&format!("booting Linux {} ({accelerator}): {command}", kernel.release));
    let mut qemu = ended_with_us("qemu-system-x86_64".as_ref());
    qemu.args(words(
        "-nodefaults -no-user-config -no-reboot -display none -serial stdio",
    ));
    qemu.args(words(&format!(
        "-machine q35,accel={accelerator},memory-backend=ram -cpu max -smp {PROCESSORS}"
    )));
    qemu.args(words(&format!(
        "-m {MEMORY} -object memory-backend-memfd,id=ram,size={MEMORY},share=on"
    )));
    qemu.args(["-chardev", &format!("socket,id=root,path={}", socket.display())]);
    qemu.args(["-device", "vhost-user-fs-pci,chardev=root,tag=root"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&initramfs);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1"]);
    let child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut guest = Running(child.map_err(|error| Failure::new(format!("qemu did not start: {error}")))?);
    let stdout = guest.0.stdout.take().expect("stdout was asked to be piped");
    let done = end_after(LIFE_MAX, guest.0.id());
    let (mut code, mut tally) = (None, Tally::default());
    for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        tally.read(line.trim_end());
        match line.trim_end().strip_prefix(EXIT_MARK) {
            Some(number) => code = number.parse().ok(),
            None => println!("{}", line.trim_end_matches('\r')),
        }
    }
    drop(done);
    if tally != Tally::default() {
        println!("Linux {}: {tally}", kernel.release);
    }
    code.ok_or_else(|| {
        Failure::new("the guest ended without its command's exit code: a panic, no memory, or it was ended")
    })
}

/// Ends process `id` after `limit`, unless what is returned is dropped before.
fn end_after(limit: Duration, id: u32) -> mpsc::Sender<()> {
    let (done, waits) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if waits.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            say(&format!(
                "the guest still runs after {} s and is ended",
                limit.as_secs()
            ));
            let _ = Command::new("kill").arg(id.to_string()).status();
        }
    });
    done
}

/// The guest's first process.
fn init(kernel: &kernel::Kernel, command: &str) -> String {
    let root = shell::root();
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mount -t proc proc /proc\n\
         for module in virtio_pci virtiofs overlay; do /bin/busybox modprobe $module 2>/dev/null; done # or built in\n\
         /bin/busybox mount -t virtiofs -o ro root /below || echo 'the root folder cannot be mounted'\n\
         /bin/busybox mount -t tmpfs tmpfs /above\n\
         /bin/busybox mkdir /above/upper /above/work\n\
         /bin/busybox mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work overlay /root\n\
         cd /root\n\
         /bin/busybox mount -t proc proc proc\n\
         /bin/busybox mount -t sysfs sysfs sys\n\
         /bin/busybox mount -t bpf bpf sys/fs/bpf\n\
         /bin/busybox mount -t cgroup2 cgroup2 sys/fs/cgroup\n\
         /bin/busybox mount -t devtmpfs devtmpfs dev\n\
         /bin/busybox mkdir -p dev/pts dev/shm\n\
         /bin/busybox mount -t devpts devpts dev/pts\n\
         for folder in tmp run dev/shm; do /bin/busybox mount -t tmpfs tmpfs $folder; done\n\
         for module in {modules}; do /bin/busybox modprobe $module; done\n\
         /bin/busybox chroot . /bin/bash -c 'ip link set lo up; cd {root}; export PATH={path} HOME=/root; '{command} 2>&1\n\
         code=$?; echo; echo {EXIT_MARK}$code\n\
         /bin/busybox poweroff -f\n",
        modules = kernel.guest_modules(),
        root = root.display(),
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        command = quoted(command),
    )
}

/// One word for a shell, whatever it contains.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Shares `/` read-only over a socket.
fn serve_root(socket: &Path) -> Result<Child, Failure> {
    let places = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"].map(PathBuf::from);
    let server = places.iter().find(|place| place.is_file());
    let server = server.ok_or_else(|| Failure::new("virtiofsd is missing; type: apt-get install virtiofsd"))?;
    let mut command = ended_with_us(server);
    command.arg(format!("--socket-path={}", socket.display()));
    command.args(["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
        .spawn()
        .map_err(|error| Failure::new(format!("{} did not start: {error}", server.display())))
}

/// A program that the kernel kills when we are gone, also when we are killed: a guest computes for half an hour.
fn ended_with_us(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// A child that does not outlive us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reaches_the_guest_as_one_word() {
        assert_eq!(quoted("a 'b' $c"), r"'a '\''b'\'' $c'");
    }
}
