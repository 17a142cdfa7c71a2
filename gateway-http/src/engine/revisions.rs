//! Which snapshot a stream sees: the one that was current when its head was complete.
//!
//! Streams hold a small number, not an `Arc`: no atomic operation per request. A slot is given again when its last
//! stream ended, so there are never more slots than live streams and one.

use gateway_core::snapshot::Snapshot;
use std::sync::Arc;

struct Slot {
    snapshot: Option<Arc<Snapshot>>,
    streams: u32,
}

/// The current snapshot and those that streams still hold.
pub struct Revisions {
    slots: Vec<Slot>,
    current: u32,
}

impl Revisions {
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            slots: vec![Slot {
                snapshot: Some(snapshot),
                streams: 0,
            }],
            current: 0,
        }
    }

    /// Makes `snapshot` the current one.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>) {
        let current = self.current as usize;
        if self.slots[current].streams == 0 {
            self.slots[current].snapshot = Some(snapshot);
            return;
        }
        let slot = Slot {
            snapshot: Some(snapshot),
            streams: 0,
        };
        if let Some(free) = self.slots.iter().position(|slot| slot.snapshot.is_none()) {
            self.slots[free] = slot;
            self.current = free as u32;
        } else {
            self.slots.push(slot);
            self.current = self.slots.len() as u32 - 1;
        }
    }

    pub fn current(&self) -> &Snapshot {
        self.get(self.current)
    }

    /// The current snapshot for a new stream, which gives it back with [`Revisions::release`].
    #[inline]
    pub fn acquire(&mut self) -> u32 {
        self.slots[self.current as usize].streams += 1;
        self.current
    }

    /// A snapshot that a stream holds, for another one that goes with it.
    pub fn share(&mut self, slot: u32) -> u32 {
        debug_assert!(self.slots[slot as usize].streams > 0);
        self.slots[slot as usize].streams += 1;
        slot
    }

    #[inline]
    pub fn get(&self, slot: u32) -> &Snapshot {
        self.slots[slot as usize]
            .snapshot
            .as_ref()
            .expect("a slot is emptied only when no stream holds it")
    }

    #[inline]
    pub fn release(&mut self, slot: u32) {
        let held = &mut self.slots[slot as usize];
        held.streams -= 1;
        if held.streams == 0 && slot != self.current {
            held.snapshot = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::ir::Revision;

    fn snapshot(revision: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            revision: Revision(revision),
            ..Snapshot::default()
        })
    }

    #[test]
    fn a_stream_keeps_its_revision_and_slots_are_used_again() {
        let mut revisions = Revisions::new(snapshot(0));
        let mut held = Vec::new();
        for revision in 1..100 {
            let slot = revisions.acquire();
            held.push((slot, revision - 1));
            revisions.publish(snapshot(revision));
            assert_eq!(revisions.get(revisions.current).revision, Revision(revision));
            if held.len() > 3 {
                let (slot, revision) = held.remove(0);
                assert_eq!(revisions.get(slot).revision, Revision(revision));
                revisions.release(slot);
            }
        }
        assert!(revisions.slots.len() <= 6);
    }

    #[test]
    fn a_revision_nobody_holds_is_dropped_at_once() {
        let first = snapshot(1);
        let weak = Arc::downgrade(&first);
        let mut revisions = Revisions::new(first);
        let slot = revisions.acquire();
        revisions.publish(snapshot(2));
        assert!(weak.upgrade().is_some());
        revisions.release(slot);
        assert!(weak.upgrade().is_none());
    }
}
