//! A response's head came: the request was processed, so nothing of it is kept for another attempt.

use super::connection::Connection;
use super::stream::{DOWN, UP};
use super::{Engine, at};
use crate::grpc;
use crate::head::FieldList;
use crate::head::facts::ResponseFacts;
use gateway_core::fault::Fault;

impl Engine {
    /// A checked response head, interim or final, came on `c`.
    pub(super) fn on_response(
        &mut self,
        c: &mut Connection,
        index: u32,
        fields: &mut FieldList,
        facts: ResponseFacts,
        end: bool,
    ) {
        if self.streams[index].aside {
            return self.on_aside_response(c, index, fields, facts, end);
        }
        if facts.is_interim() {
            return self.send_response_head(c, index, fields, true, false);
        }
        // An endpoint that was told the deadline answers in words of its own when it passes (`CANCELLED`, say). The
        // deadline is the gateway's to keep, also when its timer is a tick behind the endpoint's.
        let stream = &self.streams[index];
        if stream.deadline.is_some_and(|deadline| self.now >= deadline) {
            return self.fail(c, index, Fault::DeadlineExceeded);
        }
        if stream.retrying.due.is_some_and(|due| self.now >= due) {
            return self.fail(c, index, Fault::AttemptTimeout);
        }
        if stream.retrying.on && self.drop_answer(c, index, fields, facts, end) {
            return;
        }
        if self.streams[index].tunnel.is_some() && self.answer_tunnel(c, index, fields, facts, end) {
            return;
        }
        let stream = &mut self.streams[index];
        let length = facts.body_length(stream.method);
        let leg = &mut stream.legs[UP];
        leg.received_head = true;
        leg.received_end = end;
        leg.length_left = length.map_or(-1, |length| i64::try_from(length).unwrap_or(i64::MAX));
        stream.status = facts.status;
        stream.first_byte = Some(self.now);
        if stream.grpc && end {
            stream.grpc_status = grpc::status_of(fields);
        }
        if let Some(endpoint) = stream.facts.endpoint {
            self.balancers.answered(endpoint);
        }
        stream.replayable = false;
        self.pool.put(&mut stream.replay);
        self.edit_response(index, fields);
        self.release_revision(index);
        let stream = &self.streams[index];
        if (stream.detour || facts.status != 200) && self.transform_response_head(index, fields, end) {
            self.send_response_head(c, index, fields, false, false);
            return self.pass_scratch(c, index);
        }
        self.send_response_head(c, index, fields, false, end);
        if end {
            self.finish_if_over(c, index);
        }
    }

    pub(super) fn send_response_head(
        &mut self,
        c: &mut Connection,
        index: u32,
        fields: &FieldList,
        interim: bool,
        end: bool,
    ) {
        let leg = &mut self.streams[index].legs[DOWN];
        let Some(target) = leg.conn else { return };
        let target = at(&mut self.connections, c, target);
        target.send_head(leg, fields, interim, end, &mut self.pool);
        self.turn.mark(target);
    }

    pub(super) fn release_revision(&mut self, index: u32) {
        if let Some(revision) = self.streams[index].revision.take() {
            self.revisions.release(revision);
        }
    }
}
