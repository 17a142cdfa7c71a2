//! A compressed radix tree over the bytes of path prefixes, honouring whole segments.
//!
//! Keys have no trailing `/`; the key of `/` is empty. A key matches a path that equals it or goes on with `/`.
//! Every key knows the next shorter key that matches whatever it matches, so all matches of a path, longest first,
//! are one walk down and one chain up.

use super::Tally;

/// Prefixes to values of type `u32`.
#[derive(Debug, Default)]
pub struct PrefixTree {
    nodes: Vec<Node>,
    entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Node {
    /// Bytes between the parent and this node.
    label: Box<[u8]>,
    /// Index into `entries`, if a key ends here.
    entry: Option<u32>,
    /// First byte of the label and node, in order.
    children: Vec<(u8, u32)>,
}

/// A key of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub value: u32,
    /// Bytes of the key.
    pub len: u32,
    /// The next shorter key that ends at a `/` of this one.
    shorter: Option<u32>,
}

impl PrefixTree {
    /// `keys` must be sorted and without duplicates, as a `BTreeMap` gives them.
    pub fn build<'k>(keys: impl Iterator<Item = (&'k [u8], u32)>) -> Self {
        let keys: Vec<(&[u8], u32)> = keys.collect();
        let mut tree = Self {
            entries: entries(&keys),
            nodes: vec![Node::default()],
        };
        // Node to fill, range of the keys below it, and bytes these have in common before its label.
        let mut work = vec![(0, 0..keys.len(), 0)];
        while let Some((node, mut range, depth)) = work.pop() {
            let (Some((first, _)), Some((last, _))) = (keys[range.clone()].first(), keys[range.clone()].last()) else {
                continue;
            };
            // Of sorted keys, what the first and the last have in common all have. The root has no label.
            let shared = first[depth..]
                .iter()
                .zip(&last[depth..])
                .take_while(|(a, b)| a == b)
                .count();
            let end = if node == 0 { depth } else { depth + shared };
            tree.nodes[node].label = first[depth..end].into();
            if first.len() == end {
                tree.nodes[node].entry = u32::try_from(range.start).ok();
                range.start += 1;
            }
            while range.start < range.end {
                let byte = keys[range.start].0[end];
                let below = range.start + keys[range.clone()].partition_point(|(key, _)| key[end] == byte);
                let child = tree.nodes.len();
                tree.nodes.push(Node::default());
                tree.nodes[node].children.push((byte, child as u32));
                work.push((child, range.start..below, end));
                range.start = below;
            }
        }
        tree
    }

    /// Every key that matches, longest first.
    pub fn matches<'t, T: Tally>(&'t self, path: &[u8], tally: &mut T) -> impl Iterator<Item = Entry> + use<'t, T> {
        let longest = self.longest(path, tally);
        let at = |index: u32| self.entries.get(index as usize).copied();
        std::iter::successors(longest.and_then(at), move |entry| entry.shorter.and_then(at))
    }

    fn longest(&self, path: &[u8], tally: &mut impl Tally) -> Option<u32> {
        let mut node = self.nodes.first()?;
        let (mut longest, mut at) = (node.entry, 0);
        while let Some(byte) = path.get(at) {
            let child = node.children.binary_search_by(|(first, _)| {
                tally.step();
                first.cmp(byte)
            });
            let Ok(child) = child else { break };
            tally.step();
            node = &self.nodes[node.children[child].1 as usize];
            if !path[at..].starts_with(&node.label) {
                break;
            }
            at += node.label.len();
            if node.entry.is_some() && path.get(at).is_none_or(|next| *next == b'/') {
                longest = node.entry;
            }
        }
        longest
    }
}

/// Keys as entries, each with its next shorter one. In sorted order the keys that begin another one come before it.
fn entries(keys: &[(&[u8], u32)]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(keys.len());
    // Keys that begin the current one by bytes, shortest first.
    let mut open: Vec<usize> = Vec::new();
    for (index, (key, value)) in keys.iter().enumerate() {
        while open.pop_if(|begun| !key.starts_with(keys[*begun].0)).is_some() {}
        let whole = |begun: &&usize| key.get(keys[**begun].0.len()) == Some(&b'/');
        let shorter = open.iter().rev().find(whole).map(|begun| *begun as u32);
        entries.push(Entry {
            value: *value,
            len: key.len() as u32,
            shorter,
        });
        open.push(index);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[&str], path: &str, expected: &[&str]) {
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        let tree = PrefixTree::build(sorted.iter().zip(0..).map(|(key, value)| (key.as_bytes(), value)));
        let found: Vec<&str> = tree
            .matches(path.as_bytes(), &mut ())
            .map(|entry| sorted[entry.value as usize])
            .collect();
        assert_eq!(found, expected, "{path} in {keys:?}");
    }

    #[test]
    fn whole_segments_match_longest_first() {
        let keys = ["", "/a", "/a/b", "/ab", "/a/b/c", "/a/bc"];
        check(&keys, "/a/b/c", &["/a/b/c", "/a/b", "/a", ""]);
        check(&keys, "/a/b/", &["/a/b", "/a", ""]);
        check(&keys, "/a/bcd", &["/a", ""]);
        check(&keys, "/ab/c", &["/ab", ""]);
        check(&keys, "/abc", &[""]);
        check(&keys, "/", &[""]);
        check(&keys, "*", &[""]);
    }

    #[test]
    fn a_key_that_only_begins_another_by_bytes_is_not_its_shorter_one() {
        check(&["/a", "/ab/c"], "/ab/c/d", &["/ab/c"]);
        check(&["/ab", "/a", "/abc/x", "/abc"], "/abc/x", &["/abc/x", "/abc"]);
    }

    #[test]
    fn without_keys_nothing_matches() {
        check(&[], "/a", &[]);
        check(&["/b"], "/a", &[]);
        check(&["/b"], "/", &[]);
    }

    #[test]
    fn thousands_of_nested_prefixes_build_without_recursion() {
        let keys: Vec<String> = (1..3000).map(|n| "/a".repeat(n)).collect();
        let tree = PrefixTree::build(keys.iter().zip(0..).map(|(key, value)| (key.as_bytes(), value)));
        assert_eq!(tree.matches("/a".repeat(10).as_bytes(), &mut ()).count(), 10);
    }
}
