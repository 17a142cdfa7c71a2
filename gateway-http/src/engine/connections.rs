//! All connections of a worker, and what a turn leaves to do.

use super::connection::{Closing, Codec, Connection};
use super::{Action, ConnId};
use crate::limits::Limits;
use std::collections::VecDeque;

/// The slots. A connection that is being worked on is out of its slot.
#[derive(Default)]
pub struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
}

impl Connections {
    /// A slot for a connection that `put` will bring.
    pub fn reserve(&mut self) -> ConnId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        ConnId(index)
    }

    #[inline]
    pub fn take(&mut self, id: ConnId) -> Option<Box<Connection>> {
        self.slots.get_mut(id.index())?.take()
    }

    #[inline]
    pub fn put(&mut self, c: Box<Connection>) {
        let index = c.id.index();
        debug_assert!(self.slots[index].is_none());
        self.slots[index] = Some(c);
    }

    /// The driver has closed the socket: the slot may be given again.
    pub fn free(&mut self, id: ConnId) {
        debug_assert!(self.slots[id.index()].is_none());
        self.free.push(id.0);
    }

    pub fn get(&self, id: ConnId) -> Option<&Connection> {
        self.slots.get(id.index())?.as_deref()
    }

    #[inline]
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.slots.get_mut(id.index())?.as_deref_mut()
    }

    /// Slots, empty ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slots.iter().flatten().map(Box::as_ref)
    }
}

/// The connection `id`: the one that is out of its slot, or one in its slot.
///
/// A leg never names a connection that is gone: whoever kills a connection takes its legs off first.
#[inline]
pub fn at<'a>(connections: &'a mut Connections, out: &'a mut Connection, id: ConnId) -> &'a mut Connection {
    if out.id == id {
        out
    } else {
        connections
            .get_mut(id)
            .expect("a leg's connection is live until the leg was taken off")
    }
}

/// What a turn leaves to do.
#[derive(Default)]
pub struct Turn {
    pub dirty: Vec<ConnId>,
    pub borrowers: Vec<ConnId>,
    pub resumed: Vec<ConnId>,
    /// HTTP/1.1 connections with bytes that had to wait and can be looked at now.
    pub stalled: Vec<ConnId>,
    pub actions: VecDeque<Action>,
}

impl Turn {
    /// The connection has something to write, or to be looked at, at the end of the turn.
    #[inline]
    pub fn mark(&mut self, c: &mut Connection) {
        if !c.dirty {
            c.dirty = true;
            self.dirty.push(c.id);
        }
    }

    /// What changed for an HTTP/1.1 connection when its stream ended, its body was passed on or its output went out.
    pub fn settle_http1(&mut self, c: &mut Connection, limits: &Limits) {
        let Codec::Http1(http1) = &mut c.codec else { return };
        if c.closing != Closing::No {
            return self.mark(c);
        }
        if http1.may_go_on() {
            self.stalled.push(c.id);
        } else if http1.resume(limits) {
            self.resumed.push(c.id);
        }
    }
}

impl Connection {
    /// Streams wait for room on this connection.
    pub(super) fn has_waiting(&self) -> bool {
        match &self.codec {
            Codec::Http2(http2) => !http2.ring.is_empty(),
            Codec::Http1(_) => true,
            Codec::Detecting => false,
        }
    }

    /// Whether more waits to be written than a look may find in order.
    #[inline]
    pub(super) fn overflows(&self, limits: &Limits) -> bool {
        let long = match &self.codec {
            Codec::Http2(http2) => http2.queue.is_long(limits) && self.is_downstream(),
            Codec::Http1(_) | Codec::Detecting => false,
        };
        long || self.out.len() > limits.waiting_bytes_max()
    }

    pub(super) fn wants_read(&self) -> bool {
        match &self.codec {
            Codec::Http1(http1) => http1.wants_read(),
            Codec::Http2(_) | Codec::Detecting => true,
        }
    }
}
