//! One worker's balancer state. Survives revisions: indexed by ids that do.
//!
//! Laws: over each round of weights every destination gets exactly its share, and over each round of turns every
//! endpoint exactly its turns, while none fails. A pick allocates only when an id or a set of weights is new. No
//! pick is lost to a failure as long as some endpoint is left to try.

pub mod budget;
pub mod destination;
pub mod failure;
pub mod turn;

use crate::ids::{EndpointId, RuleId, ServiceId};
use crate::ir::BalancePolicy;
use crate::lower::ids::NAMES_MAX;
use crate::snapshot::{DestinationPlan, ServicePlan};
use crate::time::Moment;
use budget::Budget;
use destination::Shares;
use failure::Failures;
use std::time::Duration;
use turn::Cursor;

/// Cursors, in-flight counts and failures, per id.
#[derive(Debug, Default)]
pub struct Balancers {
    worker: u16,
    rules: Vec<Shares>,
    /// By rule: what each of its mirrors has saved up for its next copy.
    mirrors: Vec<Vec<u32>>,
    services: Vec<Cursor>,
    /// 1970 to the start of the process.
    epoch: Duration,
    /// By service: what is left for retries.
    budgets: Vec<Budget>,
    endpoints: Vec<EndpointState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct EndpointState {
    in_flight: u32,
    failures: Failures,
}

impl Balancers {
    /// `worker` decides where each round starts, so that the workers of a process do not all begin with the same
    /// endpoint.
    pub fn new(worker: u16) -> Self {
        Self {
            worker,
            ..Self::default()
        }
    }

    /// Which destination of a rule gets this request: smooth weighted round robin, exact over each round of weights.
    /// `None` when every weight is zero.
    pub fn destination(&mut self, rule: RuleId, destinations: &[DestinationPlan]) -> Option<usize> {
        match destinations {
            [only] => (only.weight > 0).then_some(0),
            _ => at(&mut self.rules, rule.index())?.next(destinations),
        }
    }

    /// Whether this request of a rule is one of the `numerator` in `denominator` that its mirror `index` copies; they
    /// are spread evenly.
    pub fn mirrors(&mut self, rule: RuleId, index: usize, numerator: u32, denominator: u32) -> bool {
        let Some(saved) = at(&mut self.mirrors, rule.index()) else {
            return false;
        };
        if saved.len() <= index {
            saved.resize(index + 1, 0);
        }
        let credit = u64::from(saved[index]) + u64::from(numerator.min(denominator));
        let due = credit >= u64::from(denominator) && denominator > 0;
        let left = if due { credit - u64::from(denominator) } else { credit };
        saved[index] = u32::try_from(left).unwrap_or(0);
        due
    }

    /// An endpoint of a service by its policy, skipping `not` and those left out after a failure; when every one is
    /// left out, the least recently failed (better a try than a certain 503).
    pub fn pick(&mut self, service: &ServicePlan, not: &[EndpointId], now: Moment) -> Option<EndpointId> {
        let turns = &service.turns;
        let cursor = self.cursor(service.id)?.resumed(turns, self.worker)?;
        let usable = |endpoint: EndpointId| !not.contains(&endpoint) && !self.failures(endpoint).is_out(now);
        let chosen = match service.balance {
            BalancePolicy::RoundRobin | BalancePolicy::ClientAddress => cursor.round(turns).find(|turn| usable(turn.1)),
            BalancePolicy::LeastRequest => cursor
                .round(turns)
                .filter(|turn| usable(turn.1))
                .min_by_key(|turn| self.in_flight(turn.1)),
        };
        // Everything is left out: `min_by_key` takes the first of equals, in order of turns.
        let chosen = chosen.or_else(|| {
            let tried = |endpoint: EndpointId| self.failures(endpoint).failed_at();
            cursor
                .round(turns)
                .filter(|turn| !not.contains(&turn.1))
                .min_by_key(|turn| tried(turn.1))
        });
        let (index, endpoint) = chosen?;
        *at(&mut self.services, service.id.index())? = Cursor::after(index, turns);
        if let Some(state) = at(&mut self.endpoints, endpoint.index()) {
            state.failures.picked(now);
        }
        Some(endpoint)
    }

    /// As [`Balancers::pick`], for a connection of this client: by [`BalancePolicy::ClientAddress`] the endpoint that
    /// `affinity` says most for, of the usable ones. Every worker and every gateway with the same endpoints says the same.
    pub fn pick_for(
        &mut self,
        service: &ServicePlan,
        affinity: impl Fn(EndpointId) -> u32,
        not: &[EndpointId],
        now: Moment,
    ) -> Option<EndpointId> {
        match service.balance {
            BalancePolicy::RoundRobin | BalancePolicy::LeastRequest => self.pick(service, not, now),
            BalancePolicy::ClientAddress => {
                let left = || service.turns.iter().copied().filter(|endpoint| !not.contains(endpoint));
                let usable = left().filter(|endpoint| !self.is_out(*endpoint, now));
                let chosen = usable.max_by_key(|endpoint| affinity(*endpoint));
                let chosen = chosen.or_else(|| left().max_by_key(|endpoint| affinity(*endpoint)))?;
                if let Some(state) = at(&mut self.endpoints, chosen.index()) {
                    state.failures.picked(now);
                }
                Some(chosen)
            }
        }
    }

    /// A stream or connection to it began.
    pub fn started(&mut self, endpoint: EndpointId) {
        if let Some(state) = at(&mut self.endpoints, endpoint.index()) {
            state.in_flight = state.in_flight.saturating_add(1);
        }
    }

    /// ... and ended.
    pub fn finished(&mut self, endpoint: EndpointId) {
        if let Some(state) = at(&mut self.endpoints, endpoint.index()) {
            state.in_flight = state.in_flight.saturating_sub(1);
        }
    }

    /// It could not be connected to, or broke before it answered: left out for a while (1 s, doubling to 30 s while
    /// it goes on failing).
    pub fn failed(&mut self, endpoint: EndpointId, now: Moment) {
        if let Some(state) = at(&mut self.endpoints, endpoint.index()) {
            state.failures.failed(now);
        }
    }

    /// It answered (a relayed connection: it was connected): it takes part again, and the next failure counts as the
    /// first. Must be called for every answer: after a failure only one request tries the endpoint until it is.
    pub fn answered(&mut self, endpoint: EndpointId) {
        if let Some(state) = self.endpoints.get_mut(endpoint.index()) {
            state.failures = Failures::default();
        }
    }

    /// Sets the clock on the wall: from 1970 to the start of the process. Only sessions know of it.
    pub fn set_epoch(&mut self, epoch: Duration) {
        self.epoch = epoch;
    }

    /// Seconds since 1970.
    pub fn unix_s(&self, now: Moment) -> u64 {
        (self.epoch + now.since(Moment::ZERO)).as_secs()
    }

    /// What this worker may still retry at a service.
    pub fn budget(&mut self, service: ServiceId) -> &mut Budget {
        let index = service.index().min(NAMES_MAX as usize);
        if self.budgets.len() <= index {
            self.budgets.resize_with(index + 1, Budget::default);
        }
        &mut self.budgets[index]
    }

    /// Streams and connections of this worker on an endpoint.
    pub fn in_flight(&self, endpoint: EndpointId) -> u32 {
        self.endpoints.get(endpoint.index()).map_or(0, |state| state.in_flight)
    }

    /// Whether an endpoint is left out now after a failure.
    pub fn is_out(&self, endpoint: EndpointId, now: Moment) -> bool {
        self.failures(endpoint).is_out(now)
    }

    fn failures(&self, endpoint: EndpointId) -> Failures {
        self.endpoints
            .get(endpoint.index())
            .map_or(Failures::default(), |state| state.failures)
    }

    fn cursor(&mut self, service: ServiceId) -> Option<Cursor> {
        at(&mut self.services, service.index()).copied()
    }
}

/// The state of an id, made on demand. `None` for an id that `Ids` never gives.
fn at<T: Default>(table: &mut Vec<T>, index: usize) -> Option<&mut T> {
    if index >= NAMES_MAX as usize {
        return None;
    }
    if table.len() <= index {
        table.resize_with(index + 1, T::default);
    }
    table.get_mut(index)
}

#[cfg(test)]
mod tests;
