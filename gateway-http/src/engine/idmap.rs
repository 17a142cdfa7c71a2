//! Stream id -> slab index of one connection. Open addressing with backward-shift deletion; empty costs nothing.
//!
//! The hash scatters on purpose: ids come in sequence, and sequential ids in sequential slots would form one run that
//! every deletion walks.

/// A small map from HTTP/2 stream ids (never 0) to slab indices.
#[derive(Default)]
pub struct IdMap {
    slots: Vec<(u32, u32)>,
    len: usize,
}

const SLOTS_MIN: usize = 16;

#[inline]
fn home(id: u32, mask: usize) -> usize {
    ((id >> 1).wrapping_mul(0x9E37_79B1) >> 15) as usize & mask
}

impl IdMap {
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn get(&self, id: u32) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut slot = home(id, mask);
        loop {
            let (key, value) = self.slots[slot];
            if key == id {
                return Some(value);
            }
            if key == 0 {
                return None;
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Adds an id that is not there yet.
    pub fn insert(&mut self, id: u32, value: u32) {
        debug_assert!(id != 0 && self.get(id).is_none());
        if (self.len + 1) * 2 > self.slots.len() {
            let grown = vec![(0, 0); (self.slots.len() * 2).max(SLOTS_MIN)];
            for (key, value) in std::mem::replace(&mut self.slots, grown) {
                if key != 0 {
                    self.place(key, value);
                }
            }
        }
        self.place(id, value);
        self.len += 1;
    }

    #[inline]
    fn place(&mut self, id: u32, value: u32) {
        let mask = self.slots.len() - 1;
        let mut slot = home(id, mask);
        while self.slots[slot].0 != 0 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = (id, value);
    }

    pub fn remove(&mut self, id: u32) {
        if self.slots.is_empty() {
            return;
        }
        let mask = self.slots.len() - 1;
        let mut hole = home(id, mask);
        while self.slots[hole].0 != id {
            if self.slots[hole].0 == 0 {
                return;
            }
            hole = (hole + 1) & mask;
        }
        self.len -= 1;
        self.slots[hole] = (0, 0);
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let (key, value) = self.slots[next];
            if key == 0 {
                return;
            }
            let wanted = home(key, mask);
            // It may stay where its home lies between the hole and itself.
            let stays = if hole <= next {
                hole < wanted && wanted <= next
            } else {
                hole < wanted || wanted <= next
            };
            if !stays {
                self.slots[hole] = (key, value);
                self.slots[next] = (0, 0);
                hole = next;
            }
        }
    }

    pub fn values(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().filter(|(key, _)| *key != 0).map(|(_, value)| *value)
    }

    /// Gives the memory back when nothing is in it.
    pub fn shrink(&mut self) {
        if self.len == 0 {
            self.slots = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::IdMap;
    use std::collections::BTreeMap;

    #[test]
    fn behaves_like_a_map_over_random_histories() {
        let mut map = IdMap::default();
        let mut model = BTreeMap::new();
        let mut random = 12_345_u64;
        for step in 0..200_000_u32 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let id = ((random >> 40) as u32 % 700) * 2 + 1;
            if (random >> 33) & 1 == 0 {
                if let std::collections::btree_map::Entry::Vacant(vacant) = model.entry(id) {
                    vacant.insert(step);
                    map.insert(id, step);
                }
            } else {
                model.remove(&id);
                map.remove(id);
            }
            let asked = ((random >> 20) as u32 % 700) * 2 + 1;
            assert_eq!(map.get(asked), model.get(&asked).copied());
            assert_eq!(map.len(), model.len());
        }
        let mut left: Vec<_> = map.values().collect();
        left.sort_unstable();
        let mut wanted: Vec<_> = model.values().copied().collect();
        wanted.sort_unstable();
        assert_eq!(left, wanted);
    }
}
