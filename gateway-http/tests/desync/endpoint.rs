//! Endpoints that write down what they saw: HTTP/1.1 by the judge, HTTP/2 by the `h2` crate.

use super::config::endpoint_addr;
use super::judge::{self, Seen};
use super::rig::Rig;
use bytes::Bytes;
use gateway_core::ir::UpstreamProtocol;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What came, connection by connection.
#[derive(Clone, Default)]
pub struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    /// Listens as endpoint 1 and answers every whole request with 200 and no body.
    pub async fn start(rig: &Rig, protocol: UpstreamProtocol) -> Self {
        let recorder = Self::default();
        let mut sockets = rig.listen(endpoint_addr(1)).await;
        let mine = recorder.clone();
        tokio::spawn(async move {
            while let Some(socket) = sockets.recv().await {
                let recorder = mine.clone();
                match protocol {
                    UpstreamProtocol::Http1 => tokio::spawn(recorder.http1(socket)),
                    _ => tokio::spawn(recorder.http2(socket)),
                };
            }
        });
        recorder
    }

    /// Everything seen so far. What is no HTTP at all is a failure by itself.
    pub fn seen(&self) -> Vec<Seen> {
        let wrong = self.wrong.lock().expect("not poisoned").clone();
        assert!(wrong.is_empty(), "the endpoint got what is no request: {wrong:?}");
        self.seen.lock().expect("not poisoned").clone()
    }

    pub fn whole(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.whole).collect()
    }

    async fn http1(self, mut socket: DuplexStream) {
        let mut read = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            let len = socket.read(&mut chunk).await.unwrap_or(0);
            read.extend_from_slice(&chunk[..len]);
            let mut answers = 0;
            loop {
                match judge::request(&read) {
                    Ok((seen, Some(used))) => {
                        self.seen.lock().expect("not poisoned").push(seen);
                        read.drain(..used);
                        answers += 1;
                    }
                    Ok((seen, None)) => {
                        if len == 0 && !read.is_empty() {
                            self.seen.lock().expect("not poisoned").push(seen);
                        }
                        break;
                    }
                    Err(why) => {
                        let text = read.escape_ascii().to_string();
                        self.wrong.lock().expect("not poisoned").push(format!("{why}: {text}"));
                        return;
                    }
                }
            }
            if answers > 1 {
                let text = format!("{answers} requests in one go: nobody pipelines to endpoints");
                self.wrong.lock().expect("not poisoned").push(text);
            }
            if len == 0 {
                return;
            }
            for _ in 0..answers {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    }

    async fn http2(self, socket: DuplexStream) {
        let Ok(mut connection) = h2::server::handshake(socket).await else {
            return;
        };
        while let Some(incoming) = connection.accept().await {
            match incoming {
                Ok((request, respond)) => {
                    tokio::spawn(self.clone().serve(request, respond));
                }
                Err(error) if error.is_library() || error.is_reset() => {
                    self.wrong.lock().expect("not poisoned").push(error.to_string());
                    return;
                }
                Err(_) => return,
            }
        }
    }

    async fn serve(self, request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
        let (parts, mut body) = request.into_parts();
        let texts = |fields: &http::HeaderMap| -> Vec<(String, String)> {
            let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            fields
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect()
        };
        let mut seen = Seen {
            method: parts.method.to_string(),
            target: parts.uri.path_and_query().map_or(String::new(), ToString::to_string),
            authority: parts.uri.authority().map_or(String::new(), ToString::to_string),
            fields: texts(&parts.headers),
            ..Seen::default()
        };
        let cut = loop {
            match body.data().await {
                Some(Ok(data)) => {
                    let _ = body.flow_control().release_capacity(data.len());
                    seen.body.extend_from_slice(&data);
                }
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        match body.trailers().await {
            Ok(trailers) if !cut => {
                seen.trailers = trailers.as_ref().map(texts).unwrap_or_default();
                seen.whole = true;
                let length = seen.field("content-length").map(str::to_owned);
                if length.is_some_and(|length| length != seen.body.len().to_string()) {
                    let text = format!("the length is not that of the body: {seen:?}");
                    self.wrong.lock().expect("not poisoned").push(text);
                }
            }
            _ => {}
        }
        self.seen.lock().expect("not poisoned").push(seen);
        let _ = respond.send_response(http::Response::new(()), true);
    }
}
