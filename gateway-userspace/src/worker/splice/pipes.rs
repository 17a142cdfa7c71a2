//! Empty pipes, ready for the next bulk flow. Each costs two descriptors and, while full, its pages.

use super::{PIPE_BYTES, PIPES_KEPT};
use crate::sys::splice::Pipe;

#[derive(Debug)]
pub struct PipePool {
    max: usize,
    free: Vec<Pipe>,
    /// Pipes given out.
    out: usize,
}

impl PipePool {
    /// At most `max` pipes are given out at once.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            free: Vec::new(),
            out: 0,
        }
    }

    /// `None`: there are as many as there may be, or no descriptors. The flow goes on copying.
    pub fn take(&mut self) -> Option<Pipe> {
        if self.out >= self.max {
            return None;
        }
        let pipe = self.free.pop().or_else(|| Pipe::new(PIPE_BYTES).ok())?;
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
