//! What waits to be written on a connection: bytes of its own, and large payloads that still lie in the driver's
//! read chunk.
//!
//! A [`Segment`] is a range of the chunk the driver is having parsed, never a pointer: the driver passes the chunk
//! again when it writes, and before it reuses the chunk whatever the socket refused is copied in here.

use super::pool::Pool;
use std::io::{self, IoSlice};

/// Slices of one vectored write.
const SLICES_MAX: usize = 64;

/// A payload in the chunk, to be written before `bytes[at..]`.
#[derive(Clone, Copy)]
struct Segment {
    at: usize,
    from: usize,
    to: usize,
}

/// What a write came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    Everything,
    /// The socket is full.
    Blocked,
    /// The socket is broken.
    Lost,
}

/// Output of one connection.
#[derive(Default)]
pub struct Out {
    bytes: Vec<u8>,
    /// Bytes before this are written.
    start: usize,
    segments: Vec<Segment>,
    segment_bytes: usize,
}

impl Out {
    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start + self.segment_bytes
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where frames are appended.
    #[inline]
    pub fn tail(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        pool.arm(&mut self.bytes);
        &mut self.bytes
    }

    #[inline]
    pub fn borrows(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Appends `chunk[from..to]` without copying it.
    #[inline]
    pub fn borrow(&mut self, from: usize, to: usize) {
        self.segments.push(Segment {
            at: self.bytes.len(),
            from,
            to,
        });
        self.segment_bytes += to - from;
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        pool.put(&mut self.bytes);
        self.start = 0;
        self.segments.clear();
        self.segment_bytes = 0;
    }

    /// Writes until everything is out or the socket is full. Returns with no segment left: what the socket refused
    /// of them is copied.
    pub fn write(
        &mut self,
        chunk: &[u8],
        pool: &mut Pool,
        written: &mut u64,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Written {
        while !self.is_empty() {
            let result = if self.segments.is_empty() {
                write(&[IoSlice::new(&self.bytes[self.start..])])
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = self.gather(chunk, &mut slices);
                write(&slices[..count])
            };
            match result {
                Ok(0) => return self.blocked(chunk, pool),
                Ok(count) => {
                    *written += count as u64;
                    self.advance(count);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return self.blocked(chunk, pool),
                    io::ErrorKind::Interrupted => {}
                    _ => {
                        self.clear(pool);
                        return Written::Lost;
                    }
                },
            }
        }
        self.clear(pool);
        Written::Everything
    }

    fn gather<'a>(&'a self, chunk: &'a [u8], slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut count = 0;
        let mut at = self.start;
        for segment in &self.segments {
            if count + 2 > SLICES_MAX {
                return count;
            }
            if segment.at > at {
                slices[count] = IoSlice::new(&self.bytes[at..segment.at]);
                at = segment.at;
                count += 1;
            }
            slices[count] = IoSlice::new(&chunk[segment.from..segment.to]);
            count += 1;
        }
        if count < SLICES_MAX && at < self.bytes.len() {
            slices[count] = IoSlice::new(&self.bytes[at..]);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        let mut done = 0;
        for segment in &mut self.segments {
            let own = (segment.at - self.start).min(count);
            self.start += own;
            count -= own;
            if self.start < segment.at || count == 0 {
                break;
            }
            let borrowed = (segment.to - segment.from).min(count);
            segment.from += borrowed;
            self.segment_bytes -= borrowed;
            count -= borrowed;
            if segment.from < segment.to {
                break;
            }
            done += 1;
        }
        if done > 0 {
            self.segments.drain(..done);
        }
        if self.segments.is_empty() {
            self.start += count;
        }
    }

    fn blocked(&mut self, chunk: &[u8], pool: &mut Pool) -> Written {
        if !self.segments.is_empty() {
            let mut copy = Vec::new();
            pool.arm(&mut copy);
            copy.reserve(self.len());
            let mut at = self.start;
            for segment in &self.segments {
                copy.extend_from_slice(&self.bytes[at..segment.at]);
                at = segment.at;
                copy.extend_from_slice(&chunk[segment.from..segment.to]);
            }
            copy.extend_from_slice(&self.bytes[at..]);
            self.clear(pool);
            self.bytes = copy;
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        Written::Blocked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes at most `step` bytes a call and `budget` bytes in all.
    fn drive(out: &mut Out, chunk: &[u8], step: usize, mut budget: usize, got: &mut Vec<u8>) -> Written {
        let mut pool = Pool::default();
        let mut written = 0;
        out.write(chunk, &mut pool, &mut written, &mut |slices| {
            let mut room = step.min(budget);
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let before = room;
            for slice in slices {
                let n = slice.len().min(room);
                got.extend_from_slice(&slice[..n]);
                room -= n;
            }
            budget -= before - room;
            Ok(before - room)
        })
    }

    fn sample() -> (Out, Vec<u8>, Vec<u8>) {
        let chunk: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let mut pool = Pool::default();
        let mut out = Out::default();
        let mut wanted = Vec::new();
        for round in 0..100_usize {
            let own = vec![round as u8; round % 13];
            out.tail(&mut pool).extend_from_slice(&own);
            wanted.extend_from_slice(&own);
            if round % 3 != 0 {
                let (from, to) = (round * 20, round * 20 + 1 + round * 7);
                out.borrow(from, to);
                wanted.extend_from_slice(&chunk[from..to]);
            }
        }
        (out, chunk, wanted)
    }

    #[test]
    fn bytes_come_out_in_order_however_the_socket_cuts_them() {
        for step in [1, 2, 7, 64, 1000, 100_000] {
            let (mut out, chunk, wanted) = sample();
            let mut got = Vec::new();
            assert_eq!(out.len(), wanted.len());
            assert_eq!(drive(&mut out, &chunk, step, usize::MAX, &mut got), Written::Everything);
            assert_eq!(got, wanted);
            assert!(out.is_empty() && !out.borrows());
        }
    }

    #[test]
    fn what_the_socket_refuses_no_longer_needs_the_chunk() {
        for budget in [0, 1, 17, 500, 3000, 20_000] {
            let (mut out, chunk, wanted) = sample();
            let mut got = Vec::new();
            assert_eq!(drive(&mut out, &chunk, 333, budget, &mut got), Written::Blocked);
            assert!(!out.borrows());
            assert_eq!(out.len(), wanted.len() - budget);
            assert_eq!(drive(&mut out, &[], 100, usize::MAX, &mut got), Written::Everything);
            assert_eq!(got, wanted);
        }
    }
}
