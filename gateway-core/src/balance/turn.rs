//! Where a service's round is.

use crate::ids::EndpointId;

/// The next turn of a service, and what it was when the turns were last seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Index of the next turn.
    next: usize,
    /// Who had the turn before it, and who was to have it; `None` before the first.
    seen: Option<(EndpointId, EndpointId)>,
}

impl Cursor {
    /// The cursor in these turns; `None` if there are none. When they are others than before, the round goes on
    /// behind the endpoint that had the last turn, else with the one that was to have the next, so that adding or
    /// removing an endpoint neither skips nor repeats another.
    pub fn resumed(self, turns: &[EndpointId], worker: u16) -> Option<Cursor> {
        if turns.is_empty() {
            return None;
        }
        let Some((last, upcoming)) = self.seen else {
            return Some(Cursor {
                next: start(worker, turns.len()),
                seen: None,
            });
        };
        let next = self.next % turns.len();
        let before = (next + turns.len() - 1) % turns.len();
        if next == self.next && turns[before] == last && turns[next] == upcoming {
            return Some(self);
        }
        let nearest = |to: usize, endpoint| {
            (0..turns.len())
                .filter(|at| turns[*at] == endpoint)
                .min_by_key(|at| at.abs_diff(to))
        };
        let behind = nearest(before, last).map(|at| (at + 1) % turns.len());
        Some(Cursor {
            next: behind.or_else(|| nearest(next, upcoming)).unwrap_or(next),
            seen: self.seen,
        })
    }

    /// Every turn once, beginning with the next, with its index.
    pub fn round(self, turns: &[EndpointId]) -> impl Iterator<Item = (usize, EndpointId)> {
        let turn = |at: usize| turns.get(at).map(|endpoint| (at, *endpoint));
        (self.next..turns.len()).chain(0..self.next).filter_map(turn)
    }

    /// The cursor after the turn at `index` was taken.
    pub fn after(index: usize, turns: &[EndpointId]) -> Cursor {
        let next = (index + 1) % turns.len().max(1);
        Cursor {
            next,
            seen: turns.get(index).copied().zip(turns.get(next).copied()),
        }
    }
}

/// Where a worker's first round starts: spread over the turns however many workers there are (van der Corput).
fn start(worker: u16, len: usize) -> usize {
    (usize::from(worker.reverse_bits()) * len) >> 16
}
