//! Traces: two spans for each recorded request, one of the gateway as a server and one of its way to the endpoint,
//! sent to an OpenTelemetry collector (OTLP over HTTP).
//!
//! A worker makes spans of the outcomes that are sampled and hands them over through a bounded queue, at most every
//! [`FLUSH_PAUSE`]; it never waits. A thread of its own sends them in batches. What finds no room, and what the
//! collector does not take, is dropped and counted.

mod export;
mod otlp;

use crate::settings::Tunables;
use crate::sys::clock::{Clock, Wall};
use anyhow::Context;
use export::{Collector, Exporter};
use gateway_core::snapshot::Snapshot;
use gateway_core::time::Moment;
use gateway_http::outcome::Outcome;
use gateway_http::trace::{Sampling, Trace};
use otlp::{Span, Status, number, text};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use export::Endpoint;

/// Spans that wait in a worker before they are dropped.
pub const SPANS_MAX: usize = 2048;
/// Handed over at once when so many have come together.
pub const BATCH: usize = 512;
/// Batches waiting for the exporter, of all workers.
pub const BATCHES_MAX: usize = 16;
/// Longest time a span waits for company.
pub const FLUSH_PAUSE: Duration = Duration::from_millis(500);

/// Where spans go, and of how many requests.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanOptions {
    /// `None`: requests are not traced, and `traceparent` passes untouched.
    pub endpoint: Option<Endpoint>,
    /// Share of the traces that begin here, 0 to 1. A trace that its caller records is recorded.
    pub ratio: f64,
    /// `service.name` and other attributes of the resource.
    pub resource: Vec<(String, String)>,
}

impl Default for SpanOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            ratio: 0.01,
            resource: vec![("service.name".to_owned(), "sluice".to_owned())],
        }
    }
}

impl SpanOptions {
    /// What was set; OpenTelemetry's environment counts where nothing was.
    pub fn of(tunables: &Tunables) -> anyhow::Result<Self> {
        let of_environment = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let endpoint = tunables
            .tracing_endpoint
            .clone()
            .or_else(|| of_environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
            .or_else(|| of_environment("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let endpoint = endpoint.map(|url| url.parse()).transpose();
        let name = of_environment("OTEL_SERVICE_NAME").unwrap_or_else(|| "sluice".to_owned());
        let mut resource = vec![("service.name".to_owned(), name)];
        let more = of_environment("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let more = more.split(',').filter_map(|pair| pair.split_once('='));
        resource.extend(more.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())));
        Ok(Self {
            endpoint: endpoint.context("tracing.endpoint")?,
            ratio: tunables.tracing_ratio,
            resource,
        })
    }
}

/// What became of spans that left the workers.
#[derive(Debug, Default)]
pub struct Exports {
    pub exported_total: AtomicU64,
    pub lost_total: AtomicU64,
}

/// The exporter's handle; makes recorders. Dropped after all recorders, it waits until the last batch is sent.
#[derive(Debug)]
pub struct SpanWriter {
    sampling: Option<Sampling>,
    queue: Option<SyncSender<Vec<Span>>>,
    thread: Option<JoinHandle<()>>,
    exports: Arc<Exports>,
}

impl SpanWriter {
    pub fn start(options: SpanOptions) -> io::Result<Self> {
        let exports = Arc::<Exports>::default();
        let Some(endpoint) = options.endpoint else {
            return Ok(Self {
                sampling: None,
                queue: None,
                thread: None,
                exports,
            });
        };
        let (queue, batches) = mpsc::sync_channel(BATCHES_MAX);
        let exporter = Exporter::new(Collector::new(endpoint, &options.resource), Arc::clone(&exports))?;
        let thread = thread::Builder::new()
            .name("spans".to_owned())
            .spawn(move || exporter.run(&batches))?;
        Ok(Self {
            sampling: Some(Sampling::ratio(options.ratio)),
            queue: Some(queue),
            thread: Some(thread),
            exports,
        })
    }

    /// One worker's end. The first worker's also tells what became of everyone's.
    pub fn recorder(&self, clock: Clock, first: bool) -> SpanRecorder {
        SpanRecorder {
            sampling: self.sampling,
            queue: self.queue.clone(),
            spans: Vec::new(),
            flush_at: None,
            clock,
            wall: clock.wall(),
            wall_until: Moment::ZERO,
            recorded_total: 0,
            dropped_total: 0,
            exports: first.then(|| Arc::clone(&self.exports)),
        }
    }
}

impl Drop for SpanWriter {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A worker's end.
#[derive(Debug)]
pub struct SpanRecorder {
    sampling: Option<Sampling>,
    queue: Option<SyncSender<Vec<Span>>>,
    spans: Vec<Span>,
    flush_at: Option<Moment>,
    clock: Clock,
    wall: Wall,
    wall_until: Moment,
    recorded_total: u64,
    dropped_total: u64,
    exports: Option<Arc<Exports>>,
}

/// How old the mapping from moments to wall-clock time may be.
const WALL_PAUSE: Duration = Duration::from_secs(1);

impl SpanRecorder {
    /// What the engine has to know.
    pub fn sampling(&self) -> Option<Sampling> {
        self.sampling
    }

    /// Records a request if its trace is.
    pub fn record(&mut self, outcome: &Outcome<'_>, snapshot: &Snapshot) {
        let Some(trace) = outcome.trace.filter(|trace| trace.sampled) else {
            return;
        };
        if self.spans.len() + 2 > SPANS_MAX {
            self.dropped_total += 2;
            return;
        }
        if outcome.ended >= self.wall_until {
            self.wall = self.clock.wall();
            self.wall_until = outcome.ended + WALL_PAUSE;
        }
        let server = server_span(&trace, outcome, snapshot, &self.wall);
        if let Some(client) = client_span(&trace, outcome, snapshot, &server) {
            self.spans.push(client);
            self.recorded_total += 1;
        }
        self.spans.push(server);
        self.recorded_total += 1;
    }

    /// Hands over what has come together, when it is time.
    pub fn end_turn(&mut self, now: Moment) {
        if self.spans.is_empty() {
            return;
        }
        let at = *self.flush_at.get_or_insert(now + FLUSH_PAUSE);
        if self.spans.len() >= BATCH || at <= now {
            self.flush();
            self.flush_at = (!self.spans.is_empty()).then(|| now + FLUSH_PAUSE);
        }
    }

    /// When spans that wait should be handed over.
    pub fn flush_at(&self) -> Option<Moment> {
        self.flush_at
    }

    /// Hands over what is there, if the queue takes it.
    pub fn flush(&mut self) {
        let Some(queue) = &self.queue else { return };
        if self.spans.is_empty() {
            return;
        }
        match queue.try_send(std::mem::take(&mut self.spans)) {
            Ok(()) => {}
            Err(TrySendError::Full(spans) | TrySendError::Disconnected(spans)) => self.spans = spans,
        }
    }

    /// Spans made, dropped here or on the way, and taken by the collector.
    pub fn totals(&self) -> (u64, u64, u64) {
        let (lost, exported) = self.exports.as_ref().map_or((0, 0), |exports| {
            (
                exports.lost_total.load(Ordering::Relaxed),
                exports.exported_total.load(Ordering::Relaxed),
            )
        });
        (self.recorded_total, self.dropped_total + lost, exported)
    }
}

const KIND_SERVER: i32 = 2;
const KIND_CLIENT: i32 = 3;
const STATUS_ERROR: i32 = 2;

/// The request as the gateway served it. Names of attributes are OpenTelemetry's (HTTP stable, RPC release candidate).
fn server_span(trace: &Trace, outcome: &Outcome<'_>, snapshot: &Snapshot, wall: &Wall) -> Span {
    let (path, query) = outcome.path.split_once('?').unwrap_or((outcome.path, ""));
    let rule = outcome.rule.and_then(|id| snapshot.rule(id));
    let mut attributes = vec![
        text("http.request.method", outcome.method),
        text("url.path", path),
        text("server.address", outcome.authority),
        text("network.protocol.version", version(outcome.protocol)),
        text("client.address", outcome.peer.ip().to_string()),
        number("client.port", outcome.peer.port()),
        number("http.response.status_code", outcome.status),
        text("sluice.request_id", outcome.request_id),
    ];
    if !query.is_empty() {
        attributes.push(text("url.query", query));
    }
    if !outcome.user_agent.is_empty() {
        attributes.push(text("user_agent.original", outcome.user_agent));
    }
    if let Some(rule) = rule {
        attributes.push(text("http.route", rule.name.as_str()));
    }
    let name = match outcome.grpc_status {
        Some(code) => {
            let method = path.trim_start_matches('/').to_owned();
            attributes.push(text("rpc.system.name", "grpc"));
            attributes.push(text("rpc.method", method.clone()));
            attributes.push(number("rpc.response.status_code", i64::from(code)));
            method
        }
        None => match rule {
            Some(rule) => format!("{} {}", outcome.method, rule.name.as_str()),
            None => outcome.method.to_owned(),
        },
    };
    let status = outcome.fault.map(|fault| {
        attributes.push(text("error.type", fault.name()));
        Status {
            message: fault.name().to_owned(),
            code: STATUS_ERROR,
        }
    });
    let failed = outcome.status >= 500;
    Span {
        trace_id: trace.trace_id.to_be_bytes().to_vec(),
        span_id: trace.server_id.to_be_bytes().to_vec(),
        trace_state: String::new(),
        parent_span_id: match trace.parent_id {
            0 => Vec::new(),
            parent => parent.to_be_bytes().to_vec(),
        },
        name,
        kind: KIND_SERVER,
        start_time_unix_nano: wall.unix_nanos(outcome.started),
        end_time_unix_nano: wall.unix_nanos(outcome.ended),
        attributes,
        status: status.or_else(|| {
            failed.then(|| Status {
                message: String::new(),
                code: STATUS_ERROR,
            })
        }),
    }
}

/// The request's way to the endpoint, whose own spans follow it; none for what was answered here.
fn client_span(trace: &Trace, outcome: &Outcome<'_>, snapshot: &Snapshot, server: &Span) -> Option<Span> {
    let endpoint = snapshot.endpoint(outcome.endpoint?)?;
    let mut attributes = vec![
        text("http.request.method", outcome.method),
        text("server.address", endpoint.addr.ip().to_string()),
        number("server.port", endpoint.addr.port()),
        text("sluice.endpoint", endpoint.name.as_str()),
        number("http.response.status_code", outcome.status),
        number("sluice.attempts", outcome.attempts),
    ];
    if let Some(service) = snapshot.service(endpoint.service) {
        attributes.push(text("sluice.service", service.name.as_str()));
    }
    Some(Span {
        span_id: trace.client_id.to_be_bytes().to_vec(),
        parent_span_id: server.span_id.clone(),
        kind: KIND_CLIENT,
        attributes,
        ..server.clone()
    })
}

fn version(protocol: &str) -> &str {
    protocol.split_once('/').map_or("", |(_, version)| version)
}
