//! The load of the comparison: unary gRPC calls over one or more connections, each with a bounded number in flight.

use super::proto::EchoRequest;
use super::proto::echo_client::EchoClient;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::Endpoint;

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// `host:port`.
    pub target: String,
    pub connections: u32,
    pub requests: u64,
    /// Calls in flight per connection.
    pub concurrency: u32,
    pub payload_bytes: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LoadResult {
    pub requests: u64,
    pub failed: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    /// As the answers say; the backends' own counts are taken apart.
    pub per_endpoint: BTreeMap<String, u64>,
    /// The first failure, in words.
    pub first_failure: Option<String>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends it and waits for every answer.
pub async fn drive(load: &Load) -> Result<LoadResult> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..load.connections {
        let channel = Endpoint::from_shared(format!("http://{}", load.target))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .connect()
            .await
            .with_context(|| format!("connect to {}", load.target))?;
        for _ in 0..load.concurrency {
            let (client, next, load) = (EchoClient::new(channel.clone()), next.clone(), load.clone());
            tasks.push(tokio::spawn(calls(client, next, load)));
        }
    }
    let mut total = LoadResult {
        requests: load.requests,
        ..LoadResult::default()
    };
    let mut times_us = Vec::new();
    for task in tasks {
        let part = task.await.context("a load task panicked")?;
        times_us.extend(part.times_us);
        total.failed += part.failed;
        total.first_failure = total.first_failure.or(part.first_failure);
        for (endpoint, count) in part.per_endpoint {
            *total.per_endpoint.entry(endpoint).or_default() += count;
        }
    }
    times_us.sort_unstable();
    let percentile =
        |hundredths: usize| times_us.get((times_us.len() * hundredths / 100).min(times_us.len().saturating_sub(1)));
    total.p50_us = percentile(50).copied().unwrap_or(0);
    total.p99_us = percentile(99).copied().unwrap_or(0);
    Ok(total)
}

#[derive(Default)]
struct Part {
    times_us: Vec<u64>,
    failed: u64,
    first_failure: Option<String>,
    per_endpoint: BTreeMap<String, u64>,
}

async fn calls(mut client: EchoClient<tonic::transport::Channel>, next: Arc<AtomicU64>, load: Load) -> Part {
    let mut part = Part::default();
    while next.fetch_add(1, Ordering::Relaxed) < load.requests {
        let request = EchoRequest {
            payload: vec![7; load.payload_bytes].into(),
            ..EchoRequest::default()
        };
        let began = Instant::now();
        match client.say(request).await {
            Ok(reply) => {
                part.times_us
                    .push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                *part.per_endpoint.entry(reply.into_inner().endpoint).or_default() += 1;
            }
            Err(status) => {
                part.failed += 1;
                part.first_failure
                    .get_or_insert_with(|| format!("{:?}: {}", status.code(), status.message()));
            }
        }
    }
    part
}
