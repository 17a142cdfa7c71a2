//! The probe: `/livez`, `/readyz` and `/startupz` on a port of its own, for the kubelet and load balancers.
//!
//! It has a thread of its own, so that nothing the admin or a source does delays an answer. It says yes or no and why,
//! shows nothing of the configuration, takes nothing, and so asks nobody for a `Host`. One request a connection.

use super::state::AdminState;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// All that is answered.
pub const PATHS: [&str; 3] = ["/livez", "/readyz", "/startupz"];
/// Served at once; others wait to be accepted.
const CONNECTIONS_MAX: u32 = 64;
/// From accept to the end of the answer.
const EXCHANGE_MAX: Duration = Duration::from_secs(1);
/// A request's head. A body is not read.
const HEAD_BYTES_MAX: usize = 4096;
/// After a failed accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves in a thread of its own until the handle is aborted; requests under way are then still answered.
pub fn start(
    address: SocketAddr,
    inherited: Option<OwnedFd>,
    state: Arc<AdminState>,
) -> Result<(OwnedFd, AbortHandle)> {
    let listener = match inherited {
        Some(socket) => std::net::TcpListener::from(socket),
        None => std::net::TcpListener::bind(address)
            .with_context(|| format!("probe on {address}: choose another with --probe HOST:PORT"))?,
    };
    listener.set_nonblocking(true)?;
    let socket = listener.as_fd().try_clone_to_owned()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let task = runtime.spawn(serve(listener, room.clone(), state));
    let handle = task.abort_handle();
    let run = move || {
        runtime.block_on(async {
            // Only an abort ends it.
            let _ = task.await;
            let _ = tokio::time::timeout(EXCHANGE_MAX, room.acquire_many(CONNECTIONS_MAX)).await;
        });
    };
    std::thread::Builder::new().name("probe".into()).spawn(run)?;
    Ok((socket, handle))
}

async fn serve(listener: std::net::TcpListener, room: Arc<Semaphore>, state: Arc<AdminState>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the probe is not served: {error}"),
    };
    // The semaphore is never closed.
    while let Ok(place) = room.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let state = state.clone();
        tokio::spawn(async move {
            // A client that is slow or gone has no answer to wait for.
            let _ = tokio::time::timeout(EXCHANGE_MAX, exchange(stream, |path| verdict(&state, path))).await;
            drop(place);
        });
    }
}

/// Reads one request's head, writes one answer.
async fn exchange(
    mut stream: TcpStream,
    verdict: impl FnOnce(&str) -> Option<Result<(), String>>,
) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(512);
    let whole = loop {
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            break true;
        }
        if head.len() >= HEAD_BYTES_MAX || stream.read_buf(&mut head).await? == 0 {
            break false;
        }
    };
    stream.write_all(answer(whole, &head, verdict).as_bytes()).await?;
    stream.shutdown().await
}

/// The whole answer to a head.
fn answer(whole: bool, head: &[u8], verdict: impl FnOnce(&str) -> Option<Result<(), String>>) -> String {
    let line = head.split(|octet| *octet == b'\r').next().unwrap_or_default();
    let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let good = whole && version.is_some_and(|version| version.starts_with("HTTP/1."));
    let (status, body) = match (method, target) {
        (Some("GET" | "HEAD"), Some(target)) if good => {
            // The kubelet's own page for people asks with a query.
            match verdict(target.split('?').next().unwrap_or_default()) {
                Some(Ok(())) => ("200 OK", "ok\n".to_owned()),
                Some(Err(why)) => ("503 Service Unavailable", why + "\n"),
                None => ("404 Not Found", format!("there are {}\n", PATHS.join(" "))),
            }
        }
        (Some(_), Some(_)) if good => ("405 Method Not Allowed\r\nallow: GET, HEAD", String::new()),
        _ => ("400 Bad Request", String::new()),
    };
    let length = body.len();
    let shown = if method == Some("HEAD") { "" } else { &body };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncache-control: no-store\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{shown}"
    )
}

/// What a path asks, and the answer; none for another path.
fn verdict(state: &AdminState, path: &str) -> Option<Result<(), String>> {
    match path {
        "/livez" => Some(state.health.alive()),
        "/readyz" if state.ready() => Some(Ok(())),
        "/readyz" if state.health.started() => Some(Err("draining".to_owned())),
        "/startupz" if state.health.started() => Some(Ok(())),
        "/readyz" | "/startupz" => Some(Err("starting".to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str, whole: bool) -> String {
        let verdict = |path: &str| match path {
            "/livez" => Some(Ok(())),
            "/readyz" => Some(Err("draining".to_owned())),
            _ => None,
        };
        answer(whole, head.as_bytes(), verdict)
    }

    #[test]
    fn three_paths_are_answered_to_get_and_head_and_nothing_else_is() {
        let rows = [
            ("GET /livez HTTP/1.1\r\nhost: x.example\r\n\r\n", "200", "ok\n"),
            ("GET /livez?verbose HTTP/1.0\r\n\r\n", "200", "ok\n"),
            ("GET /readyz HTTP/1.1\r\n\r\n", "503", "draining\n"),
            ("HEAD /readyz HTTP/1.1\r\n\r\n", "503", ""),
            (
                "GET /config_dump HTTP/1.1\r\n\r\n",
                "404",
                "there are /livez /readyz /startupz\n",
            ),
            ("POST /livez HTTP/1.1\r\n\r\n", "405", ""),
            ("PRI * HTTP/2.0\r\n\r\n", "400", ""),
            ("\u{16}\u{3}\u{1}\r\n\r\n", "400", ""),
        ];
        for (head, code, body) in rows {
            let answer = status(head, true);
            assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{head:?}: {answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{head:?}: {answer}");
        }
        assert!(status("GET /livez HTTP/1.1\r\nx: yyyy", false).starts_with("HTTP/1.1 400 "));
    }
}
