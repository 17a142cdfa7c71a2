//! The `h2` crate as client and as endpoint.

use super::config::endpoint_addr;
use super::rig::Rig;
use bytes::Bytes;
use gateway_http::engine::DownstreamProtocol;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use std::future::Future;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A client connection.
pub async fn client(rig: &Rig) -> SendRequest<Bytes> {
    client_with(rig, h2::client::Builder::new()).await
}

pub async fn client_with(rig: &Rig, builder: h2::client::Builder) -> SendRequest<Bytes> {
    let socket = rig.socket(DownstreamProtocol::Http2).await;
    let (send, connection) = builder.handshake(socket).await.expect("handshake");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send.ready().await.expect("ready")
}

/// What an endpoint sees of a request.
pub type Incoming = (Request<RecvStream>, SendResponse<Bytes>);

/// An endpoint that answers every request by `serve`, until the task is aborted.
pub async fn endpoint<F, R>(rig: &Rig, number: u8, serve: F) -> JoinHandle<()>
where
    F: Fn(Incoming) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    endpoint_with(rig, number, h2::server::Builder::new(), serve).await
}

pub async fn endpoint_with<F, R>(rig: &Rig, number: u8, builder: h2::server::Builder, serve: F) -> JoinHandle<()>
where
    F: Fn(Incoming) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let mut sockets = rig.listen(endpoint_addr(number)).await;
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Some(socket) = sockets.recv().await {
            let (builder, serve) = (builder.clone(), serve.clone());
            connections.spawn(async move {
                let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else {
                    return;
                };
                let mut requests = tokio::task::JoinSet::new();
                while let Some(Ok(incoming)) = connection.accept().await {
                    requests.spawn(serve(incoming));
                }
            });
        }
    })
}

/// Reads a body to its end, giving credit as it comes.
pub async fn body(stream: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        let _ = stream.flow_control().release_capacity(chunk.len());
        all.extend_from_slice(&chunk);
    }
    Ok((all, stream.trailers().await?))
}

/// Sends all of `bytes` as the window allows.
pub async fn send_all(stream: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(capacity) = capacity.transpose()? else {
            return Ok(());
        };
        let part = bytes.split_to(capacity.min(bytes.len()));
        let last = end && bytes.is_empty();
        stream.send_data(part, last)?;
        if last {
            return Ok(());
        }
    }
    if end {
        stream.send_data(Bytes::new(), true)
    } else {
        Ok(())
    }
}

/// Echoes body and some fields, with trailers.
pub async fn echo(name: &'static str, (request, mut respond): Incoming) {
    let (parts, mut incoming) = request.into_parts();
    let mut response = Response::builder().status(200).header("x-endpoint", name);
    for (field, value) in &parts.headers {
        response = response.header(format!("echo-{field}"), value);
    }
    response = response
        .header("echo-path", parts.uri.path_and_query().map_or("", |path| path.as_str()))
        .header("echo-scheme", parts.uri.scheme_str().unwrap_or_default())
        .header(
            "echo-authority",
            parts.uri.authority().map_or("", |authority| authority.as_str()),
        );
    let Ok(mut out) = respond.send_response(response.body(()).expect("valid"), false) else {
        return;
    };
    while let Some(Ok(chunk)) = incoming.data().await {
        let len = chunk.len();
        if send_all(&mut out, chunk, false).await.is_err() {
            return;
        }
        let _ = incoming.flow_control().release_capacity(len);
    }
    let mut trailers = incoming.trailers().await.ok().flatten().unwrap_or_default();
    trailers.insert("x-trailer", name.parse().expect("valid"));
    let _ = out.send_trailers(trailers);
}

/// A GET without body.
pub fn get(path: &str) -> Request<()> {
    Request::get(format!("https://example.com{path}"))
        .body(())
        .expect("valid")
}

/// A gRPC call's head.
pub fn call(path: &str) -> Request<()> {
    Request::post(format!("http://example.com{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("valid")
}

/// Collects what endpoints tell.
pub fn log<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}
