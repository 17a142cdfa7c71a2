//! Rings over time: how one ring takes another's place, and when a slot has settled.
//!
//! A slot is *settled* when `current == previous`. The law: **no live flow of a settled slot is on another endpoint
//! than `current`.** [`merge`] unsettles what changes; [`settle`] settles what no live flow contradicts; nothing else
//! writes `previous`.

use crate::abi::{RING_SLOTS, SLOT_UNKNOWN, Slot};

/// Words of a bitmap with one bit a slot.
const HELD_WORDS: usize = RING_SLOTS.div_ceil(64);

/// Fills the `previous` of `new`, whose `current`s are set, as the successor of `old`, the ring in place.
/// Both have [`RING_SLOTS`] slots.
///
/// A slot that goes A, B, A before B's flows ended stays unsettled: its `previous` is B.
pub fn merge(old: &[Slot], new: &mut [Slot]) {
    for (old, new) in old.iter().zip(new) {
        new.previous = if old.current == new.current {
            old.previous
        } else {
            old.current
        };
    }
}

/// Fills the `previous` of `new` when the ring in place, if any, is not known: every slot starts unsettled, and
/// the next [`settle`] settles those without older flows.
pub fn unsettle(new: &mut [Slot]) {
    for slot in new {
        slot.previous = SLOT_UNKNOWN;
    }
}

/// What a [`settle`] came to, in slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settled {
    /// Settled by this call: if 0, there is nothing to write back.
    pub settled: usize,
    /// Still unsettled: a live flow is elsewhere.
    pub unsettled: usize,
}

/// Settles every slot that no live flow contradicts. `live`: slot and endpoint of *every* entry that `FLOWS` still
/// holds for this VIP, read after the ring was in place. Never changes a `current`.
pub fn settle(ring: &mut [Slot], live: impl IntoIterator<Item = (u32, u16)>) -> Settled {
    let mut held = [0u64; HELD_WORDS];
    for (slot, endpoint) in live {
        let index = slot as usize;
        if ring.get(index).is_some_and(|slot| slot.current != endpoint) {
            held[index / 64] |= 1 << (index % 64);
        }
    }
    let mut done = Settled::default();
    for (index, slot) in ring
        .iter_mut()
        .enumerate()
        .filter(|(_, slot)| slot.current != slot.previous)
    {
        if held[index / 64] >> (index % 64) & 1 != 0 {
            done.unsettled += 1;
        } else {
            slot.previous = slot.current;
            done.settled += 1;
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(of: &[(u16, u16)]) -> [Slot; 3] {
        core::array::from_fn(|i| Slot {
            current: of[i].0,
            previous: of[i].1,
        })
    }

    #[test]
    fn a_change_unsettles_only_the_slots_that_change() {
        let old = ring(&[(1, 1), (2, 2), (3, 3)]);
        let mut new = ring(&[(1, 0), (4, 0), (3, 0)]);
        merge(&old, &mut new);
        assert_eq!(new, ring(&[(1, 1), (4, 2), (3, 3)]));
    }

    #[test]
    fn a_second_change_before_the_first_has_settled_stays_unsettled_even_if_it_goes_back() {
        let mut there = ring(&[(2, 0), (2, 0), (2, 0)]);
        merge(&ring(&[(1, 1), (1, 1), (1, 1)]), &mut there);
        let mut back = ring(&[(1, 0), (2, 0), (3, 0)]);
        merge(&there, &mut back);
        assert_eq!(back, ring(&[(1, 2), (2, 1), (3, 2)]));
    }

    #[test]
    fn a_slot_settles_only_when_every_live_flow_is_on_its_current_endpoint() {
        let mut slots = ring(&[(1, 2), (1, 2), (1, SLOT_UNKNOWN)]);
        let done = settle(&mut slots, [(0, 2), (1, 1), (0, 1)]);
        assert_eq!(slots, ring(&[(1, 2), (1, 1), (1, 1)]));
        assert_eq!(
            done,
            Settled {
                settled: 2,
                unsettled: 1
            }
        );
    }

    #[test]
    fn a_ring_without_endpoints_and_of_unknown_past_is_unsettled() {
        let mut slots = ring(&[(0, 0), (0, 0), (0, 0)]);
        unsettle(&mut slots);
        assert!(slots.iter().all(|slot| slot.current != slot.previous));
    }
}
