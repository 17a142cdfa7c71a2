//! Clients from elsewhere: grpcio, curl, h2load.

use anyhow::{Context, Result, ensure};
use gateway_tests::gateway::{Gateway, log_tail};
use gateway_tests::lab::Lab;
use gateway_tests::shell::{client_text, python, repository};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

fn interop(target: &str, ca: Option<&str>) -> Result<()> {
    let script = repository()
        .join("tests/e2e/clients/interop.py")
        .canonicalize()?
        .display()
        .to_string();
    let mut args = vec![script.as_str(), target];
    args.extend(ca);
    client_text(python(), &args, LIMIT).with_context(log_tail).map(drop)
}

pub fn grpcio_l7(datapath: &str) -> Result<()> {
    let _gateway = Gateway::start(datapath)?;
    interop("198.18.0.10:50052", None)?;
    interop("[2001:2::a]:50052", None)
}

pub fn grpcio_l4(datapath: &str) -> Result<()> {
    let _gateway = Gateway::start(datapath)?;
    interop("198.18.0.10:50051", None)?;
    interop("[2001:2::a]:50051", None)
}

pub fn grpcio_tls(datapath: &str) -> Result<()> {
    let _gateway = Gateway::start(datapath)?;
    let ca = Lab::file("lab-tls.pem").display().to_string();
    interop("198.18.0.10:8443", Some(&ca))
}

/// The demo backends speak gRPC only, so a GET is answered with their 4xx or a gRPC status: what counts is that the
/// endpoint answered and over which protocol.
pub fn curl(datapath: &str) -> Result<()> {
    let _gateway = Gateway::start(datapath)?;
    let rows: [(&[&str], &str, &str); 6] = [
        (&["--http1.1"], "http://198.18.0.10:8080", "1.1"),
        (&["--http2-prior-knowledge"], "http://198.18.0.10:8080", "2"),
        (&["--http1.1"], "http://[2001:2::a]:8080", "1.1"),
        (&["--http2-prior-knowledge"], "http://[2001:2::a]:8080", "2"),
        (&["-k"], "https://198.18.0.10:8443", "2"),
        (&["-k", "--http1.1"], "https://[2001:2::a]:8443", "1.1"),
    ];
    let body = Lab::file("request.bin");
    std::fs::write(&body, [0, 0, 0, 0, 7, 0x0a, 5, b'h', b'e', b'l', b'l', b'o'])?;
    let data = format!("@{}", body.display());
    for (options, origin, version) in rows {
        let url = format!("{origin}/sluice.demo.v1.Echo/Say");
        let mut args = vec![
            "-sS",
            "-m",
            "10",
            "-o",
            "/dev/null",
            "-D",
            "-",
            "-w",
            "version=%{http_version} bytes=%{size_download}",
        ];
        args.extend([
            "-H",
            "content-type: application/grpc",
            "-H",
            "te: trailers",
            "--data-binary",
            &data,
        ]);
        args.extend(options);
        args.push(&url);
        let text = client_text("curl", &args, Duration::from_secs(20)).with_context(log_tail)?;
        ensure!(text.contains(" 200"), "{options:?} {url}: {text}");
        ensure!(
            text.contains(&format!("version={version} ")),
            "{options:?} {url}: {text}"
        );
        ensure!(
            text.to_lowercase().contains("x-endpoint: be"),
            "{options:?} {url}: {text}"
        );
        ensure!(!text.ends_with("bytes=0"), "{options:?} {url}: {text}");
    }
    Ok(())
}

pub fn h2load(datapath: &str) -> Result<()> {
    let _gateway = Gateway::start(datapath)?;
    let body = Lab::file("request.bin");
    std::fs::write(&body, [0, 0, 0, 0, 7, 0x0a, 5, b'h', b'e', b'l', b'l', b'o'])?;
    let data = body.display().to_string();
    let args = [
        "-n",
        "20000",
        "-c",
        "10",
        "-m",
        "10",
        "-d",
        &data,
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        "http://198.18.0.10:50052/sluice.demo.v1.Echo/Say",
    ];
    let text = client_text("h2load", &args, LIMIT).with_context(log_tail)?;
    ensure!(
        text.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{text}"
    );
    ensure!(text.contains("20000 2xx"), "{text}");
    Ok(())
}
