//! A tunnel is asked for: of HTTP/1.1 endpoints with `upgrade` or CONNECT, of HTTP/2 endpoints with CONNECT, extended
//! by `:protocol` where the endpoint allows it (RFC 8441 3).

use super::super::Engine;
use super::super::at;
use super::super::connection::{Codec, Connection};
use super::super::stream::{Asked, DOWN, Tunnel, UP, Wait};
use super::is_websocket;
use crate::h1::head::options;
use crate::head::Token;
use crate::head::facts::Method;
use crate::websocket;
use gateway_core::fault::Fault;

/// The client's side of a WebSocket handshake, which HTTP/2 has no use for (RFC 8441 5.1).
const KEY: &[u8] = b"sec-websocket-key";

/// Whether an upstream leg can be opened.
pub enum Opening {
    /// With the head in `edited`, or the stream's own; `ends` when it is not the request's body that says whether
    /// anything follows it.
    Now { edited: bool, ends: Option<bool> },
    /// When the endpoint's SETTINGS are there.
    Later,
    /// Not here: the stream failed.
    Never,
}

impl Engine {
    /// The request on `c` asks for a tunnel.
    #[cold]
    pub(in crate::engine) fn ask_tunnel(&mut self, index: u32) {
        let stream = &mut self.streams[index];
        let asked = if stream.method == Method::Connect {
            Asked::Connect
        } else {
            Asked::Protocol
        };
        stream.tunnel = Some(Tunnel::new(asked, self.now));
    }

    /// Makes the head that asks the endpoint.
    #[cold]
    pub(in crate::engine) fn open_tunnel_upstream(&mut self, c: &mut Connection, index: u32) -> Opening {
        let stream = &self.streams[index];
        let (Some(down), Some(up), Some(tunnel)) = (stream.legs[DOWN].conn, stream.legs[UP].conn, &stream.tunnel)
        else {
            return Opening::Never;
        };
        let asked = tunnel.asked;
        let client_http2 = at(&mut self.connections, c, down).is_http2();
        let upstream = at(&mut self.connections, c, up);
        let (settled, offered) = match &upstream.codec {
            Codec::Http2(http2) => (http2.settings_seen, Some(http2.peer.connect_protocol)),
            Codec::Http1(_) | Codec::Detecting => (true, None),
        };
        match (asked, offered) {
            (Asked::Connect, _) => {
                let ends = self.hold_for_answer(index, client_http2, offered.is_some());
                Opening::Now {
                    edited: self.edit_request(index),
                    ends,
                }
            }
            (Asked::Protocol, None) => {
                if let Codec::Http1(http1) = &mut at(&mut self.connections, c, up).codec {
                    http1.ask_upgrade();
                }
                self.upgrade_head(index, client_http2);
                let ends = self.hold_for_answer(index, client_http2, false);
                Opening::Now {
                    edited: self.edit_request(index),
                    ends,
                }
            }
            // An extended CONNECT has no body of its own: who sends one gets an ordinary answer.
            (Asked::Protocol, Some(_)) if !client_http2 && !self.streams[index].legs[DOWN].received_end => {
                let stream = &mut self.streams[index];
                stream.tunnel = None;
                stream.head.remove(Token::UPGRADE);
                Opening::Now {
                    edited: self.edit_request(index),
                    ends: None,
                }
            }
            (Asked::Protocol, Some(_)) if !settled => Opening::Later,
            (Asked::Protocol, Some(false)) => {
                self.fail(c, index, Fault::BadResponse);
                Opening::Never
            }
            (Asked::Protocol, Some(true)) => {
                self.extended_connect_head(index);
                let ends = self.hold_for_answer(index, client_http2, true);
                Opening::Now { edited: true, ends }
            }
        }
    }

    /// Where HTTP/2 is spoken on a side there is no body, and DATA is the tunnel's: it waits. Says whether the request
    /// ends with its head; `None` when its body tells.
    fn hold_for_answer(&mut self, index: u32, client_http2: bool, endpoint_http2: bool) -> Option<bool> {
        let holds = client_http2 || endpoint_http2;
        if holds {
            self.streams[index].legs[UP].wait = Wait::Answer;
        }
        holds.then_some(!endpoint_http2)
    }

    /// A WebSocket client of HTTP/2 has no key: the endpoint gets one of ours.
    fn upgrade_head(&mut self, index: u32, client_http2: bool) {
        let stream = &mut self.streams[index];
        let is_websocket = stream.head.get(Token::UPGRADE).is_some_and(is_websocket);
        let Some(tunnel) = stream.tunnel.as_mut().filter(|_| client_http2 && is_websocket) else {
            return;
        };
        self.request_counter = self.request_counter.wrapping_add(1);
        let seed = u128::from(self.config.request_id_seed) << 64 | u128::from(self.request_counter);
        // An odd multiplier: different counters give different keys, which is all a key is for (RFC 6455 1.3).
        let key = websocket::key(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        tunnel.accept = websocket::accept(&key);
        stream.head.set(KEY, &key);
    }

    /// The head in HTTP/2's own form, in `edited`.
    fn extended_connect_head(&mut self, index: u32) {
        if !self.edit_request(index) {
            let stream = &self.streams[index];
            self.edited.clear();
            for field in stream.head.fields() {
                self.edited.push_copy(field, stream.head.name_value(field));
            }
        }
        let head = &mut self.edited;
        let protocols = head.get(Token::UPGRADE).unwrap_or_default();
        self.text.clear();
        // There is room for one.
        self.text
            .extend_from_slice(options(protocols).next().unwrap_or_default());
        if is_websocket(&self.text) {
            self.text.make_ascii_lowercase();
        }
        head.remove(Token::UPGRADE);
        head.remove_named(KEY);
        head.set_known(Token::METHOD, b"CONNECT");
        head.push_front(Token::PROTOCOL.name(), &self.text);
    }
}
