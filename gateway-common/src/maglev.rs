//! Maglev rings (Eisenbud et al., NSDI 2016, section 3.4), weighted by the number of turns an endpoint takes.
//!
//! An endpoint's order of preference follows from its address and port alone, so that every gateway, and every
//! process of a gateway, builds the same ring from the same endpoints; adding or removing one moves few slots of the
//! others.

use crate::abi::{AddrWords, RING_SLOTS, Slot};

/// One endpoint of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Index in `ENDPOINTS`.
    endpoint: u16,
    /// Slots it takes per round: its weight, in the smallest whole numbers.
    turns: u16,
    /// Its permutation of the slots: `offset + n * skip` modulo the ring's length, a prime.
    offset: u32,
    skip: u32,
    /// How far it has read its permutation.
    next: u32,
}

impl Member {
    /// An endpoint with its weight. One of weight 0 takes no slot.
    pub const fn new(endpoint: u16, turns: u16, addr: &AddrWords, port_be: u16) -> Self {
        let low = addr[0] as u64 | (addr[1] as u64) << 32;
        let high = addr[2] as u64 | (addr[3] as u64) << 32;
        let seed = mix(mix(mix(low) ^ high) ^ port_be as u64);
        Self {
            endpoint,
            turns,
            offset: (mix(seed ^ 0x6f66_6673_6574) % RING_SLOTS as u64) as u32,
            skip: (mix(seed ^ 0x736b_6970) % (RING_SLOTS as u64 - 1)) as u32 + 1,
            next: 0,
        }
    }

    /// The next slot it prefers. Its permutation visits every slot once, so within [`RING_SLOTS`] calls a free one.
    fn next_slot(&mut self) -> usize {
        let slot = (self.offset as u64 + self.next as u64 * self.skip as u64) % RING_SLOTS as u64;
        self.next += 1;
        slot as usize
    }
}

/// Fills the `current` of every slot. Ordered by endpoint first, so that the order of `members` does not matter.
/// No members, or none with weight: `current` is 0 everywhere, "no endpoint".
pub fn fill(members: &mut [Member], ring: &mut [Slot]) {
    for slot in ring.iter_mut() {
        slot.current = 0;
    }
    members.sort_unstable_by_key(|member| (member.offset, member.skip, member.endpoint));
    let unit = members.iter().fold(0, |unit, member| gcd(unit, member.turns)).max(1);
    let mut free = if members.iter().any(|member| member.turns > 0) {
        ring.len()
    } else {
        0
    };
    while free > 0 {
        for member in members.iter_mut() {
            let turns = usize::from(member.turns / unit).min(free);
            for _ in 0..turns {
                take(member, ring);
            }
            free -= turns;
        }
    }
}

/// Gives the member the first slot of its preference that is free. One must be.
fn take(member: &mut Member, ring: &mut [Slot]) {
    for _ in 0..RING_SLOTS {
        let slot = &mut ring[member.next_slot()];
        if slot.current == 0 {
            slot.current = member.endpoint;
            return;
        }
    }
}

const fn gcd(a: u16, b: u16) -> u16 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let word = (word ^ word >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::abi::v4_words;
    use std::collections::BTreeMap;
    use std::vec;
    use std::vec::Vec;

    fn members(of: &[(u16, u16)]) -> Vec<Member> {
        of.iter()
            .map(|(i, turns)| Member::new(*i, *turns, &v4_words(0x0002_12c6 | u32::from(*i) << 24), 80))
            .collect()
    }

    fn built(mut members: Vec<Member>) -> Vec<u16> {
        let mut ring = vec![Slot::default(); RING_SLOTS];
        fill(&mut members, &mut ring);
        ring.iter().map(|slot| slot.current).collect()
    }

    fn shares(ring: &[u16]) -> BTreeMap<u16, usize> {
        ring.iter().fold(BTreeMap::new(), |mut shares, endpoint| {
            *shares.entry(*endpoint).or_default() += 1;
            shares
        })
    }

    #[test]
    fn every_slot_is_taken_and_equal_endpoints_share_equally() {
        let shares = shares(&built(members(&[(1, 1), (2, 1), (3, 1), (4, 1)])));
        assert_eq!(shares.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(shares.values().all(|n| n.abs_diff(RING_SLOTS / 4) <= 1), "{shares:?}");
    }

    #[test]
    fn weights_are_shares_and_weight_zero_is_none() {
        let shares = shares(&built(members(&[(1, 300), (2, 100), (3, 0)])));
        assert!(shares[&1].abs_diff(RING_SLOTS * 3 / 4) <= 3, "{shares:?}");
        assert!(!shares.contains_key(&3));
    }

    #[test]
    fn nobody_means_no_endpoint() {
        assert_eq!(shares(&built(vec![])), BTreeMap::from([(0, RING_SLOTS)]));
        assert_eq!(shares(&built(members(&[(1, 0)]))), BTreeMap::from([(0, RING_SLOTS)]));
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        assert_eq!(
            built(members(&[(1, 2), (2, 1), (3, 1)])),
            built(members(&[(3, 1), (1, 2), (2, 1)]))
        );
    }

    #[test]
    fn removing_one_of_eight_moves_few_slots_of_the_others() {
        let all: Vec<(u16, u16)> = (1..=8).map(|i| (i, 1)).collect();
        let (before, after) = (built(members(&all)), built(members(&all[..7])));
        let moved = before.iter().zip(&after).filter(|(b, a)| **b != 8 && b != a).count();
        // The paper's table size and bound: about 1 % of what stays.
        assert!(moved < RING_SLOTS / 100, "{moved}");
    }
}
