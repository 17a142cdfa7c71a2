//! The dynamic table (RFC 7541 2.3.2, 4), for both directions.
//!
//! Bytes of the entries lie in one buffer, oldest first; each entry is a [`Field`] with all its facts, so that a
//! reference to it copies bytes and checks nothing again. Evicted bytes are given up when the buffer is half as long
//! again as the table may be.

use crate::head::{ENTRY_OVERHEAD, Field};
use std::collections::VecDeque;

/// Size of a table before anything was negotiated (RFC 9113 6.5.2).
pub const DEFAULT_SIZE: usize = 4096;

#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// Oldest first.
    entries: VecDeque<Field>,
    size: usize,
    size_max: usize,
}

impl Table {
    pub(super) fn new(size_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            entries: VecDeque::new(),
            size: 0,
            size_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn size_max(&self) -> usize {
        self.size_max
    }

    /// Changes the size and evicts what no longer fits (RFC 7541 4.3).
    pub(super) fn resize(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict_to(size_max);
    }

    /// The entry at `age`, 0 being the newest.
    pub(super) fn newest(&self, age: usize) -> Option<(&Field, &[u8])> {
        self.oldest(self.entries.len().checked_sub(age + 1)?)
    }

    /// The entry at `place`, 0 being the oldest, and its name and value end to end.
    pub(super) fn oldest(&self, place: usize) -> Option<(&Field, &[u8])> {
        let entry = self.entries.get(place)?;
        Some((entry, &self.bytes[entry.offset()..entry.offset() + entry.bytes_len()]))
    }

    /// Adds an entry, evicting older ones; one that is larger than the table only empties it (RFC 7541 4.4).
    pub(super) fn insert(&mut self, field: &Field, name_value: &[u8]) {
        let size = name_value.len() + ENTRY_OVERHEAD;
        if size > self.size_max {
            self.evict_to(0);
            return;
        }
        self.evict_to(self.size_max - size);
        if self.bytes.len() + name_value.len() > self.size_max + self.size_max / 2 {
            self.compact();
        }
        self.entries.push_back(field.hashed(name_value).at(self.bytes.len()));
        self.bytes.extend_from_slice(name_value);
        self.size += size;
    }

    /// Empties the table.
    pub(super) fn clear(&mut self) {
        self.evict_to(0);
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let oldest = self.entries.pop_front().expect("a table with a size has entries");
            self.size -= oldest.size();
        }
        if self.entries.is_empty() {
            self.bytes.clear();
        }
    }

    fn compact(&mut self) {
        let start = self.entries.front().map_or(self.bytes.len(), Field::offset);
        self.bytes.drain(..start);
        for entry in &mut self.entries {
            *entry = entry.at(entry.offset() - start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::FieldList;

    fn insert(table: &mut Table, name: &str, value: &str) {
        let mut list = FieldList::new();
        list.push(name.as_bytes(), value.as_bytes());
        table.insert(&list.fields()[0], list.name_value(&list.fields()[0]));
    }

    fn texts(table: &Table) -> Vec<String> {
        (0..table.len())
            .map(|age| String::from_utf8_lossy(table.newest(age).expect("in range").1).into_owned())
            .collect()
    }

    #[test]
    fn the_oldest_leave_first() {
        let mut table = Table::new(3 * (ENTRY_OVERHEAD + 2));
        for value in ["1", "2", "3", "4"] {
            insert(&mut table, "a", value);
        }
        assert_eq!(texts(&table), ["a4", "a3", "a2"]);
        table.resize(ENTRY_OVERHEAD + 2);
        assert_eq!(texts(&table), ["a4"]);
    }

    #[test]
    fn an_entry_larger_than_the_table_empties_it() {
        let mut table = Table::new(64);
        insert(&mut table, "a", "1");
        insert(&mut table, "b", &"x".repeat(64));
        assert_eq!(table.len(), 0);
        assert!(table.newest(0).is_none());
    }

    #[test]
    fn the_buffer_stays_bounded_and_entries_stay_whole() {
        let mut table = Table::new(DEFAULT_SIZE);
        for i in 0..5000 {
            insert(&mut table, "name", &format!("{i}{}", "v".repeat(i % 90)));
            assert!(table.bytes.len() <= DEFAULT_SIZE + DEFAULT_SIZE / 2);
            assert_eq!(table.size, table.entries.iter().map(Field::size).sum::<usize>());
            assert!(texts(&table)[0].starts_with(&format!("name{i}")));
        }
    }
}
