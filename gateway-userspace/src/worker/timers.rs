//! Deadlines of things that the engine does not time: handshakes, relays, lingering sockets, a listener's back-off.
//!
//! A heap of promises to look again. The deadline itself lives with its thing and may move later at no cost: what is
//! woken early asks to be woken again. So each live thing has about one entry, however often it is used.

use super::token::Source;
use gateway_core::time::Moment;
use mio::Token;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Moment, usize)>>,
}

impl Timers {
    /// Names `source` once `at` has come.
    pub fn wake(&mut self, at: Moment, source: Source) {
        self.heap.push(Reverse((at, source.token().0)));
    }

    /// The next thing to look at, if its time has come.
    pub fn due(&mut self, now: Moment) -> Option<Source> {
        while let Some(Reverse((at, word))) = self.heap.peek().copied() {
            if at > now {
                return None;
            }
            self.heap.pop();
            if let Some(source) = Source::of(Token(word)) {
                return Some(source);
            }
        }
        None
    }

    pub fn next(&self) -> Option<Moment> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Forgets every promise.
    pub fn clear(&mut self) {
        self.heap.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Key;
    use super::*;

    #[test]
    fn things_come_due_in_order_of_time() {
        let mut timers = Timers::default();
        let key = |index| Source::Http(Key { index, generation: 0 });
        timers.wake(Moment::from_millis(20), key(2));
        timers.wake(Moment::from_millis(10), key(1));
        assert_eq!(timers.due(Moment::from_millis(5)), None);
        assert_eq!(timers.next(), Some(Moment::from_millis(10)));
        assert_eq!(timers.due(Moment::from_millis(30)), Some(key(1)));
        assert_eq!(timers.due(Moment::from_millis(30)), Some(key(2)));
        assert_eq!(timers.due(Moment::from_millis(30)), None);
    }
}
