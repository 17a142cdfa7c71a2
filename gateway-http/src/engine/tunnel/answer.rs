//! An endpoint's answer to who asked for a tunnel, and the client's: 101 of HTTP/1.1 is 200 of HTTP/2 (RFC 8441 5).

use super::super::connection::{Codec, Connection};
use super::super::http2::{ConnectionError, broken};
use super::super::leg::Body;
use super::super::stream::{Asked, DOWN, Stage, UP, Wait, Words};
use super::super::{Engine, at};
use super::is_websocket;
use crate::h1::head::options;
use crate::h2::frame::ErrorCode;
use crate::head::facts::ResponseFacts;
use crate::head::{FieldList, Token, decimal3};
use crate::websocket;

/// The server's side of a WebSocket handshake.
const ACCEPT: &[u8] = b"sec-websocket-accept";
const KEY: &[u8] = b"sec-websocket-key";

impl Engine {
    /// A 101 came on `c`. What was not asked for is no response.
    #[cold]
    pub(in crate::engine) fn on_switch(
        &mut self,
        c: &mut Connection,
        index: u32,
        fields: &mut FieldList,
    ) -> Result<(), ConnectionError> {
        let stream = &self.streams[index];
        let asked = stream.head.get(Token::UPGRADE).unwrap_or_default();
        let chosen = fields.get(Token::UPGRADE).unwrap_or_default();
        let (count, known) = options(chosen).fold((0, true), |(count, known), protocol| {
            let same = |asked: &[u8]| asked.eq_ignore_ascii_case(protocol);
            (count + 1, known && options(asked).any(same))
        });
        let agreed = stream.tunnel.as_ref().is_some_and(|tunnel| {
            tunnel.asked == Asked::Protocol
                && tunnel.stage == Stage::Asked
                && stream.legs[UP].sent_end
                && (count > 0 && known)
                && tunnel.accept.as_ref().is_none_or(|accept| {
                    let place = fields.position(ACCEPT);
                    place.is_some_and(|place| fields.value(&fields.fields()[place]) == accept)
                })
        });
        if !agreed {
            return broken(ErrorCode::ProtocolError, "a protocol that was not asked for");
        }
        self.open_tunnel(c, index, fields, false);
        Ok(())
    }

    /// A final response came on `c` for who asked for a tunnel; `true` when it opened one.
    #[cold]
    pub(in crate::engine) fn answer_tunnel(
        &mut self,
        c: &mut Connection,
        index: u32,
        fields: &mut FieldList,
        facts: ResponseFacts,
        end: bool,
    ) -> bool {
        let stream = &mut self.streams[index];
        let Some(tunnel) = &mut stream.tunnel else { return false };
        let agrees = tunnel.asked == Asked::Connect || c.is_http2();
        if agrees && matches!(facts.status, 200..=299) {
            // The end of the head is not the end of the tunnel.
            let ends = end && c.is_http2();
            self.open_tunnel(c, index, fields, ends);
            return true;
        }
        tunnel.stage = Stage::Refused;
        let client = stream.legs[DOWN].conn;
        if client.is_some_and(|id| at(&mut self.connections, c, id).is_http2()) {
            // What came already was for the tunnel.
            let stream = &mut self.streams[index];
            stream.unwanted = true;
            stream.legs[UP].wait = Wait::No;
            self.drop_pending(c, index, UP);
        }
        false
    }

    /// Bytes go both ways from here on. `c` is the endpoint's connection; `end`: it says nothing in the tunnel.
    fn open_tunnel(&mut self, c: &mut Connection, index: u32, fields: &mut FieldList, end: bool) {
        let now = self.now;
        let stream = &mut self.streams[index];
        stream.replayable = false;
        // What goes through is neither counted nor changed nor limited.
        (stream.detour, stream.counts, stream.transform) = (true, false, None);
        self.pool.put(&mut stream.replay);
        stream.first_byte = Some(now);
        stream.deadline = None;
        stream.retrying.due = None;
        if let Some(endpoint) = stream.facts.endpoint {
            self.balancers.answered(endpoint);
        }
        self.edit_response(index, fields);
        self.add_said(index, fields);
        self.release_revision(index);
        self.join_legs(c, index, fields);
        let stream = &mut self.streams[index];
        let is_websocket = stream.head.get(Token::UPGRADE).is_some_and(is_websocket);
        if let Some(tunnel) = &mut stream.tunnel {
            tunnel.stage = Stage::Open;
            tunnel.active = now;
            tunnel.words = is_websocket.then(Words::default);
        }
        self.metrics.tunnels_total += 1;
        self.metrics.tunnels_active += 1;
        self.send_response_head(c, index, fields, false, false);
        self.set_tunnel_timer(index);
        self.begin_upstream(c, index);
        if end && self.streams[index].live {
            self.on_body(c, index, UP, Body::own(b""), true);
        }
        if self.draining_since.is_some() {
            self.leave_tunnel(c, index);
        }
    }

    /// Both legs begin anew, as streams of bytes; the head becomes what the client's protocol says.
    fn join_legs(&mut self, c: &mut Connection, index: u32, fields: &mut FieldList) {
        let stream = &mut self.streams[index];
        let Some(tunnel) = &stream.tunnel else { return };
        let asked = tunnel.asked;
        let endpoint_http2 = c.is_http2();
        let [down, up] = &mut stream.legs;
        up.received_head = true;
        up.received_end = false;
        up.sent_end = false;
        up.length_left = -1;
        up.wait = Wait::No;
        if let Codec::Http1(http1) = &mut c.codec {
            http1.begin_tunnel();
        }
        fields.remove(Token::CONTENT_LENGTH);
        let Some(client) = down.conn else { return };
        let client = at(&mut self.connections, c, client);
        let status = match (&mut client.codec, asked) {
            (Codec::Http1(http1), _) => {
                http1.begin_tunnel();
                down.received_end = false;
                up.pending_end = false;
                match asked {
                    Asked::Protocol if endpoint_http2 => {
                        finish_handshake(&stream.head, fields);
                        Some(101)
                    }
                    Asked::Protocol | Asked::Connect => None,
                }
            }
            (Codec::Http2(_) | Codec::Detecting, Asked::Protocol) => {
                up.pending_end = down.received_end;
                fields.remove(Token::UPGRADE);
                fields.remove_named(ACCEPT);
                Some(200)
            }
            (Codec::Http2(_) | Codec::Detecting, Asked::Connect) => {
                up.pending_end = down.received_end;
                None
            }
        };
        if let Some(status) = status {
            fields.set_known(Token::STATUS, &decimal3(status));
        }
        stream.status = fields
            .get(Token::STATUS)
            .and_then(|text| crate::h2::headers::parse_status(text).ok())
            .unwrap_or(200);
    }

    /// What waited for the answer goes up.
    fn begin_upstream(&mut self, c: &mut Connection, index: u32) {
        let leg = &self.streams[index].legs[UP];
        if leg.pending_len() > 0 || leg.pending_end {
            self.pump_and_wait(c, index, UP);
        }
        let stream = &self.streams[index];
        let Some(client) = stream.legs[DOWN].conn.filter(|_| stream.live) else {
            return;
        };
        let client = at(&mut self.connections, c, client);
        let Codec::Http1(http1) = &client.codec else { return };
        if http1.is_stalled() {
            self.turn.stalled.push(client.id);
        } else if http1.has_ended() {
            self.on_body(c, index, DOWN, Body::own(b""), true);
        }
    }
}

/// The 101 an HTTP/1.1 client waits for, from the 200 of an HTTP/2 endpoint. `request` is what the client asked.
fn finish_handshake(request: &FieldList, fields: &mut FieldList) {
    let asked = request.get(Token::UPGRADE).unwrap_or_default();
    let protocol = options(asked).next().unwrap_or_default();
    fields.set_known(Token::UPGRADE, protocol);
    if !protocol.eq_ignore_ascii_case(websocket::NAME) {
        return;
    }
    let key = request
        .position(KEY)
        .map(|place| request.value(&request.fields()[place]));
    if let Some(accept) = key.and_then(websocket::accept) {
        fields.set(ACCEPT, &accept);
    }
}
