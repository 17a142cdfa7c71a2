//! The control state: a pure function from events to effects. The rim runs the effects in order.

use crate::ir::{Bind, Ir};
use crate::lower::KernelTables;
use crate::reconcile::MapOp;
use crate::snapshot::Snapshot;
use crate::time::Moment;
use std::net::IpAddr;
use std::sync::Arc;

/// What can happen.
#[derive(Debug)]
pub enum Event {
    /// A configuration was compiled.
    Configured(Arc<Ir>),
    /// The maps of an earlier process were adopted and hold this.
    Adopted(KernelTables),
    /// Which binds of the kernel plane the rim can and cannot forward (return path, interface): those that it cannot
    /// are spliced, with the reason.
    KernelReach(Vec<(Bind, Result<(), String>)>),
    /// No live kernel flow names these endpoint indexes any more.
    EndpointsIdle(Vec<u16>),
    /// Time passed.
    Tick,
    /// SIGTERM.
    Drain,
    /// A worker has no live stream or connection left.
    WorkersIdle,
}

/// What to do about it, in order.
#[derive(Debug)]
pub enum Effect {
    /// Write the kernel's maps.
    Kernel(Vec<MapOp>),
    /// Give the workers a new revision.
    Publish(Arc<Snapshot>),
    /// Serve exactly these binds with own sockets (datapath `off`), or know them (`sk_lookup`).
    Listen(Vec<Bind>),
    /// Make exactly these addresses local.
    Local(Vec<IpAddr>),
    /// Tell the workers to drain.
    DrainWorkers,
    /// Leave.
    Exit,
}

/// Everything control remembers.
#[derive(Debug, Default)]
pub struct ControlState {}

impl ControlState {
    /// What follows from an event. `now` decides the end of a drain.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let _ = (event, now);
        todo!()
    }
}
