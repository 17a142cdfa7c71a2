//! What is live, as values for the admin.

use super::Engine;
use super::connection::{Codec, Role};
use super::stream::DOWN;
use crate::head::Token;
use crate::metrics::Metrics;
use crate::outcome::TEXT_BYTES_MAX;
use gateway_core::model::{ConnectionView, LivePlane, StreamView};
use gateway_core::time::Moment;

fn millis(from: Moment, to: Moment) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    /// The counters, and what only looking at every connection tells.
    pub fn measure(&self) -> Metrics {
        let mut metrics = self.metrics.clone();
        metrics.held_bytes = self.held;
        metrics.window_growth_bytes = self.grown;
        for c in self.connections.iter() {
            let waiting = match &c.codec {
                Codec::Http2(http2) => {
                    metrics.streams_waiting += http2.ring.len() as u64;
                    http2.waiting.len() as u64
                }
                Codec::Http1(_) => u64::from(c.is_connecting()) * u64::from(c.streams),
                Codec::Detecting => 0,
            };
            if let Some(endpoint) = c.endpoint() {
                let share = metrics.endpoint(endpoint);
                share.requests_pending += waiting;
                share.connections_idle += u64::from(c.streams == 0);
            }
        }
        metrics
    }

    pub(super) fn connection_views(&self, now: Moment) -> Vec<ConnectionView> {
        let view = |c: &super::connection::Connection| ConnectionView {
            id: c.serial,
            plane: LivePlane::Http,
            protocol: c.protocol_name(),
            side: c.side(),
            peer: c.peer,
            local: c.local,
            listener: match c.role {
                Role::Downstream { listener, .. } => Some(listener),
                Role::Upstream { .. } => None,
            },
            endpoint: c.endpoint(),
            streams: c.streams,
            streams_total: c.streams_total,
            bytes_in: c.bytes_in,
            bytes_out: c.bytes_out,
            age_ms: millis(c.opened, now),
            server_name: match &c.role {
                Role::Downstream { facts, .. } => facts.as_ref().and_then(|facts| facts.server_name.clone()),
                Role::Upstream { .. } => None,
            },
            identity: match &c.role {
                Role::Downstream { facts, .. } => facts
                    .as_ref()
                    .and_then(|facts| facts.client.as_ref())
                    .map(|client| client.identity.clone()),
                Role::Upstream { .. } => None,
            },
            why: match &c.codec {
                Codec::Detecting => Some("waiting for the first bytes"),
                Codec::Http2(_) | Codec::Http1(_) => None,
            },
        };
        self.connections.iter().map(view).collect()
    }

    pub(super) fn stream_views(&self, now: Moment) -> Vec<StreamView> {
        let text = |bytes: Option<&[u8]>| {
            let bytes = bytes.unwrap_or_default();
            String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]).into_owned()
        };
        let view = |stream: &super::stream::Stream| {
            let down = &stream.legs[DOWN];
            StreamView {
                connection: down
                    .conn
                    .and_then(|id| self.connections.get(id))
                    .map_or(0, |c| c.serial),
                stream: down.id,
                listener: stream.facts.listener,
                rule: stream.facts.rule,
                endpoint: stream.facts.endpoint,
                method: text(stream.head.get(Token::METHOD)),
                path: text(stream.head.get(Token::PATH)),
                kind: match (&stream.tunnel, &stream.question) {
                    (Some(tunnel), _) => tunnel.kind(),
                    (None, Some(_)) => "question",
                    (None, None) if stream.aside => "mirror",
                    (None, None) => "request",
                },
                bytes_up: stream.bytes_up,
                bytes_down: stream.bytes_down,
                age_ms: millis(stream.started, now),
            }
        };
        self.streams.iter_live().map(view).collect()
    }
}
