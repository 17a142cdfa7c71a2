//! The law of flow state, over random histories: **no live flow changes its endpoint while that endpoint lives**; full
//! tables refuse new flows and harm no old ones; settling moves nothing. `docs/adr/0003-flow-state.md`.
//!
//! The real decision functions run over the host twin, and a sweep like userspace's; a naive reference remembers for
//! each 5-tuple the endpoint that took its SYN or its first datagram. The reference knows no rings, slots, tables or twins.

use gateway_common::abi::flow::{CLOSING_TICKS, ESTABLISHED_TICKS, STREAMING_TICKS};
use gateway_common::abi::{
    Endpoint, EndpointState, Flow, FlowKey, RING_SLOTS, Reason, Slot, Vip, VipKey, VipMode, v4_words,
};
use gateway_common::datapath::{self, slot_of};
use gateway_common::maglev::{self, Member};
use gateway_common::ring;
use gateway_common::sweep::{self, Fate, Look};
use gateway_common::twin::{Bytes, Twin};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

const CLIENTS: u8 = 12;
const ENDPOINTS: u16 = 5;
const VIPS: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The client of this number sends to this VIP, with these flags.
    Client {
        client: u8,
        vip: u8,
        flags: u8,
    },
    /// Whatever endpoint the client's flow is on answers, with these flags.
    Answer {
        client: u8,
        vip: u8,
        flags: u8,
    },
    /// The ring of a VIP is built anew from the serving endpoints of this set (bits).
    Ring {
        vip: u8,
        members: u8,
    },
    /// An endpoint leaves all rings and drains.
    Drain(u16),
    /// An endpoint is gone at once.
    Lose(u16),
    /// An endpoint is no longer configured: TCP goes on, datagrams go elsewhere.
    Leave(u16),
    /// An endpoint serves (again).
    Serve(u16),
    Sweep {
        pressed: bool,
    },
    Settle,
    /// Userspace is killed and another adopts: rings are read back, or not.
    Adopt {
        rings_known: bool,
    },
    /// Time goes by.
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let client = || (0..CLIENTS, 0..VIPS);
    let up = prop_oneof![5 => Just(SYN), 8 => Just(ACK), 2 => Just(FIN | ACK), 1 => Just(RST), 1 => Just(SYN | ACK)];
    let down = prop_oneof![3 => Just(SYN | ACK), 6 => Just(ACK), 2 => Just(FIN | ACK), 1 => Just(RST | ACK)];
    let endpoint = 1..=ENDPOINTS;
    prop_oneof![
        20 => (client(), up).prop_map(|((client, vip), flags)| Step::Client { client, vip, flags }),
        12 => (client(), down).prop_map(|((client, vip), flags)| Step::Answer { client, vip, flags }),
        4 => (0..VIPS, any::<u8>()).prop_map(|(vip, members)| Step::Ring { vip, members }),
        1 => endpoint.clone().prop_map(Step::Drain),
        1 => endpoint.clone().prop_map(Step::Lose),
        1 => endpoint.clone().prop_map(Step::Leave),
        1 => endpoint.prop_map(Step::Serve),
        3 => any::<bool>().prop_map(|pressed| Step::Sweep { pressed }),
        4 => Just(Step::Settle),
        1 => any::<bool>().prop_map(|rings_known| Step::Adopt { rings_known }),
        2 => prop_oneof![Just(1), Just(CLOSING_TICKS + 1), Just(ESTABLISHED_TICKS + 1)].prop_map(Step::Wait),
    ]
}

/// The second truth: where a client's connection is, in the words of a TCP user.
#[derive(Clone, Copy, Debug)]
struct Connection {
    endpoint: u16,
    fin_client: bool,
    fin_endpoint: bool,
    reset: bool,
}

impl Connection {
    fn ended(&self) -> bool {
        self.reset || (self.fin_client && self.fin_endpoint)
    }
}

struct World {
    twin: Twin,
    proto: u8,
    /// By client and VIP. Gone once a sweep has given it up.
    connections: BTreeMap<(u8, u8), Connection>,
    drained: BTreeSet<u16>,
    refused: usize,
    waited: bool,
}

fn endpoint_addr(number: u16) -> [u32; 4] {
    v4_words(u32::from_ne_bytes([198, 51, 100, number as u8]))
}

fn client_key(client: u8, vip: u8, proto: u8) -> FlowKey {
    FlowKey {
        src: v4_words(u32::from_ne_bytes([203, 0, 113, client])),
        dst: v4_words(u32::from_ne_bytes([192, 0, 2, 10])),
        ports: FlowKey::ports(40_000u16.to_be(), port(vip).to_be()),
        proto: u32::from(proto),
    }
}

fn port(vip: u8) -> u16 {
    80 + u16::from(vip)
}

/// One of the two goes by its clients' addresses alone.
fn mode(vip: u8) -> VipMode {
    if vip == 0 { VipMode::Nat } else { VipMode::NatByClient }
}

/// An IPv4 frame of just the headers; checksums are not looked at here.
fn frame(key: &FlowKey, flags: u8) -> Bytes<true> {
    let mut bytes = vec![0u8; 54];
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14] = 0x45;
    bytes[22] = 64;
    bytes[23] = key.proto as u8;
    bytes[26..30].copy_from_slice(&key.src[3].to_ne_bytes());
    bytes[30..34].copy_from_slice(&key.dst[3].to_ne_bytes());
    bytes[34..38].copy_from_slice(&key.ports.to_ne_bytes());
    bytes[47] = flags;
    Bytes { bytes, ifindex: 3 }
}

/// Destination and source of a frame: last byte of the address, and port.
fn ends(frame: &Bytes<true>) -> ((u8, u16), (u8, u16)) {
    let b = &frame.bytes;
    let port = |at: usize| u16::from_be_bytes([b[at], b[at + 1]]);
    ((b[33], port(36)), (b[29], port(34)))
}

/// A ring's `current`s from a set of endpoints; built once for each set.
fn currents(members: u8) -> Vec<Slot> {
    thread_local!(static BUILT: RefCell<BTreeMap<u8, Vec<Slot>>> = RefCell::default());
    BUILT.with_borrow_mut(|built| {
        let ring = built.entry(members).or_insert_with(|| {
            let mut chosen: Vec<Member> = (1..=ENDPOINTS)
                .filter(|n| members >> (n - 1) & 1 != 0)
                .map(|n| Member::new(n, 1, &endpoint_addr(n), 8080u16.to_be()))
                .collect();
            let mut ring = vec![Slot::default(); RING_SLOTS];
            maglev::fill(&mut chosen, &mut ring);
            ring
        });
        ring.clone()
    })
}

impl World {
    fn new(flows_max: usize, proto: u8) -> Self {
        let mut twin = Twin {
            flows_max,
            clock: 1,
            ..Twin::default()
        };
        for number in 1..=ENDPOINTS {
            let endpoint = Endpoint {
                addr: endpoint_addr(number),
                ifindex: 7,
                macs: [1, 2, 3],
                port_be: 8080u16.to_be(),
                state: EndpointState::Serving as u8,
                pad: 0,
            };
            twin.put_endpoint(number, endpoint);
        }
        for vip in 0..VIPS {
            let key = client_key(0, vip, proto);
            let key = VipKey {
                addr: key.dst,
                port_be: key.dst_port_be(),
                proto,
                pad: 0,
            };
            twin.vips.insert(
                key,
                Vip {
                    id: u32::from(vip),
                    mode: mode(vip) as u32,
                },
            );
            twin.put_ring(u32::from(vip), |_| Slot {
                current: 1,
                previous: 1,
            });
        }
        Self {
            twin,
            proto,
            connections: BTreeMap::new(),
            drained: BTreeSet::new(),
            refused: 0,
            waited: false,
        }
    }

    fn lives(&self, endpoint: u16) -> bool {
        self.twin.endpoints[&endpoint].takes_flows()
    }

    /// Whether a flow of this protocol stays there.
    fn keeps(&self, endpoint: u16) -> bool {
        let endpoint = &self.twin.endpoints[&endpoint];
        endpoint.takes_flows() && (self.proto == TCP || endpoint.takes_datagrams())
    }

    fn state(&mut self, endpoint: u16, state: EndpointState) {
        self.twin.endpoints.get_mut(&endpoint).expect("one of the five").state = state as u8;
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Client { client, vip, flags } => self.client(client, vip, flags)?,
            Step::Answer { client, vip, flags } => self.answer(client, vip, flags)?,
            Step::Ring { vip, members } => self.ring(vip, members, true),
            Step::Drain(endpoint) => {
                if self.lives(endpoint) {
                    self.drained.insert(endpoint);
                    self.rebuild(true);
                    self.state(endpoint, EndpointState::Draining);
                }
            }
            Step::Lose(endpoint) => {
                self.drained.insert(endpoint);
                self.rebuild(true);
                self.state(endpoint, EndpointState::Absent);
            }
            Step::Leave(endpoint) => {
                if self.lives(endpoint) {
                    self.drained.insert(endpoint);
                    self.rebuild(true);
                    self.state(endpoint, EndpointState::Left);
                }
            }
            Step::Serve(endpoint) => {
                self.drained.remove(&endpoint);
                self.state(endpoint, EndpointState::Serving);
            }
            Step::Sweep { pressed } => self.sweep(pressed),
            Step::Settle => self.settle()?,
            Step::Adopt { rings_known } => self.rebuild(rings_known),
            Step::Wait(ticks) => {
                self.waited = true;
                self.twin.clock = self.twin.clock.wrapping_add(ticks);
            }
        }
        Ok(())
    }

    fn rebuild(&mut self, known: bool) {
        for vip in 0..VIPS {
            self.ring(vip, 0xff, known);
        }
    }

    fn ring(&mut self, vip: u8, members: u8, known: bool) {
        let out = |n: u16| self.drained.contains(&n) || !self.lives(n);
        let left = (1..=ENDPOINTS)
            .filter(|n| out(*n))
            .fold(members & 0x1f, |members, n| members & !(1 << (n - 1)));
        let mut new = currents(left);
        if known {
            ring::merge(&self.twin.rings[&u32::from(vip)], &mut new);
        } else {
            ring::unsettle(&mut new);
        }
        self.twin.rings.insert(u32::from(vip), new);
    }

    /// A client's segment: where it must go is what the reference says.
    fn client(&mut self, client: u8, vip: u8, flags: u8) -> Result<(), TestCaseError> {
        // Of UDP every datagram may be the first, and none ends anything.
        let (opens, flags) = if self.proto == UDP {
            (true, 0)
        } else {
            (flags == SYN, flags)
        };
        let mut packet = frame(&client_key(client, vip, self.proto), flags);
        let outcome = datapath::packet(&mut packet, &self.twin);
        let went = u16::from(ends(&packet).0.0);
        let known = self.connections.get(&(client, vip)).copied();
        match known {
            // The law.
            Some(connection) if self.keeps(connection.endpoint) && !(opens && connection.ended()) => {
                prop_assert_eq!(outcome.reason, Reason::Forwarded, "a live flow was refused");
                prop_assert_eq!(went, connection.endpoint, "a live flow moved");
                let connection = self.connections.get_mut(&(client, vip)).expect("just seen");
                connection.fin_client |= flags & FIN != 0;
                connection.reset |= flags & RST != 0;
            }
            _ if opens => self.opened(client, vip, outcome.reason, went)?,
            _ => {}
        }
        Ok(())
    }

    /// A new connection goes to the slot's current endpoint, or is refused for a reason that holds.
    fn opened(&mut self, client: u8, vip: u8, reason: Reason, went: u16) -> Result<(), TestCaseError> {
        let slot =
            self.twin.rings[&u32::from(vip)][slot_of(mode(vip) as u32, &client_key(client, vip, self.proto)) as usize];
        let elsewhere = self
            .connections
            .get(&(client, 1 - vip))
            .copied()
            .filter(|c| c.endpoint == slot.current);
        match reason {
            Reason::Forwarded => {
                prop_assert_eq!(went, slot.current);
                // Only a connection that is over gives its client port at this endpoint away.
                if let Some(other) = elsewhere {
                    prop_assert!(other.ended() || self.waited, "took over a live flow's way back");
                    self.connections.remove(&(client, 1 - vip));
                }
                let connection = Connection {
                    endpoint: went,
                    fin_client: false,
                    fin_endpoint: false,
                    reset: false,
                };
                self.connections.insert((client, vip), connection);
            }
            Reason::NoEndpoint => prop_assert!(slot.current == 0 || !self.lives(slot.current)),
            Reason::Conflict => prop_assert!(elsewhere.is_some_and(|other| !other.ended())),
            Reason::TableFull => {
                self.refused += 1;
                let held = self.twin.flows.borrow().len().max(self.twin.reverse.borrow().len());
                prop_assert_eq!(held, self.twin.flows_max, "refused with room left");
            }
            other => prop_assert!(false, "a SYN ended as {other:?}"),
        }
        Ok(())
    }

    /// An endpoint's segment goes home as the VIP, for as long as its connection is known.
    fn answer(&mut self, client: u8, vip: u8, flags: u8) -> Result<(), TestCaseError> {
        let Some(connection) = self.connections.get(&(client, vip)).copied() else {
            return Ok(());
        };
        if !self.lives(connection.endpoint) {
            return Ok(());
        }
        let flags = if self.proto == UDP { 0 } else { flags };
        let to = client_key(client, vip, self.proto);
        let key = FlowKey {
            src: endpoint_addr(connection.endpoint),
            dst: to.src,
            ports: FlowKey::ports(8080u16.to_be(), to.src_port_be()),
            proto: u32::from(self.proto),
        };
        let mut packet = frame(&key, flags);
        let outcome = datapath::packet(&mut packet, &self.twin);
        prop_assert_eq!(outcome.reason, Reason::Returned, "an answer was lost");
        prop_assert_eq!(ends(&packet), ((client, 40_000), (10, port(vip))));
        let connection = self.connections.get_mut(&(client, vip)).expect("just seen");
        connection.fin_endpoint |= flags & FIN != 0;
        connection.reset |= flags & RST != 0;
        Ok(())
    }

    fn fate_of_endpoint(&self, flow: &Flow, addr: [u32; 4]) -> bool {
        self.twin
            .endpoints
            .get(&flow.endpoint)
            .is_some_and(|e| e.takes_flows() && e.addr == addr)
    }

    /// As userspace does it: `FLOWS`, then `REVERSE`. What it gives up, the reference forgets.
    fn sweep(&mut self, pressed: bool) {
        let look = Look {
            now: self.twin.clock,
            pressed,
            streaming: STREAMING_TICKS,
        };
        let flows = self.twin.flows.borrow().clone();
        for (key, flow) in flows {
            let twin = self.twin.reverse.borrow().get(&key.twin_of_flow(&flow)).copied();
            let lives = self.fate_of_endpoint(&flow, flow.addr);
            if sweep::flow_fate(&key, twin.as_ref(), lives, look) == Fate::Remove {
                self.twin.flows.borrow_mut().remove(&key);
                let (client, vip) = (
                    key.src[3].to_ne_bytes()[3],
                    (u16::from_be(key.dst_port_be()) - 80) as u8,
                );
                self.connections.remove(&(client, vip));
            }
        }
        let reverse = self.twin.reverse.borrow().clone();
        for (key, entry) in reverse {
            let twin = self.twin.flows.borrow().get(&key.twin_of_reverse(&entry)).copied();
            let lives = self.fate_of_endpoint(&entry, key.src);
            if sweep::reverse_fate(&key, &entry, twin.as_ref(), lives, look) == Fate::Remove {
                self.twin.reverse.borrow_mut().remove(&key);
            }
        }
    }

    /// Settles every ring, and checks that it moved no `current` and left no live flow behind.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for vip in 0..VIPS {
            let flows = self.twin.flows.borrow();
            let live: Vec<(u32, u16)> = flows
                .iter()
                .filter(|(key, _)| key.dst_port_be() == port(vip).to_be())
                .map(|(key, flow)| (slot_of(mode(vip) as u32, key), flow.endpoint))
                .collect();
            let slots = self.twin.rings.get_mut(&u32::from(vip)).expect("both have rings");
            let before = slots.clone();
            ring::settle(slots, live.iter().copied());
            prop_assert!(
                slots.iter().zip(&before).all(|(a, b)| a.current == b.current),
                "settling moved a slot"
            );
            for (slot, endpoint) in live {
                let slot = slots[slot as usize];
                prop_assert!(
                    slot.current != slot.previous || slot.current == endpoint,
                    "settled over a live flow"
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_live_flow_changes_its_endpoint_while_that_endpoint_lives(
        steps in prop::collection::vec(step(), 1..160),
        proto in prop_oneof![Just(TCP), Just(UDP)],
    ) {
        let mut world = World::new(1 << 16, proto);
        for step in steps {
            world.take(step)?;
        }
        prop_assert_eq!(world.refused, 0);
    }

    #[test]
    fn full_tables_refuse_new_flows_and_harm_no_old_ones(
        steps in prop::collection::vec(step(), 1..160),
        room in 1usize..6,
        proto in prop_oneof![Just(TCP), Just(UDP)],
    ) {
        let mut world = World::new(room, proto);
        for step in steps {
            world.take(step)?;
        }
    }
}
