//! Blocks that come again and again, and what they decoded to.
//!
//! In its steady state a peer that calls one method sends the same octets for every head and every trailer section:
//! all fields are references into the tables. While the dynamic table does not change, the same block is the same
//! list, and copying it costs a tenth of decoding it. A block is kept when it comes for the second time, so that
//! peers whose blocks never repeat pay for one hash.

use super::SectionLimits;
use crate::head::{FieldList, hash};

/// Blocks kept: responses alternate between a head and trailers.
const BLOCKS: usize = 2;
/// Hashes remembered of blocks that came once.
const SEEN: usize = 4;
/// Longer blocks, and lists of more bytes, are not kept: they would be a burden on an idle connection.
const BLOCK_BYTES_MAX: usize = 256;
const LIST_BYTES_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Memo {
    kept: [Kept; BLOCKS],
    kept_next: usize,
    seen: [u32; SEEN],
    seen_next: usize,
}

#[derive(Debug, Default)]
struct Kept {
    hash: u32,
    /// The table's state it was decoded with.
    epoch: u32,
    limits: SectionLimits,
    block: Vec<u8>,
    list: FieldList,
}

impl Memo {
    /// What identifies a block; never 0.
    #[inline]
    pub(super) fn key(block: &[u8]) -> u32 {
        hash(block) | 1
    }

    /// The list of this block, if the table is as it was.
    #[inline]
    pub(super) fn recall(&self, key: u32, epoch: u32, block: &[u8], limits: SectionLimits) -> Option<&FieldList> {
        let same =
            |kept: &&Kept| kept.hash == key && kept.epoch == epoch && kept.block == block && kept.limits == limits;
        self.kept.iter().find(same).map(|kept| &kept.list)
    }

    /// A block was decoded to `list` and left the table as it was.
    pub(super) fn note(&mut self, key: u32, epoch: u32, block: &[u8], list: &FieldList, limits: SectionLimits) {
        if !self.seen.contains(&key) {
            self.seen[self.seen_next % SEEN] = key;
            self.seen_next = self.seen_next.wrapping_add(1);
            return;
        }
        if block.len() > BLOCK_BYTES_MAX || list.bytes_len() > LIST_BYTES_MAX {
            return;
        }
        // One that only the table's change made useless is replaced first.
        let stale = self
            .kept
            .iter()
            .position(|kept| kept.hash == key || kept.epoch != epoch);
        let place = stale.unwrap_or(self.kept_next % BLOCKS);
        self.kept_next = place + 1;
        let kept = &mut self.kept[place];
        (kept.hash, kept.epoch, kept.limits) = (key, epoch, limits);
        kept.block.clear();
        kept.block.extend_from_slice(block);
        kept.list.clear();
        kept.list.copy_all(list);
    }
}
