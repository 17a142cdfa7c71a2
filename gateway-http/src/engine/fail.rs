//! What goes wrong with a stream: another attempt where that may be (`retry.rs`), else the client is told.

use super::connection::{Codec, Connection};
use super::reply::explain;
use super::stream::{DOWN, UP, Wait};
use super::{Engine, at};
use crate::grpc;
use crate::h2::frame::ErrorCode;
use gateway_core::fault::Fault;

impl Engine {
    /// The attempt (or the request before any) failed: try again, or end the stream with `fault`.
    pub(super) fn fail(&mut self, c: &mut Connection, index: u32, fault: Fault) {
        if !self.streams[index].live {
            return;
        }
        if self.streams[index].aside {
            return self.fail_aside(c, index, fault);
        }
        self.leave_upstream(c, index, ErrorCode::Cancel);
        if self.again(c, index, fault) {
            return;
        }
        let stream = &mut self.streams[index];
        stream.retrying.on = false;
        stream.retrying.pauses = false;
        stream.retrying.due = None;
        let down = &stream.legs[DOWN];
        if !down.sent_head {
            return self.reply_fault(c, index, fault, fault.http_status());
        }
        stream.fault = Some(fault);
        if !down.sent_end && self.end_with_frame(c, index, fault) {
            return;
        }
        let stream = &mut self.streams[index];
        let down = &stream.legs[DOWN];
        if stream.grpc && !down.sent_end && self.send_grpc_trailers(c, index, fault) {
            return self.end_stream(c, index, ErrorCode::NoError);
        }
        // RFC 9113 8.5: what became of the connection behind a tunnel.
        let tunnel = self.streams[index].tunnel.is_some();
        let error = if tunnel {
            ErrorCode::ConnectError
        } else {
            ErrorCode::InternalError
        };
        self.end_stream(c, index, error);
    }

    /// The upstream leg leaves its connection, reset if its peer still works on it.
    pub(super) fn leave_upstream(&mut self, c: &mut Connection, index: u32, error: ErrorCode) {
        let stream = &mut self.streams[index];
        let [down, leg] = &mut stream.legs;
        leg.wait = Wait::No;
        if stream.balanced {
            stream.balanced = false;
            if let Some(endpoint) = stream.facts.endpoint {
                self.balancers.finished(endpoint);
                self.metrics.endpoint_finished(endpoint);
            }
        }
        let Some(id) = leg.conn.take() else { return };
        let target = at(&mut self.connections, c, id);
        let unfinished = leg.id != 0 && !leg.is_over() && !target.dead;
        if unfinished {
            target.reset(leg, error, &mut self.pool);
            self.turn.mark(target);
        }
        // What waits for the client holds this connection up no longer.
        let left = down.owed(0).saturating_sub(down.early);
        if left > 0 && !target.dead && target.credit(None, left, &self.limits, &mut self.pool) {
            self.turn.mark(target);
        }
        target.detach(leg, unfinished);
        leg.id = 0;
        if target.is_leaving() && target.streams == 0 {
            let out = at(&mut self.connections, c, id);
            Self::close_after_flush(out, &mut self.turn);
        } else {
            self.open_waiting(c, id);
            self.reuse_http1(c, id);
        }
    }

    /// Body for leg `to` that will never go there. If its sender is still there, the connection's share of its credit
    /// goes back; when a leg leaves, that was done.
    pub(super) fn drop_pending(&mut self, c: &mut Connection, index: u32, to: usize) {
        let stream = &mut self.streams[index];
        let again = if to == UP {
            std::mem::take(&mut stream.replayed)
        } else {
            0
        };
        let (source, dest) = stream.legs_from(1 - to);
        let early = std::mem::take(&mut dest.early);
        self.held -= early as u64;
        let left = dest.owed(again).saturating_sub(early);
        dest.surplus = 0;
        dest.pending_start = 0;
        self.pool.put(&mut dest.pending);
        if let Some(mut trailers) = dest.trailers.take() {
            self.lists.put(&mut trailers);
        }
        if let (true, Some(id)) = (left > 0, source.conn) {
            let origin = at(&mut self.connections, c, id);
            if !origin.dead && origin.credit(None, left, &self.limits, &mut self.pool) {
                self.turn.mark(origin);
            }
            self.turn.settle_http1(origin, &self.limits);
        }
        if again > 0 {
            self.free_gathered(index, usize::MAX);
        }
    }

    /// Ends a response that began with the fault's gRPC status; `false` when its connection cannot carry trailers.
    fn send_grpc_trailers(&mut self, c: &mut Connection, index: u32, fault: Fault) -> bool {
        let stream = &mut self.streams[index];
        let leg = &mut stream.legs[DOWN];
        let Some(id) = leg.conn else { return false };
        let target = at(&mut self.connections, c, id);
        if target.dead || !matches!(target.codec, Codec::Http2(_)) {
            return false;
        }
        stream.grpc_status = Some(u32::from(fault.grpc_code()));
        let mut fields = self.lists.take();
        grpc::put_status(&mut fields, fault.grpc_code(), explain(fault).trim_end());
        target.send_trailers(leg, &fields, &mut self.pool);
        self.turn.mark(target);
        self.lists.put(&mut fields);
        true
    }

    /// The peer of leg `from` broke the stream off.
    pub(super) fn on_reset(&mut self, c: &mut Connection, index: u32, from: usize, error: ErrorCode) {
        let stream = &mut self.streams[index];
        if from == DOWN {
            stream.fault = Some(Fault::ClientGone);
            // The leg is over without a word of ours; the endpoint hears the client's reason.
            stream.legs[DOWN].received_end = true;
            stream.legs[DOWN].sent_end = true;
            self.hold_slot(c, index);
            self.leave_upstream(c, index, error);
            return self.end_stream(c, index, ErrorCode::NoError);
        }
        let up = &mut stream.legs[UP];
        let complete = up.received_end;
        up.received_end = true;
        up.sent_end = true;
        if complete {
            // The response is whole; the endpoint only does not want the rest of the request (RFC 9113 8.1).
            stream.unwanted = true;
            self.leave_upstream(c, index, ErrorCode::NoError);
            self.drop_pending(c, index, UP);
            return self.finish_if_over(c, index);
        }
        if error == ErrorCode::RefusedStream && !up.received_head {
            return self.fail(c, index, Fault::Refused);
        }
        let began = stream.legs[DOWN].sent_head;
        if !began && (!stream.grpc || stream.retrying.on) {
            return self.fail(c, index, Fault::Reset);
        }
        stream.fault = Some(Fault::Reset);
        self.leave_upstream(c, index, ErrorCode::NoError);
        if began && self.end_with_frame(c, index, Fault::Reset) {
            return;
        }
        self.end_stream(c, index, error);
    }
}
