//! Body bytes and trailers from one leg to the other.
//!
//! What finds room goes straight into the other connection's output; the rest waits on the leg it is for, and its
//! sender gets no credit until it left (`pump.rs`).

use super::connection::Connection;
use super::leg::Body;
use super::stream::{DOWN, UP, Wait};
use super::{Engine, at};
use crate::grpc;
use crate::head::{Field, FieldList};

impl Engine {
    /// Body bytes came from leg `from`, whose connection is `c`. The codec has checked windows and content-length.
    pub(super) fn on_body(&mut self, c: &mut Connection, index: u32, from: usize, body: Body<'_>, end: bool) {
        let stream = &mut self.streams[index];
        let len = body.bytes.len();
        if from == DOWN {
            stream.bytes_up += len as u64;
        } else {
            stream.bytes_down += len as u64;
        }
        if stream.detour {
            return self.on_body_detour(c, index, from, body, end);
        }
        if stream.counts && stream.messages[from].scan(body.bytes, self.messages_max[from]).is_err() && !stream.unwanted
        {
            return self.refuse_body(c, index, from, len, end);
        }
        self.pass_body(c, index, from, body, end, len);
    }

    /// Sends body on, or lets it wait. `cost`: what it took of its sender's windows, its own length unless a
    /// transform changed it.
    #[inline]
    pub(super) fn pass_body(
        &mut self,
        c: &mut Connection,
        index: u32,
        from: usize,
        body: Body<'_>,
        end: bool,
        cost: usize,
    ) {
        let key = self.streams.key(index);
        let stream = &mut self.streams[index];
        let len = body.bytes.len();
        let unwanted = stream.unwanted && from == DOWN;
        let keeps = from == DOWN && stream.replayable;
        let (source, dest) = stream.legs_from(from);
        source.received_end |= end;
        if unwanted {
            if c.credit(Some(source), cost, &self.limits, &mut self.pool) {
                self.turn.mark(c);
            }
            return self.finish_if_over(c, index);
        }
        let mut sent = 0;
        if let (true, Some(target)) = (dest.is_clear(), dest.conn) {
            let target = at(&mut self.connections, c, target);
            sent = target.room(dest, &self.limits).min(len);
            if sent > 0 || (len == 0 && end) {
                if target.send_body(dest, body.first(sent), end && sent == len, &self.limits, &mut self.pool) {
                    self.turn.borrowers.push(target.id);
                }
                self.turn.mark(target);
            }
            if sent < len {
                dest.wait = target.wait_for(dest);
                if dest.wait == Wait::Connection {
                    target.wait_in_ring(key);
                }
            }
        }
        let credit = if sent == len { cost } else { sent.min(cost) };
        if credit > 0 && c.credit(Some(source), credit, &self.limits, &mut self.pool) {
            self.turn.mark(c);
        }
        if sent < len || (end && !dest.sent_end) {
            self.pool.arm(&mut dest.pending);
            dest.pending.extend_from_slice(&body.bytes[sent..]);
            dest.pending_end |= end;
            dest.surplus += (cost - credit) as isize - (len - sent) as isize;
            if !stream.detour {
                self.hold(c, index, 1 - from, len - sent);
            }
        }
        if keeps && sent > 0 {
            self.keep_for_replay(index, &body.bytes[..sent]);
        }
        if end {
            self.finish_if_over(c, index);
        }
    }

    /// A trailer section came from leg `from`; its message is over. `fields` is taken when it has to wait.
    pub(super) fn on_trailers(&mut self, c: &mut Connection, index: u32, from: usize, fields: &mut FieldList) {
        let belongs = |field: &Field| field.token().may_trail() && (from == UP || !field.is_claim());
        if !fields.fields().iter().all(belongs) {
            // Whoever merges trailers into the head (RFC 9110 6.5.1 warns of it) must find nothing of it there.
            fields.retain_fields(belongs);
            if fields.is_empty() {
                return self.on_body(c, index, from, Body::own(b""), true);
            }
        }
        let stream = &mut self.streams[index];
        if from == UP {
            stream.grpc_status = grpc::status_of(fields).or(stream.grpc_status);
        } else {
            // Trailers are not kept for another attempt.
            stream.replayable = false;
        }
        if stream.detour && self.on_trailers_detour(c, index, from, fields) {
            return;
        }
        let stream = &mut self.streams[index];
        let unwanted = stream.unwanted && from == DOWN;
        let (source, dest) = stream.legs_from(from);
        source.received_end = true;
        if !unwanted {
            if let (true, Some(target)) = (dest.is_clear(), dest.conn) {
                let target = at(&mut self.connections, c, target);
                target.send_trailers(dest, fields, &mut self.pool);
                self.turn.mark(target);
            } else {
                let mut kept = self.lists.take();
                std::mem::swap(&mut kept, fields);
                dest.trailers = Some(kept);
                dest.pending_end = true;
            }
        }
        self.finish_if_over(c, index);
    }

    /// Remembers request body that went upstream, as long as it is little.
    #[inline]
    pub(super) fn keep_for_replay(&mut self, index: u32, bytes: &[u8]) {
        let stream = &mut self.streams[index];
        if !stream.live || !stream.replayable {
            return;
        }
        if stream.replay.len() + bytes.len() > self.limits.replay_bytes_max {
            stream.replayable = false;
            self.pool.put(&mut stream.replay);
        } else {
            self.pool.arm(&mut stream.replay);
            stream.replay.extend_from_slice(bytes);
        }
    }
}
