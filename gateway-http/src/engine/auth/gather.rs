//! Bodies that are gathered for a question, and what else a guarded stream keeps until it is answered.
//!
//! # Laws
//! * A stream gathers until its message ends; then it asks, not before. What is longer than its rule shows is refused
//!   (413) with the first octet that is, and unseen when its length says so.
//! * Gathered bytes got their credit, or a body larger than a window would never end. In its place they count as held,
//!   from here until they are upstream or dropped, and at most `limits.held_bytes_max` are; more is 503. No window grows.
//! * A client that owes its body owes it here too: `limits.body_timeout` ends it (`pace.rs`), a gRPC call without an end
//!   as well.

use super::super::connection::Connection;
use super::super::edit::framing;
use super::super::stream::{DOWN, Stream, UP};
use super::super::{Engine, at};
use crate::ext_authz::answer::{Edit, How};
use crate::head::facts::decimal;
use crate::head::{FieldList, Token};
use gateway_core::fault::Fault;

impl Stream {
    /// Whether its body is being gathered.
    #[inline]
    pub fn is_gathering(&self) -> bool {
        self.vetting.as_ref().is_some_and(|vetting| vetting.gathering) && !self.unwanted
    }

    /// Whether a service that is shown so much of a body is shown this one's. A tunnel has none: it is asked for with its
    /// head.
    pub fn shows(&self, body_bytes_max: usize) -> bool {
        body_bytes_max > 0 && self.tunnel.is_none()
    }

    /// What it is shown, once the body is whole.
    pub fn shown_body(&self, body_bytes_max: usize) -> &[u8] {
        let up = &self.legs[UP];
        match self.shows(body_bytes_max) {
            true => &up.pending[up.pending_start..],
            false => &[],
        }
    }

    /// The body is whole.
    fn has_gathered(&mut self) {
        if let Some(vetting) = &mut self.vetting {
            vetting.gathering = false;
        }
        self.legs[DOWN].received_end = true;
        self.legs[UP].pending_end = true;
    }
}

impl Engine {
    /// Whether the stream's body is here to be shown. If not, it is gathered and then asked about, or refused.
    pub(super) fn has_body(&mut self, c: &mut Connection, index: u32, body_bytes_max: usize) -> bool {
        let stream = &self.streams[index];
        let [down, up] = &stream.legs;
        let promised = stream.head.get(Token::CONTENT_LENGTH).and_then(decimal).unwrap_or(0);
        if up.pending_len() > body_bytes_max || promised > body_bytes_max as u64 {
            self.fail(c, index, Fault::BodyTooLarge);
            return false;
        }
        if down.received_end {
            return true;
        }
        if !self.has_room(up.pending_len() - stream.replayed) {
            self.fail(c, index, Fault::Overloaded);
            return false;
        }
        self.credit_waiting(c, index);
        self.begin_gathering(c, index, body_bytes_max);
        false
    }

    /// What came while others were asked, in its windows, gets its credit as if it came now.
    fn credit_waiting(&mut self, c: &mut Connection, index: u32) {
        let stream = &mut self.streams[index];
        let [down, up] = &mut stream.legs;
        let (owed, waits) = (up.owed(stream.replayed), up.pending_len() - stream.replayed);
        let early = std::mem::take(&mut up.early);
        up.surplus = 0;
        self.held -= early as u64;
        if let (true, Some(id)) = (owed > 0, down.conn) {
            let origin = at(&mut self.connections, c, id);
            if origin.credit_waited(down, owed, owed.saturating_sub(early), &self.limits, &mut self.pool) {
                self.turn.mark(origin);
            }
            self.turn.settle_http1(origin, &self.limits);
        }
        if waits > 0 {
            self.keep_gathered(index, waits);
        }
    }

    fn begin_gathering(&mut self, c: &mut Connection, index: u32, body_bytes_max: usize) {
        let stream = &mut self.streams[index];
        let vetting = stream.vetting.get_or_insert_default();
        vetting.gathering = true;
        vetting.body_bytes_max = body_bytes_max;
        stream.detour = true;
        let expects = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
        if stream.head.get(Token::EXPECT).is_some_and(expects) {
            // It is the gateway that waits for the body (RFC 9110 10.1.1).
            stream.head.remove(Token::EXPECT);
            let mut fields = self.lists.take();
            fields.push_status(100);
            self.send_response_head(c, index, &fields, true, false);
            self.lists.put(&mut fields);
        }
    }

    /// Body of a stream that gathers; `cost` is what it took of its sender's windows.
    #[cold]
    pub(in crate::engine) fn gather(&mut self, c: &mut Connection, index: u32, bytes: &[u8], end: bool, cost: usize) {
        let stream = &mut self.streams[index];
        let up = &mut stream.legs[UP];
        let max = stream.vetting.as_ref().map_or(0, |vetting| vetting.body_bytes_max);
        if up.pending_len() + bytes.len() > max {
            return self.drop_and_fail(c, index, DOWN, cost, end, Fault::BodyTooLarge);
        }
        if !self.has_room(bytes.len()) {
            return self.drop_and_fail(c, index, DOWN, cost, end, Fault::Overloaded);
        }
        let stream = &mut self.streams[index];
        let [down, up] = &mut stream.legs;
        self.pool.arm(&mut up.pending);
        up.pending.extend_from_slice(bytes);
        down.received_end |= end;
        if c.credit_waited(down, cost, cost, &self.limits, &mut self.pool) {
            self.turn.mark(c);
        }
        self.keep_gathered(index, bytes.len());
        if end {
            self.streams[index].has_gathered();
            self.ask(c, index);
        }
    }

    /// The trailers of a stream that gathers, which is whole with them. `fields` is taken.
    #[cold]
    pub(in crate::engine) fn gather_trailers(&mut self, c: &mut Connection, index: u32, fields: &mut FieldList) {
        let mut kept = self.lists.take();
        std::mem::swap(&mut kept, fields);
        let stream = &mut self.streams[index];
        stream.legs[UP].trailers = Some(kept);
        stream.has_gathered();
        self.ask(c, index);
    }

    /// Whether so many bytes more may be held.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.held + bytes as u64 <= self.held_max
    }

    /// The last `bytes` of what waits for the upstream leg count as held; nobody is owed credit for them.
    pub(super) fn keep_gathered(&mut self, index: u32, bytes: usize) {
        let stream = &mut self.streams[index];
        stream.replayed += bytes;
        stream.vetting.get_or_insert_default().held += bytes;
        self.held += bytes as u64;
    }

    /// A transform made something else of all that was gathered.
    pub(in crate::engine) fn regather(&mut self, index: u32, bytes: usize) {
        self.free_gathered(index, usize::MAX);
        self.streams[index].replayed = 0;
        self.keep_gathered(index, bytes);
    }

    /// So many bytes that nobody is owed credit for do not wait any more.
    #[inline]
    pub(in crate::engine) fn free_gathered(&mut self, index: u32, bytes: usize) {
        if let Some(vetting) = &mut self.streams[index].vetting {
            let freed = vetting.held.min(bytes);
            vetting.held -= freed;
            self.held -= freed as u64;
        }
    }

    /// What the service adds to the response of a request that it let pass.
    #[cold]
    pub(in crate::engine) fn add_said(&mut self, index: u32, fields: &mut FieldList) {
        if let Some(vetting) = &self.streams[index].vetting {
            for edit in &vetting.response {
                put(edit, fields);
            }
        }
    }
}

/// Puts a field where it belongs; the fields that frame a message are not the service's to say.
pub(super) fn put(edit: &Edit, fields: &mut FieldList) {
    let (name, value) = (&edit.name[..], &edit.value[..]);
    if framing(name) {
        return;
    }
    let there = fields.position(name).is_some();
    match edit.how {
        How::Append => fields.push(name, value),
        How::AddIfAbsent if !there => fields.push(name, value),
        How::Set => fields.set(name, value),
        How::SetIfPresent if there => fields.set(name, value),
        How::AddIfAbsent | How::SetIfPresent => {}
    }
}
