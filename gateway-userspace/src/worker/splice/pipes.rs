//! Empty pipes, ready for the next bulk flow. Each costs two descriptors and, while full, its pages.

use super::{PIPES_KEPT, PIPES_MAX, RELAY_BYTES};
use crate::sys::splice::Pipe;

#[derive(Debug, Default)]
pub struct PipePool {
    free: Vec<Pipe>,
    /// Pipes given out.
    out: usize,
}

impl PipePool {
    /// `None`: there are as many as there may be, or no descriptors. The flow goes on copying.
    pub fn take(&mut self) -> Option<Pipe> {
        if self.out >= PIPES_MAX {
            return None;
        }
        let pipe = self.free.pop().or_else(|| Pipe::new(RELAY_BYTES).ok())?;
        self.out += 1;
        Some(pipe)
    }

    pub fn give(&mut self, pipe: Pipe) {
        self.out = self.out.saturating_sub(1);
        if pipe.held() == 0 && self.free.len() < PIPES_KEPT {
            self.free.push(pipe);
        }
    }
}
