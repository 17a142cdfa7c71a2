//! Every prefix of every plan, over random tables.

use super::*;
use crate::lower::kernel::marker_key;
use gateway_common::abi::VipMode;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Tables that hold the invariants: which of eight ports are NAT, hand-off or absent, with which endpoints.
fn tables() -> impl Strategy<Value = KernelTables> {
    let ports = prop::collection::vec((0u8..3, prop::collection::btree_map(1u16..6, 1u16..4, 0..4)), 8);
    let draining = prop::collection::btree_set(1u16..9, 0..4);
    (ports, draining).prop_map(|(ports, draining)| {
        let mut tables = KernelTables::default();
        for index in draining {
            tables.endpoints.insert(index, endpoint(index, EndpointState::Draining));
        }
        for (port, (mode, turns)) in ports.into_iter().enumerate() {
            let addr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, (port % 2) as u8));
            let key = VipKey::new(addr, 80 + port as u16, 6);
            let id = port as u32;
            match mode {
                0 => {}
                1 => drop(tables.vips.insert(
                    key,
                    VipEntry {
                        id,
                        mode: VipMode::HandOff,
                    },
                )),
                _ => {
                    for index in turns.keys() {
                        tables
                            .endpoints
                            .insert(*index, endpoint(*index, EndpointState::Serving));
                    }
                    tables.vips.insert(key, VipEntry { id, mode: VipMode::Nat });
                    tables.vips.insert(
                        marker_key(addr),
                        VipEntry {
                            id: 4096,
                            mode: VipMode::Address,
                        },
                    );
                    tables.rings.insert(
                        id,
                        RingSpec {
                            turns: turns.into_iter().collect(),
                            ..RingSpec::default()
                        },
                    );
                }
            }
        }
        tables
    })
}

fn endpoint(index: u16, state: EndpointState) -> EndpointEntry {
    let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, index as u8)), 8080);
    EndpointEntry { addr, state }
}

/// What must hold at every moment.
fn check(tables: &KernelTables) -> Result<(), String> {
    for (key, vip) in &tables.vips {
        if !vip.mode.forwards() {
            continue;
        }
        let ring = tables.rings.get(&vip.id).ok_or(format!("{key:?} has no ring"))?;
        for (index, _) in &ring.turns {
            let state = tables.endpoints.get(index).map(|entry| entry.state);
            if state != Some(EndpointState::Serving) {
                return Err(format!("{key:?}: endpoint {index} is {state:?}"));
            }
        }
        let marked = tables.vips.get(&VipKey {
            port_be: 0,
            proto: 0,
            ..*key
        });
        if marked.is_none() {
            return Err(format!("the address of {key:?} is not marked"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_of_a_plan_keeps_the_invariants_and_the_whole_plan_arrives(
        actual in tables(), desired in tables()
    ) {
        let mut now = actual.clone();
        let stays: BTreeSet<_> = actual.vips.keys().filter(|key| desired.vips.contains_key(key)).collect();
        for op in plan(&actual, &desired) {
            let before = now.clone();
            now.apply(&op);
            prop_assert_ne!(&before, &now, "{:?} changes nothing", op);
            if let Err(broken) = check(&now) {
                prop_assert!(false, "after {:?}: {}", op, broken);
            }
            for key in &stays {
                prop_assert!(now.vips.contains_key(key), "{:?} vanished", key);
            }
        }
        prop_assert_eq!(&now, &desired);
    }

    #[test]
    fn nothing_is_written_twice_and_nothing_that_stays_is_written(actual in tables(), desired in tables()) {
        let mut seen = BTreeSet::new();
        for op in plan(&actual, &desired) {
            let (what, same) = match &op {
                MapOp::PutEndpoint(index, entry) => (format!("e{index}"), actual.endpoints.get(index) == Some(entry)),
                MapOp::RemoveEndpoint(index) => (format!("e{index}"), desired.endpoints.contains_key(index)),
                MapOp::PutRing(id, ring) => (format!("r{id}"), actual.rings.get(id) == Some(ring)),
                MapOp::RemoveRing(id) => (format!("r{id}"), desired.rings.contains_key(id)),
                MapOp::PutVip(key, vip) => (format!("v{key:?}"), actual.vips.get(key) == Some(vip)),
                MapOp::RemoveVip(key) => (format!("v{key:?}"), desired.vips.contains_key(key)),
            };
            prop_assert!(!same, "{:?} was not needed", op);
            prop_assert!(seen.insert(what), "{:?} touches it again", op);
        }
    }
}

#[test]
fn the_same_tables_need_no_plan() {
    let mut tables = KernelTables::default();
    tables.endpoints.insert(1, endpoint(1, EndpointState::Serving));
    tables.rings.insert(
        0,
        RingSpec {
            turns: vec![(1, 1)],
            ..RingSpec::default()
        },
    );
    assert_eq!(plan(&tables, &tables.clone()), []);
}
