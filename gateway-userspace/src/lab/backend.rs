//! A backend of the laboratory: a real tonic server that names itself in every answer and counts what it answered.

use super::proto::echo_server::{Echo, EchoServer};
use super::proto::{DESCRIPTORS, EchoReply, EchoRequest};
use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// Largest message the backend takes or makes, bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Answers of one Repeat call at most.
const REPEAT_MAX: u32 = 1_000_000;
/// Answers waiting in a stream before the backend stops producing.
const STREAM_QUEUE: usize = 16;

/// Serves until the process ends. Counts are told to whoever connects to `count_socket`.
pub async fn serve(name: String, port: u16, count_socket: Option<&Path>) -> Result<()> {
    let answered = Arc::new(AtomicU64::new(0));
    if let Some(path) = count_socket {
        tell_counts(path, answered.clone())?;
    }
    let echo = EchoServer::new(EchoService { name, answered })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<EchoServer<EchoService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()
        .context("reflection")?;
    let routes = Routes::new(health).add_service(reflection).add_service(echo).prepare();
    let addr = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(addr)
        .await
        .with_context(|| format!("listen on {addr}"))?;
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        stream.set_nodelay(true)?;
        // Not tonic's own server loop: it answers a passed deadline with CANCELLED before the client has seen its own
        // DEADLINE_EXCEEDED, which would make every deadline through the gateway a race.
        let connection = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_concurrent_streams(1000)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes.clone()));
        tokio::spawn(connection);
    }
}

/// Answers every connection to a Unix socket with the count, as text.
fn tell_counts(path: &Path, answered: Arc<AtomicU64>) -> Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = std::os::unix::net::UnixListener::bind(path).with_context(|| format!("bind {}", path.display()))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = writeln!(stream, "{}", answered.load(Ordering::Relaxed));
        }
    });
    Ok(())
}

struct EchoService {
    name: String,
    answered: Arc<AtomicU64>,
}

impl EchoService {
    fn reply(&self, payload: Bytes, count: u64) -> EchoReply {
        EchoReply {
            payload,
            endpoint: self.name.clone(),
            count,
        }
    }

    /// Delay and demanded failure of a request.
    async fn heed(request: &EchoRequest) -> Result<(), Status> {
        if request.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(u64::from(request.delay_ms))).await;
        }
        match request.fail_with {
            0 => Ok(()),
            code => Err(Status::new(tonic::Code::from(code.cast_signed()), "as demanded")),
        }
    }
}

type Replies = std::pin::Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for EchoService {
    async fn say(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let request = request.into_inner();
        Self::heed(&request).await?;
        let mut response = Response::new(self.reply(request.payload, 1));
        if let Ok(name) = self.name.parse() {
            response.metadata_mut().insert("x-endpoint", name);
        }
        Ok(response)
    }

    async fn collect(&self, request: Request<Streaming<EchoRequest>>) -> Result<Response<EchoReply>, Status> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let mut incoming = request.into_inner();
        let mut bytes = 0;
        while let Some(message) = incoming.next().await {
            let message = message?;
            Self::heed(&message).await?;
            bytes += message.payload.len() as u64;
        }
        Ok(Response::new(self.reply(Bytes::new(), bytes)))
    }

    type RepeatStream = Replies;

    async fn repeat(&self, request: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let request = request.into_inner();
        let reply = self.reply(request.payload.clone(), 0);
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        tokio::spawn(async move {
            for number in 0..request.count.clamp(1, REPEAT_MAX) {
                let answer = Self::heed(&request).await;
                let failed = answer.is_err();
                let answer = answer.map(|()| EchoReply {
                    count: u64::from(number),
                    ..reply.clone()
                });
                if sender.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type ChatStream = Replies;

    async fn chat(&self, request: Request<Streaming<EchoRequest>>) -> Result<Response<Replies>, Status> {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let mut incoming = request.into_inner();
        let name = self.name.clone();
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        tokio::spawn(async move {
            let mut count = 0;
            while let Some(message) = incoming.next().await {
                let answer = match message {
                    Ok(message) => Self::heed(&message).await.map(|()| {
                        count += 1;
                        EchoReply {
                            payload: message.payload,
                            endpoint: name.clone(),
                            count,
                        }
                    }),
                    Err(status) => Err(status),
                };
                let failed = answer.is_err();
                if sender.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
