//! The balancers against simpler truths.

use super::failure::{OUT_MAX, OUT_MIN};
use super::*;
use crate::ir::{ServiceName, UpstreamProtocol};
use crate::snapshot::DestinationTo;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn service(balance: BalancePolicy, turns: &[u32]) -> ServicePlan {
    let turns = turns.iter().map(|id| EndpointId(*id)).collect();
    ServicePlan {
        id: ServiceId(0),
        name: ServiceName::from("default/echo:80"),
        balance,
        turns,
        tls: None,
    }
}

fn destinations(weights: &[u32]) -> Vec<DestinationPlan> {
    let to = || DestinationTo::Service(ServiceId(0));
    let plan = |weight: &u32| DestinationPlan {
        weight: *weight,
        to: to(),
        protocol: UpstreamProtocol::H2c,
        filters: Vec::new(),
    };
    weights.iter().map(plan).collect()
}

fn picks(balancers: &mut Balancers, service: &ServicePlan, count: usize) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        *counts
            .entry(balancers.pick(service, &[], Moment::ZERO).unwrap().0)
            .or_default() += 1;
    }
    counts
}

#[test]
fn four_thousand_picks_over_four_endpoints_are_a_thousand_each() {
    for policy in [BalancePolicy::RoundRobin, BalancePolicy::LeastRequest] {
        let counts = picks(&mut Balancers::new(0), &service(policy, &[4, 5, 6, 7]), 4_000);
        assert_eq!(counts, BTreeMap::from([(4, 1_000), (5, 1_000), (6, 1_000), (7, 1_000)]));
    }
}

#[test]
fn workers_begin_at_different_endpoints_and_spread_over_all() {
    let echo = service(BalancePolicy::RoundRobin, &[0, 1, 2, 3]);
    let first = |worker| Balancers::new(worker).pick(&echo, &[], Moment::ZERO).unwrap().0;
    assert_eq!([0, 1, 2, 3].map(first), [0, 2, 1, 3]);
}

#[test]
fn weights_are_exact_when_some_are_zero_and_nobody_is_picked_when_all_are() {
    let mut balancers = Balancers::new(0);
    let mut next = |weights: &[u32]| balancers.destination(RuleId(3), &destinations(weights));
    assert_eq!(next(&[0, 0]), None);
    assert_eq!(next(&[0]), None);
    assert_eq!(next(&[]), None);
    assert_eq!(next(&[5]), Some(0));
    assert_eq!((0..4).map(|_| next(&[0, 7, 0])).collect::<Vec<_>>(), [Some(1); 4]);
}

#[test]
fn nine_to_one_is_spread_and_a_change_of_weights_begins_anew() {
    let mut balancers = Balancers::new(0);
    let mut next = |weights: &[u32]| balancers.destination(RuleId(0), &destinations(weights)).unwrap();
    let round: Vec<usize> = (0..10).map(|_| next(&[900_000, 100_000])).collect();
    assert_eq!(round, [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    next(&[1_000_000, 1]);
    let round: Vec<usize> = (0..4).map(|_| next(&[1, 1])).collect();
    assert_eq!(round, [0, 1, 0, 1]);
}

#[test]
fn a_failed_endpoint_is_left_out_and_its_turns_are_shared() {
    let echo = service(BalancePolicy::RoundRobin, &[0, 1, 2, 3]);
    let mut balancers = Balancers::new(0);
    balancers.failed(EndpointId(2), Moment::ZERO);
    assert_eq!(
        picks(&mut balancers, &echo, 300),
        BTreeMap::from([(0, 100), (1, 100), (3, 100)])
    );
    balancers.answered(EndpointId(2));
    assert_eq!(picks(&mut balancers, &echo, 400).get(&2), Some(&100));
}

#[test]
fn least_request_prefers_the_idle_and_goes_round_among_equals() {
    let echo = service(BalancePolicy::LeastRequest, &[0, 1, 2]);
    let mut balancers = Balancers::new(0);
    balancers.started(EndpointId(1));
    assert_eq!(picks(&mut balancers, &echo, 10), BTreeMap::from([(0, 5), (2, 5)]));
    balancers.finished(EndpointId(1));
    balancers.finished(EndpointId(1));
    assert_eq!(balancers.in_flight(EndpointId(1)), 0);
    assert_eq!(
        picks(&mut balancers, &echo, 9),
        BTreeMap::from([(0, 3), (1, 3), (2, 3)])
    );
}

#[test]
fn ids_that_were_never_given_are_refused_without_making_room() {
    let mut balancers = Balancers::new(0);
    balancers.started(EndpointId(u32::MAX));
    balancers.failed(EndpointId(u32::MAX), Moment::ZERO);
    assert_eq!(balancers.destination(RuleId(u32::MAX), &destinations(&[1, 1])), None);
    assert!(balancers.endpoints.is_empty() && balancers.rules.is_empty());
}

proptest! {
    #[test]
    fn over_each_round_every_destination_gets_exactly_its_weight(
        weights in prop::collection::vec(0u32..30, 2..6),
        rounds in 1usize..4,
    ) {
        let mut balancers = Balancers::new(0);
        let plans = destinations(&weights);
        let round = weights.iter().sum::<u32>();
        for _ in 0..rounds {
            let mut counts = vec![0; weights.len()];
            for _ in 0..round {
                counts[balancers.destination(RuleId(0), &plans).unwrap()] += 1;
            }
            prop_assert_eq!(&counts, &weights);
        }
    }

    #[test]
    fn a_rule_goes_on_as_if_the_others_did_not_exist(
        weights in prop::collection::vec(1u32..9, 2..5),
        others in prop::collection::vec(prop::collection::vec(0u32..9, 1..5), 1..40),
    ) {
        let (mut alone, mut among) = (Balancers::new(0), Balancers::new(0));
        let plans = destinations(&weights);
        for other in others {
            among.destination(RuleId(1), &destinations(&other));
            prop_assert_eq!(alone.destination(RuleId(0), &plans), among.destination(RuleId(0), &plans));
        }
    }

    /// Truth: with turns in order of id, the next is the first above the last one, going round.
    #[test]
    fn the_round_goes_on_while_endpoints_come_and_go(
        steps in prop::collection::vec((0u32..8, 1usize..6), 1..60),
        worker in 0u16..4,
    ) {
        let mut balancers = Balancers::new(worker);
        let mut turns: Vec<u32> = vec![1, 3, 5];
        let mut last: Option<u32> = None;
        for (toggled, count) in steps {
            match turns.binary_search(&toggled) {
                Ok(at) if turns.len() > 1 => drop(turns.remove(at)),
                Ok(_) => {}
                Err(at) => turns.insert(at, toggled),
            }
            let echo = service(BalancePolicy::RoundRobin, &turns);
            for _ in 0..count {
                let picked = balancers.pick(&echo, &[], Moment::ZERO).unwrap().0;
                if let Some(last) = last {
                    let expected = turns.iter().find(|id| **id > last).unwrap_or(&turns[0]);
                    prop_assert_eq!(picked, *expected, "after {} in {:?}", last, turns);
                }
                last = Some(picked);
            }
        }
    }

    #[test]
    fn failures_and_exclusions_follow_the_reference(steps in prop::collection::vec(step(), 1..200), policy in policy()) {
        let mut balancers = Balancers::new(0);
        let mut model = Model::default();
        let echo = service(policy, &[0, 1, 2, 3]);
        for step in steps {
            match step {
                Step::Pick { not } => {
                    let excluded: Vec<EndpointId> = not.iter().map(|id| EndpointId(*id)).collect();
                    let picked = balancers.pick(&echo, &excluded, model.now()).map(|id| id.0);
                    prop_assert_eq!(picked, model.pick(policy, &not));
                    if let Some(id) = picked {
                        balancers.started(EndpointId(id));
                    }
                }
                Step::Finish(id) => {
                    balancers.finished(EndpointId(id));
                    model.of(id).in_flight = model.of(id).in_flight.saturating_sub(1);
                }
                Step::Fail(id) => {
                    balancers.failed(EndpointId(id), model.now());
                    model.failed(id);
                }
                Step::Answer(id) => {
                    balancers.answered(EndpointId(id));
                    *model.of(id) = Known { in_flight: model.of(id).in_flight, ..Known::default() };
                }
                Step::Wait(ms) => model.ms += ms,
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pick { not: Vec<u32> },
    Finish(u32),
    Fail(u32),
    Answer(u32),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(0u32..4, 0..4).prop_map(|not| Step::Pick { not }),
        2 => (0u32..4).prop_map(Step::Finish),
        3 => (0u32..4).prop_map(Step::Fail),
        1 => (0u32..4).prop_map(Step::Answer),
        3 => prop_oneof![0u64..100, 500u64..5_000, 10_000u64..40_000].prop_map(Step::Wait),
    ]
}

fn policy() -> impl Strategy<Value = BalancePolicy> {
    prop_oneof![Just(BalancePolicy::RoundRobin), Just(BalancePolicy::LeastRequest)]
}

/// The rules of the module's heads, told again over four endpoints with plain lists and milliseconds.
#[derive(Default)]
struct Model {
    ms: u64,
    next: u32,
    endpoints: [Known; 4],
}

#[derive(Clone, Copy, Default)]
struct Known {
    in_flight: u32,
    /// Failures in a row, each when it was allowed to be tried.
    strikes: u32,
    out_until: u64,
    on_trial: bool,
    failed_at: u64,
}

impl Model {
    fn now(&self) -> Moment {
        Moment::from_millis(self.ms)
    }

    fn of(&mut self, id: u32) -> &mut Known {
        &mut self.endpoints[id as usize]
    }

    fn period(strikes: u32) -> u64 {
        let longest = OUT_MAX.as_millis() as u64;
        (1..strikes).fold(OUT_MIN.as_millis() as u64, |ms, _| (ms * 2).min(longest))
    }

    fn failed(&mut self, id: u32) {
        let ms = self.ms;
        let known = self.of(id);
        if known.strikes == 0 || ms >= known.out_until || known.on_trial {
            known.strikes += 1;
            known.out_until = ms + Self::period(known.strikes);
            known.on_trial = false;
        }
        known.failed_at = ms;
    }

    fn pick(&mut self, policy: BalancePolicy, not: &[u32]) -> Option<u32> {
        let order: Vec<u32> = (0..4)
            .map(|n| (self.next + n) % 4)
            .filter(|id| !not.contains(id))
            .collect();
        let known = self.endpoints;
        let of = |id: &u32| known[*id as usize];
        let usable: Vec<u32> = order
            .iter()
            .copied()
            .filter(|id| of(id).strikes == 0 || self.ms >= of(id).out_until)
            .collect();
        let first_by = |ids: &[u32], key: &dyn Fn(&u32) -> u64| ids.iter().copied().min_by_key(key);
        let chosen = match (usable.is_empty(), policy) {
            (true, _) => first_by(&order, &|id| of(id).failed_at),
            (false, BalancePolicy::RoundRobin | BalancePolicy::ClientAddress) => usable.first().copied(),
            (false, BalancePolicy::LeastRequest) => first_by(&usable, &|id| u64::from(of(id).in_flight)),
        }?;
        self.next = (chosen + 1) % 4;
        let ms = self.ms;
        let known = self.of(chosen);
        known.in_flight += 1;
        if known.strikes > 0 && ms >= known.out_until {
            known.on_trial = true;
            known.out_until = ms + Self::period(known.strikes);
        }
        Some(chosen)
    }
}
