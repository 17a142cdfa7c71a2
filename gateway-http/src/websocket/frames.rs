//! Where frames end in a stream of them (RFC 6455 5.2). Payloads are skipped, not looked at.

/// The longest header: two bytes, a length of eight, a mask of four.
const HEAD_BYTES_MAX: usize = 14;
const CLOSE: u8 = 8;

/// Follows the frames of one direction.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// Payload that must still come.
    left: u64,
    closed: bool,
}

impl Frames {
    /// Whether the last frame is whole, and another one could stand behind it.
    pub fn at_boundary(&self) -> bool {
        self.head_len == 0 && self.left == 0
    }

    /// Whether a close frame came: no other may follow it (RFC 6455 5.5.1).
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Follows `bytes` to the end of the frame they are in, or to their own; returns how many that were.
    pub fn next_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while self.left == 0 && at < bytes.len() {
            self.head[usize::from(self.head_len)] = bytes[at];
            self.head_len += 1;
            at += 1;
            let Some(payload) = payload(&self.head[..usize::from(self.head_len)]) else {
                continue;
            };
            self.closed |= self.head[0] & 0x0f == CLOSE;
            self.head_len = 0;
            self.left = payload;
            if payload == 0 {
                return at;
            }
        }
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
        self.left -= taken as u64;
        at + taken
    }

    /// Follows all of `bytes`.
    pub fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.next_boundary(bytes);
            bytes = &bytes[used..];
        }
    }
}

/// What a header says follows it; `None` when it is not whole.
fn payload(head: &[u8]) -> Option<u64> {
    let [_, second, rest @ ..] = head else { return None };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (length, extra) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
        short => (u64::from(short), 0),
    };
    (rest.len() >= extra + mask).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a payload of `len` bytes.
    fn frame(opcode: u8, len: usize, masked: bool) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let mask = u8::from(masked) << 7;
        match len {
            0..=125 => frame.push(mask | len as u8),
            126..=0xffff => {
                frame.push(mask | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(std::iter::repeat_n(0x88, len + if masked { 4 } else { 0 }));
        frame
    }

    #[test]
    fn ends_of_frames_are_found_however_the_bytes_are_cut() {
        let sizes = [0, 1, 125, 126, 127, 0xffff, 0x10000, 0];
        let stream: Vec<u8> = sizes
            .iter()
            .flat_map(|len| [frame(2, *len, false), frame(1, *len, true)])
            .flatten()
            .collect();
        for step in [1, 2, 3, 7, 125, 4096, 1 << 20] {
            let mut frames = Frames::default();
            let mut ends = 0;
            for mut piece in stream.chunks(step) {
                while !piece.is_empty() {
                    let used = frames.next_boundary(piece);
                    ends += usize::from(frames.at_boundary());
                    piece = &piece[used..];
                }
            }
            assert!(frames.at_boundary() && !frames.is_closed());
            assert_eq!(ends, 2 * sizes.len(), "in steps of {step}");
        }
    }

    #[test]
    fn a_close_frame_is_noticed_when_its_header_is_whole() {
        let mut frames = Frames::default();
        let close = super::super::GOING_AWAY;
        frames.follow(&close[..1]);
        assert!(!frames.is_closed() && !frames.at_boundary());
        frames.follow(&close[1..2]);
        assert!(frames.is_closed() && !frames.at_boundary());
        frames.follow(&close[2..]);
        assert!(frames.at_boundary());
    }

    #[test]
    fn a_length_beyond_all_memory_ends_nothing() {
        let mut frames = Frames::default();
        frames.follow(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]);
        frames.follow(&[0; 100_000]);
        assert!(!frames.at_boundary());
    }
}
