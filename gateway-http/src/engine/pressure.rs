//! What a worker still takes: bounds on requests under way, and a ladder to climb down when memory is short.
//!
//! Memory is watched by the rim, which says how near its limit the process is ([`Pressure`]). Each step does what the
//! steps before it do, and all of it is taken back when the pressure is gone.

use super::connection::{Closing, Connection};
use super::{ConnId, Engine};
use gateway_core::fault::Fault;
use gateway_core::time::Moment;

/// How short of memory the process is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Pressure {
    #[default]
    None,
    /// Windows shrink, spare buffers are given back, upstream connections are not kept idle.
    Shrink,
    /// Idle clients are told to go, others after their next answer.
    Leave,
    /// Requests are answered 503, or RESOURCE_EXHAUSTED.
    Shed,
    /// Connections are refused.
    Refuse,
}

impl Pressure {
    pub const ALL: [Pressure; 5] = [
        Pressure::None,
        Pressure::Shrink,
        Pressure::Leave,
        Pressure::Shed,
        Pressure::Refuse,
    ];

    /// Name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Pressure::None => "none",
            Pressure::Shrink => "shrink",
            Pressure::Leave => "leave",
            Pressure::Shed => "shed",
            Pressure::Refuse => "refuse",
        }
    }
}

/// What the limits and the pressure come to, for one comparison each.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    pub pressure: Pressure,
    /// Requests under way, the new one included.
    pub requests_max: usize,
    /// A client with as many requests on its connection is told to go.
    pub requests_per_connection: u64,
}

impl Engine {
    /// Memory is as short as this from now on.
    pub fn set_pressure(&mut self, pressure: Pressure, now: Moment) {
        self.now = now;
        let before = std::mem::replace(&mut self.admission, admission(&self.limits, pressure)).pressure;
        let short = pressure >= Pressure::Shrink;
        self.grown_max = if short { 0 } else { self.limits.window_growth_max };
        self.held_max = self.limits.held_bytes_max >> if short { 3 } else { 0 };
        if short {
            self.pool.give_back();
            self.lists.give_back();
        }
        if pressure <= before {
            return;
        }
        for slot in 0..self.connections.len() {
            self.with(ConnId(slot as u32), |engine, c| engine.relieve(c, pressure));
        }
    }

    pub fn pressure(&self) -> Pressure {
        self.admission.pressure
    }

    /// What one connection can do about it.
    fn relieve(&mut self, c: &mut Connection, pressure: Pressure) {
        self.shrink_windows(c);
        if c.streams > 0 || c.closing != Closing::No || c.is_connecting() {
            return;
        }
        if !c.is_downstream() {
            self.retire(c);
        } else if pressure >= Pressure::Leave {
            self.drain_connection(c);
        }
    }

    /// Whether the request that just came may be served; if not, it is answered.
    #[inline]
    pub(super) fn admit(&mut self, c: &mut Connection, index: u32) -> bool {
        if c.streams_total >= self.admission.requests_per_connection {
            self.drain_connection(c);
        }
        self.streams.live() <= self.admission.requests_max || self.shed(c, index)
    }

    #[cold]
    fn shed(&mut self, c: &mut Connection, index: u32) -> bool {
        self.metrics.shed_total += 1;
        self.fail(c, index, Fault::Overloaded);
        false
    }
}

/// What the limits allow under a pressure.
pub fn admission(limits: &crate::limits::Limits, pressure: Pressure) -> Admission {
    let requests_per_connection = limits.connection_requests_max.unwrap_or(u64::MAX);
    Admission {
        pressure,
        requests_max: if pressure >= Pressure::Shed {
            0
        } else {
            limits.requests_max
        },
        requests_per_connection: if pressure >= Pressure::Leave {
            0
        } else {
            requests_per_connection
        },
    }
}
