//! Responses of an HTTP/1.1 endpoint, and the connections kept to it.
//!
//! A kept connection that breaks before a byte of the response came was probably closed for idleness while the
//! request was on its way. The request goes again, on a fresh connection, if that is safe: nothing of it was written,
//! or its method is idempotent (RFC 9110 9.2.2, RFC 9112 9.3.1).

use super::super::connection::{Closing, Codec, Connection};
use super::super::http2::{ConnectionError, broken};
use super::super::leg::Body;
use super::super::stream::UP;
use super::super::{ConnId, Engine, Pressure, at};
use super::Reading;
use super::body::Input;
use crate::h1::body::Reader;
use crate::h1::head;
use crate::h1::{Framing, Persistence};
use crate::h2::frame::ErrorCode;
use gateway_core::fault::Fault;
use gateway_core::ids::EndpointId;
use gateway_core::ir::UpstreamProtocol;
use std::net::SocketAddr;

/// Interim responses before the final one.
const INTERIMS_MAX: u8 = 16;

impl Engine {
    /// The response under way, interim ones before it included; returns how much is used up.
    pub(super) fn read_responses(&mut self, c: &mut Connection, input: Input<'_>) -> Result<usize, ConnectionError> {
        let mut at = 0;
        loop {
            if c.closing != Closing::No {
                return Ok(input.bytes.len());
            }
            let http1 = c.http1();
            match http1.reading {
                _ if at == input.bytes.len() => return Ok(at),
                Reading::Head => match self.read_response(c, &input.bytes[at..])? {
                    Some(len) => at += len,
                    None => return Ok(at),
                },
                Reading::Body(_) => match self.read_body(c, input, &mut at) {
                    Ok(true) => self.end_dropped(c),
                    Ok(false) => {
                        return Ok(if c.closing == Closing::No {
                            at
                        } else {
                            input.bytes.len()
                        });
                    }
                    Err(_) => return broken(ErrorCode::ProtocolError, "malformed body"),
                },
                Reading::Tunnel => {
                    self.read_tunnel(c, input, &mut at);
                    return Ok(at);
                }
                // More than was asked for: the rest belongs to nobody.
                Reading::Whole => {
                    http1.persistence = Persistence::Close;
                    return Ok(input.bytes.len());
                }
            }
        }
    }

    fn read_response(&mut self, c: &mut Connection, bytes: &[u8]) -> Result<Option<usize>, ConnectionError> {
        let limits = self.section_limits();
        let http1 = c.http1();
        let asked = http1.stream.filter(|index| self.streams[*index].legs[UP].sent_head);
        let Some(index) = asked else {
            // Nobody asked: the endpoint is about to close, or worse.
            self.retire(c);
            return Ok(Some(bytes.len()));
        };
        http1.answered = true;
        let known = std::mem::replace(&mut http1.searched, bytes.len());
        if known > 0 && bytes.len() < limits.size_max && !head::may_be_complete(bytes, known) {
            return Ok(None);
        }
        let method = http1.method;
        let mut fields = self.lists.take();
        let response = match head::read_response(bytes, method, &mut fields, limits) {
            Ok(Some(response)) => response,
            Ok(None) => {
                self.lists.put(&mut fields);
                return Ok(None);
            }
            Err(_) => {
                self.lists.put(&mut fields);
                return broken(ErrorCode::ProtocolError, "malformed response");
            }
        };
        http1.searched = 0;
        let mut end = false;
        if response.facts.status == 101 {
            let agreed = self.on_switch(c, index, &mut fields);
            self.lists.put(&mut fields);
            return agreed.map(|()| Some(response.len));
        }
        if response.facts.is_interim() {
            http1.interims += 1;
            if http1.interims > INTERIMS_MAX {
                self.lists.put(&mut fields);
                return broken(ErrorCode::EnhanceYourCalm, "too many interim responses");
            }
        } else {
            end = matches!(response.framing, Framing::None | Framing::Length(0));
            http1.reading = if end {
                Reading::Whole
            } else {
                Reading::Body(Reader::new(response.framing))
            };
            http1.persistence = response.persistence;
        }
        self.on_response(c, index, &mut fields, response.facts, end);
        self.lists.put(&mut fields);
        Ok(Some(response.len))
    }

    /// The endpoint sends nothing more: the end of a body, of an idle connection, or of a response that is cut.
    pub(in crate::engine) fn on_endpoint_end(&mut self, c: &mut Connection) {
        let http1 = c.http1();
        http1.ended = true;
        http1.persistence = Persistence::Close;
        if let Reading::Tunnel = http1.reading {
            return self.end_tunnel(c);
        }
        if let (Some(index), Reading::Body(Reader::UntilClose)) = (http1.stream, &http1.reading) {
            http1.reading = Reading::Whole;
            self.on_body(c, index, UP, Body::own(b""), true);
        }
        self.kill(c, false);
    }

    // === Connections ===

    /// An idle connection, the last used first, or a new one.
    pub(in crate::engine) fn http1_for(
        &mut self,
        c: &mut Connection,
        endpoint: EndpointId,
        addr: SocketAddr,
    ) -> Result<ConnId, Fault> {
        while let Some(id) = self.pools[endpoint.index()].http1_idle.pop() {
            let candidate = at(&mut self.connections, c, id);
            if candidate.closing == Closing::No && candidate.serves(addr) {
                return Ok(id);
            }
            candidate.leave();
            Self::close_after_flush(candidate, &mut self.turn);
        }
        if self.pools[endpoint.index()].http1_open as usize >= self.limits.upstream_http1_max {
            self.metrics.endpoint_overflowed(endpoint);
            return Err(Fault::Overloaded);
        }
        let id = self.connect(endpoint, addr, UpstreamProtocol::Http1)?;
        self.pools[endpoint.index()].http1_open += 1;
        Ok(id)
    }

    /// An upstream connection is connected: its request can go, or it waits for one.
    pub(in crate::engine) fn open_http1(&mut self, c: &mut Connection) {
        let Codec::Http1(http1) = &c.codec else { return };
        match http1.stream {
            Some(index) => self.open_upstream(c, index),
            None => self.reuse_http1(c, c.id),
        }
    }

    /// A stream left this connection: it waits for the next one, or ends.
    pub(in crate::engine) fn reuse_http1(&mut self, c: &mut Connection, id: ConnId) {
        let target = at(&mut self.connections, c, id);
        let Codec::Http1(http1) = &target.codec else { return };
        let idle = http1.stream.is_none() && !http1.dropping && !target.dead && !target.is_connecting();
        let (true, Some(endpoint)) = (idle, target.endpoint()) else {
            return;
        };
        let idle = &mut self.pools[endpoint.index()].http1_idle;
        let keeps = target.closing == Closing::No
            && !target.is_leaving()
            && idle.len() < self.limits.upstream_idle_max
            && self.admission.pressure == Pressure::None;
        if keeps {
            debug_assert!(!idle.contains(&id), "an idle connection is in its pool once");
            idle.push(id);
        } else {
            target.leave();
            Self::close_after_flush(target, &mut self.turn);
        }
    }

    /// A response is whole; if it was read for nobody, the connection is free now.
    fn end_dropped(&mut self, c: &mut Connection) {
        let http1 = c.http1();
        if std::mem::take(&mut http1.dropping) {
            http1.reused = true;
            self.reuse_http1(c, c.id);
        }
    }

    /// What it means for its stream that this connection broke.
    pub(in crate::engine) fn http1_fault(&mut self, c: &mut Connection, otherwise: Fault) -> Fault {
        let Codec::Http1(http1) = &c.codec else {
            return otherwise;
        };
        if http1.answered {
            return otherwise;
        }
        let stale = http1.reused && http1.method.is_idempotent();
        let fault = if c.bytes_out <= http1.written_before {
            Fault::ConnectFailed
        } else if stale {
            Fault::Refused
        } else {
            return otherwise;
        };
        // What was idle as long as this one is probably gone as well.
        if let (true, Some(endpoint)) = (http1.reused, c.endpoint()) {
            let idle = std::mem::take(&mut self.pools[endpoint.index()].http1_idle);
            for id in idle {
                let other = at(&mut self.connections, c, id);
                other.leave();
                Self::close_after_flush(other, &mut self.turn);
            }
        }
        fault
    }
}
