//! Calls and messages by gRPC method.

use std::collections::HashMap;

/// Methods told apart by one worker; calls of others are counted together.
pub const METHODS_MAX: usize = 512;
/// Statuses 0 to 16, and calls that ended without one.
pub const CODES: usize = 18;

/// One method's share.
#[derive(Clone, Debug, Default)]
pub struct Method {
    /// `/package.Service/Method`; empty for all beyond [`METHODS_MAX`].
    pub path: String,
    /// Finished calls by status; the last is "none".
    pub calls: [u64; CODES],
    /// Messages from clients and to them.
    pub messages: [u64; 2],
}

/// Every method that was called.
#[derive(Clone, Debug, Default)]
pub struct Methods {
    methods: Vec<Method>,
    by_path: HashMap<String, usize>,
    /// The last one: mostly the next call is to the same.
    last: usize,
}

impl Methods {
    /// A call ended. `messages`: from the client and to it.
    #[inline]
    pub(crate) fn finished(&mut self, path: &[u8], status: Option<u32>, messages: [u64; 2]) {
        let known = self
            .methods
            .get(self.last)
            .is_some_and(|method| method.path.as_bytes() == path);
        if !known {
            self.last = self.find(path);
        }
        let code = status.map_or(CODES - 1, |code| (code as usize).min(CODES - 1));
        let method = &mut self.methods[self.last];
        method.calls[code] += 1;
        method.messages[0] += messages[0];
        method.messages[1] += messages[1];
    }

    fn find(&mut self, path: &[u8]) -> usize {
        let text = std::str::from_utf8(path).unwrap_or_default();
        if let Some(index) = self.by_path.get(text) {
            return *index;
        }
        let path = if self.methods.len() < METHODS_MAX { text } else { "" };
        if let Some(index) = self.by_path.get(path) {
            return *index;
        }
        self.methods.push(Method {
            path: path.to_owned(),
            ..Method::default()
        });
        self.by_path.insert(path.to_owned(), self.methods.len() - 1);
        self.methods.len() - 1
    }

    pub fn iter(&self) -> impl Iterator<Item = &Method> {
        self.methods.iter()
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &Methods) {
        for one in &other.methods {
            let index = self.find(one.path.as_bytes());
            let sum = &mut self.methods[index];
            sum.calls.iter_mut().zip(one.calls).for_each(|(sum, one)| *sum += one);
            sum.messages
                .iter_mut()
                .zip(one.messages)
                .for_each(|(sum, one)| *sum += one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_no_client_can_make_the_table_grow() {
        let mut methods = Methods::default();
        for _ in 0..3 {
            methods.finished(b"/a.B/C", Some(0), [1, 2]);
        }
        methods.finished(b"/a.B/C", None, [0, 0]);
        methods.finished(b"/a.B/C", Some(99), [0, 0]);
        for number in 0..2 * METHODS_MAX {
            methods.finished(format!("/x/{number}").as_bytes(), Some(5), [1, 1]);
        }
        let first = methods.iter().next().unwrap();
        assert_eq!(
            (first.path.as_str(), first.calls[0], first.calls[CODES - 1]),
            ("/a.B/C", 3, 2)
        );
        assert_eq!(first.messages, [3, 6]);
        assert!(methods.iter().count() <= METHODS_MAX + 1);
        let all: u64 = methods.iter().flat_map(|method| method.calls).sum();
        assert_eq!(all, 5 + 2 * METHODS_MAX as u64, "none is lost");
        let mut sum = Methods::default();
        sum.add(&methods);
        sum.add(&methods);
        assert_eq!(sum.iter().flat_map(|method| method.calls).sum::<u64>(), 2 * all);
    }
}
