//! The name of a stream.

/// A stream as something that outlives a turn may name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamKey {
    pub index: u32,
    pub generation: u32,
}
