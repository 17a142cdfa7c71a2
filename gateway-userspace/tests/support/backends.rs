//! Endpoints for tests, on codecs that nobody here wrote: the `h2` crate and hyper.
#![allow(clippy::unwrap_used, reason = "what a test cannot go on without")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::OnceLock;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    })
}

/// Accepts connections and gives each to `serve`.
fn listen<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr {
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    runtime().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream));
        }
    });
    addr
}

/// HTTP/2 with prior knowledge: echoes the body, says its name, and ends with trailers as gRPC does.
pub fn http2_echo(name: &'static str) -> SocketAddr {
    listen(move |stream| async move {
        let Ok(mut connection) = h2::server::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 20)
            .handshake::<_, Bytes>(stream)
            .await
        else {
            return;
        };
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(async move { drop(answer(name, request, respond).await) });
        }
    })
}

async fn answer(
    name: &'static str,
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let response = Response::builder()
        .header("x-endpoint", name)
        .header("x-method", head.method.as_str())
        .header("x-path", head.uri.path())
        .header(
            "content-type",
            head.headers
                .get("content-type")
                .map_or("text/plain", |it| it.to_str().unwrap()),
        )
        .header(
            "x-forwarded-proto-seen",
            head.headers
                .get("x-forwarded-proto")
                .map_or("", |it| it.to_str().unwrap()),
        )
        .body(())
        .unwrap();
    let mut out = respond.send_response(response, false)?;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        send(&mut out, piece).await?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    out.send_trailers(trailers)
}

async fn send(out: &mut h2::SendStream<Bytes>, mut piece: Bytes) -> Result<(), h2::Error> {
    while !piece.is_empty() {
        out.reserve_capacity(piece.len());
        let Some(room) = std::future::poll_fn(|context| out.poll_capacity(context)).await else {
            return Ok(());
        };
        let room = room?.min(piece.len());
        out.send_data(piece.split_to(room), false)?;
    }
    Ok(())
}

/// HTTP/1.1 keep-alive: echoes the body and says its name.
pub fn http1_echo(name: &'static str) -> SocketAddr {
    listen(move |stream| async move {
        let service = service_fn(move |request: Request<Incoming>| async move {
            let path = request.uri().path().to_owned();
            let method = request.method().to_string();
            let body = request
                .into_body()
                .collect()
                .await
                .map(|body| body.to_bytes())
                .unwrap_or_default();
            let response = Response::builder()
                .header("x-endpoint", name)
                .header("x-path", path)
                .header("x-method", method)
                .body(Full::new(body))
                .unwrap();
            Ok::<_, Infallible>(response)
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
}
