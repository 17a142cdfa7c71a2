//! Listeners, rings and indices as the kernel gets them, over one and several revisions.

use super::*;
use crate::ir::{
    BalancePolicy, Endpoint, EndpointName, HostPattern, ListenerName, Recognise, RuleName, Service, ServiceName,
    StreamRule, Transport, Weighted,
};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

type Endpoints<'a> = &'a [(&'a str, u16, bool)];

/// A configuration of one kernel listener; each service is a name, a weight and endpoints (`addr`, weight, drains).
fn one_listener(bind: &str, services: &[(&str, u32, Endpoints)]) -> Ir {
    let mut ir = Ir::default();
    let mut destinations = Vec::new();
    for (name, weight, endpoints) in services {
        let name = ServiceName::from(*name);
        let endpoints = endpoints.iter().map(|(text, weight, drains)| Endpoint {
            name: EndpointName::from(*text),
            addr: addr(text),
            weight: *weight,
            readiness: if *drains {
                Readiness::Draining
            } else {
                Readiness::Serving
            },
        });
        let service = Service {
            name: name.clone(),
            endpoints: endpoints.collect(),
            balance: BalancePolicy::RoundRobin,
            tls: None,
        };
        ir.services.insert(name.clone(), service.into());
        destinations.push(Weighted {
            weight: *weight,
            to: Destination::Service(name),
        });
    }
    let bind = Bind::tcp(addr(bind));
    let rule = StreamRule {
        listener: ListenerName::from("default/gw/l4"),
        name: RuleName::from("TCPRoute/default/echo/0"),
        hostname: HostPattern::Any,
        terminate: None,
        destinations,
    };
    let rules = StreamRules {
        recognise: Recognise::Nothing,
        rules: vec![rule],
    };
    let plane = Plane::Kernel(rules);
    ir.listeners.insert(
        bind,
        Listener {
            bind,
            names: vec![],
            plane,
            why: String::new(),
            exposure: Default::default(),
        },
    );
    ir
}

fn lowered(ir: &Ir, indexes: &mut KernelIndexes) -> KernelTables {
    let mut ids = Ids::default();
    ids.assign(ir);
    lower(ir, &ids, indexes)
}

#[test]
fn a_kernel_listener_becomes_a_vip_with_a_ring_and_its_address_is_marked() {
    let ir = one_listener(
        "192.0.2.1:80",
        &[("a:80", 1, &[("10.0.0.1:80", 1, false), ("10.0.0.2:80", 1, false)])],
    );
    let tables = lowered(&ir, &mut KernelIndexes::default());
    let vip = VipKey::new("192.0.2.1".parse().unwrap(), 80, 6);
    assert_eq!(
        tables.vips[&vip],
        VipEntry {
            id: 0,
            mode: VipMode::Nat
        }
    );
    assert_eq!(
        tables.vips[&marker_key("192.0.2.1".parse().unwrap())].mode,
        VipMode::Address
    );
    assert_eq!(tables.rings[&0].turns, [(1, 1), (2, 1)]);
    assert_eq!(tables.endpoints[&2].addr, addr("10.0.0.2:80"));
}

#[test]
fn a_splice_listener_is_handed_off_and_its_address_is_not_marked() {
    let mut ir = one_listener("192.0.2.1:80", &[("a:80", 1, &[("10.0.0.1:80", 1, false)])]);
    for listener in ir.listeners.values_mut() {
        if let Plane::Kernel(rules) = &listener.plane {
            listener.plane = Plane::Splice(rules.clone());
        }
    }
    let tables = lowered(&ir, &mut KernelIndexes::default());
    let modes: Vec<_> = tables.vips.values().map(|vip| vip.mode).collect();
    assert_eq!(modes, [VipMode::HandOff]);
    assert!(tables.rings.is_empty() && tables.endpoints.is_empty());
}

#[test]
fn weights_of_services_and_of_endpoints_multiply() {
    let one: &[(&str, u16, bool)] = &[("10.0.0.1:80", 1, false)];
    let two: &[(&str, u16, bool)] = &[("10.0.0.2:80", 1, false), ("10.0.0.3:80", 2, false)];
    let none: &[(&str, u16, bool)] = &[("10.0.0.4:80", 1, false)];
    let ir = one_listener("192.0.2.1:80", &[("a:80", 1, one), ("b:80", 1, two), ("c:80", 0, none)]);
    let tables = lowered(&ir, &mut KernelIndexes::default());
    assert_eq!(tables.rings[&0].turns, [(1, 3), (2, 1), (3, 2)]);
    assert_eq!(
        tables.endpoints[&4].state,
        EndpointState::Draining,
        "weight 0 gets no new flow"
    );
}

#[test]
fn an_extreme_ratio_keeps_every_endpoint_in_the_ring() {
    let shares = BTreeMap::from([(1, 1.0), (2, 1_000_000.0)]);
    let turns = turns(&shares);
    assert_eq!(turns[0], (1, 1));
    assert!(u64::from(turns[1].1) >= TURNS_MAX - 1, "{turns:?}");
}

#[test]
fn an_endpoint_that_left_drains_until_it_is_idle_and_keeps_its_index_if_it_comes_back() {
    let both: &[(&str, u16, bool)] = &[("10.0.0.1:80", 1, false), ("10.0.0.2:80", 1, false)];
    let with = one_listener("192.0.2.1:80", &[("a:80", 1, both)]);
    let without = one_listener("192.0.2.1:80", &[("a:80", 1, &[("10.0.0.1:80", 1, false)])]);
    let mut indexes = KernelIndexes::default();
    lowered(&with, &mut indexes);
    let tables = lowered(&without, &mut indexes);
    assert_eq!(tables.endpoints[&2].state, EndpointState::Left);
    assert_eq!(tables.rings[&0].turns, [(1, 1)]);
    assert_eq!(lowered(&with, &mut indexes).rings[&0].turns, [(1, 1), (2, 1)]);
    assert!(!indexes.release(2), "it is configured again");
    lowered(&without, &mut indexes);
    assert!(indexes.release(2));
    assert!(!lowered(&without, &mut indexes).endpoints.contains_key(&2));
}

#[test]
fn a_freed_index_rests_before_it_is_given_again() {
    let mut indexes = KernelIndexes::default();
    lowered(
        &one_listener("192.0.2.1:80", &[("a:80", 1, &[("10.0.0.1:80", 1, false)])]),
        &mut indexes,
    );
    let next = one_listener("192.0.2.1:80", &[("a:80", 1, &[("10.0.0.2:80", 1, false)])]);
    lowered(&next, &mut indexes);
    assert!(indexes.release(1));
    lowered(
        &one_listener("192.0.2.1:80", &[("a:80", 1, &[("10.0.0.3:80", 1, false)])]),
        &mut indexes,
    );
    assert_eq!(indexes.get(addr("10.0.0.3:80")), Some(3));
}

#[test]
fn the_indexes_run_out_at_their_bound_and_say_so_before() {
    let mut indexes = KernelIndexes {
        taken: (1..ENDPOINTS_MAX as u16).collect(),
        ..Default::default()
    };
    assert!(!indexes.has_room_for(&BTreeSet::from([addr("10.0.0.1:80")])));
    assert!(indexes.hold(addr("10.0.0.1:80")).is_none());
}

/// The same listener on another bind.
fn moved(ir: Ir, to: impl Fn(Bind) -> Bind) -> Ir {
    let mut moved = Ir {
        listeners: Default::default(),
        ..ir
    };
    for listener in ir.listeners.into_values() {
        let bind = to(listener.bind);
        moved.listeners.insert(bind, Listener { bind, ..listener });
    }
    moved
}

#[test]
fn a_listener_that_packets_cannot_serve_says_why() {
    let v6: &[(&str, u16, bool)] = &[("[2001:db8::1]:80", 1, false)];
    let plain = || one_listener("192.0.2.1:80", &[("a:80", 1, &[])]);
    let rows = [
        (
            one_listener("192.0.2.1:80", &[("a:80", 1, v6)]),
            "different IP versions",
        ),
        (
            moved(plain(), |bind| Bind { addr: None, ..bind }),
            "every address of the host",
        ),
    ];
    for (ir, expected) in rows {
        let why = unfit(&ir, ir.listeners.values().next().unwrap()).unwrap_or_default();
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn a_udp_listener_owns_its_port_beside_the_tcp_one() {
    let mut ir = one_listener("192.0.2.1:53", &[("a:53", 1, &[("10.0.0.1:53", 1, false)])]);
    let tcp = ir.listeners.values().next().unwrap().clone();
    let bind = Bind {
        transport: Transport::Udp,
        ..tcp.bind
    };
    ir.listeners.insert(bind, Listener { bind, ..tcp });
    assert!(ir.listeners.values().all(|listener| unfit(&ir, listener).is_none()));
    let mut ids = Ids::default();
    ids.assign(&ir);
    let tables = lower(&ir, &ids, &mut KernelIndexes::default());
    let of = |proto| tables.vips[&VipKey::new(bind.addr.unwrap(), 53, proto)];
    assert_ne!(of(6).id, of(17).id);
    assert_eq!(tables.rings.len(), 2);
    assert_eq!(tables.endpoints.len(), 1);
}

#[test]
fn a_key_gives_back_its_bind() {
    let bind = Bind::tcp(addr("[2001:db8::7]:443"));
    let key = VipKey::new(bind.addr.unwrap(), bind.port, 6);
    assert_eq!(bind_of(&key), Some(bind));
    assert_eq!(bind_of(&marker_key(bind.addr.unwrap())), None);
}

/// The share of flows that each endpoint of a ring gets, over `flows` client ports and addresses.
fn shares(tables: &KernelTables, vip: SocketAddr, proto: u8, flows: u32) -> BTreeMap<u16, f64> {
    use gateway_common::abi::{FlowKey, RING_SLOTS, Slot, addr_words};
    use gateway_common::{datapath::slot_of, maglev};
    let id = tables.vips[&VipKey::new(vip.ip(), vip.port(), proto)].id;
    let member = |(index, turns): &(u16, u16)| {
        let addr = tables.endpoints[index].addr;
        maglev::Member::new(*index, *turns, &addr_words(addr.ip()), addr.port().to_be())
    };
    let mut members: Vec<_> = tables.rings[&id].turns.iter().map(member).collect();
    let mut ring = vec![Slot::default(); RING_SLOTS];
    maglev::fill(&mut members, &mut ring);
    let mut counts: BTreeMap<u16, f64> = BTreeMap::new();
    for flow in 0..flows {
        let client = std::net::Ipv4Addr::from(0x0a00_0000 + flow / 1000);
        let key = FlowKey {
            src: addr_words(client.into()),
            dst: addr_words(vip.ip()),
            ports: FlowKey::ports((32_768 + (flow % 1000) as u16).to_be(), vip.port().to_be()),
            proto: u32::from(proto),
        };
        *counts.entry(ring[slot_of(0, &key) as usize].current).or_default() += 1.0 / f64::from(flows);
    }
    counts
}

#[test]
fn flows_fall_to_services_by_their_weights_within_one_percent_whatever_the_number_of_endpoints() {
    let names: Vec<String> = (1..=9).map(|n| format!("10.0.0.{n}:53")).collect();
    let endpoints: Vec<(&str, u16, bool)> = names.iter().map(|name| (name.as_str(), 1, false)).collect();
    // Endpoints of the services in order, and their weights.
    let rows: [&[(usize, u32)]; 5] = [
        &[(1, 70), (1, 30), (1, 0)],
        &[(3, 70), (2, 30), (1, 0)],
        &[(1, 1), (1, 99)],
        &[(4, 333_333), (2, 333_333), (3, 333_334)],
        &[(1, 1_000_000), (7, 250_000), (1, 0)],
    ];
    for row in rows {
        let mut services = Vec::new();
        let mut at = 0;
        for (number, (count, weight)) in row.iter().enumerate() {
            services.push((["a:53", "b:53", "c:53"][number], *weight, &endpoints[at..at + count]));
            at += count;
        }
        let vip = addr("192.0.2.1:53");
        for transport in [Transport::Tcp, Transport::Udp] {
            let ir = moved(one_listener("192.0.2.1:53", &services), |bind| Bind {
                transport,
                ..bind
            });
            let tables = lowered(&ir, &mut KernelIndexes::default());
            let shares = shares(&tables, vip, transport.protocol_number(), 200_000);
            let total: u32 = row.iter().map(|(_, weight)| weight).sum();
            for (service, (_, weight, members)) in services.iter().enumerate() {
                let of = |text: &str| {
                    let entry = tables.endpoints.iter().find(|(_, entry)| entry.addr == addr(text));
                    entry.and_then(|(index, _)| shares.get(index)).copied().unwrap_or(0.0)
                };
                let got: f64 = members.iter().map(|(text, ..)| of(text)).sum();
                let wanted = f64::from(*weight) / f64::from(total);
                let exact = if *weight == 0 {
                    got == 0.0
                } else {
                    (got - wanted).abs() < 0.01
                };
                assert!(exact, "{row:?}, service {service}: {got} of the flows for {wanted}");
            }
        }
    }
}

#[test]
fn a_service_by_client_address_makes_a_vip_whose_slots_ports_do_not_choose() {
    use gateway_common::abi::{FlowKey, addr_words};
    use gateway_common::datapath::slot_of;
    let mut ir = one_listener("192.0.2.1:80", &[("a", 1, &[("10.0.0.1:80", 1, false)])]);
    let mut indexes = KernelIndexes::default();
    assert!(!lowered(&ir, &mut indexes).rings[&0].by_client);
    for service in ir.services.values_mut() {
        std::sync::Arc::make_mut(service).balance = BalancePolicy::ClientAddress;
    }
    let tables = lowered(&ir, &mut indexes);
    assert!(tables.rings[&0].by_client);
    let vip = tables.vips.values().find(|vip| vip.id == 0).unwrap();
    assert_eq!(vip.mode, VipMode::NatByClient);
    let slot = |mode: VipMode, client: &str, port: u16| {
        let key = FlowKey {
            src: addr_words(client.parse().unwrap()),
            dst: addr_words("192.0.2.1".parse().unwrap()),
            ports: FlowKey::ports(port.to_be(), 80_u16.to_be()),
            proto: 6,
        };
        slot_of(mode as u32, &key)
    };
    for client in ["10.9.0.1", "2001:db8::1"] {
        assert_eq!(slot(vip.mode, client, 1), slot(vip.mode, client, 2));
        assert_ne!(slot(VipMode::Nat, client, 1), slot(VipMode::Nat, client, 2));
    }
    assert_ne!(slot(vip.mode, "10.9.0.1", 1), slot(vip.mode, "10.9.0.2", 1));
}
