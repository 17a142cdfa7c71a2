//! Bodies that do not pass as they came: the seam for whatever looks into them.
//!
//! A [`Transform`] takes the bytes of a stream's bodies and gives others, changes its heads, and may make body of
//! trailers. Its laws:
//! * What it holds back is bounded by the type; what it gives is at most `GROWTH` times what it took. So a waiting
//!   buffer is at most that many windows.
//! * Credit follows what was taken, not what was given (`Leg::surplus`), so windows stay what they promise.
//! * A stream without one pays one branch per body piece: `Stream::detour`.

use super::Engine;
use super::connection::Connection;
use super::leg::Body;
use super::stream::{DOWN, Transform, UP};
use crate::grpc::message::TooLarge;
use crate::grpc_web::{Speaks, Translation};
use crate::head::FieldList;
use crate::head::facts::{Method, RequestFacts};
use gateway_core::fault::Fault;
use gateway_core::ir::RouteKind;

/// Bytes that the scratch buffer of transforms may keep between two uses.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// A gRPC message's largest size in bytes, from requests and from responses.
pub fn messages_max(body: Option<u64>, message: Option<u32>) -> [u32; 2] {
    let message = message.unwrap_or(u32::MAX);
    let body = body.and_then(|max| u32::try_from(max).ok()).unwrap_or(u32::MAX);
    [message.min(body), message]
}

impl Engine {
    /// A request that is not gRPC by its content type may be gRPC-Web: local answers then are too.
    pub(super) fn recognise_web(&mut self, index: u32, facts: &RequestFacts) {
        let stream = &mut self.streams[index];
        stream.counts = facts.is_grpc;
        if !facts.is_grpc && facts.method == Method::Post {
            stream.web = Speaks::of(&stream.head);
            stream.grpc |= stream.web.is_some();
        }
    }

    /// The rule is known: gRPC-Web is translated where the rule speaks gRPC, and passed on where it speaks HTTP.
    pub(super) fn adopt_transform(&mut self, index: u32, kind: RouteKind) {
        let stream = &mut self.streams[index];
        match (stream.web, kind) {
            (None, _) => {}
            (Some(_), RouteKind::Http) => stream.grpc = false,
            (Some(speaks), RouteKind::Grpc) => {
                let translation = Translation::new(speaks);
                translation.request_head(&mut stream.head);
                stream.transform = Some(Transform::GrpcWeb(translation));
                stream.detour = true;
                stream.counts = true;
            }
        }
    }

    /// Body that came before the rule was known goes through its transform.
    ///
    /// # Errors
    /// What is wrong with it, as if it came now.
    #[cold]
    pub(super) fn transform_waiting(&mut self, index: u32) -> Result<(), Fault> {
        let stream = &self.streams[index];
        let up = &stream.legs[UP];
        if stream.transform.is_none() || (up.pending_len() == 0 && !up.pending_end) {
            return Ok(());
        }
        let waits = up.pending[up.pending_start..].to_vec();
        let end = up.pending_end;
        let mut given = Vec::new();
        if !self.transform_body(index, DOWN, &waits, end, &mut given)? {
            let stream = &mut self.streams[index];
            let gathered = stream.replayed > 0;
            let up = &mut stream.legs[UP];
            if !gathered {
                up.surplus += waits.len() as isize - given.len() as isize;
            }
            self.pool.arm(&mut up.pending);
            up.pending.truncate(up.pending_start);
            up.pending.extend_from_slice(&given);
            if gathered {
                self.regather(index, given.len());
            }
        }
        Ok(())
    }

    /// Whether the promised length alone is too much; from now on the body is counted if it has a limit.
    pub(super) fn limit_body(&mut self, index: u32) -> bool {
        let Some(max) = self.limits.body_bytes_max else {
            return false;
        };
        let stream = &mut self.streams[index];
        if stream.counts {
            return false;
        }
        stream.detour = true;
        u64::try_from(stream.legs[DOWN].length_left).is_ok_and(|length| length > max)
    }

    /// Body of a stream that has a transform, a mirror or a limit, or is aside or a tunnel.
    pub(super) fn on_body_detour(&mut self, c: &mut Connection, index: u32, from: usize, body: Body<'_>, end: bool) {
        let stream = &mut self.streams[index];
        let len = body.bytes.len();
        if stream.aside {
            return self.on_aside_body(c, index, body.bytes, end);
        }
        if stream.tunnel.as_ref().is_some_and(|tunnel| tunnel.is_open()) {
            return self.on_tunnel_body(c, index, from, body, end);
        }
        if stream.unwanted && from == DOWN {
            return self.pass_body(c, index, from, body, end, len);
        }
        let over = |max| stream.bytes_up > max;
        if from == DOWN && !stream.counts && self.limits.body_bytes_max.is_some_and(over) {
            return self.refuse_body(c, index, from, len, end);
        }
        let gathers = from == DOWN && stream.is_gathering();
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        match self.transform_body(index, from, body.bytes, end, &mut scratch) {
            Ok(true) if gathers => self.gather(c, index, body.bytes, end, len),
            Ok(false) if gathers => self.gather(c, index, &scratch, end, len),
            Ok(true) => {
                self.feed_mirrors(c, index, from, body.bytes, end);
                self.pass_body(c, index, from, body, end, len);
            }
            Ok(false) => {
                self.feed_mirrors(c, index, from, &scratch, end);
                self.pass_body(c, index, from, Body::own(&scratch), end, len);
            }
            Err(Fault::BadRequest) => self.drop_and_fail(c, index, from, len, end, Fault::BadRequest),
            Err(_) => self.refuse_body(c, index, from, len, end),
        }
        if scratch.capacity() <= SCRATCH_BYTES_MAX {
            self.scratch = scratch;
        }
    }

    /// Counts messages and transforms; `true` when the bytes pass as they are, else they are in `out`.
    fn transform_body(
        &mut self,
        index: u32,
        from: usize,
        bytes: &[u8],
        end: bool,
        out: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let stream = &mut self.streams[index];
        let max = self.messages_max[from];
        let too_large = |TooLarge| Fault::MessageTooLarge;
        match &mut stream.transform {
            None => {
                if stream.counts {
                    stream.messages[from].scan(bytes, max).map_err(too_large)?;
                }
                Ok(true)
            }
            Some(Transform::GrpcWeb(translation)) if from == DOWN => {
                let plain = translation.request_is_plain();
                if !plain {
                    translation.request_body(bytes, end, out)?;
                }
                let grpc = if plain { bytes } else { &out[..] };
                stream.messages[DOWN].scan(grpc, max).map_err(too_large)?;
                Ok(plain)
            }
            Some(Transform::GrpcWeb(translation)) => {
                let messages = &mut stream.messages[UP];
                if stream.counts {
                    messages.scan(bytes, max).map_err(too_large)?;
                }
                if translation.response_is_plain() && !end {
                    return Ok(true);
                }
                translation.response_body(bytes, messages.is_between(), out);
                if end {
                    let code = translation.trailers(None, out);
                    stream.grpc_status = code.map(u32::from).or(stream.grpc_status);
                }
                Ok(false)
            }
        }
    }

    /// A body or message over its limit: the request ends, and the endpoint is told at once.
    #[cold]
    pub(super) fn refuse_body(&mut self, c: &mut Connection, index: u32, from: usize, len: usize, end: bool) {
        let fault = if from == DOWN {
            Fault::BodyTooLarge
        } else {
            Fault::MessageTooLarge
        };
        self.drop_and_fail(c, index, from, len, end, fault);
    }

    pub(super) fn drop_and_fail(
        &mut self,
        c: &mut Connection,
        index: u32,
        from: usize,
        len: usize,
        end: bool,
        fault: Fault,
    ) {
        let source = &mut self.streams[index].legs[from];
        source.received_end |= end;
        if c.credit(Some(source), len, &self.limits, &mut self.pool) {
            self.turn.mark(c);
        }
        self.fail(c, index, fault);
    }

    /// A response's head on its way; `Some` when what it says about its end now is body in the scratch buffer.
    pub(super) fn transform_response_head(&mut self, index: u32, fields: &mut FieldList, end: bool) -> bool {
        if self.streams[index].vetting.is_some() {
            self.add_said(index, fields);
        }
        let stream = &mut self.streams[index];
        let status = stream.status;
        // What no gRPC server said is no sequence of messages.
        stream.counts &= status == 200;
        let Some(Transform::GrpcWeb(translation)) = &mut stream.transform else {
            return false;
        };
        self.scratch.clear();
        translation.response_head(status, fields, end, &mut self.scratch);
        if status != 200 {
            stream.status = 200;
        }
        end
    }

    /// Trailers of a stream with a detour; `false` when they go on as they are.
    pub(super) fn on_trailers_detour(
        &mut self,
        c: &mut Connection,
        index: u32,
        from: usize,
        fields: &mut FieldList,
    ) -> bool {
        let stream = &mut self.streams[index];
        if stream.aside {
            self.on_aside_body(c, index, b"", true);
            return true;
        }
        if from == DOWN && stream.is_gathering() {
            self.gather_trailers(c, index, fields);
            return true;
        }
        if from == DOWN {
            self.feed_mirrors(c, index, from, b"", true);
            return false;
        }
        let Some(Transform::GrpcWeb(translation)) = &mut stream.transform else {
            return false;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let code = translation.trailers(Some(fields), &mut scratch);
        stream.grpc_status = code.map(u32::from).or(stream.grpc_status);
        self.pass_body(c, index, UP, Body::own(&scratch), true, 0);
        self.scratch = scratch;
        true
    }

    /// Body of the gateway's own, the last of the response.
    pub(super) fn pass_scratch(&mut self, c: &mut Connection, index: u32) {
        let scratch = std::mem::take(&mut self.scratch);
        self.pass_body(c, index, UP, Body::own(&scratch), true, 0);
        self.scratch = scratch;
    }

    /// Ends a response that began with a frame that says what went wrong; `false` when it has no such frame. What
    /// waits goes out before it; the stream ends with its last byte.
    pub(super) fn end_with_frame(&mut self, c: &mut Connection, index: u32, fault: Fault) -> bool {
        let stream = &mut self.streams[index];
        let Some(Transform::GrpcWeb(translation)) = &mut stream.transform else {
            return false;
        };
        stream.grpc_status = Some(u32::from(fault.grpc_code()));
        self.scratch.clear();
        translation.fault(
            fault.grpc_code(),
            super::reply::explain(fault).trim_end(),
            &mut self.scratch,
        );
        stream.unwanted = true;
        stream.legs[UP].sent_end = true;
        self.timers.cancel(&mut stream.timer);
        self.drop_pending(c, index, UP);
        self.pass_scratch(c, index);
        true
    }
}
