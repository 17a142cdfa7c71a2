//! Where a farewell may stand in what goes to a WebSocket client (`engine/tunnel/farewell.rs` says it).

use crate::websocket::Frames;

/// The frames to a client, and whether it was told.
#[derive(Default)]
pub struct Words {
    frames: Frames,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// There is nothing to say.
    #[default]
    Silent,
    /// At the end of the frame that is under way.
    Soon,
    Said,
}

/// What becomes of bytes that came.
pub struct Passed {
    /// So many go to the client.
    pub bytes: usize,
    /// Then the farewell.
    pub farewell: bool,
}

impl Words {
    pub(in crate::engine) fn pass(&mut self, bytes: &[u8]) -> Passed {
        let farewell = match self.stage {
            Stage::Silent => {
                self.frames.follow(bytes);
                false
            }
            Stage::Soon => {
                let used = self.frames.next_boundary(bytes);
                if self.leave() {
                    return Passed {
                        bytes: used,
                        farewell: true,
                    };
                }
                self.frames.follow(&bytes[used..]);
                false
            }
            Stage::Said => {
                return Passed {
                    bytes: 0,
                    farewell: false,
                };
            }
        };
        Passed {
            bytes: bytes.len(),
            farewell,
        }
    }

    /// The gateway leaves; `true` when it can be said here.
    pub(in crate::engine) fn leave(&mut self) -> bool {
        if self.frames.is_closed() || self.stage == Stage::Said {
            return false;
        }
        let now = self.frames.at_boundary();
        self.stage = if now { Stage::Said } else { Stage::Soon };
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::GOING_AWAY;

    #[test]
    fn the_farewell_stands_between_frames_and_nothing_after_it() {
        let mut words = Words::default();
        assert_eq!(words.pass(&[0x81, 5, b'h', b'e']).bytes, 4);
        assert!(!words.leave(), "in the middle of a frame");
        let passed = words.pass(b"l");
        assert_eq!((passed.bytes, passed.farewell), (1, false));
        let passed = words.pass(&[b'l', b'o', 0x81, 1, b'x']);
        assert_eq!((passed.bytes, passed.farewell), (2, true));
        assert_eq!(words.pass(&[0x81, 1, b'x']).bytes, 0);
        assert!(!words.leave(), "once");
    }

    #[test]
    fn who_closes_already_is_not_interrupted() {
        let mut words = Words::default();
        words.pass(&GOING_AWAY);
        assert!(!words.leave());
        assert_eq!(words.pass(b"x").bytes, 1);
    }
}
