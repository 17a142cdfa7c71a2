//! Deadlines of streams and connections: a wheel of two levels, no allocation once warm.
//!
//! A timer fires at its moment or up to [`TICK`] later, never before. What is removed leaves at once, so the wheel
//! holds only what is live: one timer per connection and at most one per stream.

use gateway_core::time::Moment;
use std::time::Duration;

/// Precision, about a millisecond.
pub const TICK: Duration = Duration::from_nanos(1 << TICK_BITS);
const TICK_BITS: u32 = 20;
/// A coarse slot holds this many ticks (about a second).
const FINE_BITS: u32 = 10;
const FINE: usize = 1 << FINE_BITS;
const COARSE: usize = 512;
/// The list of what fires now.
const DUE: usize = FINE + COARSE;
const NONE: u32 = u32::MAX;

/// What a timer is for; the number is a slab index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timed {
    Stream(u32),
    Connection(u32),
}

/// A timer that was set, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerId(u32);

impl TimerId {
    pub const NONE: TimerId = TimerId(NONE);
}

impl Default for TimerId {
    fn default() -> Self {
        TimerId::NONE
    }
}

struct Node {
    tick: u64,
    timed: Timed,
    list: u32,
    before: u32,
    after: u32,
}

/// All timers of a worker.
pub struct Wheel {
    /// Heads of the lists: fine slots, coarse slots, due.
    heads: Vec<u32>,
    fine_used: [u64; FINE / 64],
    coarse_used: [u64; COARSE / 64],
    nodes: Vec<Node>,
    free: u32,
    /// Everything up to this tick has fired.
    tick: u64,
    /// The coarse slot whose timers lie in the fine slots.
    coarse: u64,
}

impl Wheel {
    pub fn new(now: Moment) -> Self {
        let tick = now.nanos() >> TICK_BITS;
        Self {
            heads: vec![NONE; DUE + 1],
            fine_used: [0; FINE / 64],
            coarse_used: [0; COARSE / 64],
            nodes: Vec::new(),
            free: NONE,
            tick,
            coarse: tick >> FINE_BITS,
        }
    }

    pub fn set(&mut self, at: Moment, timed: Timed) -> TimerId {
        let tick = (at.nanos().saturating_add((1 << TICK_BITS) - 1) >> TICK_BITS).max(self.tick + 1);
        let node = Node {
            tick,
            timed,
            list: 0,
            before: NONE,
            after: NONE,
        };
        let index = if self.free == NONE {
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        } else {
            let index = self.free;
            self.free = self.nodes[index as usize].after;
            self.nodes[index as usize] = node;
            index
        };
        self.place(index);
        TimerId(index)
    }

    /// Removes a timer that has not fired and forgets its id.
    pub fn cancel(&mut self, id: &mut TimerId) {
        let index = std::mem::take(id).0;
        if index != NONE {
            self.unlink(index);
            self.release(index);
        }
    }

    /// When [`Wheel::expire`] is next due; may be early, never late.
    pub fn next(&self) -> Option<Moment> {
        if self.heads[DUE] != NONE {
            return Some(Moment::from_nanos(self.tick << TICK_BITS));
        }
        let in_block = (self.tick + 1).saturating_sub(self.coarse << FINE_BITS) as usize;
        if let Some(slot) = next_bit(&self.fine_used, in_block) {
            return Some(Moment::from_nanos(
                ((self.coarse << FINE_BITS) + slot as u64) << TICK_BITS,
            ));
        }
        let start = (self.coarse as usize + 1) % COARSE;
        let slot = next_bit(&self.coarse_used, start).or_else(|| next_bit(&self.coarse_used, 0))?;
        let ahead = (slot + COARSE - start) % COARSE + 1;
        Some(Moment::from_nanos(
            (self.coarse + ahead as u64) << (FINE_BITS + TICK_BITS),
        ))
    }

    /// The next timer that is due at `now`; it is gone from the wheel.
    pub fn expire(&mut self, now: Moment) -> Option<Timed> {
        let target = now.nanos() >> TICK_BITS;
        loop {
            let head = self.heads[DUE];
            if head != NONE {
                let timed = self.nodes[head as usize].timed;
                self.unlink(head);
                self.release(head);
                return Some(timed);
            }
            if self.tick >= target {
                return None;
            }
            self.step(target);
        }
    }

    /// Moves on to the next tick with a timer, the next coarse slot, or `target`.
    fn step(&mut self, target: u64) {
        let base = self.coarse << FINE_BITS;
        let in_block = (self.tick + 1).saturating_sub(base) as usize;
        if let Some(slot) = next_bit(&self.fine_used, in_block) {
            let tick = base + slot as u64;
            if tick > target {
                self.tick = target;
                return;
            }
            self.tick = tick;
            while self.heads[slot] != NONE {
                let index = self.heads[slot];
                self.unlink(index);
                self.link(index, DUE);
            }
            return;
        }
        let boundary = base + FINE as u64;
        if boundary > target {
            self.tick = target;
            return;
        }
        self.tick = boundary - 1;
        self.coarse += 1;
        let list = FINE + self.coarse as usize % COARSE;
        let mut index = self.heads[list];
        while index != NONE {
            let after = self.nodes[index as usize].after;
            if self.nodes[index as usize].tick >> FINE_BITS <= self.coarse {
                self.unlink(index);
                self.place(index);
            }
            index = after;
        }
    }

    fn place(&mut self, index: u32) {
        let tick = self.nodes[index as usize].tick;
        let coarse = tick >> FINE_BITS;
        let list = if coarse <= self.coarse {
            tick as usize % FINE
        } else {
            FINE + coarse as usize % COARSE
        };
        self.link(index, list);
    }

    fn link(&mut self, index: u32, list: usize) {
        let head = self.heads[list];
        let node = &mut self.nodes[index as usize];
        (node.list, node.before, node.after) = (list as u32, NONE, head);
        if head != NONE {
            self.nodes[head as usize].before = index;
        }
        self.heads[list] = index;
        if list < FINE {
            self.fine_used[list / 64] |= 1 << (list % 64);
        } else if list < DUE {
            self.coarse_used[(list - FINE) / 64] |= 1 << ((list - FINE) % 64);
        }
    }

    fn unlink(&mut self, index: u32) {
        let Node {
            list, before, after, ..
        } = self.nodes[index as usize];
        if after != NONE {
            self.nodes[after as usize].before = before;
        }
        if before != NONE {
            self.nodes[before as usize].after = after;
            return;
        }
        let list = list as usize;
        self.heads[list] = after;
        if after == NONE && list < FINE {
            self.fine_used[list / 64] &= !(1 << (list % 64));
        } else if after == NONE && list < DUE {
            self.coarse_used[(list - FINE) / 64] &= !(1 << ((list - FINE) % 64));
        }
    }

    fn release(&mut self, index: u32) {
        self.nodes[index as usize].after = self.free;
        self.free = index;
    }
}

/// The first set bit from `from` on.
fn next_bit(words: &[u64], from: usize) -> Option<usize> {
    let mut word = from / 64;
    let mut bits = words.get(word)? & (u64::MAX << (from % 64));
    loop {
        if bits != 0 {
            return Some(word * 64 + bits.trailing_zeros() as usize);
        }
        word += 1;
        bits = *words.get(word)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_once_in_time_and_never_early() {
        let mut wheel = Wheel::new(Moment::from_millis(7));
        let mut random = 99_u64;
        let mut next = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut now = 7_000_000_u64;
        let mut live: Vec<Option<(u64, TimerId)>> = Vec::new();
        for _ in 0..3000 {
            for _ in 0..next(3) {
                let span = [2_000_000, 50_000_000, 3_000_000_000, 900_000_000_000][next(4) as usize];
                let at = now + next(span);
                let id = wheel.set(Moment::from_nanos(at), Timed::Stream(live.len() as u32));
                live.push(Some((at, id)));
            }
            if !live.is_empty() && next(4) == 0 {
                let victim = next(live.len() as u64) as usize;
                if let Some((_, mut id)) = live[victim].take() {
                    wheel.cancel(&mut id);
                    assert_eq!(id, TimerId::NONE);
                }
            }
            let due = live.iter().flatten().map(|(at, _)| *at).min();
            if let Some(due) = due {
                assert!(
                    wheel
                        .next()
                        .is_some_and(|woken| woken.nanos() <= due + TICK.as_nanos() as u64)
                );
            }
            let span = [1_000_000, 40_000_000, 2_500_000_000][next(3) as usize];
            now += next(span);
            while let Some(Timed::Stream(index)) = wheel.expire(Moment::from_nanos(now)) {
                let (at, _) = live[index as usize].take().expect("fires once and not when cancelled");
                assert!(at <= now);
            }
            let late = live
                .iter()
                .flatten()
                .filter(|(at, _)| at + TICK.as_nanos() as u64 <= now)
                .count();
            assert_eq!(late, 0, "everything due has fired");
            if live.iter().flatten().count() > 200 {
                for entry in &mut live {
                    if let Some((_, mut id)) = entry.take() {
                        wheel.cancel(&mut id);
                    }
                }
                live.clear();
                assert_eq!(wheel.next(), None);
            }
        }
    }
}
