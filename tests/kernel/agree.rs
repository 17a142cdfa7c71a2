//! Kernel and twin side by side on generated packets: same verdict, same bytes, the same one counter, the same tables.
//! What both get wrong together is for the rows of scapy to find; this finds what the compiler, the verifier's
//! demands or a helper made different.

use crate::loaded::{Loaded, Program};
use crate::rows::{agree, twin_run};
use crate::topology::{self, VIP4, VIP6};
use anyhow::{Context, Result, ensure};
use gateway_common::abi::{EndpointState, Reason, SLOT_UNKNOWN, Slot};
use gateway_common::ring;
use gateway_common::twin::Twin;
use gateway_tests::packet::{ACK, FIN, RST, SYN, tcp};
use std::collections::BTreeMap;

/// Packets per program.
const PACKETS: u32 = 4_000;
/// How often tables, clock or rings change between two packets.
const CHANGE_EVERY: u32 = 40;

/// Uniform numbers from a seed (splitmix64): a failure comes again.
pub struct Dice(u64);

impl Dice {
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 33) % u64::from(bound)) as u32
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }
}

pub fn kernel_and_twin_agree(loaded: &mut Loaded) -> Result<()> {
    for program in [Program::Tcx, Program::Xdp] {
        let seen = compare(loaded, program, 0x51 + program as u64, PACKETS)?;
        let wanted = [
            Reason::Forwarded,
            Reason::Returned,
            Reason::HandOff,
            Reason::NotOurs,
            Reason::NotIp,
            Reason::Options,
            Reason::OptionsDropped,
            Reason::NotTransport,
            Reason::Fragment,
            Reason::FragmentDropped,
            Reason::Truncated,
            Reason::NoEndpoint,
            Reason::NoFlow,
            Reason::Conflict,
            Reason::HopLimit,
        ];
        for reason in wanted {
            ensure!(
                seen.contains_key(&reason),
                "{program:?}: no packet ended as {reason:?}: the generator is too tame"
            );
        }
        println!("    {program:?}: {PACKETS} packets, {seen:?}");
    }
    Ok(())
}

/// The same with room for three flows: new ones are refused, old ones go on.
pub fn full_tables_refuse_and_harm_nobody(_: &mut Loaded) -> Result<()> {
    let mut small = Loaded::new(3)?;
    let seen = compare(&mut small, Program::Tcx, 7, 1_200)?;
    ensure!(
        seen.get(&Reason::TableFull).is_some_and(|n| *n > 10),
        "never full: {seen:?}"
    );
    ensure!(
        seen.get(&Reason::Returned).is_some_and(|n| *n > 4),
        "old flows do not answer: {seen:?}"
    );
    Ok(())
}

fn compare(loaded: &mut Loaded, program: Program, seed: u64, packets: u32) -> Result<BTreeMap<Reason, u32>> {
    let mut dice = Dice(seed);
    let mut twin = topology::fixture();
    loaded.put(&mut twin)?;
    let mut seen = BTreeMap::new();
    for number in 0..packets {
        if number % CHANGE_EVERY == CHANGE_EVERY - 1 {
            change(&mut dice, &mut twin);
            loaded.put(&mut twin)?;
        }
        let frame = generate(&mut dice, program);
        let twins = twin_run(&twin, program, &frame);
        let ran = loaded
            .run(program, &frame)
            .with_context(|| format!("packet {number}: {frame:02x?}"))?;
        agree(loaded, &twin, program, &ran, &twins).with_context(|| format!("packet {number}: {frame:02x?}"))?;
        *seen.entry(twins.0.reason).or_default() += 1;
    }
    Ok(seen)
}

/// Something userspace does: time, an endpoint's state, a ring.
fn change(dice: &mut Dice, twin: &mut Twin) {
    match dice.below(4) {
        0 => twin.clock += dice.one_of(&[1, 700, 3_000, 90_000]),
        1 => {
            let state = dice.one_of(&[
                EndpointState::Absent,
                EndpointState::Serving,
                EndpointState::Draining,
                EndpointState::Left,
            ]);
            if let Some(endpoint) = twin.endpoints.get_mut(&dice.one_of(&[1, 2, 4])) {
                endpoint.state = state as u8;
            }
        }
        2 => {
            let (vip, to) = (dice.one_of(&[0, 1, 7, 8, 11, 13, 16]), dice.one_of(&[1, 4]));
            if let Some(slots) = twin.rings.get_mut(&vip) {
                let mut next = vec![
                    Slot {
                        current: to,
                        previous: SLOT_UNKNOWN
                    };
                    slots.len()
                ];
                ring::merge(slots, &mut next);
                *slots = next;
            }
        }
        _ => {
            let vip = dice.one_of(&[0, 1, 3, 8, 11, 13, 16]);
            if let Some(slots) = twin.rings.get_mut(&vip) {
                ring::settle(slots, []);
            }
            for endpoint in twin.endpoints.values_mut() {
                endpoint.state = EndpointState::Serving as u8;
            }
        }
    }
}

fn generate(dice: &mut Dice, program: Program) -> Vec<u8> {
    let v6 = dice.below(3) == 0;
    let client = 40_000 + dice.below(4);
    let (near, vip, strange) = if v6 {
        ("[2001:db8:c::7]", VIP6, "2001:db8::99")
    } else {
        ("203.0.113.7", VIP4, "192.0.2.99")
    };
    let client = format!("{near}:{client}");
    let bracket = |addr: &str| if v6 { format!("[{addr}]") } else { addr.to_owned() };
    let flags = dice.one_of(&[
        SYN,
        SYN,
        SYN,
        ACK,
        ACK,
        ACK,
        ACK | 8,
        FIN | ACK,
        RST,
        SYN | ACK,
        SYN | FIN,
    ]);
    let mut segment = if dice.below(3) == 0 {
        let endpoint = if v6 {
            "2001:db8:e::11"
        } else {
            dice.one_of(&["198.51.100.11", "198.51.100.14"])
        };
        let port = dice.one_of(&[8080, 8080, 8080, 8081]);
        tcp(
            &format!("{}:{port}", bracket(endpoint)),
            &client,
            dice.one_of(&[flags, SYN | ACK, ACK]),
        )
    } else {
        let addr = bracket(dice.one_of(&[vip, vip, vip, vip, strange]));
        let port = if v6 {
            dice.one_of(&[80, 80, 81, 86])
        } else {
            dice.one_of(&[80, 80, 81, 82, 83, 84, 85, 86, 86, 443, 22])
        };
        tcp(&client, &format!("{addr}:{port}"), flags)
    };
    if dice.below(3) == 0 {
        segment = segment.over_udp();
    }
    segment = segment.hops(dice.one_of(&[64, 64, 64, 255, 2, 1, 0]));
    if dice.below(4) == 0 {
        segment = segment.vlan(1 + dice.below(4000) as u16);
    }
    let payload: Vec<u8> = (0..dice.below(64)).map(|_| dice.below(256) as u8).collect();
    segment = segment.payload(&payload);
    let mut frame = segment.frame();
    spoil(dice, program, &mut frame, segment.ip_at(), v6);
    frame
}

/// Damages one frame in three: options, fragments, other protocols, cut short, any header byte at all.
fn spoil(dice: &mut Dice, program: Program, frame: &mut Vec<u8>, ip: usize, v6: bool) {
    match dice.below(24) {
        0 if !v6 => frame[ip] = 0x46,
        0 => frame[ip + 6] = dice.one_of(&[0, 43, 44, 60]),
        1 if !v6 => frame[ip + 6] = 0x20,
        2 if !v6 => frame[ip + 7] = 9,
        3 => frame[ip + if v6 { 6 } else { 9 }] = dice.one_of(&[17, 6, 1, 58, 47]),
        4 => {
            // The kernel makes no test run of TCX with less than an IP header.
            let least = if program == Program::Xdp {
                14
            } else {
                ip + if v6 { 40 } else { 20 }
            };
            frame.truncate(least + dice.below((frame.len() - least) as u32) as usize);
        }
        5 | 6 => {
            let at = 12 + dice.below((frame.len() - 12).min(62) as u32) as usize;
            frame[at] = dice.below(256) as u8;
        }
        _ => {}
    }
}
