//! Spare byte buffers and field lists. Idle connections and streams hold none; what they give back is used again.

use crate::head::FieldList;

/// Buffers and bytes kept at most.
const BUFFERS_MAX: usize = 512;
const BYTES_MAX: usize = 16 << 20;
/// A larger buffer is not kept: it was one connection's bad moment.
const BUFFER_BYTES_MAX: usize = 512 << 10;

/// Empty buffers with capacity.
#[derive(Default)]
pub struct Pool {
    spare: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// Gives `buffer` memory if it has none.
    #[inline]
    pub fn arm(&mut self, buffer: &mut Vec<u8>) {
        if buffer.capacity() == 0
            && let Some(spare) = self.spare.pop()
        {
            self.bytes -= spare.capacity();
            *buffer = spare;
        }
    }

    /// Frees what is spare.
    pub fn give_back(&mut self) {
        *self = Self::default();
    }

    /// Takes the memory of `buffer`, whose content is forgotten.
    #[inline]
    pub fn put(&mut self, buffer: &mut Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity == 0 {
            return;
        }
        let mut taken = std::mem::take(buffer);
        if capacity <= BUFFER_BYTES_MAX && self.spare.len() < BUFFERS_MAX && self.bytes + capacity <= BYTES_MAX {
            taken.clear();
            self.bytes += capacity;
            self.spare.push(taken);
        }
    }
}

/// Lists kept, and the most memory each may hold.
const LISTS_MAX: usize = 1024;
const LIST_BYTES_MAX: usize = 16 * 1024;

/// Empty field lists with memory.
#[derive(Default)]
pub struct Lists {
    spare: Vec<FieldList>,
}

impl Lists {
    #[inline]
    pub fn take(&mut self) -> FieldList {
        self.spare.pop().unwrap_or_default()
    }

    /// Frees what is spare.
    pub fn give_back(&mut self) {
        self.spare = Vec::new();
    }

    #[inline]
    pub fn put(&mut self, list: &mut FieldList) {
        let capacity = list.buffer().capacity();
        if capacity > 0 && capacity <= LIST_BYTES_MAX && self.spare.len() < LISTS_MAX {
            let mut list = std::mem::take(list);
            list.clear();
            self.spare.push(list);
        } else {
            *list = FieldList::new();
        }
    }
}
