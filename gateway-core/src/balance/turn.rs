//! Where a service's round is.

use crate::ids::EndpointId;

/// The next turn of a service, and what it was when the turns were last seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Index of the next turn.
    next: usize,
    /// Turns of the round; 0 before the first.
    len: usize,
    /// Who had the turn before `next`.
    last: Option<EndpointId>,
}

impl Cursor {
    /// The cursor in these turns; `None` if there are none. When they are others than before, the round goes on
    /// behind the endpoint that had the last turn, so that adding or removing one neither skips nor repeats another.
    pub fn resumed(self, turns: &[EndpointId], worker: u16) -> Option<Cursor> {
        if turns.is_empty() {
            return None;
        }
        let Some(last) = self.last else {
            return Some(Cursor {
                next: start(worker, turns.len()),
                len: turns.len(),
                last: None,
            });
        };
        let before = (self.next + turns.len() - 1) % turns.len();
        if self.len == turns.len() && turns[before] == last {
            return Some(self);
        }
        let nearest = (0..turns.len())
            .filter(|at| turns[*at] == last)
            .min_by_key(|at| at.abs_diff(before));
        let next = nearest.map_or(self.next, |at| at + 1) % turns.len();
        Some(Cursor {
            next,
            len: turns.len(),
            last: Some(last),
        })
    }

    /// Every turn once, beginning with the next, with its index.
    pub fn round(self, turns: &[EndpointId]) -> impl Iterator<Item = (usize, EndpointId)> {
        let turn = |at: usize| turns.get(at).map(|endpoint| (at, *endpoint));
        (self.next..turns.len()).chain(0..self.next).filter_map(turn)
    }

    /// The cursor after the turn at `index` was taken.
    pub fn after(self, index: usize, endpoint: EndpointId, turns: &[EndpointId]) -> Cursor {
        Cursor {
            next: (index + 1) % turns.len().max(1),
            len: turns.len(),
            last: Some(endpoint),
        }
    }
}

/// Where a worker's first round starts: spread over the turns however many workers there are (van der Corput).
fn start(worker: u16, len: usize) -> usize {
    (usize::from(worker.reverse_bits()) * len) >> 16
}
