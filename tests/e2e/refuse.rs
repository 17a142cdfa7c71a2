//! What the gateway refuses, and how it says so.

use anyhow::{Result, ensure};
use gateway_tests::gateway::PINS;
use gateway_tests::lab::Lab;
use gateway_tests::shell::{repository, run, sluice};
use std::process::Command;
use std::time::Duration;

/// Somebody else's XDP program: it passes everything.
const FOREIGN: &str = "define i32 @foreign_guard(ptr %packet) section \"xdp\" {\n  ret i32 2\n}\n\
                       @_license = global [4 x i8] c\"GPL\\00\", section \"license\"\n";

fn gateway_in_lab(args: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(sluice());
    command
        .args(["lab", "exec", "sluice-gw", "--", "timeout", "10"])
        .arg(sluice())
        .arg("run")
        .args(args);
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
}

/// An XDP program someone else put on the interface stays, and the message names it.
pub fn foreign_xdp(_datapath: &str) -> Result<()> {
    let source = Lab::file("foreign.ll");
    let object = Lab::file("foreign.o");
    std::fs::write(&source, FOREIGN)?;
    // Of the LLVM that links our own programs.
    let mut compiler = Command::new("/usr/lib/llvm-22/bin/llc");
    compiler
        .args(["-march=bpf", "-filetype=obj"])
        .arg(&source)
        .arg("-o")
        .arg(&object);
    run(compiler, Duration::from_secs(30))?;
    let mut attach = Command::new(sluice());
    attach
        .args([
            "lab",
            "exec",
            "sluice-gw",
            "--",
            "ip",
            "link",
            "set",
            "client",
            "xdp",
            "obj",
        ])
        .arg(&object);
    attach.args(["sec", "xdp"]);
    run(attach, Duration::from_secs(10))?;
    let config = Lab::file("quickstart.yaml").display().to_string();
    let pins = format!("--pin-dir={PINS}");
    let args = [
        "-f",
        &config,
        "--datapath=xdp",
        "--interface=client",
        "--admin=none",
        &pins,
    ];
    let (code, text) = gateway_in_lab(&args)?;
    ensure!(code == Some(69), "exit {code:?}: {text}");
    ensure!(text.contains("foreign_guard") && text.contains("client"), "{text}");
    Ok(())
}

/// As `nobody`: demanded is impossible, `auto` runs on own sockets and says why.
pub fn unprivileged(_datapath: &str) -> Result<()> {
    let config = repository().join("config/quickstart.yaml").canonicalize()?;
    let copy = std::env::temp_dir().join(format!("sluice-unprivileged-{}.yaml", std::process::id()));
    std::fs::copy(&config, &copy)?;
    let binary = std::env::temp_dir().join(format!("sluice-unprivileged-{}", std::process::id()));
    std::fs::copy(sluice(), &binary)?;
    let as_nobody = |args: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
            "timeout",
            "-s",
            "INT",
            "3",
        ]);
        command
            .arg(&binary)
            .args(["run", "--admin=none", "-f"])
            .arg(&copy)
            .args(args);
        let output = command.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
    };
    let demanded = as_nobody(&["--datapath=tcx", "--interface=lo"])?;
    let automatic = as_nobody(&["--datapath=auto"])?;
    let _ = std::fs::remove_file(&copy);
    let _ = std::fs::remove_file(&binary);
    ensure!(
        matches!(demanded.0, Some(69 | 77)),
        "demanded: exit {:?}: {}",
        demanded.0,
        demanded.1
    );
    ensure!(
        automatic.1.contains("ready listeners=0") && automatic.1.contains("datapath=off"),
        "{}",
        automatic.1
    );
    ensure!(
        automatic.1.contains("198.18.0.10"),
        "what is not served is named: {}",
        automatic.1
    );
    Ok(())
}
