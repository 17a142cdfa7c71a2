//! A request's place in its trace (W3C Trace Context): the client's trace goes on, or one begins here.

use super::Engine;
use super::request_id::words;
use crate::head::Token;
use crate::trace::{Sampling, Trace, TraceParent};

impl Engine {
    /// Whether requests get a place in a trace, told to the endpoint in `traceparent` and to the driver in the outcome.
    /// Without, `traceparent` passes as it came.
    pub fn trace(&mut self, sampling: Option<Sampling>) {
        self.sampling = sampling;
    }

    #[cold]
    pub(super) fn begin_trace(&mut self, index: u32, sampling: Sampling) {
        let mut next = || {
            self.request_counter = self.request_counter.wrapping_add(1);
            words(self.config.request_id_seed, self.config.worker, self.request_counter)
        };
        let (high, low) = next();
        let (server_id, client_id) = next();
        let stream = &mut self.streams[index];
        let head = &mut stream.head;
        let parent = head.get(Token::TRACEPARENT).and_then(TraceParent::parse);
        // A state belongs to the trace it came with (section 3.3).
        if parent.is_none() && head.find(Token::TRACESTATE).is_some() {
            head.remove(Token::TRACESTATE);
        }
        let trace_id = parent.map_or(u128::from(high) << 64 | u128::from(low), |parent| parent.trace_id);
        let trace = Trace {
            trace_id,
            parent_id: parent.map_or(0, |parent| parent.span_id),
            server_id,
            client_id,
            sampled: parent.map_or_else(|| sampling.takes(trace_id), |parent| parent.sampled),
        };
        let told = TraceParent {
            trace_id,
            span_id: client_id,
            sampled: trace.sampled,
        };
        head.set_known(Token::TRACEPARENT, &told.text());
        stream.trace = Some(trace);
    }
}
