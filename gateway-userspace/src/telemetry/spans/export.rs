//! Batches of spans to a collector: `POST /v1/traces`, protobuf, over plain HTTP/1.1 (OTLP 1.x, "OTLP/HTTP").

use super::otlp::{ExportTraceServiceRequest, InstrumentationScope, Resource, ResourceSpans, ScopeSpans, Span, text};
use super::{BATCH, Exports};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// For one batch, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Goes at one batch; only what the specification calls retryable is tried again.
const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; doubled before the third.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Spans in one request.
const SPANS_PER_REQUEST: usize = 4 * BATCH;
/// Failures between two warnings.
const WARN_EVERY: u64 = 100;

/// A collector's address, as in `http://127.0.0.1:4318`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            bail!(
                "`{url}` is no collector: write http://HOST[:PORT][/PATH]; over TLS send to a collector on this node"
            );
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (
                    host,
                    port.with_context(|| format!("`{url}`: the port is no number of 1 to 65535"))?,
                )
            }
            _ => (authority, 4318),
        };
        if host.is_empty() {
            bail!("`{url}` names no host: write http://HOST:PORT");
        }
        let base = path.trim_end_matches('/');
        let path = if base.ends_with("/v1/traces") {
            base.to_owned()
        } else {
            format!("{base}/v1/traces")
        };
        Ok(Self {
            authority: authority.to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            path,
        })
    }
}

/// Whom the spans are for, and whom they are from.
#[derive(Debug)]
pub struct Collector {
    endpoint: Endpoint,
    resource: Resource,
}

impl Collector {
    pub fn new(endpoint: Endpoint, resource: &[(String, String)]) -> Self {
        let attributes = resource.iter().map(|(key, value)| text(key, value.clone())).collect();
        Self {
            endpoint,
            resource: Resource { attributes },
        }
    }

    fn body(&self, spans: Vec<Span>) -> Bytes {
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                }],
            }],
        };
        Bytes::from(request.encode_to_vec())
    }

    /// The status the collector answered.
    async fn post(&self, body: Bytes) -> Result<u16> {
        let Endpoint {
            authority,
            host,
            port,
            path,
        } = &self.endpoint;
        let stream = TcpStream::connect((host.as_str(), *port)).await.context("connect")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::post(path)
            .header("host", authority)
            .header("content-type", "application/x-protobuf")
            .header("connection", "close")
            .body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        Ok(response.status().as_u16())
    }
}

/// Sends what recorders hand over.
#[derive(Debug)]
pub struct Exporter {
    collector: Collector,
    runtime: Runtime,
    exports: Arc<Exports>,
    failures: u64,
}

impl Exporter {
    pub fn new(collector: Collector, exports: Arc<Exports>) -> io::Result<Self> {
        Ok(Self {
            collector,
            runtime: Builder::new_current_thread().enable_all().build()?,
            exports,
            failures: 0,
        })
    }

    /// Until every recorder is gone.
    pub fn run(mut self, batches: &Receiver<Vec<Span>>) {
        while let Ok(mut spans) = batches.recv() {
            while spans.len() < SPANS_PER_REQUEST
                && let Ok(more) = batches.try_recv()
            {
                spans.extend(more);
            }
            self.send(spans);
        }
    }

    fn send(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let body = self.collector.body(spans);
        match self.runtime.block_on(deliver(&self.collector, &body)) {
            Ok(()) => {
                self.failures = 0;
                self.exports.exported_total.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) => {
                if self.failures.is_multiple_of(WARN_EVERY) {
                    let Endpoint { authority, path, .. } = &self.collector.endpoint;
                    tracing::warn!("spans are lost: POST http://{authority}{path}: {error:#}");
                }
                self.failures += 1;
                self.exports.lost_total.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

async fn deliver(collector: &Collector, body: &Bytes) -> Result<()> {
    let mut pause = RETRY_PAUSE;
    for attempt in 1.. {
        let last = attempt == ATTEMPTS_MAX;
        match tokio::time::timeout(TIMEOUT, collector.post(body.clone())).await {
            Ok(Ok(200..=299)) => return Ok(()),
            // "Retryable response codes" of the specification.
            Ok(Ok(429 | 502 | 503 | 504)) if !last => {}
            Ok(Ok(status)) => bail!("the collector answered {status}"),
            Ok(Err(_)) if !last => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => bail!("no answer within {TIMEOUT:?}"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_or_the_whole_url() {
        let rows = [
            ("http://127.0.0.1:4318", "127.0.0.1", 4318, "/v1/traces"),
            ("http://collector", "collector", 4318, "/v1/traces"),
            ("http://collector:80/otlp/", "collector", 80, "/otlp/v1/traces"),
            ("http://[::1]:4318/v1/traces", "::1", 4318, "/v1/traces"),
            ("http://[::1]", "::1", 4318, "/v1/traces"),
        ];
        for (url, host, port, path) in rows {
            let endpoint: Endpoint = url.parse().expect(url);
            assert_eq!(
                (&endpoint.host[..], endpoint.port, &endpoint.path[..]),
                (host, port, path),
                "{url}"
            );
        }
        for url in ["", "collector:4318", "https://c", "http://", "http://c:0", "http://c:x"] {
            assert!(url.parse::<Endpoint>().is_err(), "{url}");
        }
    }
}
