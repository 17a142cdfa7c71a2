//! One worker's balancer state. Survives revisions: indexed by ids that do.

use crate::ids::{EndpointId, RuleId};
use crate::snapshot::{DestinationPlan, ServicePlan};
use crate::time::Moment;

/// Cursors, in-flight counts and failures, per id.
#[derive(Debug, Default)]
pub struct Balancers {}

impl Balancers {
    /// Which destination of a rule gets this request: smooth weighted round robin, exact over each round of weights.
    /// `None` when every weight is zero.
    pub fn destination(&mut self, rule: RuleId, destinations: &[DestinationPlan]) -> Option<usize> {
        let _ = (rule, destinations);
        todo!()
    }

    /// An endpoint of a service by its policy, skipping `not` and those left out after a failure; when every one is
    /// left out, the least recently failed (better a try than a certain 503).
    pub fn pick(&mut self, service: &ServicePlan, not: &[EndpointId], now: Moment) -> Option<EndpointId> {
        let _ = (service, not, now);
        todo!()
    }

    /// A stream or connection to it began.
    pub fn started(&mut self, endpoint: EndpointId) {
        let _ = endpoint;
    }

    /// ... and ended.
    pub fn finished(&mut self, endpoint: EndpointId) {
        let _ = endpoint;
    }

    /// It could not be connected to, or broke before it answered: left out for a while (1 s, doubling to 30 s while
    /// it goes on failing).
    pub fn failed(&mut self, endpoint: EndpointId, now: Moment) {
        let _ = (endpoint, now);
    }

    /// It answered: the next failure counts as the first.
    pub fn answered(&mut self, endpoint: EndpointId) {
        let _ = endpoint;
    }
}
