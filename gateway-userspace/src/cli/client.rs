//! Talks to the admin of a running gateway, over TCP or a Unix socket.

use super::exit::{Code, Exit};
use crate::settings::AdminAddr;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Where the admin is, as every asking verb takes it.
#[derive(Args, Debug, Clone)]
pub struct AdminArgs {
    /// Admin of the gateway to ask: HOST:PORT or unix:PATH.
    #[arg(long, env = "SLUICE_ADMIN", default_value = crate::settings::ADMIN_DEFAULT)]
    admin: AdminAddr,
}

/// How long the admin may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// One place to ask.
#[derive(Clone, Debug)]
pub struct AdminClient {
    addr: AdminAddr,
}

impl AdminClient {
    pub fn unix(path: PathBuf) -> Self {
        Self {
            addr: AdminAddr::Unix(path),
        }
    }

    /// The body of a GET; an answer other than 200 is an error.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.get_unbounded(path))
            .await
            .context("the admin did not answer in time")?
    }

    async fn get_unbounded(&self, path: &str) -> Result<Bytes> {
        match &self.addr {
            AdminAddr::Tcp(addr) => {
                let stream = TcpStream::connect(addr)
                    .await
                    .with_context(|| format!("connect to the admin at {addr}"))?;
                request(TokioIo::new(stream), &addr.to_string(), path).await
            }
            AdminAddr::Unix(socket) => {
                let connected = UnixStream::connect(socket).await;
                let stream = connected.with_context(|| format!("connect to the admin at {}", socket.display()))?;
                request(TokioIo::new(stream), "localhost", path).await
            }
            AdminAddr::None => bail!("`none` is no admin to ask"),
        }
    }
}

async fn request<S>(stream: S, host: &str, path: &str) -> Result<Bytes>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", host).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("ask the admin")?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!(
            "the admin answered {status} to {path}: {}",
            String::from_utf8_lossy(&body).trim()
        );
    }
    Ok(body)
}

/// Asks from a verb: one path, JSON back; no answer is exit code 4.
pub fn ask(args: &AdminArgs, path: &str) -> Result<Value, Exit> {
    let client = AdminClient {
        addr: args.admin.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start tokio")?;
    let body = runtime.block_on(client.get(path)).map_err(|error| {
        Exit::new(
            Code::Unreachable,
            format!("{error:#}; is `sluice run` up, and is --admin its address?"),
        )
    })?;
    Ok(serde_json::from_slice(&body).with_context(|| format!("the admin's answer to {path}"))?)
}
