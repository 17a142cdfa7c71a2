//! What an HTTP/1.1 connection remembers, and what it sends.

use super::ConnId;
use super::Engine;
use super::connection::Connection;
use super::http2::ConnectionError;
use super::leg::Body;
use super::pool::Pool;
use super::stream::Leg;
use crate::head::FieldList;
use crate::limits::Limits;
use gateway_core::fault::Fault;
use gateway_core::ids::EndpointId;
use gateway_core::model::Side;
use std::net::SocketAddr;

/// State of one HTTP/1.1 connection.
pub struct Http1 {
    /// The stream that is being served, if any: there is one at a time.
    pub stream: Option<u32>,
}

impl Http1 {
    pub fn new(side: Side) -> Self {
        let _ = side;
        Self { stream: None }
    }

    pub fn put_head(&mut self, leg: &Leg, fields: &FieldList, informational: bool, end: bool, out: &mut Vec<u8>) {
        let _ = (leg, fields, informational, end, out);
    }

    pub fn put_trailers(&mut self, fields: &FieldList, out: &mut Vec<u8>) {
        let _ = (fields, out);
    }

    pub fn reset(&mut self) {}

    pub fn detach(&mut self) {
        self.stream = None;
    }

    pub fn credit(&mut self, bytes: usize) {
        let _ = bytes;
    }

    pub fn wants_read(&self) -> bool {
        true
    }
}

pub fn send_body(
    connection: &mut Connection,
    leg: &mut Leg,
    body: Body<'_>,
    end: bool,
    limits: &Limits,
    pool: &mut Pool,
) -> bool {
    let _ = (connection, leg, body, end, limits, pool);
    false
}

impl Engine {
    pub(super) fn read_http1(&mut self, c: &mut Connection, chunk: &[u8]) -> Result<usize, ConnectionError> {
        Self::close_after_flush(c, &mut self.turn);
        Ok(chunk.len())
    }

    pub(super) fn on_http1_end(&mut self, c: &mut Connection) {
        self.kill(c, false);
    }

    pub(super) fn http1_for(
        &mut self,
        c: &mut Connection,
        endpoint: EndpointId,
        addr: SocketAddr,
    ) -> Result<ConnId, Fault> {
        let _ = (c, endpoint, addr);
        Err(Fault::Internal)
    }

    /// An upstream connection is connected: its request can go.
    pub(super) fn open_http1(&mut self, c: &mut Connection) {
        let _ = c;
    }

    /// A stream left this connection: it may serve the next one.
    pub(super) fn reuse_http1(&mut self, c: &mut Connection, id: ConnId) {
        let _ = (c, id);
    }
}
