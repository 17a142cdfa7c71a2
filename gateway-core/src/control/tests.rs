//! What each event asks for, told as short histories.

use super::*;
use crate::ir::{
    BalancePolicy, Destination, Endpoint, EndpointName, HostPattern, Listener, ListenerName, Plane, Readiness,
    Recognise, RuleName, Service, ServiceName, StreamRule, StreamRules, Weighted,
};
use gateway_common::abi::{VipKey, VipMode};

const VIP: &str = "192.0.2.1:80";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A kernel listener at [`VIP`] in front of these endpoints.
fn ir(endpoints: &[&str]) -> Arc<Ir> {
    let name = ServiceName::from("default/echo:80");
    let endpoint = |text: &&str| Endpoint {
        name: EndpointName::from(*text),
        addr: addr(text),
        weight: 1,
        readiness: Readiness::Serving,
    };
    let service = Service {
        name: name.clone(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        balance: BalancePolicy::RoundRobin,
        tls: None,
    };
    let rule = StreamRule {
        listener: ListenerName::from("default/gw/l4"),
        name: RuleName::from("TCPRoute/default/echo/0"),
        hostname: HostPattern::Any,
        terminate: None,
        destinations: vec![Weighted {
            weight: 1,
            to: Destination::Service(name.clone()),
        }],
    };
    let rules = StreamRules {
        recognise: Recognise::Nothing,
        rules: vec![rule],
    };
    let bind = Bind::tcp(addr(VIP));
    let listener = Listener {
        bind,
        names: vec![],
        plane: Plane::Kernel(rules),
        why: "its protocol is TCP".into(),
        exposure: Default::default(),
    };
    let mut ir = Ir::default();
    ir.services.insert(name, service.into());
    ir.listeners.insert(bind, listener);
    Arc::new(ir)
}

fn state() -> ControlState {
    ControlState::new(ControlOptions {
        ingress: Ok(()),
        lookup: true,
        ..ControlOptions::default()
    })
}

/// Effects in short: one word each, map operations spelled out.
fn words(effects: &[Effect]) -> Vec<String> {
    let mut words = Vec::new();
    for effect in effects {
        match effect {
            Effect::Probe(endpoints) => words.push(format!("probe {}", endpoints.len())),
            Effect::Kernel(ops) => words.extend(ops.iter().map(|op| match op {
                MapOp::PutEndpoint(index, entry) => format!("+e{index} {:?}", entry.state),
                MapOp::PutRing(id, ring) => format!("+r{id} {:?}", ring.turns),
                MapOp::PutVip(_, vip) => format!("+v{} {:?}", vip.id, vip.mode),
                MapOp::RemoveVip(_) => "-v".into(),
                MapOp::RemoveRing(id) => format!("-r{id}"),
                MapOp::RemoveEndpoint(index) => format!("-e{index}"),
            })),
            Effect::Publish(snapshot) => words.push(format!("publish {}", snapshot.revision.0)),
            Effect::Listen(binds) => words.push(format!("listen {}", binds.len())),
            Effect::Local(addrs) => words.push(format!("local {}", addrs.len())),
            Effect::DrainWorkers => words.push("drain workers".into()),
            Effect::Exit => words.push("exit".into()),
        }
    }
    words
}

/// Handles the event and answers a probe with "reachable".
fn run(state: &mut ControlState, event: Event, millis: u64) -> Vec<String> {
    let effects = state.handle(event, Moment::from_millis(millis));
    if let [Effect::Probe(endpoints)] = &effects[..] {
        let reach = endpoints.iter().map(|endpoint| (*endpoint, Ok(()))).collect();
        return run(state, Event::KernelReach(reach), millis);
    }
    words(&effects)
}

fn configured(endpoints: &[&str]) -> ControlState {
    let mut state = state();
    run(&mut state, Event::Configured(ir(endpoints)), 0);
    state
}

#[test]
fn a_configuration_is_probed_published_written_and_then_made_local() {
    let mut state = state();
    let probe = state.handle(Event::Configured(ir(&["10.0.0.1:80"])), Moment::ZERO);
    assert_eq!(words(&probe), ["probe 1"]);
    let reach = BTreeMap::from([(addr("10.0.0.1:80"), Ok(()))]);
    let effects = state.handle(Event::KernelReach(reach), Moment::ZERO);
    assert_eq!(
        words(&effects),
        [
            "publish 1",
            "+e1 Serving",
            "+r0 [(1, 1)]",
            "+v4096 Address",
            "+v0 Nat",
            "local 1",
            "listen 0"
        ]
    );
}

#[test]
fn the_same_configuration_again_has_no_effect() {
    let mut state = configured(&["10.0.0.1:80"]);
    assert!(run(&mut state, Event::Configured(ir(&["10.0.0.1:80"])), 1).is_empty());
}

#[test]
fn an_endpoint_removed_drains_until_no_flow_names_it() {
    let mut state = configured(&["10.0.0.1:80", "10.0.0.2:80"]);
    let effects = run(&mut state, Event::Configured(ir(&["10.0.0.1:80"])), 1);
    assert_eq!(effects, ["publish 2", "+r0 [(1, 1)]", "+e2 Left"]);
    assert_eq!(run(&mut state, Event::EndpointsIdle(vec![2]), 2), ["-e2"]);
    assert!(
        run(&mut state, Event::EndpointsIdle(vec![1]), 3).is_empty(),
        "it is configured"
    );
}

#[test]
fn an_endpoint_that_comes_back_while_it_drains_is_not_removed() {
    let mut state = configured(&["10.0.0.1:80", "10.0.0.2:80"]);
    run(&mut state, Event::Configured(ir(&["10.0.0.1:80"])), 1);
    let effects = run(&mut state, Event::Configured(ir(&["10.0.0.1:80", "10.0.0.2:80"])), 2);
    assert_eq!(effects, ["publish 3", "+e2 Serving", "+r0 [(1, 1), (2, 1)]"]);
    assert!(run(&mut state, Event::EndpointsIdle(vec![2]), 3).is_empty());
}

#[test]
fn an_unreachable_endpoint_moves_the_listener_to_splice_with_the_reason() {
    let mut state = state();
    state.handle(Event::Configured(ir(&["10.0.0.1:80"])), Moment::ZERO);
    let reach = BTreeMap::from([(addr("10.0.0.1:80"), Err("it is behind a gateway".to_owned()))]);
    let effects = state.handle(Event::KernelReach(reach), Moment::ZERO);
    assert_eq!(words(&effects), ["publish 1", "+v0 HandOff", "local 1", "listen 0"]);
    let listener = state.served().unwrap().listeners.values().next().unwrap();
    assert_eq!(listener.plane.name(), "splice");
    assert_eq!(
        listener.why,
        "splice, not kernel: endpoint 10.0.0.1:80: it is behind a gateway"
    );
}

#[test]
fn a_route_that_appears_later_brings_the_listener_back_to_the_kernel() {
    let mut state = state();
    state.handle(Event::Configured(ir(&["10.0.0.1:80"])), Moment::ZERO);
    let endpoint = addr("10.0.0.1:80");
    state.handle(
        Event::KernelReach(BTreeMap::from([(endpoint, Err("no route".to_owned()))])),
        Moment::ZERO,
    );
    let effects = state.handle(Event::KernelReach(BTreeMap::from([(endpoint, Ok(()))])), Moment::ZERO);
    assert_eq!(
        words(&effects),
        ["publish 2", "+e1 Serving", "+r0 [(1, 1)]", "+v4096 Address", "+v0 Nat"]
    );
}

#[test]
fn without_a_kernel_every_listener_has_own_sockets_and_nothing_is_probed_or_written() {
    let mut state = ControlState::default();
    let effects = run(&mut state, Event::Configured(ir(&["10.0.0.1:80"])), 0);
    assert_eq!(effects, ["publish 1", "local 1", "listen 1"]);
    let why = &state.served().unwrap().listeners.values().next().unwrap().why;
    assert_eq!(why, "splice, not kernel: the datapath is off");
}

#[test]
fn an_adopted_kernel_that_holds_what_is_wanted_is_not_touched() {
    let before = configured(&["10.0.0.1:80", "10.0.0.2:80"]);
    let mut state = state();
    run(&mut state, Event::Adopted(before.tables().clone()), 0);
    let effects = run(&mut state, Event::Configured(ir(&["10.0.0.1:80", "10.0.0.2:80"])), 0);
    assert_eq!(effects, ["publish 1", "local 1", "listen 0"]);
}

#[test]
fn an_adopted_endpoint_keeps_its_index_and_one_that_is_gone_drains() {
    let before = configured(&["10.0.0.1:80", "10.0.0.2:80"]);
    let mut state = state();
    run(&mut state, Event::Adopted(before.tables().clone()), 0);
    let effects = run(&mut state, Event::Configured(ir(&["10.0.0.2:80", "10.0.0.3:80"])), 0);
    assert_eq!(
        effects,
        [
            "publish 1",
            "+e3 Serving",
            "+r0 [(2, 1), (3, 1)]",
            "+e1 Left",
            "local 1",
            "listen 0"
        ]
    );
}

#[test]
fn a_drain_refuses_new_flows_and_ends_when_workers_and_flows_are_idle() {
    let mut state = configured(&["10.0.0.1:80"]);
    let effects = run(&mut state, Event::Drain, 10);
    assert_eq!(effects, ["drain workers", "+r0 []", "+e1 Draining"]);
    assert!(
        run(&mut state, Event::WorkersIdle, 20).is_empty(),
        "flows are still there"
    );
    assert_eq!(run(&mut state, Event::EndpointsIdle(vec![1]), 30), ["exit"]);
    assert!(run(&mut state, Event::Tick, 60_000).is_empty(), "it is over");
}

#[test]
fn a_drain_that_keeps_the_kernel_waits_for_the_workers_only() {
    let mut state = configured(&["10.0.0.1:80"]);
    state.options.keep_kernel = true;
    assert_eq!(run(&mut state, Event::Drain, 10), ["drain workers"]);
    assert_eq!(run(&mut state, Event::WorkersIdle, 20), ["exit"]);
}

#[test]
fn what_was_handed_over_is_neither_written_nor_waited_for() {
    let mut state = configured(&["10.0.0.1:80"]);
    let tables = state.tables().clone();
    run(&mut state, Event::KernelIs(tables), 5);
    assert_eq!(run(&mut state, Event::HandedOver, 10), ["drain workers"]);
    assert!(run(&mut state, Event::Configured(ir(&["10.0.0.2:80"])), 20).is_empty());
    assert!(run(&mut state, Event::EndpointsIdle(vec![1]), 30).is_empty());
    assert!(run(&mut state, Event::Tick, 10_000).is_empty());
    assert_eq!(run(&mut state, Event::WorkersIdle, 10_100), ["exit"]);
}

#[test]
fn a_drain_ends_at_its_time_whatever_is_left() {
    let mut state = configured(&["10.0.0.1:80"]);
    run(&mut state, Event::Drain, 1_000);
    assert!(run(&mut state, Event::Tick, 30_999).is_empty());
    assert_eq!(run(&mut state, Event::Tick, 31_000), ["exit"]);
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let mut state = configured(&["10.0.0.1:80"]);
    run(&mut state, Event::Drain, 1);
    assert_eq!(run(&mut state, Event::Drain, 2), ["exit"]);
}

#[test]
fn a_failed_write_is_tried_again_from_what_the_maps_really_hold() {
    let mut state = configured(&["10.0.0.1:80"]);
    let mut actual = state.tables().clone();
    actual.vips.remove(&VipKey::new("192.0.2.1".parse().unwrap(), 80, 6));
    run(&mut state, Event::KernelIs(actual), 5);
    assert!(run(&mut state, Event::Tick, 6).is_empty());
    assert_eq!(run(&mut state, Event::Tick, 1_005), ["+v0 Nat"]);
    assert!(run(&mut state, Event::Tick, 9_000).is_empty());
}

#[test]
fn a_listener_on_every_address_has_a_socket_even_with_lookup() {
    let mut ir = Arc::unwrap_or_clone(ir(&["10.0.0.1:80"]));
    let (_, listener) = ir.listeners.pop_first().unwrap();
    let bind = Bind {
        addr: None,
        ..listener.bind
    };
    ir.listeners.insert(bind, Listener { bind, ..listener });
    let mut state = state();
    let effects = run(&mut state, Event::Configured(Arc::new(ir)), 0);
    assert_eq!(effects, ["publish 1", "listen 1"]);
}

#[test]
fn an_address_is_made_local_for_what_is_served_here_and_not_for_what_is_elsewhere() {
    let mut one = Arc::unwrap_or_clone(ir(&[]));
    let listener = one.listeners.values_mut().next().unwrap();
    listener.exposure.elsewhere = true;
    let other = Listener {
        bind: Bind {
            port: 81,
            ..listener.bind
        },
        ..listener.clone()
    };
    let mut state = ControlState::new(ControlOptions::default());
    let effects = run(&mut state, Event::Configured(Arc::new(one.clone())), 0);
    assert_eq!(effects, ["publish 1", "listen 0"], "neither an address nor a socket");
    one.listeners.insert(other.bind, other.clone());
    one.listeners.get_mut(&other.bind).unwrap().exposure.elsewhere = false;
    let effects = run(&mut state, Event::Configured(Arc::new(one)), 1);
    assert_eq!(
        effects,
        ["publish 2", "local 1", "listen 2"],
        "who comes to the other port is refused"
    );
}

#[test]
fn a_listener_that_leaves_takes_its_vip_ring_and_address_along() {
    let mut state = configured(&["10.0.0.1:80"]);
    let effects = run(&mut state, Event::Configured(Arc::new(Ir::default())), 1);
    assert_eq!(effects, ["publish 2", "-v", "-v", "-r0", "+e1 Left", "local 0"]);
    assert!(state.tables().vips.values().all(|vip| vip.mode != VipMode::Nat));
}
